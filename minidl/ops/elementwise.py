"""Elementwise maths, with NumPy's broadcasting."""

from .. import check
from ..op import op


def _room(k, name, a, b):
    """Space for the result of a and b, in the memory order of the one with its shape."""
    shape = check.broadcast(name, a, b)
    if a.shape == shape:
        return k.empty_like(a)
    return k.empty_like(b) if b.shape == shape else k.empty(shape, a.dtype)


@op
def add(k, a, b):
    """a + b."""
    y = k.add(a, b, _room(k, "add", a, b))
    shape_a, shape_b = a.shape, b.shape

    def grad_a(dy, da, add):
        return k.add_grad_a(dy, da, add) if add or dy.shape != shape_a else dy

    def grad_b(dy, db, add):
        return k.add_grad_b(dy, db, add) if add or dy.shape != shape_b else dy

    return y, (grad_a, grad_b)


@op
def sub(k, a, b):
    """a - b."""
    y = k.sub(a, b, _room(k, "sub", a, b))
    shape_a = a.shape

    def grad_a(dy, da, add):
        return k.sub_grad_a(dy, da, add) if add or dy.shape != shape_a else dy

    def grad_b(dy, db, add):
        return k.sub_grad_b(dy, db, add)

    return y, (grad_a, grad_b)


@op
def mul(k, a, b):
    """a times b."""
    y = k.mul(a, b, _room(k, "mul", a, b))

    def grad_a(dy, da, add):
        return k.mul_grad_a(dy, b, da, add)

    def grad_b(dy, db, add):
        return k.mul_grad_b(dy, a, db, add)

    return y, (grad_a, grad_b)


@op
def div(k, a, b):
    """a / b."""
    y = k.div(a, b, _room(k, "div", a, b))

    def grad_a(dy, da, add):
        return k.div_grad_a(dy, b, da, add)

    def grad_b(dy, db, add):
        return k.div_grad_b(dy, b, y, db, add)

    return y, (grad_a, grad_b)


@op
def pow(k, a, b):
    """a to the power of b."""
    y = k.pow(a, b, _room(k, "pow", a, b))

    def grad_a(dy, da, add):
        return k.pow_grad_a(dy, a, b, da, add)

    def grad_b(dy, db, add):
        return k.pow_grad_b(dy, a, y, db, add)

    return y, (grad_a, grad_b)


@op
def maximum(k, a, b):
    """The larger of a and b; where they are equal, each gets half the gradient."""
    y = k.maximum(a, b, _room(k, "maximum", a, b))

    def grad_a(dy, da, add):
        return k.maximum_grad_a(dy, a, b, da, add)

    def grad_b(dy, db, add):
        return k.maximum_grad_b(dy, a, b, db, add)

    return y, (grad_a, grad_b)


@op
def minimum(k, a, b):
    """The smaller of a and b; where they are equal, each gets half the gradient."""
    y = k.minimum(a, b, _room(k, "minimum", a, b))

    def grad_a(dy, da, add):
        return k.minimum_grad_a(dy, a, b, da, add)

    def grad_b(dy, db, add):
        return k.minimum_grad_b(dy, a, b, db, add)

    return y, (grad_a, grad_b)


@op(any_dtype=True)
def where(k, cond, a, b):
    """a where the booleans cond are true, else b: floats of one dtype."""
    if cond.dtype.kind != "b":
        raise TypeError(f"where: cond is {cond.dtype}, but must be bool; compare it with a number")
    if a.dtype != b.dtype or a.dtype.kind != "f":
        raise TypeError(f"where: a and b must be floats of one dtype, not {a.dtype} and {b.dtype}")
    y = k.where(cond, a, b, k.empty(check.broadcast("where", a, b, cond=cond), a.dtype))

    def grad_a(dy, da, add):
        return k.where_grad_a(dy, cond, da, add)

    def grad_b(dy, db, add):
        return k.where_grad_b(dy, cond, db, add)

    return y, (None, grad_a, grad_b)


@op
def neg(k, x):
    """-x."""
    y = k.neg(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.neg_grad(dy, dx, add)

    return y, (grad_x,)


@op
def abs(k, x):
    """|x|; its slope at 0 is 0."""
    y = k.abs(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.abs_grad(dy, x, dx, add)

    return y, (grad_x,)


@op
def exp(k, x):
    """e to the power of x."""
    y = k.exp(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.exp_grad(dy, y, dx, add)

    return y, (grad_x,)


@op
def log(k, x):
    """The natural logarithm of x: -inf at 0, NaN below."""
    y = k.log(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.log_grad(dy, x, dx, add)

    return y, (grad_x,)


@op
def sqrt(k, x):
    """The square root of x: NaN below 0."""
    y = k.sqrt(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.sqrt_grad(dy, y, dx, add)

    return y, (grad_x,)


@op
def relu(k, x):
    """max(x, 0); its slope at 0 is 0."""
    y = k.relu(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.relu_grad(dy, y, dx, add)

    return y, (grad_x,)


@op
def clip(k, x, *, min=None, max=None):
    """x, but at least min and at most max, of which one may be None; the slope at both is 1."""
    if min is None and max is None:
        check.fail("clip", "at least one of min and max is needed", x=x)
    low, high = float("-inf" if min is None else min), float("inf" if max is None else max)
    y = k.clip(x, k.empty_like(x), low, high)

    def grad_x(dy, dx, add):
        return k.clip_grad(dy, x, dx, low, high, add)

    return y, (grad_x,)


@op
def sigmoid(k, x):
    """1 / (1 + e ** -x)."""
    y = k.sigmoid(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.sigmoid_grad(dy, y, dx, add)

    return y, (grad_x,)


@op
def tanh(k, x):
    """The hyperbolic tangent of x."""
    y = k.tanh(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.tanh_grad(dy, y, dx, add)

    return y, (grad_x,)


@op(any_dtype=True)
def compare(k, a, b, *, relation):
    """The truth of a `relation` b, elementwise: "lt", "le", "gt", "ge", "eq" or "ne"."""
    shape = check.broadcast("compare", a, b)
    return k.compare(a, b, k.empty(shape, "bool"), relation), None
