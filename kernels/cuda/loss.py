"""Losses on logits. The largest logit is subtracted first, so that exp never overflows."""

import math

from ..roles import Array, Out
from . import memory
from ._numba import blocks, cuda, jit
from .reduce import sum_rows, warp_max, warp_sum

LANES, ROWS = 32, 8  # a warp per row of logits, 8 rows per block


@jit
def _cross_entropy(x, label, loss, lse, scale):
    """A warp takes one row: its lanes read neighbouring classes and join by shuffles."""
    n = cuda.blockIdx.x * ROWS + cuda.threadIdx.y
    if n >= x.shape[0]:  # the whole warp leaves: nobody waits for a lane that is gone
        return
    zero = x.dtype.type(0)
    top = x.dtype.type(-math.inf)
    for c in range(cuda.threadIdx.x, x.shape[1], LANES):
        top = max(top, x[n, c])
    top = warp_max(top)
    if not math.isfinite(top):  # inf - inf would make NaN of a loss that is inf
        top = zero
    total = zero
    for c in range(cuda.threadIdx.x, x.shape[1], LANES):
        total += math.exp(x[n, c] - top)
    total = warp_sum(total)
    if cuda.threadIdx.x == 0:
        lse[n] = math.log(total) + top
        found = 0 <= label[n] < x.shape[1]  # a wrong label gives NaN, never a stranger's memory
        loss[n] = (lse[n] - x[n, label[n]]) * scale if found else x.dtype.type(math.nan)


def cross_entropy(x: Array, label: Array, y: Out, lse: Out, scale: float) -> tuple[Array, Array]:
    """y = scale (log(sum of exp x) - x[label]) of each row, or the sum of these where y is ().

    x (N, C) logits, label (N,) integers in [0, C) -> y (N,) or (), lse (N,) = log(sum of exp x)
    """
    rows = x.shape[0]
    loss = y if y.ndim else memory.scratch((rows,), y.dtype)
    _cross_entropy[blocks(rows, ROWS), (LANES, ROWS)](x, label, loss, lse, scale)
    if not y.ndim:
        sum_rows(loss.reshape(rows, 1), y.reshape(1), False)
    return y, lse


@jit
def _cross_entropy_grad(dy, x, label, lse, dx, scale, add):
    """A thread computes one element of dx; neighbouring threads take neighbouring classes."""
    n = cuda.blockIdx.x * ROWS + cuda.threadIdx.y
    c = cuda.blockIdx.y * LANES + cuda.threadIdx.x
    if n >= x.shape[0] or c >= x.shape[1]:
        return
    slope = math.exp(x[n, c] - lse[n])
    if c == label[n]:
        slope -= x.dtype.type(1)
    value = slope * (dy[min(n, dy.size - 1)] * scale)
    dx[n, c] = dx[n, c] + value if add else value


def cross_entropy_grad(
    dy: Array, x: Array, label: Array, lse: Array, dx: Out, scale: float, add: bool
) -> Array:
    """dx = scale dy (softmax of x - 1 at the label), dy () or (N,)."""
    grid = blocks(x.shape[0], ROWS), blocks(x.shape[1], LANES)
    _cross_entropy_grad[grid, (LANES, ROWS)](dy.reshape(-1), x, label, lse, dx, scale, add)
    return dx
