"""Losses on logits, a row at a time while it is in registers."""

import math

import numpy as np

from .. import reference
from ..roles import Array, Out
from ._numba import jit
from .memory import ZERO, canonical, rare, settle, target


def log_softmax(x: Array, y: Out) -> Array:
    """y = x - log(sum of exp x) along the last axis; NaN in rows whose largest x is infinite."""
    if rare(x, y):
        return reference.log_softmax(x, y)
    out = target(y)
    _log_softmax(canonical(x).reshape(-1, x.shape[-1]), out.reshape(-1, x.shape[-1]))
    return settle(out, y)


def cross_entropy(x: Array, label: Array, y: Out, lse: Out, scale: float) -> tuple[Array, Array]:
    """y = scale (log(sum of exp x) - x[label]) of each row, or the sum of these where y is ().

    x (N, C) logits, label (N,) integers in [0, C) -> y (N,) or (), lse (N,) = log(sum of exp x)
    """
    if rare(x, y, lse) or label.dtype != np.int64:
        return reference.cross_entropy(x, label, y, lse, scale)
    out, kept = target(y), target(lse, nth=1)
    each = out.reshape(-1)
    _cross_entropy(canonical(x), canonical(label), each, kept, np.float32(scale), not y.ndim)
    return settle(out, y), settle(kept, lse)


def cross_entropy_grad(
    dy: Array, x: Array, label: Array, lse: Array, dx: Out, scale: float, add: bool
) -> Array:
    """dx = scale dy (softmax of x - 1 at the label)."""
    if rare(dy, x, lse, dx) or label.dtype != np.int64:
        return reference.cross_entropy_grad(dy, x, label, lse, dx, scale, add)
    out = target(dx, add)
    slope = canonical(dy).reshape(-1)
    _cross_entropy_grad(
        slope, canonical(x), canonical(label), canonical(lse), out, np.float32(scale)
    )
    return settle(out, dx, add)


@jit
def _top_and_rest(row):
    """The largest number of a row, and log(sum of exp(row - that))."""
    top = row[0]
    for k in range(1, row.size):
        top = max(top, row[k])
    total = ZERO
    for k in range(row.size):
        total += math.exp(row[k] - top)
    return top, math.log(total)


@jit
def _log_softmax(x, y):
    for n in range(x.shape[0]):
        top, rest = _top_and_rest(x[n])
        for k in range(x.shape[1]):
            y[n, k] = x[n, k] - top - rest


@jit
def _cross_entropy(x, label, y, lse, scale, summed):
    total = 0.0  # float64: the order of a long sum then does not show
    for n in range(x.shape[0]):
        if not 0 <= label[n] < x.shape[1]:
            raise IndexError("cross_entropy: a label is not a column of the logits")
        top, rest = _top_and_rest(x[n])
        lse[n] = rest + top
        loss = rest - (x[n, label[n]] - top)  # lse - x would cancel
        if summed:
            total += loss
        else:
            y[n] = loss * scale
    if summed:
        y[0] = np.float32(total) * scale


@jit
def _cross_entropy_grad(dy, x, label, lse, dx, scale):
    for n in range(x.shape[0]):
        if not 0 <= label[n] < x.shape[1]:
            raise IndexError("cross_entropy: a label is not a column of the logits")
        slope = dy[n if dy.size > 1 else 0] * scale
        for k in range(x.shape[1]):
            dx[n, k] = math.exp(x[n, k] - lse[n]) * slope
        dx[n, label[n]] = (math.exp(x[n, label[n]] - lse[n]) - np.float32(1)) * slope
