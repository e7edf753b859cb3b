"""Sums, means, variances, maxima, minima over axes: a number, several, or None for all."""

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


@op
def var(k, x, *, axis=None, keepdims=False, correction=1):
    """The variance of x over axes: the sum of (x - mean) ** 2 / (n - correction), n elements each.

    correction: 1 as in PyTorch, the unbiased variance of a sample; 0 as in NumPy. Where there are
    no more than `correction` elements, 0 / 0: the variance of one value, or of none, is NaN.
    """
    wide, shape = _plan("var", x, axis, keepdims)
    y, mean = k.var(x, k.empty(wide, x.dtype), k.empty(wide, x.dtype), correction)

    def grad_x(dy, dx, add):
        return k.var_grad(dy.reshape(wide), x, mean, dx, correction, add)

    return y.reshape(shape), (grad_x,)


@op
def std(k, x, *, axis=None, keepdims=False, correction=1):
    """The square root of the variance (see var) of x over axes; its slope at 0 is 0."""
    wide, shape = _plan("std", x, axis, keepdims)
    y, mean = k.std(x, k.empty(wide, x.dtype), k.empty(wide, x.dtype), correction)

    def grad_x(dy, dx, add):
        return k.std_grad(dy.reshape(wide), x, y, mean, dx, correction, add)

    return y.reshape(shape), (grad_x,)


def _extreme(k, name, x, axis, keepdims):
    wide, shape = _plan(name, x, axis, keepdims)
    least = name.endswith("min")
    if x.size == 0 and shapes.count(wide):
        problem = f"there is no {'min' if least else 'max'}imum of nothing"
        check.fail(name, f"{problem}, and axis {x.shape.index(0)} has length 0", x=x)
    kernel = k.min if least else k.max
    y, arg = kernel(x, k.empty(wide, x.dtype), k.empty(wide, "int64"))
    return y, arg, wide, shape


@op
def max(k, x, *, axis=None, keepdims=False):
    """The maximum of x over axes; the gradient goes to the first of equal ones."""
    y, arg, wide, shape = _extreme(k, "max", x, axis, keepdims)

    def grad_x(dy, dx, add):
        return k.max_grad(dy.reshape(wide), arg, dx, add)

    return y.reshape(shape), (grad_x,)


@op
def min(k, x, *, axis=None, keepdims=False):
    """The minimum of x over axes; the gradient goes to the first of equal ones."""
    y, arg, wide, shape = _extreme(k, "min", x, axis, keepdims)

    def grad_x(dy, dx, add):
        return k.max_grad(dy.reshape(wide), arg, dx, add)

    return y.reshape(shape), (grad_x,)


@op
def argmax(k, x, *, axis=None, keepdims=False):
    """Where the (first) maximum of x stands along axes, or in x as one row; int64.

    Along several axes it counts their elements in C order.
    """
    _, arg, _, shape = _extreme(k, "argmax", x, axis, keepdims)
    return arg.reshape(shape), None


@op
def argmin(k, x, *, axis=None, keepdims=False):
    """Where the (first) minimum of x stands, as argmax says it."""
    _, arg, _, shape = _extreme(k, "argmin", x, axis, keepdims)
    return arg.reshape(shape), None
