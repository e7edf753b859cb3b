"""Batches of images for training, made in one pass, and the random numbers for them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import reference
from ..roles import Array, Out
from ._numba import callable_within, jit, loop
from .memory import canonical, settle, target
from .random import philox

_TILE = 64  # columns at a time, a constant: LLVM sees that what is kept of them does not overlap


def image_batch(
    images: Array,
    index: Array,
    scale: Array,
    shift: Array,
    y: Out,
    seed: int,
    epoch: int,
    pad: int,
    flip: bool,
) -> Array:
    """y = crop(mirror(images[index])) * scale + shift.

    images (M, H, W, C), index (N,) int64 from 0, scale and shift (C,) -> y (N, H, W, C)
    """
    if images.dtype not in (np.uint8, np.float32) or y.dtype != np.float32 or not y.size:
        return reference.image_batch(images, index, scale, shift, y, seed, epoch, pad, flip)
    out, width = target(y), y.shape[2]
    picked = canonical(images[index])
    # a factor for each number of a row of pixels, so that the inner loop has no channels
    factors, terms = (np.tile(v.astype(np.float32), width) for v in (scale, shift))
    draws = np.array([seed, epoch, pad, flip], np.uint64)
    # threads that are woken for a usual batch look for more while the step computes, which costs it
    # 10 %, and saves 1 (python -m benchmarks.data --threads 2)
    work = y.size // 4
    _batch(len(index), work, picked, index.astype(np.uint64), factors, terms, out, draws)
    return settle(out, y)


@loop
def _batch(start, stop, x, index, factors, terms, y, draws):
    _, height, width, c = x.shape
    seed, epoch, pad, flip = draws
    choices, low, half = np.uint64(2) * pad + np.uint64(1), np.uint64(0xFFFFFFFF), np.uint64(32)
    for n in range(start, stop):
        words = philox(
            index[n] & low, index[n] >> half, epoch, np.uint64(1), seed & low, seed >> half
        )
        top = np.int64(words[0] * choices >> half) - np.int64(pad)
        left = np.int64(words[1] * choices >> half) - np.int64(pad)
        mirror = flip and words[2] & np.uint64(1)
        first, end = max(0, -left), min(width, width - left)  # columns that the image covers
        for i in range(height):
            line = y[n, i].reshape(-1)
            line[:] = 0
            if 0 <= i + top < height and first < end:
                row = x[n, i + top].reshape(-1)
                if mirror:
                    for k in range(c):
                        for j in range(first, end):
                            line[c * j + k] = row[c * (width - 1 - left - j) + k]
                else:
                    covered, shifted = line[c * first : c * end], row[c * (first + left) :]
                    for k in range(covered.size):
                        covered[k] = shifted[k]
            for k in range(line.size):
                line[k] = line[k] * factors[k] + terms[k]


def uniform_rows(index: Array, y: Out, seed: int, epoch: int, stream: int) -> Array:
    """y = random numbers in [0, 1), 24 bits each, a row for each sample.

    index (N,) int64 from 0 -> y (N, K)
    """
    if y.dtype not in (np.float32, np.float64) or not y.size:
        return reference.uniform_rows(index, y, seed, epoch, stream)
    out = target(y)
    _rows(index.astype(np.uint64), out, np.array([seed, epoch, stream], np.uint64))
    return settle(out, y)


@jit
def _rows(index, y, key):
    seed, low, half = key[0], np.uint64(0xFFFFFFFF), np.uint64(32)
    for n in range(y.shape[0]):
        number = index[n]
        for part in range(-(-y.shape[1] // 4)):
            words = philox(
                number & low, number >> half, key[1], key[2] + np.uint64(part),
                seed & low, seed >> half,
            )  # fmt: skip
            for k in range(min(4, y.shape[1] - 4 * part)):
                y[n, 4 * part + k] = (words[k] >> np.uint64(8)) * 2.0**-24


def affine_batch(
    images: Array,
    index: Array,
    matrix: Array,
    scale: Array,
    shift: Array,
    y: Out,
    edge: bool,
) -> Array:
    """y[n, i, j] = images[index[n]] at matrix[n] (j, i, 1), times scale, plus shift.

    images (M, H, W, C), index (N,) int64 from 0, matrix (N, 2, 3) int64, scale and shift (C,) ->
    y (N, OH, OW, C)
    """
    if (
        images.dtype not in (np.uint8, np.float32)
        or y.dtype != np.float32
        or not y.size * images.size
        or images[0].size >= 2**31
    ):
        return reference.affine_batch(images, index, matrix, scale, shift, y, edge)
    out, picked = target(y), canonical(images[index])
    factors, terms = (canonical(v.astype(np.float32)) for v in (scale, shift))
    run, rows = _AFFINE[images.dtype], picked.reshape(len(index), -1)
    places = picked.shape[1:], canonical(matrix)
    run(len(index) * y.shape[1], 4 * y.size, rows, *places, factors, terms, out, edge)
    return settle(out, y)


@callable_within
def _mean(x, at, share, k):
    """The mean of four numbers of an image by their shares, k behind the places `at`."""
    a, b, c, d = at
    value = share[0] * np.float32(x[a + k]) + share[1] * np.float32(x[b + k])
    return value + (share[2] * np.float32(x[c + k]) + share[3] * np.float32(x[d + k]))


@callable_within
def _mean_of_any(x, at, share, k):
    """The same where numbers may be infinite: what has no share does not count."""
    value = np.float32(0)
    value += share[0] * x[at[0] + k] if share[0] > 0 else np.float32(0)
    value += share[1] * x[at[1] + k] if share[1] > 0 else np.float32(0)
    value += share[2] * x[at[2] + k] if share[2] > 0 else np.float32(0)
    value += share[3] * x[at[3] + k] if share[3] > 0 else np.float32(0)
    return value


def _moved(name: str, mean: Callable[..., Any]) -> Callable[..., None]:
    """The loop over images whose numbers are mixed in this way."""

    def kernel(start, stop, x, size, matrix, factors, terms, y, edge):
        _, height, width, channels = y.shape
        at, share = np.empty(4 * _TILE, np.int32), np.empty(4 * _TILE, np.float32)
        one, two, last = np.uint64(1), np.uint64(2), channels - 1
        f0, f1, f2 = factors[0], factors[min(1, last)], factors[last]
        t0, t1, t2 = terms[0], terms[min(1, last)], terms[last]
        for task in range(start, stop):
            n, i = task // height, task % height
            image = x[n]
            for begin in range(0, width, _TILE):
                row = y[n, i, begin : begin + _TILE]
                _corners(len(row), at, share, matrix[n], i, begin, size, edge)
                for j in range(len(row)):
                    # unsigned: for others Numba asks at each whether it counts from the end
                    places = (
                        np.uint64(at[j]), np.uint64(at[j + _TILE]),
                        np.uint64(at[j + 2 * _TILE]), np.uint64(at[j + 3 * _TILE]),
                    )  # fmt: skip
                    parts = (
                        share[j], share[j + _TILE], share[j + 2 * _TILE], share[j + 3 * _TILE]
                    )  # fmt: skip
                    if channels == 3:  # in a loop of three steps it takes twice as long
                        r = mean(image, places, parts, np.uint64(0))
                        g, b = mean(image, places, parts, one), mean(image, places, parts, two)
                        row[j, 0], row[j, 1], row[j, 2] = r * f0 + t0, g * f1 + t1, b * f2 + t2
                    else:
                        for k in range(channels):
                            value = mean(image, places, parts, np.uint64(k))
                            row[j, k] = value * factors[k] + terms[k]

    kernel.__qualname__ = name
    return loop(kernel, key=name)


_AFFINE = {
    np.dtype(np.uint8): _moved("_affine_of_bytes", _mean),
    np.dtype(np.float32): _moved("_affine_of_floats", _mean_of_any),
}


@jit
def _corners(n, at, share, m, i, begin, size, edge):
    """For n places of row i from column `begin` on: where the four pixels around each begin in an
    image, and their shares.

    In 32 bits, twice as many at a time as in 64: only the places themselves need more.
    """
    height, width, channels = np.int32(size[0]), np.int32(size[1]), np.int32(size[2])
    # integers: no rounding may decide which pixels are the neighbours
    down = m[1, 0] * begin + m[1, 1] * i + m[1, 2]
    across = m[0, 0] * begin + m[0, 1] * i + m[0, 2]
    down_step, across_step = m[1, 0], m[0, 0]
    for j in range(n):
        top, bottom, upper, lower = _neighbours(down + down_step * j, height, edge)
        left, right, before, behind = _neighbours(across + across_step * j, width, edge)
        above, below = np.int32(top * width), np.int32(bottom * width)
        at[j] = np.int32(np.int32(above + left) * channels)
        at[j + _TILE] = np.int32(np.int32(above + right) * channels)
        at[j + 2 * _TILE] = np.int32(np.int32(below + left) * channels)
        at[j + 3 * _TILE] = np.int32(np.int32(below + right) * channels)
        share[j], share[j + _TILE] = upper * before, upper * behind
        share[j + 2 * _TILE], share[j + 3 * _TILE] = lower * before, lower * behind


@callable_within
def _neighbours(place, n, edge):
    """Two pixels next to a place in units of 2**-32, inside, and their weights, 0 if outside."""
    one, zero, end, none = np.float32(1), np.float32(0), np.int32(n - np.int32(1)), np.int32(0)
    before, low = np.int32(place >> 32), np.int32(np.int32(place >> 8) & np.int32(0xFFFFFF))
    behind, share = np.int32(before + np.int32(1)), np.float32(low) * np.float32(2.0**-24)
    first, second = min(max(before, none), end), min(max(behind, none), end)
    near = one - share if edge or first == before else zero
    return first, second, near, share if edge or second == behind else zero
