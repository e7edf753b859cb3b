"""Losses on logits. The largest logit is subtracted first, so that exp never overflows."""

import math

import numpy as np

from ..roles import Array, Out
from . import memory
from ._numba import blocks, cuda, device, jit
from .intrinsics import plus
from .move import dense
from .reduce import EVERY_LANE

WARP = 32
THREADS = 256  # of a block, where a row needs no more
EACH = 4  # numbers of a long row that a thread takes before the row gets more threads ...
MOST = 1024  # ... up to all that a block can have: they share rows of 50,000 classes


def _split(rows: int, length: int) -> tuple[int, tuple[int, int]]:
    """Grid and block (threads per row, rows) for rows of a length.

    The threads of a row are a power of two: up to 32 of them then lie in one warp, which takes two
    rows of 10 classes at a time.
    """
    wanted = min(length, max(WARP, blocks(length, EACH)))
    width = min(1 << max(0, wanted - 1).bit_length(), MOST)
    deep = max(1, THREADS // width)
    return blocks(rows, deep), (width, deep)


@device
def _joined(value, part, largest):
    """The sum of a row's threads, or the largest of them, in each of these threads.

    Their order is fixed by their number: a butterfly in each warp, then one across the warps.
    """
    width, lane = cuda.blockDim.x, cuda.threadIdx.x
    for step in (16, 8, 4, 2, 1):
        if step < width:
            other = cuda.shfl_xor_sync(EVERY_LANE, value, step)
            value = max(value, other) if largest else value + other
    if width > WARP:  # then the block has one row, and all of it comes here
        warps = width // WARP
        if lane % WARP == 0:
            part[lane // WARP] = value
        cuda.syncthreads()
        value = part[lane % warps]
        cuda.syncthreads()
        for step in (16, 8, 4, 2, 1):
            if step < warps:
                other = cuda.shfl_xor_sync(EVERY_LANE, value, step)
                value = max(value, other) if largest else value + other
    return value


@device
def _largest_and_total(x, n, part):
    """The largest number of row n, 0 where it is infinite, and the sum of exp(x - that)."""
    top = x.dtype.type(-math.inf)
    for c in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
        top = max(top, x[n, c])
    top = _joined(top, part, True)
    total = x.dtype.type(0)
    if not math.isfinite(top):  # inf - inf would make NaN of a loss that is inf
        top = total
    for c in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
        total += math.exp(x[n, c] - top)
    return top, _joined(total, part, False)


@jit
def _log_softmax(x, y):
    """blockDim.x neighbouring threads share a row, and read neighbouring numbers of it."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)  # past the end, too: a shuffle needs every lane of its warp
    top, total = _largest_and_total(x, n, part)
    total = math.log(total)
    if row == n:
        for c in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
            y[n, c] = x[n, c] - top - total


@dense
def log_softmax(x: Array, y: Out) -> Array:
    """y = x - log(sum of exp x) along the last axis."""
    rows = math.prod(x.shape[:-1]), x.shape[-1]
    grid, block = _split(*rows)
    _log_softmax[grid, block](x.reshape(rows), y.reshape(rows))
    return y


@jit
def _log_softmax_grad(dy, y, dx, add):
    """blockDim.x neighbouring threads share a row: they add dy up, then fill dx."""
    part = cuda.shared.array(WARP, dy.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, dy.shape[0] - 1)
    total = dy.dtype.type(0)
    for c in range(cuda.threadIdx.x, dy.shape[1], cuda.blockDim.x):
        total += dy[n, c]
    total = _joined(total, part, False)
    if row == n:
        for c in range(cuda.threadIdx.x, dy.shape[1], cuda.blockDim.x):
            value = dy[n, c] - math.exp(y[n, c]) * total
            dx[n, c] = plus(dx[n, c], value) if add else value


@dense
def log_softmax_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy - exp(y) (sum of dy along the last axis)."""
    rows = math.prod(dy.shape[:-1]), dy.shape[-1]
    grid, block = _split(*rows)
    _log_softmax_grad[grid, block](dy.reshape(rows), y.reshape(rows), dx.reshape(rows), add)
    return dx


@jit
def _cross_entropy(x, label, loss, lse, scale):
    """blockDim.x neighbouring threads share a row of logits; the first of them writes its loss."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)
    top, total = _largest_and_total(x, n, part)
    if row == n and cuda.threadIdx.x == 0:
        lse[n] = math.log(total) + top
        c = np.int64(label[n])
        found = 0 <= c < x.shape[1]  # a wrong label gives NaN, never a stranger's memory
        loss[n] = (lse[n] - x[n, c]) * scale if found else x.dtype.type(math.nan)


@jit
def _sum_losses(loss, y, scale):
    """One block adds up all losses; its rows of threads, where it has many, all do the same."""
    part = cuda.shared.array(WARP, loss.dtype)
    total = loss.dtype.type(0)
    for n in range(cuda.threadIdx.x, loss.size, cuda.blockDim.x):
        total += loss[n]
    total = _joined(total, part, False)
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        y[0] = total * scale


@dense
def cross_entropy(x: Array, label: Array, y: Out, lse: Out, scale: float) -> tuple[Array, Array]:
    """y = scale (log(sum of exp x) - x[label]) of each row, or the sum of these where y is ().

    x (N, C) logits, label (N,) integers in [0, C) -> y (N,) or (), lse (N,) = log(sum of exp x)
    """
    grid, block = _split(*x.shape)
    if y.ndim:
        _cross_entropy[grid, block](x, label, y, lse, float(scale))
    else:
        loss = memory.scratch((x.shape[0],), y.dtype)
        _cross_entropy[grid, block](x, label, loss, lse, 1.0)
        _, block = _split(1, loss.size)
        _sum_losses[1, block](loss, y.reshape(1), float(scale))
    return y, lse


@jit
def _cross_entropy_grad(dy, x, label, lse, dx, scale, add):
    """A thread computes one element of dx; neighbouring threads take neighbouring classes."""
    n = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    c = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if n >= x.shape[0] or c >= x.shape[1]:
        return
    real, correct = x.dtype.type, np.int64(label[n])
    slope = math.exp(x[n, c] - lse[n])
    if c == correct:
        slope -= real(1)
    value = slope * (dy[n if dy.size > 1 else 0] * scale)
    if not 0 <= correct < x.shape[1]:
        value = real(math.nan)
    dx[n, c] = plus(dx[n, c], value) if add else value


@dense
def cross_entropy_grad(
    dy: Array, x: Array, label: Array, lse: Array, dx: Out, scale: float, add: bool
) -> Array:
    """dx = scale dy (softmax of x - 1 at the label), dy () or (N,)."""
    rows, classes = x.shape
    tiles = blocks(classes, THREADS)
    width = blocks(classes, max(1, tiles))  # few threads idle: 10 classes are 10 wide
    block = max(1, width), THREADS // max(1, width)
    grid = blocks(rows, block[1]), tiles
    _cross_entropy_grad[grid, block](dy.reshape(-1), x, label, lse, dx, float(scale), add)
    return dx
