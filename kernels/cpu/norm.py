"""Batch normalisation over every axis but the last, as fast as memory is read and written.

An image batch is read as one long run of numbers, in *rows* of as many of them as whole vectors and
whole sets of channels need: then number k of each row is of the same channel, and channels need not
be a multiple of anything.

The statistics come from blocks that stay in the cache while they are gone through twice: once for
the mean of each number of a row, once for the deviations from it and their squares. The blocks' are
joined in float64 (Chan, Golub and LeVeque 1979): main memory is read once, and nothing cancels, as
it would in E[x^2] - mean^2. Blocks are those of the shape, so the bits do not depend on threads.
"""

import functools
import math

import numpy as np

from .. import reference
from ..reference.elementwise import quiet, store
from ..roles import Array, Out
from ._numba import jit, loop
from .memory import ZERO, canonical, channels_last, outward, rare, settle, space, target
from .vector import (
    LANES,
    at_least,
    load,
    minus,
    plus,
    plus_product,
    splat,
    times,
    where_positive,
)
from .vector import store as put

_BLOCK = 1 << 15  # numbers that are gone through twice: 128 KB, part of a second-level cache
_ROW = 64  # numbers in a row at least


@quiet
def batch_norm(
    x: Array,
    w: Array | None,
    b: Array | None,
    r: Array | None,
    y: Out,
    mean: Out,
    var: Out,
    eps: float,
    relu: bool,
) -> tuple[Array, Array, Array]:
    """y = w (x - mean) / sqrt(var + eps) + b + r with the batch's own mean and (biased) variance.

    x (..., C), w, b (C,) or None, r (..., C), a residual, or None -> y (..., C), mean, var (C,);
    relu: what is below 0 becomes 0 in the end, NaN stays NaN.
    """
    if rare(x, w, b, r, y, mean, var):
        return reference.batch_norm(x, w, b, r, y, mean, var, eps, relu)
    order, (row, block, blocks) = channels_last(x), _blocks(x.size, x.shape[-1])
    flat, parts = _flat(x, order), space(2, (3, blocks, row))
    _moments(blocks, x.size, flat, block, parts.reshape(-1), row)
    mean[...], var[...] = _join(parts, x.size, block, x.shape[-1])
    _apply(flat, order, w, b, r, mean, var, y, eps, relu)
    return y, mean, var


@quiet
def batch_norm_eval(
    x: Array,
    w: Array | None,
    b: Array | None,
    r: Array | None,
    mean: Array,
    var: Array,
    y: Out,
    eps: float,
    relu: bool,
) -> Array:
    """y = w (x - mean) / sqrt(var + eps) + b + r with statistics that are given; relu as above."""
    if rare(x, w, b, r, mean, var, y):
        return reference.batch_norm_eval(x, w, b, r, mean, var, y, eps, relu)
    order = channels_last(x)
    _apply(_flat(x, order), order, w, b, r, mean, var, y, eps, relu)
    return y


def _apply(flat, order, w, b, r, mean, var, y, eps, relu) -> None:
    row, block, blocks = _blocks(y.size, y.shape[-1])
    out = outward(y, order)
    value, of_row = target(out), space(3, (3, row))
    _repeat(of_row, mean, _scale(w, var, eps), 0 if b is None else b)
    more, floor = None if r is None else _flat(r, order), ZERO if relu else np.float32(-math.inf)
    _affine(blocks, y.size, flat, more, value.reshape(-1), block, of_row.reshape(-1), row, floor)
    settle(value, out)


