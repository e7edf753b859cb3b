"""Losses on classes with weights, rows left out, smoothed labels, or probabilities as targets.

As in `loss.py` a few neighbouring threads, a warp or a whole block share a row.
"""

import math

import numpy as np

from ..roles import Array, Out
from . import memory
from ._numba import blocks, cuda, device, jit
from .intrinsics import plus
from .layout import THREADS, WARP
from .loss import sum_losses
from .move import dense
from .rows import join_row, share_of, threads_of_rows, top_and_rest

MOST_THREADS = 512  # of a row: more of them could not have the 78 registers that float64 needs


@device
def share_of_row(label, weight, ignore, classes, zero):
    """What a row counts: the weight of its label, 0 where that is ignored, NaN where it is none."""
    if label == ignore:
        return zero
    if not 0 <= label < classes:  # a wrong label gives NaN, never a stranger's memory
        return zero + type(zero)(math.nan)
    return weight[label] if weight.size else zero + type(zero)(1)


@jit
def _divide(loss, share, y, total, mean, bits):
    """One block adds up losses and what rows count, and divides where the mean is wanted.

    y of size 0 is not wanted. The block's rows of threads, where it has many, do all the same.
    """
    part = cuda.shared.array(WARP, loss.dtype)
    losses, shares = loss.dtype.type(0), loss.dtype.type(0)
    for k in range(share_of(loss.size, bits)):
        n = cuda.threadIdx.x + (k << bits)
        losses += loss[n]
        shares += share[n]
    losses, shares = join_row(losses, part, False), join_row(shares, part, False)
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        divisor = shares if mean else loss.dtype.type(1)
        total[0] = divisor
        if y.size:
            y[0] = losses / divisor


def _finish(loss: Array, share: Array, y: Array, total: Array, mean: bool) -> None:
    """total, and y where it is the sum of the losses."""
    _, block, bits = threads_of_rows(1, loss.size)
    out = memory.scratch((0,), y.dtype) if y.ndim else y.reshape(1)
    _divide[1, block](loss, share, out, total.reshape(1), mean, bits)


def _or_none(weight: Array | None, like: Array) -> Array:
    return memory.scratch((0,), like.dtype) if weight is None else weight


@jit
def _nll(x, label, weight, loss, share, ignore):
    """A thread takes a row: it reads one number of it."""
    n = cuda.grid(1)
    if n < x.shape[0]:
        c, zero = np.int64(label[n]), x.dtype.type(0)
        mine = share_of_row(c, weight, ignore, x.shape[1], zero)
        share[n] = mine
        if c == ignore:
            loss[n] = zero
        elif mine == mine:
            loss[n] = -x[n, c] * mine
        else:
            loss[n] = mine


@dense
def nll_loss(
    x: Array, label: Array, weight: Array, y: Out, total: Out, ignore: int, mean: bool
) -> tuple[Array, Array]:
    """y = -weight[label] x[label] of each row, 0 where label is ignore; or their sum.

    x (N, C) log-probabilities, label (N,) integers in [0, C) or ignore, weight (C,) or None for 1
    """
    rows = x.shape[0]
    loss = y if y.ndim else memory.scratch((rows,), y.dtype)
    share = memory.scratch((rows,), y.dtype)
    _nll[blocks(rows, THREADS), THREADS](x, label, _or_none(weight, x), loss, share, ignore)
    _finish(loss, share, y, total, mean)
    return y, total


