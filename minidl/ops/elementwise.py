"""Elementwise maths, with NumPy's broadcasting."""

from .. import check
from ..op import op


def room(k, name, a, b):
    """Space for the result of a and b, in the memory order of the one with its shape."""
    shape = check.broadcast(name, a, b)
    if a.shape == shape:
        return k.empty_like(a)
    return k.empty_like(b) if b.shape == shape else k.empty(shape, a.dtype)


@op
def add(k, a, b):
    """a + b."""
    y = k.add(a, b, room(k, "add", a, b))
    shape_a, shape_b = a.shape, b.shape

    def grad_a(dy, da, add):
        return k.add_grad_a(dy, da, add) if add or dy.shape != shape_a else dy

    def grad_b(dy, db, add):
        return k.add_grad_b(dy, db, add) if add or dy.shape != shape_b else dy

    return y, (grad_a, grad_b)


@op
def sub(k, a, b):
    """a - b."""
    y = k.sub(a, b, room(k, "sub", a, b))
    shape_a = a.shape

    def grad_a(dy, da, add):
        return k.sub_grad_a(dy, da, add) if add or dy.shape != shape_a else dy

    def grad_b(dy, db, add):
        return k.sub_grad_b(dy, db, add)

    return y, (grad_a, grad_b)


@op
def mul(k, a, b):
    """a times b."""
    y = k.mul(a, b, room(k, "mul", a, b))

    def grad_a(dy, da, add):
        return k.mul_grad_a(dy, b, da, add)

    def grad_b(dy, db, add):
        return k.mul_grad_b(dy, a, db, add)

    return y, (grad_a, grad_b)


@op
def div(k, a, b):
    """a / b."""
    y = k.div(a, b, room(k, "div", a, b))

    def grad_a(dy, da, add):
        return k.div_grad_a(dy, b, da, add)

    def grad_b(dy, db, add):
        return k.div_grad_b(dy, b, y, db, add)

    return y, (grad_a, grad_b)


@op
def pow(k, a, b):
    """a to the power of b."""
    y = k.pow(a, b, room(k, "pow", a, b))

    def grad_a(dy, da, add):
        return k.pow_grad_a(dy, a, b, da, add)

    def grad_b(dy, db, add):
        return k.pow_grad_b(dy, a, y, db, add)

    return y, (grad_a, grad_b)


@op
def maximum(k, a, b):
    """The larger of a and b; where they are equal, each gets half the gradient."""
    y = k.maximum(a, b, room(k, "maximum", a, b))

    def grad_a(dy, da, add):
        return k.maximum_grad_a(dy, a, b, da, add)

    def grad_b(dy, db, add):
        return k.maximum_grad_b(dy, a, b, db, add)

    return y, (grad_a, grad_b)


@op
def neg(k, x):
    """-x."""
    y = k.neg(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.neg_grad(dy, dx, add)

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


@op(any_dtype=True)
def compare(k, a, b, *, relation):
    """The truth of a `relation` b, elementwise: "lt", "le", "gt", "ge", "eq" or "ne"."""
    shape = check.broadcast("compare", a, b)
    return k.compare(a, b, k.empty(shape, "bool"), relation), None
