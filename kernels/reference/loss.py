"""Softmax and losses. The largest logit is subtracted first, so that exp never overflows."""

import numpy as np

from ..roles import Array, Out
from .elementwise import quiet, store


@quiet
def log_softmax(x: Array, y: Out) -> Array:
    """y = x - log(sum of exp x) along the last axis; NaN in rows whose largest x is infinite."""
    shifted, rest, _ = shifted_by_top(x)
    return store(shifted - rest, y, False)


@quiet
def log_softmax_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy - exp(y) (sum of dy along the last axis)."""
    return store(dy - np.exp(y) * dy.sum(axis=-1, keepdims=True), dx, add)


@quiet
def softmax(x: Array, y: Out) -> Array:
    """y = exp x / sum of exp x along the last axis; NaN in rows whose largest x is infinite."""
    power = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return np.divide(power, power.sum(axis=-1, keepdims=True), out=y)


@quiet
def softmax_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = y (dy - sum of dy y along the last axis)."""
    return store(y * (dy - (dy * y).sum(axis=-1, keepdims=True)), dx, add)


@quiet
def cross_entropy(x: Array, label: Array, y: Out, lse: Out, scale: float) -> tuple[Array, Array]:
    """y = scale (log(sum of exp x) - x[label]) of each row, or the sum of these where y is ().

    x (N, C) logits, label (N,) integers in [0, C) -> y (N,) or (), lse (N,) = log(sum of exp x)
    """
    shifted, rest, top = shifted_by_top(x)
    lse[...] = (rest + top)[:, 0]
    loss = rest[:, 0] - shifted[np.arange(len(x)), label]  # lse - x would cancel
    y[...] = (loss if y.ndim else loss.sum()) * y.dtype.type(scale)
    return y, lse


@quiet
def cross_entropy_grad(
    dy: Array, x: Array, label: Array, lse: Array, dx: Out, scale: float, add: bool
) -> Array:
    """dx = scale dy (softmax of x - 1 at the label)."""
    slope = np.exp(x - lse[:, None])
    slope[np.arange(len(x)), label] -= 1
    return store(slope * (dy[..., None] * dy.dtype.type(scale)), dx, add)


def shifted_by_top(x: Array) -> tuple[Array, Array, Array]:
    """x less the largest number of its row, log(sum of exp of that), and the largest numbers."""
    top = x.max(axis=-1, keepdims=True, initial=-np.inf)
    shifted = x - top
    return shifted, np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), top
