"""Convolution as matrix products of blocks of windows, and pooling.

A block of images is spread out so that each window is a row of a matrix (`im2col`), which BLAS
multiplies with the filters while it is still in the cache. This is the version to read first; where
the CPU has vectors that `simd.py` knows, `convolution.py` does the same faster.
"""

from collections.abc import Callable

import numpy as np

from .. import reference
from ..reference.elementwise import quiet
from ..roles import Array, Out
from ..shapes import Padding, Pair
from . import convolution, simd, winograd
from ._numba import jit, loop
from ._threads import share, single_blas
from .memory import (
    ZERO,
    as_one,
    batch_inside,
    canonical,
    rare,
    settle,
    space,
    target,
    target_as_one,
)  # fmt: skip

# Bytes of windows at a time, about a second-level cache. From 0.5 to 8 MiB the times of
# `python -m benchmarks.kernels` hardly differ; several blocks are work for several threads.
_BLOCK = 1 << 20
_PARTIAL = 32 << 20  # bytes of partial sums of dw, of which there are 2 to 16


def conv2d(
    x: Array, w: Array, b: Array | None, y: Out,
    stride: Pair, pad: Padding, dilation: Pair, groups: int, relu: bool,
) -> Array:  # fmt: skip
    """y[n, i, j, f] = b[f] + sum over r, s, c of x[n, i sh + r dh, j sw + s dw, c] w[r, s, c, f].

    x (N, H, W, C) padded with zeros, w (KH, KW, C / groups, F), b (F,) or None -> y (N, OH, OW, F).
    Of several groups, each takes its share of the channels to its share of the filters.
    relu: the larger of that and 0; NaN stays NaN. y may leave out windows at the end of an axis.
    """
    if rare(x, w, y):
        return reference.conv2d(x, w, b, y, stride, pad, dilation, groups, relu)
    if simd.chosen:
        scheme = winograd.suited("y", x, w, y, stride, pad, dilation, groups)
        if scheme and winograd.conv2d(scheme, x, w, b, y, pad, relu):
            return y
        return convolution.conv2d(x, w, b, y, stride, pad, dilation, groups, relu)
    x, filters, out = canonical(x), canonical(w).reshape(-1, w.shape[3]), target(y)
    if b is not None:  # one more filter row, met by a 1 at the end of each window
        both = space(2, (len(filters) + 1, w.shape[3]))
        both[:-1], both[-1] = filters, b
        filters = both
    rows, layout = out.reshape(-1, w.shape[3]), _layout(w.shape, y.shape, stride, pad)
    shares = _shares(w.shape, groups, dilation)

    def block(number: int, first: int, span: slice, windows: Array) -> None:
        part = rows[span]
        for own, pieces in shares:
            _im2col(x, windows, first, *layout, *pieces)
            np.matmul(windows, filters[:, own], out=part[:, own])
        if relu:  # while it is in the cache
            np.maximum(part, ZERO, out=part)

    _by_blocks(y.shape, len(filters), block)
    return settle(out, y)


def conv2d_grad_x(
    dy: Array, w: Array, dx: Out,
    stride: Pair, pad: Padding, dilation: Pair, groups: int, add: bool,
) -> Array:  # fmt: skip
    """dx = every dy put back where its window read: dx[.., i sh + r dh, j sw + s dw] += dy w[r, s].

    The group that a channel is in got it from the group's own filters.
    """
    if rare(dx, w, dy):
        return reference.conv2d_grad_x(dy, w, dx, stride, pad, dilation, groups, add)
    if simd.chosen:
        scheme = winograd.suited("x", dx, w, dy, stride, pad, dilation, groups)
        if scheme and winograd.conv2d_grad_x(scheme, dy, w, dx, pad, add):
            return dx
        return convolution.conv2d_grad_x(dy, w, dx, stride, pad, dilation, groups, add)
    filters, out = canonical(w).reshape(-1, w.shape[3]), target(dx, add)
    rows, layout = canonical(dy).reshape(-1, w.shape[3]), _layout(w.shape, dy.shape, stride, pad)
    shares = _shares(w.shape, groups, dilation)

    def block(number: int, first: int, span: slice, windows: Array) -> None:
        for own, pieces in shares:
            np.matmul(rows[span, own], filters[:, own].T, out=windows)
            _gather(windows, out, first, *layout, *pieces)

    _by_blocks(dy.shape, len(filters), block)
    return settle(out, dx, add)


