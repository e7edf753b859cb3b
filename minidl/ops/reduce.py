"""Sums, means and maxima over any axes: axis is a number, several, or None for all."""

from .. import check
from ..kernels import shapes
from ..op import op


def _plan(name, x, axis, keepdims):
    """The shape of the result with length 1 along the reduced axes, and the shape to return."""
    reduced = check.axes(name, axis, x)
    wide = shapes.keepdims(x.shape, reduced)
    return wide, wide if keepdims else shapes.without(x.shape, reduced)


@op
def sum(k, x, *, axis=None, keepdims=False):
    """The sum of x over axes; 0 over none."""
    wide, shape = _plan("sum", x, axis, keepdims)
    y = k.sum(x, k.empty(wide, x.dtype))

    def grad_x(dy, dx, add):
        return k.sum_grad(dy.reshape(wide), dx, add)

    return y.reshape(shape), (grad_x,)


@op
def mean(k, x, *, axis=None, keepdims=False):
    """The mean of x over axes; NaN of nothing."""
    wide, shape = _plan("mean", x, axis, keepdims)
    y = k.mean(x, k.empty(wide, x.dtype))

    def grad_x(dy, dx, add):
        return k.mean_grad(dy.reshape(wide), dx, add)

    return y.reshape(shape), (grad_x,)


def _max(k, name, x, axis, keepdims):
    wide, shape = _plan(name, x, axis, keepdims)
    if x.size == 0 and shapes.count(wide):
        check.fail(name, "there is no maximum of nothing", x=x)
    y, arg = k.max(x, k.empty(wide, x.dtype), k.empty(wide, "int64"))
    return y, arg, wide, shape


@op
def max(k, x, *, axis=None, keepdims=False):
    """The maximum of x over axes; the gradient goes to the first of equal ones."""
    y, arg, wide, shape = _max(k, "max", x, axis, keepdims)

    def grad_x(dy, dx, add):
        return k.max_grad(dy.reshape(wide), arg, dx, add)

    return y.reshape(shape), (grad_x,)


@op
def argmax(k, x, *, axis=None, keepdims=False):
    """Where the (first) maximum of x stands along an axis, or in x as one row; int64."""
    _, arg, _, shape = _max(k, "argmax", x, axis, keepdims)
    return arg.reshape(shape), None