def tiles(rows: int, classes: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block of a thread for each element of (rows, classes), classes innermost."""
    tiles = blocks(classes, THREADS)
    width = max(1, blocks(classes, max(1, tiles)))  # few threads idle: 10 classes are 10 wide
    block = width, THREADS // width
    return (blocks(rows, block[1]), tiles), block


@device
def place():
    """The row and the class of a thread of `tiles`."""
    n = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    return n, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x


@jit
def _nll_grad(dy, label, weight, total, dx, ignore, add):
    """A thread computes one element of dx."""
    n, c = place()
    if n >= dx.shape[0] or c >= dx.shape[1]:
        return
    correct, zero = np.int64(label[n]), dx.dtype.type(0)
    mine = share_of_row(correct, weight, ignore, dx.shape[1], zero)
    value = zero
    if correct != ignore and (c == correct or mine != mine):
        value = -(dy[n if dy.size > 1 else 0] / total[0]) * mine
    dx[n, c] = plus(dx[n, c], value) if add else value


@dense
def nll_loss_grad(
    dy: Array, label: Array, weight: Array, total: Array, dx: Out, ignore: int, add: bool
) -> Array:
    """dx = -dy weight[label] / total at the label, 0 elsewhere."""
    grid, block = tiles(*dx.shape)
    _nll_grad[grid, block](
        dy.reshape(-1), label, _or_none(weight, dx), total.reshape(1), dx, ignore, add
    )
    return dx


@jit
def _cross_entropy_weighted(x, label, weight, loss, share, lse, ignore, smoothing, bits):
    """blockDim.x neighbouring threads share a row of logits; the first of them writes its loss."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)  # past the end, too: a shuffle needs every lane of its warp
    real = x.dtype.type
    top, rest = top_and_rest(x, n, part, bits)
    spread = real(0)
    if smoothing > 0:
        for k in range(share_of(x.shape[1], bits)):
            c = cuda.threadIdx.x + (k << bits)
            spread += (rest - (x[n, c] - top)) * (weight[c] if weight.size else real(1))
        spread = join_row(spread, part, False) / real(x.shape[1])
    if row == n and cuda.threadIdx.x == 0:
        lse[n] = rest + top
        c = np.int64(label[n])
        mine = share_of_row(c, weight, ignore, x.shape[1], real(0))
        share[n] = mine
        value = mine
        if c != ignore and mine == mine:
            value = mine * (rest - (x[n, c] - top))  # lse - x would cancel
            if smoothing > 0:
                value = (real(1) - smoothing) * value + smoothing * spread
        loss[n] = value


@dense
def cross_entropy_weighted(
    x: Array, label: Array, weight: Array, y: Out, lse: Out, total: Out,
    ignore: int, smoothing: float, mean: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """y = (1 - smoothing) w[label] l[label] + smoothing (mean of w l), where l = lse - x.

    x (N, C) logits, label (N,) integers in [0, C) or ignore, whose rows are 0, weight w (C,) or
    None for 1 -> y (N,) or their sum (), lse (N,) = log(sum of exp x), total ()
    """
    loss = y if y.ndim else memory.scratch(lse.shape, y.dtype)
    share = memory.scratch(lse.shape, y.dtype)
    grid, block, bits = threads_of_rows(x.shape[0], x.shape[1], MOST_THREADS)
    _cross_entropy_weighted[grid, block](
        x, label, _or_none(weight, x), loss, share, lse, ignore, float(smoothing), bits
    )
    _finish(loss, share, y, total, mean)
    return y, lse, total


@jit
def _cross_entropy_weighted_grad(
    dy, x, label, weight, lse, total, dx, ignore, smoothing, even, bits, add
):
    """blockDim.x threads share a row: they add its weighted target up, then fill dx."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)
    real, correct = x.dtype.type, np.int64(label[n])
    mine = share_of_row(correct, weight, ignore, x.shape[1], real(0)) * (real(1) - smoothing)
    spread = smoothing
    if weight.size and smoothing > 0:
        spread = real(0)
        for k in range(share_of(x.shape[1], bits)):
            spread += weight[cuda.threadIdx.x + (k << bits)] * even
        spread = join_row(spread, part, False)
    whole = spread + mine
    upper = dy[n if dy.size > 1 else 0] / total[0]
    if row == n:
        for k in range(share_of(x.shape[1], bits)):
            c = cuda.threadIdx.x + (k << bits)
            q = even * weight[c] if weight.size else even
            if c == correct:
                q += mine
            value = (math.exp(x[n, c] - lse[n]) * whole - q) * upper
            if correct == ignore:
                value = real(0)
            dx[n, c] = plus(dx[n, c], value) if add else value


@dense
def cross_entropy_weighted_grad(
    dy: Array, x: Array, label: Array, weight: Array, lse: Array, total: Array, dx: Out,
    ignore: int, smoothing: float, add: bool,
) -> Array:  # fmt: skip
    """dx = dy / total (softmax of x times (sum of q) - q), q = the weighted target of each class.

    q = smoothing w / C, and (1 - smoothing) w[label] more at the label.
    """
    grid, block, bits = threads_of_rows(x.shape[0], x.shape[1], MOST_THREADS)
    _cross_entropy_weighted_grad[grid, block](
        dy.reshape(-1), x, label, _or_none(weight, x), lse, total.reshape(1), dx,
        ignore, float(smoothing), smoothing / max(1, x.shape[1]), bits, add,
    )  # fmt: skip
    return dx


@device
def weighted(target, weight, n, c, keep, even):
    """The smoothed probability of class c in row n, times the weight of the class."""
    q = keep * target[n, c] + even
    return q * weight[c] if weight.size else q


def _smoothed(smoothing: float, classes: int) -> tuple[float, float]:
    """What is kept of a probability, and what every class is given."""
    return 1.0 - smoothing, smoothing / max(1, classes)


@jit
def _cross_entropy_soft(x, target, weight, loss, lse, keep, even, scale, bits):
    """blockDim.x neighbouring threads share a row of logits and its probabilities."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)
    top, rest = top_and_rest(x, n, part, bits)
    value = x.dtype.type(0)
    for k in range(share_of(x.shape[1], bits)):
        c = cuda.threadIdx.x + (k << bits)
        value += weighted(target, weight, n, c, keep, even) * (rest - (x[n, c] - top))
    value = join_row(value, part, False)
    if row == n and cuda.threadIdx.x == 0:
        lse[n], loss[n] = rest + top, value * scale


@dense
def cross_entropy_soft(
    x: Array, target: Array, weight: Array, y: Out, lse: Out, smoothing: float, scale: float
) -> tuple[Array, Array]:
    """y = scale (sum of q (lse - x)) with q = w ((1 - smoothing) target + smoothing / C).

    x, target (N, C) logits and probabilities, weight w (C,) or None for 1 -> y (N,) or their sum
    (), lse (N,) = log(sum of exp x)
    """
    grid, block, bits = threads_of_rows(x.shape[0], x.shape[1], MOST_THREADS)
    loss = y if y.ndim else memory.scratch(lse.shape, y.dtype)
    each = float(scale) if y.ndim else 1.0
    _cross_entropy_soft[grid, block](
        x, target, _or_none(weight, x), loss, lse, *_smoothed(smoothing, x.shape[1]), each, bits
    )
    if not y.ndim:
        _, block, bits = threads_of_rows(1, loss.size)
        sum_losses[1, block](loss, y.reshape(1), float(scale), bits)
    return y, lse


@jit
def _cross_entropy_soft_grad_x(dy, x, target, weight, lse, dx, keep, even, scale, bits, add):
    """blockDim.x threads share a row: they add its weighted target up, then fill dx."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)
    whole = x.dtype.type(0)
    for k in range(share_of(x.shape[1], bits)):
        whole += weighted(target, weight, n, cuda.threadIdx.x + (k << bits), keep, even)
    whole = join_row(whole, part, False)
    upper = dy[n if dy.size > 1 else 0] * scale
    if row == n:
        for k in range(share_of(x.shape[1], bits)):
            c = cuda.threadIdx.x + (k << bits)
            slope = math.exp(x[n, c] - lse[n]) * whole - weighted(target, weight, n, c, keep, even)
            value = slope * upper
            dx[n, c] = plus(dx[n, c], value) if add else value


@dense
def cross_entropy_soft_grad_x(
    dy: Array, x: Array, target: Array, weight: Array, lse: Array, dx: Out,
    smoothing: float, scale: float, add: bool,
) -> Array:  # fmt: skip
    """dx = scale dy (softmax of x times (sum of q) - q)."""
    grid, block, bits = threads_of_rows(x.shape[0], x.shape[1], MOST_THREADS)
    _cross_entropy_soft_grad_x[grid, block](
        dy.reshape(-1), x, target, _or_none(weight, x), lse, dx,
        *_smoothed(smoothing, x.shape[1]), float(scale), bits, add,
    )  # fmt: skip
    return dx


@jit
def _cross_entropy_soft_grad_target(dy, x, weight, lse, dtarget, smoothing, scale, add):
    """A thread computes one element of dtarget."""
    n, c = place()
    if n < x.shape[0] and c < x.shape[1]:
        one = x.dtype.type(1)
        slope = (lse[n] - x[n, c]) * (weight[c] if weight.size else one) * (one - smoothing)
        value = slope * (dy[n if dy.size > 1 else 0] * scale)
        dtarget[n, c] = plus(dtarget[n, c], value) if add else value


@dense
def cross_entropy_soft_grad_target(
    dy: Array, x: Array, weight: Array, lse: Array, dtarget: Out,
    smoothing: float, scale: float, add: bool,
) -> Array:  # fmt: skip
    """dtarget = scale dy (1 - smoothing) w (lse - x)."""
    grid, block = tiles(*x.shape)
    _cross_entropy_soft_grad_target[grid, block](
        dy.reshape(-1), x, _or_none(weight, x), lse, dtarget, float(smoothing), float(scale), add
    )
    return dtarget
