"""Convolution as matrix products of blocks of windows, and pooling.

A block of images is spread out so that each window is a row of a matrix (`im2col`), which BLAS
multiplies with the filters while it is still in the cache.
"""

from collections.abc import Callable

import numpy as np

from .. import reference
from ..reference.elementwise import quiet
from ..roles import Array, Out
from ..shapes import Padding, Pair
from ._numba import jit, loop
from ._threads import share, single_blas
from .memory import ZERO, canonical, rare, settle, space, target

# Bytes of windows at a time, about a second-level cache. From 0.5 to 8 MiB the times of
# `python -m benchmarks.kernels_cpu` hardly differ; several blocks are work for several threads.
_BLOCK = 1 << 20
_PARTIAL = 32 << 20  # bytes of partial sums of dw, of which there are 2 to 16


def conv2d(
    x: Array, w: Array, b: Array | None, y: Out, stride: Pair, pad: Padding, relu: bool
) -> Array:
    """y[n, i, j, f] = b[f] + sum over r, s, c of x[n, i sh + r, j sw + s, c] w[r, s, c, f].

    x (N, H, W, C) padded with zeros, w (KH, KW, C, F), b (F,) or None -> y (N, OH, OW, F).
    relu: the larger of that and 0; NaN stays NaN.
    """
    if rare(x, w, y):
        return reference.conv2d(x, w, b, y, stride, pad, relu)
    x, filters, out = canonical(x), canonical(w).reshape(-1, w.shape[3]), target(y)
    if b is not None:  # one more filter row, met by a 1 at the end of each window
        both = space(2, (len(filters) + 1, w.shape[3]))
        both[:-1], both[-1] = filters, b
        filters = both
    rows, layout = out.reshape(-1, w.shape[3]), _layout(w.shape, y.shape, stride, pad)

    def block(number: int, first: int, span: slice, windows: Array) -> None:
        _im2col(x, windows, first, *layout)
        part = np.matmul(windows, filters, out=rows[span])
        if relu:  # while it is in the cache
            np.maximum(part, ZERO, out=part)

    _by_blocks(y.shape, len(filters), block)
    return settle(out, y)


def conv2d_grad_x(dy: Array, w: Array, dx: Out, stride: Pair, pad: Padding, add: bool) -> Array:
    """dx = every dy put back where its window read: dx[.., i sh + r, j sw + s, c] += dy w[r, s]."""
    if rare(dx, w, dy):
        return reference.conv2d_grad_x(dy, w, dx, stride, pad, add)
    filters, out = canonical(w).reshape(-1, w.shape[3]), target(dx, add)
    rows, layout = canonical(dy).reshape(-1, w.shape[3]), _layout(w.shape, dy.shape, stride, pad)

    def block(number: int, first: int, span: slice, windows: Array) -> None:
        np.matmul(rows[span], filters.T, out=windows)
        _gather(windows, out, first, *layout)

    _by_blocks(dy.shape, len(filters), block)
    return settle(out, dx, add)


