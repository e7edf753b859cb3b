"""Average pooling, a row of an image at a time, channels innermost."""

import numpy as np

from .. import reference
from ..roles import Array, Out
from ..shapes import Padding, Pair
from ._numba import jit, loop
from .memory import as_one, batch_inside, rare, settle, target_as_one


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