def conv2d_grad_w(
    dy: Array, x: Array, dw: Out,
    stride: Pair, pad: Padding, dilation: Pair, groups: int, add: bool,
) -> Array:  # fmt: skip
    """dw[r, s, c, f] = sum over n, i, j of x[n, i sh + r dh, j sw + s dw, c] dy[n, i, j, f]."""
    if rare(x, dw, dy):
        return reference.conv2d_grad_w(dy, x, dw, stride, pad, dilation, groups, add)
    if simd.chosen:
        scheme = winograd.suited("w", x, dw, dy, stride, pad, dilation, groups)
        if scheme and winograd.conv2d_grad_w(scheme, dy, x, dw, pad, add):
            return dw
        return convolution.conv2d_grad_w(dy, x, dw, stride, pad, dilation, groups, add)
    x, rows, out = canonical(x), canonical(dy).reshape(-1, dw.shape[3]), target(dw, add)
    total, layout = out.reshape(-1, dw.shape[3]), _layout(dw.shape, dy.shape, stride, pad)
    most = max(2, min(16, _PARTIAL // total.nbytes))
    parts = space(2, (min(most, len(_starts(dy.shape, len(total)))), *total.shape))
    parts[...] = 0
    shares = _shares(dw.shape, groups, dilation)

    def block(number: int, first: int, span: slice, windows: Array) -> None:
        sums = space(4, (len(total), dw.shape[3] // groups))
        for own, pieces in shares:
            _im2col(x, windows, first, *layout, *pieces)
            parts[number, :, own] += np.matmul(windows.T, rows[span, own], out=sums)

    _by_blocks(dy.shape, len(total), block, len(parts))
    parts.sum(axis=0, out=total)
    return settle(out, dw, add)


def _shares(w: tuple[int, ...], groups: int, dilation: Pair) -> list[tuple[slice, tuple]]:
    """For each group its filters, and where the cells of its windows lie in a line of an image.

    A line of a window is (pieces, run, gap, skip): so many pieces of `run` cells that lie together,
    the first one `skip` cells after the window's left edge, with `gap` pixels from one to the next;
    and dh lines from one line to the next. Without groups and gaps it is one piece.
    """
    _, kw, c, f = w
    pieces, run = (1, kw * c) if groups == dilation[1] == 1 else (kw, c)
    f //= groups
    return [
        (slice(g * f, (g + 1) * f), (pieces, run, *dilation[::-1], g * c)) for g in range(groups)
    ]


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
    inside = batch_inside(x)
    (best, *y_ends), (winner, *arg_ends) = (target_as_one(a, inside) for a in (y, arg))
    layout = _layout(size, y.shape, stride, pad)
    _max(best.shape[0] * best.shape[1], x.size, as_one(x, inside), best, winner, *layout)
    settle(*y_ends)
    settle(*arg_ends)
    return y, arg


def max_pool2d_grad(
    dy: Array, arg: Array, dx: Out, size: Pair, stride: Pair, pad: Padding, add: bool
) -> Array:
    """dx = dy at the winner of each window, summed where windows overlap."""
    if rare(dy, dx):
        return reference.max_pool2d_grad(dy, arg, dx, size, stride, pad, add)
    inside = batch_inside(arg)
    one, value, out = target_as_one(dx, inside, add)
    given = (as_one(a, inside) for a in (dy, arg))
    _max_grad(
        one.shape[0] * one.shape[1], 4 * dx.size, *given, one, *_layout(size, dy.shape, stride, pad)
    )
    settle(value, out, add)
    return dx


def _layout(w: tuple[int, ...], y: tuple[int, ...], stride: Pair, pad: Padding):
    """The numbers that say which window reads what: (OH, OW, KH, KW, sh, sw, top, left)."""
    return y[1], y[2], w[0], w[1], *stride, pad[0][0], pad[1][0]


@jit
def _im2col(x, windows, first, oh, ow, kh, kw, sh, sw, top, left, pieces, run, dw, dh, skip):
    """windows[(n, i, j)] = the cells of x (KH KW C) that window (i, j) of image first + n covers.

    The rest of a row, if there is any, is 1: it meets the bias. The last arguments: see `_shares`.
    """
    _, height, _, c = x.shape
    for row in range(windows.shape[0] // ow):
        n, i = first + row // oh, row % oh
        for r in range(kh):
            h = i * sh + r * dh - top
            inside = 0 <= h < height
            line = x[n, h if inside else 0].reshape(-1)
            for piece in range(pieces):
                edge, at = (piece * dw - left) * c + skip, (r * pieces + piece) * run
                for j in range(ow):
                    begin = edge + j * sw * c
                    cells = windows[row * ow + j, at : at + run]
                    if inside and begin >= 0 and begin + run <= line.size:
                        part = line[begin : begin + run]
                        for k in range(run):
                            cells[k] = part[k]
                    else:
                        for k in range(run):
                            real = inside and 0 <= begin + k < line.size
                            cells[k] = line[begin + k] if real else ZERO
        for j in range(row * ow, (row + 1) * ow):
            for k in range(kh * pieces * run, windows.shape[1]):
                windows[j, k] = 1


@jit
def _gather(windows, x, first, oh, ow, kh, kw, sh, sw, top, left, pieces, run, dw, dh, skip):
    """x[n] = every window put back where `_im2col` read it, summed in a fixed order."""
    _, height, _, c = x.shape
    for row in range(windows.shape[0] // (oh * ow) * height):
        n, h = row // height, row % height
        line = x[first + n, h].reshape(-1)
        if skip == 0:  # the first group comes first
            line[:] = 0
        for r in range(kh):
            i = (h + top - r * dh) // sh
            if i * sh != h + top - r * dh or i < 0 or i >= oh:
                continue
            for piece in range(pieces):
                edge, at = (piece * dw - left) * c + skip, (r * pieces + piece) * run
                for j in range(ow):
                    begin = edge + j * sw * c
                    before, end = max(0, -begin), min(run, line.size - begin)
                    cells = windows[(n * oh + i) * ow + j, at + before : at + max(before, end)]
                    part = line[begin + before : begin + end]
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
        for v in range(width):
            cells, begun = dx[n, h, v], False
            for r in range(kh):
                i = (h + top - r) // sh
                if i * sh != h + top - r or i < 0 or i >= oh:
                    continue
                for s in range(kw):
                    j = (v + left - s) // sw
                    if j * sw != v + left - s or j < 0 or j >= ow:
                        continue
                    slope, winner, number = dy[n, i, j], arg[n, i, j], np.int32(r * kw + s)
                    if begun:
                        for k in range(c):
                            cells[k] += slope[k] if winner[k] == number else ZERO
                    else:
                        for k in range(c):
                            cells[k] = slope[k] if winner[k] == number else ZERO
                    begun = True
            if not begun:
                cells[:] = 0
