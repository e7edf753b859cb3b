"""Convolution as matrix products of blocks of windows, and pooling.

A block of images is spread out so that each window is a row of a matrix (`im2col`), which BLAS
multiplies with the filters while it is still in the cache.
"""

from collections.abc import Iterator

import numpy as np
from numba import prange

from .. import reference
from ..roles import Array, Out
from ..shapes import Padding, Pair
from ._numba import loop
from .memory import ZERO, canonical, rare, scratch, settle, target

# Bytes of windows at a time, about a second-level cache. From 0.5 to 8 MiB the times of
# `python -m benchmarks.kernels_cpu` hardly differ; fewer blocks wake threads less often.
_BLOCK = 1 << 21


def conv2d(x: Array, w: Array, b: Array | None, y: Out, stride: Pair, pad: Padding) -> Array:
    """y[n, i, j, f] = b[f] + sum over r, s, c of x[n, i sh + r, j sw + s, c] w[r, s, c, f].

    x (N, H, W, C) padded with zeros, w (KH, KW, C, F), b (F,) or None -> y (N, OH, OW, F)
    """
    if rare(x, w, y):
        return reference.conv2d(x, w, b, y, stride, pad)
    out, filters = target(y), canonical(w).reshape(-1, w.shape[3])
    if b is not None:  # one more filter row, met by a 1 at the end of each window
        both = scratch((1, len(filters) + 1, w.shape[3]), w.dtype)[0]
        both[:-1], both[-1] = filters, b
        filters = both
    rows = out.reshape(-1, w.shape[3])
    for block, windows in _spread(x, w.shape, y.shape, len(filters), stride, pad):
        np.matmul(windows, filters, out=rows[block])
    return settle(out, y)


def conv2d_grad_x(dy: Array, w: Array, dx: Out, stride: Pair, pad: Padding, add: bool) -> Array:
    """dx = every dy put back where its window read: dx[.., i sh + r, j sw + s, c] += dy w[r, s]."""
    if rare(dx, w, dy):
        return reference.conv2d_grad_x(dy, w, dx, stride, pad, add)
    out, filters = target(dx, add), canonical(w).reshape(-1, w.shape[3])
    rows, layout = canonical(dy).reshape(-1, w.shape[3]), _layout(w.shape, dy.shape, stride, pad)
    for first, block, windows in _blocks(dy.shape, len(filters), dx.dtype):
        np.matmul(rows[block], filters.T, out=windows)
        _gather(windows.size, windows, out, first, *layout)
    return settle(out, dx, add)


def conv2d_grad_w(dy: Array, x: Array, dw: Out, stride: Pair, pad: Padding, add: bool) -> Array:
    """dw[r, s, c, f] = sum over n, i, j of x[n, i sh + r, j sw + s, c] dy[n, i, j, f]."""
    if rare(x, dw, dy):
        return reference.conv2d_grad_w(dy, x, dw, stride, pad, add)
    out, rows = target(dw, add), canonical(dy).reshape(-1, dw.shape[3])
    total = out.reshape(-1, dw.shape[3])
    part = scratch((1, *total.shape), dw.dtype)[0]
    total[...] = 0
    for block, windows in _spread(x, dw.shape, dy.shape, len(total), stride, pad):
        total += np.matmul(windows.T, rows[block], out=part)
    return settle(out, dw, add)


def max_pool2d(
    x: Array, y: Out, arg: Out, size: Pair, stride: Pair, pad: Padding
) -> tuple[Array, Array]:
    """y = maximum of each window of x, arg = which of its cells, r * KW + s.

    x (N, H, W, C) -> y, arg (N, OH, OW, C). The first maximum wins, padding never does, and NaN
    wins over every number.
    """
    if rare(x, y):
        return reference.max_pool2d(x, y, arg, size, stride, pad)
    out, where = target(y), target(arg)
    _max(x.size, canonical(x), out, where, *_layout(size, y.shape, stride, pad))
    return settle(out, y), settle(where, arg)


def max_pool2d_grad(
    dy: Array, arg: Array, dx: Out, size: Pair, stride: Pair, pad: Padding, add: bool
) -> Array:
    """dx = dy at the winner of each window, summed where windows overlap."""
    if rare(dy, dx):
        return reference.max_pool2d_grad(dy, arg, dx, size, stride, pad, add)
    out, layout = target(dx, add), _layout(size, dy.shape, stride, pad)
    _max_grad(4 * dx.size, canonical(dy), canonical(arg), out, *layout)
    return settle(out, dx, add)


def _layout(w: tuple[int, ...], y: tuple[int, ...], stride: Pair, pad: Padding):
    """The numbers that say which window reads what: (OH, OW, KH, KW, sh, sw, top, left)."""
    return y[1], y[2], w[0], w[1], *stride, pad[0][0], pad[1][0]


