"""Of two numbers one: minimum, where, clip, abs. Loaded when the first of them is asked for."""

from .. import check
from ..op import op
from .elementwise import room


@op
def minimum(k, a, b):
    """The smaller of a and b; where they are equal, each gets half the gradient."""
    y = k.minimum(a, b, room(k, "minimum", a, b))

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
def abs(k, x):
    """|x|; its slope at 0 is 0."""
    y = k.abs(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.abs_grad(dy, x, dx, add)

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