@quiet
def batch_norm_grad(
    dy: Array,
    x: Array,
    w: Array | None,
    mean: Array,
    var: Array,
    y: Array | None,
    dx: Out,
    dw: Out,
    db: Out,
    dr: Out,
    eps: float,
    relu: bool,
    add: tuple[bool, bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """Gradients of batch_norm through its mean and variance; dx, dw, db or dr may be None.

    relu: dy counts as 0 where y, which batch_norm computed, is not above 0. dr is that dy. With
    z = (x - mean) / sqrt(var + eps): db = sum dy, dw = sum dy z and
    dx = w / sqrt(var + eps) (dy - mean of dy - z mean of dy z).
    """
    given = dy, x, w, mean, var, y, dx, dw, db, dr
    if rare(*given):
        return reference.batch_norm_grad(*given, eps, relu, add)
    order, (row, block, blocks) = channels_last(x), _blocks(x.size, x.shape[-1])
    slope, flat, above = _flat(dy, order), _flat(x, order), _flat(y, order) if relu else None
    parts, of_row, c = space(2, (2, blocks, row)), space(3, (4, row)), x.shape[-1]
    _repeat(of_row, mean)
    value, out, adds = _place(dr, order, add[3], 5)
    how = adds, block, of_row.reshape(-1)
    _dots(blocks, x.size, slope, flat, above, _run(value), *how, parts.reshape(-1), row)
    if dr is not None:
        settle(value, out, add[3])
        if not adds:  # the rectified dy stands there
            slope, above = _run(value), None
    total, dot = parts.sum(axis=1, dtype=np.float64).reshape(2, -1, c).sum(axis=1)
    rstd = _scale(None, var, eps)
    if dx is not None:
        lean = dot * rstd * rstd * c / x.size
        _repeat(of_row, mean, _scale(w, var, eps), total * c / x.size, lean)
        _grad_x(slope, flat, above, of_row, dx, order, add[0])
    for sums, place, adds in ((dot * rstd, dw, add[1]), (total, db, add[2])):
        if place is not None:
            store(sums.astype(np.float32), place, adds)
    return dx, dw, db, dr


def _grad_x(slope, flat, above, of_row, dx, order, add) -> None:
    value, out, adds = _place(dx, order, add, 6)
    row, block, blocks = _blocks(dx.size, dx.shape[-1])
    how = adds, block, of_row.reshape(-1), row
    _slopes(blocks, dx.size, slope, flat, above, _run(value), *how)
    settle(value, out, add)


@functools.cache
def _blocks(size: int, channels: int) -> tuple[int, int, int]:
    """Numbers in a row, numbers in a block, and blocks."""
    row = math.lcm(channels, LANES)
    row *= -(-_ROW // row)
    block = row * max(1, _BLOCK // row)
    return row, block, -(-size // block)


def _flat(x: Array, order: tuple[int, ...] | None) -> Array:
    """The numbers of x in a memory order, the channels of each pixel side by side."""
    return canonical(outward(x, order)).reshape(-1)


def _place(y: Array | None, order: tuple[int, ...] | None, add: bool, nth: int) -> tuple:
    """Where a kernel writes y, y itself as `settle` takes it, and whether the kernel adds."""
    if y is None:
        return None, None, False
    out = outward(y, order)
    return (out, out, add) if out.flags.carray else (space(nth, out.shape), out, False)


def _run(x: Array | None) -> Array | None:
    return None if x is None else x.reshape(-1)


def _repeat(of_row: Array, *numbers: Array | float) -> None:
    """Fill each line of of_row (n, row) with one number per channel, over and over."""
    for line, each in zip(of_row, numbers):
        line.reshape(-1, np.size(each))[...] = each


def _scale(w: Array | None, var: Array, eps: float) -> Array:
    rstd = 1 / np.sqrt(var + np.float32(eps))
    return rstd if w is None else rstd * w


@loop
def _moments(start, stop, x, block, parts, row):
    """Of each block: means, sums of deviations from them, and sums of their squares."""
    size = len(parts) // 3
    for task in range(start, stop):
        first, last, mean = task * block, min(x.size, (task + 1) * block), task * row
        end = last - (last - first) % (4 * row)  # four rows at a time, then what is left
        for at in (mean, mean + size, mean + 2 * size):
            parts[at : at + row] = 0
        for i in range(first, end, 4 * row):
            for k in range(0, row, LANES):
                a, b = plus(load(x, i + k), load(x, i + row + k)), load(x, i + 2 * row + k)
                both = plus(a, plus(b, load(x, i + 3 * row + k)))
                put(parts, mean + k, plus(load(parts, mean + k), both))
        for i in range(end, last):
            parts[mean + (i - first) % row] += x[i]
        for k in range(row):
            parts[mean + k] /= np.float32(max(1, _height(first, last, row, k)))
        _deviations(x, first, end, last, parts, mean, mean + size, mean + 2 * size, row)


@jit
def _height(first, last, row, k):
    """How many numbers of a block stand at place k of a row."""
    return (last - first - k + row - 1) // row


@jit
def _deviations(x, first, end, last, parts, mean, sums, squares, row):
    for i in range(first, end, 4 * row):
        for k in range(0, row, LANES):
            middle, total, square = (
                load(parts, mean + k),
                load(parts, sums + k),
                load(parts, squares + k),
            )
            for j in range(4):
                d = minus(load(x, i + j * row + k), middle)
                total, square = plus(total, d), plus_product(square, d, d)
            put(parts, sums + k, total)
            put(parts, squares + k, square)
    for i in range(end, last):
        k = (i - first) % row
        d = x[i] - parts[mean + k]
        parts[sums + k] += d
        parts[squares + k] += d * d


@jit
def _join(parts, size, block, c):
    """Mean and variance of c channels, from those of each place of a row of each block."""
    blocks, row = parts.shape[1:]
    total, square = np.zeros(c), np.zeros(c)
    for task in range(blocks):
        here = min(block, size - task * block)
        for k in range(row):
            n = here // row + (k < here % row)
            total[k % c] += _middle(parts, task, k, n) * n
    total /= size // c
    for task in range(blocks):
        here = min(block, size - task * block)
        for k in range(row):
            n = here // row + (k < here % row)
            lean, away = parts[1, task, k], _middle(parts, task, k, n) - total[k % c]
            inner = parts[2, task, k] - np.float64(lean) * lean / max(n, 1)
            square[k % c] += (ZERO if inner < 0 else inner) + n * away * away  # not by rounding
    return total, square / (size // c)


@jit
def _middle(parts, task, k, n):
    """The mean of n numbers: what was taken for it, put right by the deviations from it."""
    mean = np.float64(parts[0, task, k])
    return mean + parts[1, task, k] / np.float64(max(n, 1)) if math.isfinite(mean) else mean


@loop
def _affine(start, stop, x, r, y, block, given, row, floor):
    """y = (x - mean) scale + shift + r, at least floor. given: mean, scale and shift of a row."""
    low = splat(floor)
    for task in range(stop - 1, start - 1, -1):  # the last blocks were read last, if at all
        first, last = task * block, min(x.size, (task + 1) * block)
        end = last - (last - first) % row
        for i in range(first, end, row):
            for k in range(0, row, LANES):
                z = minus(load(x, i + k), load(given, k))
                value = plus_product(load(given, 2 * row + k), z, load(given, row + k))
                if r is not None:
                    value = plus(value, load(r, i + k))
                put(y, i + k, at_least(value, low))
        for i in range(end, last):
            k = i - end
            value = (x[i] - given[k]) * given[row + k] + given[2 * row + k]
            if r is not None:
                value += r[i]
            y[i] = floor if value < floor else value


@loop
def _dots(start, stop, dy, x, y, dr, add, block, mean, parts, row):
    """Sums of dy, where y is above 0, and of its products with x - mean; that dy in dr, too."""
    size = len(parts) // 2
    for task in range(start, stop):
        first, last, total = task * block, min(x.size, (task + 1) * block), task * row
        dot = total + size
        parts[total : total + row] = 0
        parts[dot : dot + row] = 0
        end = last - (last - first) % row
        for i in range(first, end, row):
            for k in range(0, row, LANES):
                slope = load(dy, i + k)
                if y is not None:
                    slope = where_positive(load(y, i + k), slope)
                if dr is not None:
                    put(dr, i + k, plus(load(dr, i + k), slope) if add else slope)
                put(parts, total + k, plus(load(parts, total + k), slope))
                z = minus(load(x, i + k), load(mean, k))
                put(parts, dot + k, plus_product(load(parts, dot + k), slope, z))
        for i in range(end, last):
            slope, k = dy[i], i - end
            if y is not None:
                slope = ZERO if y[i] <= ZERO else slope
            if dr is not None:
                dr[i] = dr[i] + slope if add else slope
            parts[total + k] += slope
            parts[dot + k] += slope * (x[i] - mean[k])


@loop
def _slopes(start, stop, dy, x, y, dx, add, block, given, row):
    """dx = scale (dy - flat - (x - mean) lean). given: mean, scale, flat and lean of a row."""
    for task in range(stop - 1, start - 1, -1):
        first, last = task * block, min(x.size, (task + 1) * block)
        end = last - (last - first) % row
        for i in range(first, end, row):
            for k in range(0, row, LANES):
                slope = load(dy, i + k)
                if y is not None:
                    slope = where_positive(load(y, i + k), slope)
                z = times(minus(load(x, i + k), load(given, k)), load(given, 3 * row + k))
                value = minus(minus(slope, load(given, 2 * row + k)), z)
                value = times(value, load(given, row + k))
                put(dx, i + k, plus(load(dx, i + k), value) if add else value)
        for i in range(end, last):
            slope, k = dy[i], i - end
            if y is not None:
                slope = ZERO if y[i] <= ZERO else slope
            z = (x[i] - given[k]) * given[3 * row + k]
            value = (slope - given[2 * row + k] - z) * given[row + k]
            dx[i] = dx[i] + value if add else value