def _blocks(y: tuple[int, ...], width: int, dtype) -> Iterator[tuple[int, slice, Array]]:
    """Pass over the images in blocks: the first one, their rows of y, space for their windows.

    The blocks depend on the shape alone, so sums over them come out the same everywhere.
    """
    per_image = y[1] * y[2]
    step = max(1, _BLOCK // (per_image * width * dtype.itemsize))
    space = scratch((min(step, y[0]) * per_image, width), dtype)
    for first in range(0, y[0], step):
        block = slice(first * per_image, min(first + step, y[0]) * per_image)
        yield first, block, space[: block.stop - block.start]


def _spread(x: Array, w, y, width: int, stride: Pair, pad: Padding):
    """The windows of x block by block: rows of y, and a matrix with a row for each."""
    x, layout = canonical(x), _layout(w, y, stride, pad)
    for first, block, windows in _blocks(y, width, x.dtype):
        _im2col(windows.size, x, windows, first, *layout)
        yield block, windows


@loop
def _im2col(x, windows, first, oh, ow, kh, kw, sh, sw, top, left):
    """windows[(n, i, j)] = the cells of x (KH KW C) that window (i, j) of image first + n covers.

    The rest of a row, if there is any, is 1: it meets the bias.
    """
    _, height, width, c = x.shape
    run = kw * c  # the cells of one row of a window lie side by side in x
    for row in prange(windows.shape[0] // ow):
        n, i = first + row // oh, row % oh
        for r in range(kh):
            h = i * sh + r - top
            inside = 0 <= h < height
            line = x[n, h if inside else 0].reshape(-1)
            for j in range(ow):
                left_edge = j * sw - left
                cells = windows[row * ow + j, r * run : (r + 1) * run]
                if inside and left_edge >= 0 and left_edge + kw <= width:
                    part = line[left_edge * c : left_edge * c + run]
                    for k in range(run):
                        cells[k] = part[k]
                else:
                    begin = left_edge * c
                    for k in range(run):
                        real = inside and 0 <= begin + k < line.size
                        cells[k] = line[begin + k] if real else ZERO
        for j in range(row * ow, (row + 1) * ow):
            for k in range(kh * run, windows.shape[1]):
                windows[j, k] = 1


@loop
def _gather(windows, x, first, oh, ow, kh, kw, sh, sw, top, left):
    """x[n] = every window put back where `_im2col` read it, summed in a fixed order."""
    _, height, width, c = x.shape
    run = kw * c
    for row in prange(windows.shape[0] // (oh * ow) * height):
        n, h = row // height, row % height
        line = x[first + n, h].reshape(-1)
        line[:] = 0
        for r in range(kh):
            i = (h + top - r) // sh
            if i * sh != h + top - r or i < 0 or i >= oh:
                continue
            for j in range(ow):
                left_edge = j * sw - left
                skip = max(0, -left_edge) * c
                end = min(kw, width - left_edge) * c
                cells = windows[(n * oh + i) * ow + j, r * run + skip : r * run + max(skip, end)]
                part = line[left_edge * c + skip : left_edge * c + end]
                for k in range(cells.size):
                    part[k] += cells[k]


@loop
def _max(x, y, arg, oh, ow, kh, kw, sh, sw, top, left):
    _, height, width, c = x.shape
    for row in prange(y.shape[0] * oh):
        n, i = row // oh, row % oh
        for j in range(ow):
            best, winner = y[n, i, j], arg[n, i, j]
            first = True
            for r in range(max(0, top - i * sh), min(kh, height + top - i * sh)):
                for s in range(max(0, left - j * sw), min(kw, width + left - j * sw)):
                    cells, number = x[n, i * sh + r - top, j * sw + s - left], np.int32(r * kw + s)
                    if first:
                        for k in range(c):
                            best[k] = cells[k]
                        for k in range(c):
                            winner[k] = number
                        first = False
                        continue
                    for k in range(c):
                        new, old = cells[k], best[k]
                        wins = new > old or (new != new and old == old)  # the first NaN stays
                        best[k] = new if wins else old
                        winner[k] = number if wins else winner[k]
            if first:  # a window of padding alone
                best[:] = -np.inf
                winner[:] = 0


@loop
def _max_grad(dy, arg, dx, oh, ow, kh, kw, sh, sw, top, left):
    _, height, width, c = dx.shape
    for row in prange(dx.shape[0] * height):
        n, h = row // height, row % height
        line = dx[n, h]
        line[:] = 0
        for r in range(kh):
            i = (h + top - r) // sh
            if i * sh != h + top - r or i < 0 or i >= oh:
                continue
            for j in range(ow):
                slope, winner = dy[n, i, j], arg[n, i, j]
                for s in range(max(0, left - j * sw), min(kw, width + left - j * sw)):
                    cells, number = line[j * sw + s - left], np.int32(r * kw + s)
                    for k in range(c):
                        cells[k] += slope[k] if winner[k] == number else ZERO
