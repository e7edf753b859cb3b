"""Other views of the same numbers, and rows picked by number."""

from operator import index as whole

from .. import check
from ..kernels import shapes
from ..op import op


@op(any_dtype=True, view=True)
def reshape(k, x, *, shape):
    """x in another shape, in C order; one length may be -1. A view where memory allows."""
    try:
        shape = shapes.reshape(x.shape, shape)
    except ValueError as error:
        check.fail("reshape", str(error))
    old = x.shape

    def grad_x(dy, dx, add):
        back = k.contiguous(dy).reshape(old)
        return k.copy(back, dx, add) if add else back

    return k.contiguous(x).reshape(shape), (grad_x,)


@op(any_dtype=True, view=True)
def permute(k, x, *, axes):
    """x with its axes in another order, a view."""
    if sorted(a % x.ndim if x.ndim else a for a in axes) != list(range(x.ndim)):
        check.fail("permute", f"axes {axes} are not an order of x's {x.ndim} axes", x=x)
    back = sorted(range(x.ndim), key=lambda i: axes[i] % x.ndim)

    def grad_x(dy, dx, add):
        view = dy.transpose(back)
        return k.copy(view, dx, add) if add else view

    return x.transpose(axes), (grad_x,)


def _part(part):
    """A part of a key; a number as an int, for NumPy copies what a 0-d array or a bool picks."""
    if part is None or part is ... or isinstance(part, slice):
        return part
    try:
        if not isinstance(part, bool):
            return whole(part)
    except TypeError:
        pass
    hint = "an array can index the first axis alone, as x[array]"
    raise TypeError(f"getitem: no index can be a {type(part).__name__}; {hint}")


@op(any_dtype=True, view=True)
def getitem(k, x, *, key):
    """x[key] for numbers, slices, None and ...: a view."""
    key = tuple(map(_part, key if isinstance(key, tuple) else (key,)))
    key = key if any(part is ... for part in key) else (*key, ...)  # or NumPy returns a scalar
    try:
        y = x[key]
    except IndexError as error:
        raise IndexError(f"getitem: {error} (x {x.shape})") from None

    def grad_x(dy, dx, add):
        if not add:
            k.fill(dx, 0)
        k.copy(dy, dx[key], True)
        return dx

    return y, (grad_x,)


@op(integer=("index",))
def take(k, x, index):
    """x[index]: rows of x (M, ...) by their numbers; a row taken twice gets both gradients."""
    if not x.ndim:
        check.fail("take", "x has no rows", x=x)
    check.within("take", "row", index, -len(x), len(x), x=x)
    y = k.take(x, index, k.empty(index.shape + x.shape[1:], x.dtype))

    def grad_x(dy, dx, add):
        return k.take_grad(dy, index, dx, add)

    return y, (grad_x, None)


@op(any_dtype=True)
def astype(k, x, *, dtype):
    """x with its elements converted to another type."""
    y = k.copy(x, k.empty(x.shape, dtype), False)

    def grad_x(dy, dx, add):
        return k.copy(dy, dx, add)

    return y, (grad_x,) if y.dtype.kind == "f" else None