def conv2d_grad_w(dy: Array, x: Array, dw: Out, stride: Pair, pad: Padding, add: bool) -> Array:
    """dw[r, s, c, f] = sum over n, i, j of x[n, i sh + r, j sw + s, c] dy[n, i, j, f]."""
    if rare(x, dw, dy):
        return reference.conv2d_grad_w(dy, x, dw, stride, pad, add)
    x, rows, out = canonical(x), canonical(dy).reshape(-1, dw.shape[3]), target(dw, add)
    total, layout = out.reshape(-1, dw.shape[3]), _layout(dw.shape, dy.shape, stride, pad)
    most = max(2, min(16, _PARTIAL // total.nbytes))
    parts = space(2, (min(most, len(_starts(dy.shape, len(total)))), *total.shape))
    parts[...] = 0

    def block(number: int, first: int, span: slice, windows: Array) -> None:
        _im2col(x, windows, first, *layout)
        parts[number] += np.matmul(windows.T, rows[span], out=space(4, total.shape))

    _by_blocks(dy.shape, len(total), block, len(parts))
    parts.sum(axis=0, out=total)
    return settle(out, dw, add)


def _starts(y: tuple[int, ...], width: int) -> range:
    """First image of each block. By the shape alone, so that sums come out the same everywhere."""
    return range(0, y[0], min(max(1, _BLOCK // (4 * y[1] * y[2] * width)), y[0]))


@quiet
def _by_blocks(
    y: tuple[int, ...],
    width: int,
    block: Callable[[int, int, slice, Array], None],
    groups: int | None = None,
) -> None:
    """Call block(group, first image, its rows of y, space for their windows) for all images.

    Threads share the groups of neighbouring blocks; without groups, the blocks.
    """
    per_image, starts = y[1] * y[2], _starts(y, width)
    groups = groups or len(starts)

    def run(group: int) -> None:
        windows = space(3, (starts.step * per_image, width))
        for first in starts[group * len(starts) // groups : (group + 1) * len(starts) // groups]:
            span = slice(first * per_image, min(first + starts.step, y[0]) * per_image)
            block(group, first, span, windows[: span.stop - span.start])

    with single_blas() as alone:
        if alone:
            share(groups, run)
        else:
            for group in range(groups):
                run(group)


def max_pool2d(
    x: Array, y: Out, arg: Out, size: Pair, stride: Pair, pad: Padding
) -> tuple[Array, Array]:
    """y = maximum of each window of x, arg = which of its cells, r * KW + s.

    x (N, H, W, C) -> y, arg (N, OH, OW, C). The first maximum wins, padding never does, and NaN
    wins over every number.
    """
    if rare(x, y):
        return reference.max_pool2d(x, y, arg, size, stride, pad)
    out, where, layout = target(y), target(arg), _layout(size, y.shape, stride, pad)
    _max(y.shape[0] * y.shape[1], x.size, canonical(x), out, where, *layout)
    return settle(out, y), settle(where, arg)


def max_pool2d_grad(
    dy: Array, arg: Array, dx: Out, size: Pair, stride: Pair, pad: Padding, add: bool
) -> Array:
    """dx = dy at the winner of each window, summed where windows overlap."""
    if rare(dy, dx):
        return reference.max_pool2d_grad(dy, arg, dx, size, stride, pad, add)
    out, layout = target(dx, add), _layout(size, dy.shape, stride, pad)
    _max_grad(dx.shape[0] * dx.shape[1], 4 * dx.size, canonical(dy), canonical(arg), out, *layout)
    return settle(out, dx, add)


def _layout(w: tuple[int, ...], y: tuple[int, ...], stride: Pair, pad: Padding):
    """The numbers that say which window reads what: (OH, OW, KH, KW, sh, sw, top, left)."""
    return y[1], y[2], w[0], w[1], *stride, pad[0][0], pad[1][0]


@jit
def _im2col(x, windows, first, oh, ow, kh, kw, sh, sw, top, left):
    """windows[(n, i, j)] = the cells of x (KH KW C) that window (i, j) of image first + n covers.

    The rest of a row, if there is any, is 1: it meets the bias.
    """
    _, height, width, c = x.shape
    run = kw * c  # the cells of one row of a window lie side by side in x
    for row in range(windows.shape[0] // ow):
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


@jit
def _gather(windows, x, first, oh, ow, kh, kw, sh, sw, top, left):
    """x[n] = every window put back where `_im2col` read it, summed in a fixed order."""
    _, height, width, c = x.shape
    run = kw * c
    for row in range(windows.shape[0] // (oh * ow) * height):
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
def _max(start, stop, x, y, arg, oh, ow, kh, kw, sh, sw, top, left):
    _, height, width, c = x.shape
    for row in range(start, stop):
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
def _max_grad(start, stop, dy, arg, dx, oh, ow, kh, kw, sh, sw, top, left):
    _, height, width, c = dx.shape
    for row in range(start, stop):
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
