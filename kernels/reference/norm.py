"""Normalisation: of each channel over the batch (Ioffe and Szegedy 2015, Algorithm 1), or of each
row over its features (Ba, Kiros and Hinton 2016).
"""

import numpy as np

from ..roles import Array, InOut, Out
from .elementwise import quiet, store


@quiet
def batch_norm(
    x: Array,
    w: Array | None,
    b: Array | None,
    r: Array | None,
    y: Out,
    mean: Out,
    var: Out,
    eps: float,
    relu: bool,
) -> tuple[Array, Array, Array]:
    """y = w (x - mean) / sqrt(var + eps) + b + r with the batch's own mean and (biased) variance.

    x (..., C), w, b (C,) or None, r (..., C), a residual, or None -> y (..., C), mean, var (C,);
    relu: what is below 0 becomes 0 in the end, NaN stays NaN.
    """
    over = tuple(range(x.ndim - 1))
    mean[...] = x.mean(axis=over)
    var[...] = np.square(x - mean).mean(axis=over)  # in two passes: E[x^2] - mean^2 cancels
    return batch_norm_eval(x, w, b, r, mean, var, y, eps, relu), mean, var


@quiet
def batch_norm_eval(
    x: Array,
    w: Array | None,
    b: Array | None,
    r: Array | None,
    mean: Array,
    var: Array,
    y: Out,
    eps: float,
    relu: bool,
) -> Array:
    """y = w (x - mean) / sqrt(var + eps) + b + r with statistics that are given; relu as above."""
    value = (x - mean) / np.sqrt(var + var.dtype.type(eps))
    value = value if w is None else value * w
    value = value if b is None else value + b
    value = value if r is None else value + r
    return store(np.maximum(value, value.dtype.type(0)) if relu else value, y, False)


@quiet
def batch_norm_grad(
    dy: Array,
    x: Array,
    w: Array | None,
    mean: Array,
    var: Array,
    y: Array | None,
    dx: Out,
    dw: Out,
    db: Out,
    dr: Out,
    eps: float,
    relu: bool,
    add: tuple[bool, bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """Gradients of batch_norm through its mean and variance; dx, dw, db or dr may be None.

    relu: dy counts as 0 where y, which batch_norm computed, is not above 0. dr is that dy. With
    z = (x - mean) / sqrt(var + eps): db = sum dy, dw = sum dy z and
    dx = w / sqrt(var + eps) (dy - mean of dy - z mean of dy z).
    """
    dy = _rectified(dy, y, relu)
    over = tuple(range(x.ndim - 1))
    rstd = 1 / np.sqrt(var + var.dtype.type(eps))
    z = (x - mean) * rstd
    sums = _affine_grads(dy, z, dw, db, dr, add)
    if dx is not None:  # the last to be written: it may lie where dy did
        slope = dy - dy.mean(axis=over) - z * (dy * z).mean(axis=over)
        store(slope * (rstd if w is None else rstd * w), dx, add[0])
    return dx, *sums


@quiet
def batch_norm_eval_grad(
    dy: Array,
    x: Array,
    w: Array | None,
    mean: Array,
    var: Array,
    y: Array | None,
    dx: Out,
    dw: Out,
    db: Out,
    dr: Out,
    eps: float,
    relu: bool,
    add: tuple[bool, bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """Gradients of batch_norm_eval, whose statistics are constants; as above, but for dx."""
    dy = _rectified(dy, y, relu)
    rstd = 1 / np.sqrt(var + var.dtype.type(eps))
    sums = _affine_grads(dy, (x - mean) * rstd, dw, db, dr, add)
    if dx is not None:
        store(dy * (rstd if w is None else rstd * w), dx, add[0])
    return dx, *sums


def _rectified(dy, y, relu):
    return np.where(y <= 0, dy.dtype.type(0), dy) if relu else dy


def _affine_grads(dy, z, dw, db, dr, add):
    over = tuple(range(dy.ndim - 1))
    if dw is not None:
        store((dy * z).sum(axis=over), dw, add[1])
    if db is not None:
        store(dy.sum(axis=over), db, add[2])
    if dr is not None:
        store(dy, dr, add[3])
    return dw, db, dr


@quiet
def batch_norm_track_(
    mean: Array,
    var: Array,
    running_mean: InOut,
    running_var: InOut,
    momentum: float,
    rows: int,
) -> tuple[Array, Array]:
    """Move the running statistics a step (momentum) towards a batch's.

    The running variance follows the unbiased one, var rows / (rows - 1), as PyTorch's does.
    """
    step = running_mean.dtype.type(momentum)
    running_mean += step * (mean - running_mean)
    running_var += step * (var * var.dtype.type(rows / (rows - 1)) - running_var)
    return running_mean, running_var


@quiet
def layer_norm(
    x: Array, w: Array | None, b: Array | None, y: Out, mean: Out, rstd: Out, eps: float
) -> tuple[Array, Array, Array]:
    """y = w (x - mean) / sqrt(var + eps) + b with the mean and (biased) variance of each row.

    x (..., *features), w, b (*features) or None -> y like x, mean, rstd = 1 / sqrt(var + eps) (...)
    """
    over = tuple(range(mean.ndim, x.ndim))
    wide = x.mean(axis=over, keepdims=True)
    mean[...] = wide.reshape(mean.shape)
    var = np.square(x - wide).mean(axis=over, keepdims=True)
    root = 1 / np.sqrt(var + var.dtype.type(eps))
    rstd[...] = root.reshape(mean.shape)
    value = (x - wide) * root
    value = value if w is None else value * w
    return store(value if b is None else value + b, y, False), mean, rstd


@quiet
def layer_norm_grad(
    dy: Array,
    x: Array,
    w: Array | None,
    mean: Array,
    rstd: Array,
    dx: Out,
    dw: Out,
    db: Out,
    add: tuple[bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of layer_norm through mean and rstd; dx, dw or db may be None.

    With z = (x - mean) rstd and g = w dy: db = sum dy, dw = sum dy z over the rows, and
    dx = rstd (g - mean of g - z mean of g z) over the features.
    """
    over = tuple(range(mean.ndim, x.ndim))
    mean, rstd = (a.reshape(*a.shape, *(1 for _ in over)) for a in (mean, rstd))
    z = (x - mean) * rstd
    if dx is not None:
        g = dy if w is None else dy * w
        lean = (g * z).mean(axis=over, keepdims=True)
        store(rstd * (g - g.mean(axis=over, keepdims=True) - z * lean), dx, add[0])
    if dw is not None:
        store(dy * z, dw, add[1])
    if db is not None:
        store(dy, db, add[2])
    return dx, dw, db
