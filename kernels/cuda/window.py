"""Convolution: sums over windows that slide across an image.

Direct kernels: neighbouring threads take neighbouring channels, which lie side by side in memory.
"""

from ..roles import Array, Out
from ..shapes import Padding, Pair
from . import memory
from ._numba import blocks, cuda, jit

LANES, ROWS = 32, 8  # the block: a warp along the channels, 8 pixels (or filter taps)
PITCH = LANES + 1  # of a tile that is read along its columns: neighbours in different banks
# Threads that fill a large GPU twice: conv2d_grad_w cuts its long sum into that many pieces.
ENOUGH_THREADS = 2**18


@jit
def _conv2d(x, w, b, y, sh, sw, top, left, relu):
    """A thread computes one element of y; its warp shares a pixel and reads 32 filters of w."""
    pixel = cuda.blockIdx.x * ROWS + cuda.threadIdx.y
    f = cuda.blockIdx.y * LANES + cuda.threadIdx.x
    line, j = pixel // y.shape[2], pixel % y.shape[2]
    n, i = line // y.shape[1], line % y.shape[1]
    if n >= y.shape[0] or f >= y.shape[3]:
        return
    total = y.dtype.type(0)
    for r in range(w.shape[0]):
        h = i * sh + r - top
        if 0 <= h < x.shape[1]:
            for s in range(w.shape[1]):
                v = j * sw + s - left
                if 0 <= v < x.shape[2]:
                    for c in range(w.shape[2]):
                        total += x[n, h, v, c] * w[r, s, c, f]
    if b.size:
        total += b[f]
    y[n, i, j, f] = y.dtype.type(0) if relu and total <= 0 else total


def conv2d(
    x: Array, w: Array, b: Array | None, y: Out, stride: Pair, pad: Padding, relu: bool
) -> Array:
    """y[n, i, j, f] = b[f] + sum over r, s, c of x[n, i sh + r, j sw + s, c] w[r, s, c, f].

    x (N, H, W, C) padded with zeros, w (KH, KW, C, F), b (F,) or None -> y (N, OH, OW, F).
    relu: the larger of that and 0; NaN stays NaN.
    """
    if b is None:
        b = memory.scratch((0,), y.dtype)
    n, oh, ow, f = y.shape
    grid = blocks(n * oh * ow, ROWS), blocks(f, LANES)
    _conv2d[grid, (LANES, ROWS)](x, w, b, y, *stride, pad[0][0], pad[1][0], relu)
    return y


@jit
def _conv2d_grad_x(dy, w, dx, sh, sw, top, left, add):
    """A thread computes one element of dx, for which it walks along the filters of dy and w.

    w lies with its filters side by side, but a warp needs 32 channels of it: so the block loads
    32 x 32 of w as it lies and reads it turned, from shared memory.
    """
    turned = cuda.shared.array((LANES, PITCH), w.dtype)
    lane, row = cuda.threadIdx.x, cuda.threadIdx.y
    pixel = cuda.blockIdx.x * ROWS + row
    first = cuda.blockIdx.y * LANES
    line, j = pixel // dx.shape[2], pixel % dx.shape[2]
    n, i = line // dx.shape[1], line % dx.shape[1]
    c = first + lane
    total = dx.dtype.type(0)
    for r in range(w.shape[0]):
        for s in range(w.shape[1]):
            h, v = i + top - r, j + left - s  # = output row and column times the stride
            hit = n < dx.shape[0] and h >= 0 and v >= 0 and h % sh == 0 and v % sw == 0
            h, v = h // sh, v // sw
            hit = hit and h < dy.shape[1] and v < dy.shape[2]
            for start in range(0, w.shape[3], LANES):
                for k in range(row, LANES, ROWS):
                    if first + k < w.shape[2] and start + lane < w.shape[3]:
                        turned[k, lane] = w[r, s, first + k, start + lane]
                cuda.syncthreads()
                if hit and c < dx.shape[3]:
                    for f in range(min(LANES, w.shape[3] - start)):
                        total += dy[n, h, v, start + f] * turned[lane, f]
                cuda.syncthreads()
    if n < dx.shape[0] and c < dx.shape[3]:
        dx[n, i, j, c] = dx[n, i, j, c] + total if add else total


def conv2d_grad_x(dy: Array, w: Array, dx: Out, stride: Pair, pad: Padding, add: bool) -> Array:
    """dx = every dy put back where its window read: dx[.., i sh + r, j sw + s, c] += dy w[r, s]."""
    n, h, v, c = dx.shape
    grid = blocks(n * h * v, ROWS), blocks(c, LANES)
    _conv2d_grad_x[grid, (LANES, ROWS)](dy, w, dx, *stride, pad[0][0], pad[1][0], add)
    return dx


@jit
def _conv2d_grad_w(dy, x, partial, chunk, sh, sw, top, left):
    """A thread adds up one element of dw over `chunk` rows of dy: partial (tasks, KH, KW, C, F).

    Its warp shares a pixel of x and reads 32 neighbouring filters of dy.
    """
    tap = cuda.blockIdx.x * ROWS + cuda.threadIdx.y
    f = cuda.blockIdx.y * LANES + cuda.threadIdx.x
    task = cuda.blockIdx.z
    _, kh, kw, channels, filters = partial.shape
    cell, c = tap // channels, tap % channels
    r, s = cell // kw, cell % kw
    if r >= kh or f >= filters:
        return
    height, width = dy.shape[1], dy.shape[2]
    total = dy.dtype.type(0)
    for row in range(task * chunk, min((task + 1) * chunk, dy.shape[0] * height)):
        n, i = row // height, row % height
        h = i * sh + r - top
        if 0 <= h < x.shape[1]:
            part = dy.dtype.type(0)  # a sum of short sums rounds less than one long sum
            for j in range(width):
                v = j * sw + s - left
                if 0 <= v < x.shape[2]:
                    part += x[n, h, v, c] * dy[n, i, j, f]
            total += part
    partial[task, r, s, c, f] = total


@jit
def _add_partials(partial, dw, add):
    """A thread adds up the partial sums of one element of dw, in the order of the tasks."""
    tap = cuda.blockIdx.x * ROWS + cuda.threadIdx.y
    f = cuda.blockIdx.y * LANES + cuda.threadIdx.x
    tasks, kh, kw, channels, filters = partial.shape
    cell, c = tap // channels, tap % channels
    r, s = cell // kw, cell % kw
    if r >= kh or f >= filters:
        return
    total = dw.dtype.type(0)
    for task in range(tasks):
        total += partial[task, r, s, c, f]
    dw[r, s, c, f] = dw[r, s, c, f] + total if add else total


def conv2d_grad_w(dy: Array, x: Array, dw: Out, stride: Pair, pad: Padding, add: bool) -> Array:
    """dw[r, s, c, f] = sum over n, i, j of x[n, i sh + r, j sw + s, c] dy[n, i, j, f]."""
    kh, kw, c, f = dw.shape
    rows = dy.shape[0] * dy.shape[1]
    tasks = max(1, min(rows, ENOUGH_THREADS // max(1, dw.size), 1024))
    chunk = blocks(rows, tasks)
    partial = memory.scratch((tasks, *dw.shape), dw.dtype)
    taps, filters = blocks(kh * kw * c, ROWS), blocks(f, LANES)
    _conv2d_grad_w[(taps, filters, tasks), (LANES, ROWS)](
        dy, x, partial, chunk, *stride, pad[0][0], pad[1][0]
    )
    _add_partials[(taps, filters), (LANES, ROWS)](partial, dw, add)
    return dw
