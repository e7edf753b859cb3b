"""Batches of images for training, made in one pass, and the random numbers for them."""

import numpy as np

from .. import reference
from ..roles import Array, Out
from ._numba import jit, loop
from .memory import canonical, settle, target
from .random import philox


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
    _batch(len(index), 4 * y.size, picked, index.astype(np.uint64), factors, terms, out, draws)
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
        for i in range(height):
            out, line = y[n, i], y[n, i].reshape(-1)
            line[:] = 0
            if 0 <= i + top < height:
                for j in range(max(0, -left), min(width, width - left)):
                    cell = x[n, i + top, width - 1 - (j + left) if mirror else j + left]
                    for k in range(c):
                        out[j, k] = cell[k]
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
    ):
        return reference.affine_batch(images, index, matrix, scale, shift, y, edge)
    out, picked = target(y), canonical(images[index])
    factors, terms = (canonical(v.astype(np.float32)) for v in (scale, shift))
    _affine(len(index), 4 * y.size, picked, canonical(matrix), factors, terms, out, edge)
    return settle(out, y)


@loop
def _affine(start, stop, x, matrix, factors, terms, y, edge):
    _, height, width, channels = x.shape
    zero = np.float32(0)
    for n in range(start, stop):
        m = matrix[n]
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                # integers: no rounding may decide which pixels are the neighbours
                down = m[1, 0] * j + m[1, 1] * i + m[1, 2]
                across = m[0, 0] * j + m[0, 1] * i + m[0, 2]
                top, bottom, upper, lower = _neighbours(down, height, edge)
                left, right, before, behind = _neighbours(across, width, edge)
                a, b, c, d = upper * before, upper * behind, lower * before, lower * behind
                for k in range(channels):
                    # no branches, for they would be guessed wrong at each border; but 0 * inf
                    value = a * np.float32(x[n, top, left, k]) if a > zero else zero
                    value += b * np.float32(x[n, top, right, k]) if b > zero else zero
                    value += c * np.float32(x[n, bottom, left, k]) if c > zero else zero
                    value += d * np.float32(x[n, bottom, right, k]) if d > zero else zero
                    y[n, i, j, k] = value * factors[k] + terms[k]


@jit
def _neighbours(place, n, edge):
    """Two pixels next to a place in units of 2**-32, inside, and their weights, 0 if outside."""
    one, zero = np.float32(1), np.float32(0)
    before, share = place >> 32, np.float32(np.int32(place >> 8 & 0xFFFFFF)) * np.float32(2.0**-24)
    first, second = min(max(before, 0), n - 1), min(max(before + 1, 0), n - 1)
    near = one - share if edge or first == before else zero
    return first, second, near, share if edge or second == before + 1 else zero
