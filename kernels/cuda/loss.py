"""Softmax and losses. The largest logit is subtracted first, so that exp never overflows."""

import math

import numpy as np

from ..roles import Array, Out
from . import memory
from ._numba import blocks, cuda, jit
from .intrinsics import plus
from .layout import THREADS, WARP
from .move import dense
from .rows import join_row, share_of, threads_of_rows, top_and_rest, top_of, total_of


@jit
def _log_softmax(x, y, bits):
    """blockDim.x neighbouring threads share a row, and read neighbouring numbers of it."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)  # past the end, too: a shuffle needs every lane of its warp
    top, rest = top_and_rest(x, n, part, bits)
    if row == n:
        for k in range(share_of(x.shape[1], bits)):
            c = cuda.threadIdx.x + (k << bits)
            y[n, c] = x[n, c] - top - rest


@dense
def log_softmax(x: Array, y: Out) -> Array:
    """y = x - log(sum of exp x) along the last axis; NaN in rows whose largest x is infinite."""
    rows = math.prod(x.shape[:-1]), x.shape[-1]
    grid, block, bits = threads_of_rows(*rows)
    _log_softmax[grid, block](x.reshape(rows), y.reshape(rows), bits)
    return y


@jit
def _log_softmax_grad(dy, y, dx, bits, add):
    """blockDim.x neighbouring threads share a row: they add dy up, then fill dx."""
    part = cuda.shared.array(WARP, dy.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, dy.shape[0] - 1)
    total = dy.dtype.type(0)
    for k in range(share_of(dy.shape[1], bits)):
        c = cuda.threadIdx.x + (k << bits)
        total += dy[n, c]
    total = join_row(total, part, False)
    if row == n:
        for k in range(share_of(dy.shape[1], bits)):
            c = cuda.threadIdx.x + (k << bits)
            value = dy[n, c] - math.exp(y[n, c]) * total
            dx[n, c] = plus(dx[n, c], value) if add else value


@dense
def log_softmax_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy - exp(y) (sum of dy along the last axis)."""
    rows = math.prod(dy.shape[:-1]), dy.shape[-1]
    grid, block, bits = threads_of_rows(*rows)
    _log_softmax_grad[grid, block](dy.reshape(rows), y.reshape(rows), dx.reshape(rows), bits, add)
    return dx


@jit
def _softmax(x, y, bits):
    """blockDim.x neighbouring threads share a row, as in _log_softmax."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)
    top = top_of(x, n, part, bits)
    total = total_of(x, n, top, part, bits)
    if row == n:
        for k in range(share_of(x.shape[1], bits)):
            c = cuda.threadIdx.x + (k << bits)
            y[n, c] = math.exp(x[n, c] - top) / total


@dense
def softmax(x: Array, y: Out) -> Array:
    """y = exp x / sum of exp x along the last axis; NaN in rows whose largest x is infinite."""
    rows = math.prod(x.shape[:-1]), x.shape[-1]
    grid, block, bits = threads_of_rows(*rows)
    _softmax[grid, block](x.reshape(rows), y.reshape(rows), bits)
    return y


@jit
def _softmax_grad(dy, y, dx, bits, add):
    """blockDim.x neighbouring threads share a row: they add dy y up, then fill dx."""
    part = cuda.shared.array(WARP, dy.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, dy.shape[0] - 1)
    total = dy.dtype.type(0)
    for k in range(share_of(dy.shape[1], bits)):
        c = cuda.threadIdx.x + (k << bits)
        total += dy[n, c] * y[n, c]
    total = join_row(total, part, False)
    if row == n:
        for k in range(share_of(dy.shape[1], bits)):
            c = cuda.threadIdx.x + (k << bits)
            value = y[n, c] * (dy[n, c] - total)
            dx[n, c] = plus(dx[n, c], value) if add else value


@dense
def softmax_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = y (dy - sum of dy y along the last axis)."""
    rows = math.prod(dy.shape[:-1]), dy.shape[-1]
    grid, block, bits = threads_of_rows(*rows)
    _softmax_grad[grid, block](dy.reshape(rows), y.reshape(rows), dx.reshape(rows), bits, add)
    return dx


@jit
def _cross_entropy(x, label, loss, lse, scale, bits):
    """blockDim.x neighbouring threads share a row of logits; the first of them writes its loss."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)
    top, rest = top_and_rest(x, n, part, bits)
    if row == n and cuda.threadIdx.x == 0:
        lse[n] = rest + top
        c = np.int64(label[n])
        found = 0 <= c < x.shape[1]  # a wrong label gives NaN, never a stranger's memory
        each = rest - (x[n, c] - top) if found else x.dtype.type(math.nan)  # lse - x would cancel
        loss[n] = each * scale


@jit
def sum_losses(loss, y, scale, bits):
    """One block adds up all losses; its rows of threads, where it has many, all do the same."""
    part = cuda.shared.array(WARP, loss.dtype)
    total = loss.dtype.type(0)
    for k in range(share_of(loss.size, bits)):
        total += loss[cuda.threadIdx.x + (k << bits)]
    total = join_row(total, part, False)
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        y[0] = total * scale


@dense
def cross_entropy(x: Array, label: Array, y: Out, lse: Out, scale: float) -> tuple[Array, Array]:
    """y = scale (log(sum of exp x) - x[label]) of each row, or the sum of these where y is ().

    x (N, C) logits, label (N,) integers in [0, C) -> y (N,) or (), lse (N,) = log(sum of exp x)
    """
    grid, block, bits = threads_of_rows(*x.shape)
    if y.ndim:
        _cross_entropy[grid, block](x, label, y, lse, float(scale), bits)
    else:
        loss = memory.scratch((x.shape[0],), y.dtype)
        _cross_entropy[grid, block](x, label, loss, lse, 1.0, bits)
        _, block, bits = threads_of_rows(1, loss.size)
        sum_losses[1, block](loss, y.reshape(1), float(scale), bits)
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
