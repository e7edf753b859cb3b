"""Average pooling, a row of an image at a time, channels innermost."""

import numpy as np

from .. import reference
from ..reference.elementwise import quiet, store
from ..roles import Array, Out
from ..shapes import Padding, Pair
from ._numba import jit, loop
from .memory import ZERO, as_one, batch_inside, rare, settle, space, target_as_one
from .window import _layout, _max_grad


def avg_pool2d(
    x: Array, y: Out, size: Pair, stride: Pair, pad: Padding, count_padding: bool
) -> Array:
    """y = mean of each window of x, padded with zeros.

    x (N, H, W, C) -> y (N, OH, OW, C). count_padding: the sum is divided by KH KW; else by the
    number of cells inside the image, 0 / 0 for a window of padding alone.
    """
    if rare(x, y):
        return reference.avg_pool2d(x, y, size, stride, pad, count_padding)
    inside, begin = batch_inside(x), (pad[0][0], pad[1][0])
    one, value, out = target_as_one(y, inside)
    rows = one.shape[0] * one.shape[1]
    _mean(rows, x.size, as_one(x, inside), one, *size, *stride, *begin, count_padding)
    settle(value, out)
    return y


def avg_pool2d_grad(
    dy: Array, dx: Out, size: Pair, stride: Pair, pad: Padding, count_padding: bool, add: bool
) -> Array:
    """dx = an equal part of dy for each cell of its window, summed where windows overlap."""
    if rare(dy, dx):
        return reference.avg_pool2d_grad(dy, dx, size, stride, pad, count_padding, add)
    inside, begin = batch_inside(dx), (pad[0][0], pad[1][0])
    one, value, out = target_as_one(dx, inside, add)
    rows = one.shape[0] * one.shape[1]
    slopes = as_one(dy, inside)
    _mean_grad(rows, 4 * dx.size, slopes, one, *size, *stride, *begin, count_padding)
    settle(value, out, add)
    return dx


@quiet
def max_pool2d_relu_grad(
    dy: Array, y: Array, arg: Array, dx: Out, db: Out,
    size: Pair, stride: Pair, pad: Padding, add: tuple[bool, bool],
) -> tuple[Array, Array | None]:  # fmt: skip
    """Gradients of y, arg = max_pool2d(relu(x + b)): dx, and db (C,), its sum, or None.

    Where y <= 0, the relu held the winner of a window back, and dy does not count; all other cells
    of the window get nothing anyway. So max_pool2d_grad and relu_grad are one, and y is enough.
    """
    if rare(dy, y, dx):
        return reference.max_pool2d_relu_grad(dy, y, arg, dx, db, size, stride, pad, add)
    inside = batch_inside(arg)
    one, value, out = target_as_one(dx, inside, add[0])
    slope, best, winner = (as_one(a, inside) for a in (dy, y, arg))
    parts = space(2, (slope.shape[0] * slope.shape[1], dx.shape[3]))
    if size == stride and not np.any(pad):
        _scatter(len(parts), dx.size, slope, best, winner, one, parts, *size)
    else:
        let = space(1, slope.shape)
        _let_through(len(parts), dy.size, slope, best, let, parts)
        layout = _layout(size, dy.shape, stride, pad)
        _max_grad(one.shape[0] * one.shape[1], 4 * dx.size, let, winner, one, *layout)
    settle(value, out, add[0])
    if db is None:
        return dx, None
    return dx, store(parts.sum(axis=0, dtype=np.float64).astype(db.dtype), db, add[1])


@jit
def _cells(h, v, height, width, kh, kw):
    """How many cells of a window that begins at (h, v) lie inside the image."""
    return (min(kh, height - h) - max(0, -h)) * (min(kw, width - v) - max(0, -v))


@loop
def _mean(start, stop, x, y, kh, kw, sh, sw, top, left, count_padding):
    _, height, width, c = x.shape
    oh, ow = y.shape[1:3]
    for row in range(start, stop):
        n, i = row // oh, row % oh
        for j in range(ow):
            total, h, v = y[n, i, j], i * sh - top, j * sw - left
            total[:] = 0
            for r in range(max(0, -h), min(kh, height - h)):
                for s in range(max(0, -v), min(kw, width - v)):
                    cells = x[n, h + r, v + s]
                    for k in range(c):
                        total[k] += cells[k]
            count = kh * kw if count_padding else _cells(h, v, height, width, kh, kw)
            for k in range(c):
                total[k] /= np.float32(count)


@loop
def _mean_grad(start, stop, dy, dx, kh, kw, sh, sw, top, left, count_padding):
    _, height, width, c = dx.shape
    oh, ow = dy.shape[1:3]
    for row in range(start, stop):
        n, h = row // height, row % height
        line = dx[n, h]
        line[:] = 0
        for i in range(max(0, (h + top - kh + sh) // sh), min((h + top) // sh + 1, oh)):
            for j in range(ow):
                v = j * sw - left
                count = kh * kw
                if not count_padding:
                    count = _cells(i * sh - top, v, height, width, kh, kw)
                slope = dy[n, i, j]
                for s in range(max(0, -v), min(kw, width - v)):
                    cells = line[v + s]
                    for k in range(c):
                        cells[k] += slope[k] / np.float32(count)


@jit
def _pass_on(dy, y, slope, total):
    """slope = dy where y lets it through, of one pixel; total += slope."""
    for k in range(slope.size):
        slope[k] = ZERO if y[k] <= 0 else dy[k]
    for k in range(slope.size):
        total[k] += slope[k]


@jit
def _fold(total, sums):
    """sums[c] = sum of all numbers of channel c, of which there is one for each image."""
    sums[:] = 0
    for k in range(0, total.size, sums.size):
        for c in range(sums.size):
            sums[c] += total[k + c]


@loop
def _scatter(start, stop, dy, y, arg, dx, parts, kh, kw):
    """For windows side by side: each row of them writes the lines of dx that it covers."""
    height, c = dx.shape[1], dx.shape[3]
    oh, ow = dy.shape[1:3]
    total, slope = np.empty(c, np.float32), np.empty(c, np.float32)
    for row in range(start, stop):
        n, i = row // oh, row % oh
        total[:] = 0
        for j in range(ow):
            _pass_on(dy[n, i, j], y[n, i, j], slope, total)
            winner = arg[n, i, j]
            for r in range(kh):
                for s in range(kw):
                    number, cells = np.int32(r * kw + s), dx[n, i * kh + r, j * kw + s]
                    for k in range(c):
                        cells[k] = slope[k] if winner[k] == number else ZERO
        for h in range(i * kh, height if i == oh - 1 else (i + 1) * kh):  # what no window covers
            dx[n, h, ow * kw if h < oh * kh else 0 :] = 0
        _fold(total, parts[row])


@loop
def _let_through(start, stop, dy, y, slope, parts):
    oh, ow, c = dy.shape[1:]
    total = np.empty(c, np.float32)
    for row in range(start, stop):
        n, i = row // oh, row % oh
        total[:] = 0
        for j in range(ow):
            _pass_on(dy[n, i, j], y[n, i, j], slope[n, i, j], total)
        _fold(total, parts[row])
