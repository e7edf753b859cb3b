"""Losses on classes with what the plain cross-entropy of `loss.py` has not.

Class weights, rows to be left out, smoothed labels, and targets that are probabilities. In those
on labels y is () or (N,), and total () what they are divided by: on mean the weights of all rows
added up (NaN comes of no weight at all), else 1.
"""

import numpy as np

from ..roles import Array, Out
from .elementwise import quiet, store
from .loss import shifted_by_top


@quiet
def nll_loss(
    x: Array, label: Array, weight: Array, y: Out, total: Out, ignore: int, mean: bool
) -> tuple[Array, Array]:
    """y = -weight[label] x[label] of each row, 0 where label is ignore; or their sum.

    x (N, C) log-probabilities, label (N,) integers in [0, C) or ignore, weight (C,) or None for 1
    """
    kept, at, share = _rows(x, label, weight, ignore)
    loss = np.where(kept, -x[np.arange(len(x)), at] * share, x.dtype.type(0))
    return _divided(loss, share, y, total, mean)


@quiet
def nll_loss_grad(
    dy: Array, label: Array, weight: Array, total: Array, dx: Out, ignore: int, add: bool
) -> Array:
    """dx = -dy weight[label] / total at the label, 0 elsewhere."""
    kept, at, share = _rows(dx, label, weight, ignore)
    value = np.zeros_like(dx)
    value[np.arange(len(dx)), at] = np.where(kept, -(dy / total) * share, dx.dtype.type(0))
    return store(value, dx, add)


@quiet
def cross_entropy_weighted(
    x: Array, label: Array, weight: Array, y: Out, lse: Out, total: Out,
    ignore: int, smoothing: float, mean: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """y = (1 - smoothing) w[label] l[label] + smoothing (mean of w l), where l = lse - x.

    x (N, C) logits, label (N,) integers in [0, C) or ignore, whose rows are 0, weight w (C,) or
    None for 1 -> y (N,) or their sum (), lse (N,) = log(sum of exp x), total ()
    """
    kept, at, share = _rows(x, label, weight, ignore)
    shifted, rest, top = shifted_by_top(x)
    lse[...], each = (rest + top)[:, 0], rest - shifted  # lse - x would cancel
    loss = share * each[np.arange(len(x)), at]
    if smoothing:
        spread = each * (1 if weight is None else weight)
        smoothing = x.dtype.type(smoothing)
        loss = (1 - smoothing) * loss + smoothing * (spread.sum(axis=-1) / x.shape[1])
    y, total = _divided(np.where(kept, loss, x.dtype.type(0)), share, y, total, mean)
    return y, lse, total


@quiet
def cross_entropy_weighted_grad(
    dy: Array, x: Array, label: Array, weight: Array, lse: Array, total: Array, dx: Out,
    ignore: int, smoothing: float, add: bool,
) -> Array:  # fmt: skip
    """dx = dy / total (softmax of x times (sum of q) - q), q = the weighted target of each class.

    q = smoothing w / C, and (1 - smoothing) w[label] more at the label.
    """
    kept, at, share = _rows(x, label, weight, ignore)
    q = np.zeros_like(x) + (1 if weight is None else weight)
    q *= x.dtype.type(smoothing) / x.shape[1]
    q[np.arange(len(x)), at] += (1 - x.dtype.type(smoothing)) * share
    slope = np.exp(x - lse[:, None]) * q.sum(axis=-1, keepdims=True) - q
    value = slope * (dy / total)[..., None]
    return store(np.where(kept[:, None], value, x.dtype.type(0)), dx, add)


@quiet
def cross_entropy_soft(
    x: Array, target: Array, weight: Array, y: Out, lse: Out, smoothing: float, scale: float
) -> tuple[Array, Array]:
    """y = scale (sum of q (lse - x)) with q = w ((1 - smoothing) target + smoothing / C).

    x, target (N, C) logits and probabilities, weight w (C,) or None for 1 -> y (N,) or their sum
    (), lse (N,) = log(sum of exp x)
    """
    shifted, rest, top = shifted_by_top(x)
    lse[...] = (rest + top)[:, 0]
    loss = (_weighted(target, weight, smoothing) * (rest - shifted)).sum(axis=-1)
    y[...] = (loss if y.ndim else loss.sum()) * y.dtype.type(scale)
    return y, lse


@quiet
def cross_entropy_soft_grad_x(
    dy: Array, x: Array, target: Array, weight: Array, lse: Array, dx: Out,
    smoothing: float, scale: float, add: bool,
) -> Array:  # fmt: skip
    """dx = scale dy (softmax of x times (sum of q) - q)."""
    q = _weighted(target, weight, smoothing)
    slope = np.exp(x - lse[:, None]) * q.sum(axis=-1, keepdims=True) - q
    return store(slope * (dy[..., None] * dy.dtype.type(scale)), dx, add)


@quiet
def cross_entropy_soft_grad_target(
    dy: Array, x: Array, weight: Array, lse: Array, dtarget: Out,
    smoothing: float, scale: float, add: bool,
) -> Array:  # fmt: skip
    """dtarget = scale dy (1 - smoothing) w (lse - x)."""
    slope = (lse[:, None] - x) * (1 if weight is None else weight)
    slope = slope * (1 - x.dtype.type(smoothing))
    return store(slope * (dy[..., None] * dy.dtype.type(scale)), dtarget, add)


def _rows(x: Array, label: Array, weight: Array, ignore: int) -> tuple[Array, Array, Array]:
    """Which rows count, their labels (0 in others), and their weights (0 in others)."""
    kept = label != ignore
    at = np.where(kept, label, 0)
    share = np.ones(len(label), x.dtype) if weight is None else weight[at]
    return kept, at, np.where(kept, share, x.dtype.type(0))


def _divided(loss: Array, share: Array, y: Array, total: Array, mean: bool) -> tuple[Array, Array]:
    total[...] = share.sum() if mean else 1
    y[...] = loss if y.ndim else loss.sum() / total
    return y, total


def _weighted(target: Array, weight: Array, smoothing: float) -> Array:
    smoothing = target.dtype.type(smoothing)
    q = (1 - smoothing) * target + smoothing / target.shape[1]
    return q if weight is None else q * weight
