"""Batches of images for training: rows picked by number, moved and scaled, in one call.

And what draws the random numbers for it, cuts squares out, and mixes samples.
"""

import math

import numpy as np

from ..roles import Array, InOut, Out
from . import memory
from ._numba import blocks, cuda, device, jit
from .layout import MOST_BLOCKS, MOST_DEEP, THREADS
from .move import dense
from .random import LOW, WORD, philox4x32, u64, unit


@jit
def _draws(index, place, seed_low, seed_high, epoch, choices):
    """A thread draws for one image: rows and columns it moves by, and whether it is mirrored."""
    n = cuda.grid(1)
    if n >= index.size:
        return
    number = u64(index[n])
    # the 1 keeps this stream apart from the arrays of random.py, whose last counter word is 0
    top, left, mirror, _ = philox4x32(
        number & LOW, number >> WORD, u64(epoch), u64(1), u64(seed_low), u64(seed_high)
    )
    place[n, 0] = top * u64(choices) >> WORD
    place[n, 1] = left * u64(choices) >> WORD
    place[n, 2] = mirror & u64(1)


@jit(mixed=True)
def _image_batch(images, index, scale, shift, place, y, pad, flip):
    """A thread computes one number of y: threadIdx is (channel, column, row).

    So neighbouring threads write neighbours in memory, and nobody divides by the channels.
    """
    n, c = cuda.blockIdx.x, cuda.threadIdx.x
    j = cuda.blockIdx.z * cuda.blockDim.y + cuda.threadIdx.y
    i = cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z
    _, height, width, channels = images.shape
    if i >= height or j >= width:
        return
    h, v = i, j  # where in the image, before it was mirrored
    if place.size:
        h, v = i + place[n, 0] - pad, j + place[n, 1] - pad
        if flip and place[n, 2]:
            v = width - 1 - v
    inside = 0 <= h < height and 0 <= v < width
    m = index[n]
    real = y.dtype.type
    while c < channels:  # once, as a rule
        value = real(0)
        if not 0 <= m < images.shape[0]:  # no such image: never a stranger's memory
            value = real(math.nan)
        elif inside:
            value = real(images[m, h, v, c])
        y[n, i, j, c] = value * real(scale[c]) + real(shift[c])
        c += cuda.blockDim.x


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

    Half of the images are mirrored left to right (flip), and each is padded by `pad` rows and
    columns of raw zeros on every side and cropped to its old size anywhere (pad). What happens to
    an image depends on seed, epoch and its number alone: on no order, batch or device.
    """
    n, height, width, channels = y.shape
    place = memory.scratch((n if pad or flip else 0, 3), "int64")
    _draws[blocks(place.shape[0], THREADS), THREADS](
        index, place, seed & 0xFFFFFFFF, seed >> 32, epoch, 2 * pad + 1
    )
    launch = _cover(n, height, width, channels)
    _image_batch[launch](images, index, scale, shift, place, y, pad, flip)
    return y


def _cover(n: int, height: int, width: int, channels: int) -> tuple[tuple[int, ...], ...]:
    """Grid (image, rows, columns) and block (channel, column, row) for a batch of images."""
    across = max(1, min(channels, THREADS))
    wide = max(1, min(width, THREADS // across))
    deep = max(1, min(height, THREADS // (across * wide), MOST_DEEP))
    grid = n if channels else 0, blocks(height, deep), blocks(width, wide)
    return grid, (across, wide, deep)


@jit
def _uniform_rows(index, y, seed_low, seed_high, epoch, stream):
    """A thread makes one Philox block and the four neighbours in a row that take its words."""
    n, part = cuda.grid(1), cuda.blockIdx.y
    if n >= index.size:
        return
    number, real = u64(index[n]), y.dtype.type
    words = philox4x32(
        number & LOW, number >> WORD, u64(epoch), u64(stream) + u64(part),
        u64(seed_low), u64(seed_high),
    )  # fmt: skip
    for k in range(4):
        if 4 * part + k < y.shape[1]:
            y[n, 4 * part + k] = unit(words[k], real)


def uniform_rows(index: Array, y: Out, seed: int, epoch: int, stream: int) -> Array:
    """y = random numbers in [0, 1), 24 bits each, a row for each sample.

    index (N,) int64 from 0 -> y (N, K)
    """
    n, columns = y.shape
    grid = blocks(n, THREADS), blocks(columns, 4)
    _uniform_rows[grid, THREADS](index, y, seed & 0xFFFFFFFF, seed >> 32, epoch, stream)
    return y


@jit(mixed=True)
def _affine_batch(images, index, matrix, scale, shift, y, edge):
    """A thread computes one number of y: threadIdx is (channel, column, row)."""
    n, c = cuda.blockIdx.x, cuda.threadIdx.x
    j = cuda.blockIdx.z * cuda.blockDim.y + cuda.threadIdx.y
    i = cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z
    _, height, width, channels = images.shape
    if i >= y.shape[1] or j >= y.shape[2]:
        return
    real, m = y.dtype.type, index[n]
    one, known = real(1), 0 <= m < images.shape[0]
    # integers: no rounding may decide which pixels are the neighbours
    across = matrix[n, 0, 0] * j + matrix[n, 0, 1] * i + matrix[n, 0, 2]
    down = matrix[n, 1, 0] * j + matrix[n, 1, 1] * i + matrix[n, 1, 2]
    right, low = _fraction(across, real), _fraction(down, real)
    while c < channels:  # once, as a rule
        value = real(0)
        for corner in range(4):
            h, v = (down >> 32) + corner // 2, (across >> 32) + corner % 2
            if edge:
                h, v = min(max(h, 0), height - 1), min(max(v, 0), width - 1)
            weight = (low if corner >= 2 else one - low) * (right if corner & 1 else one - right)
            if known and weight > real(0) and 0 <= h < height and 0 <= v < width:
                value += weight * real(images[m, h, v, c])
        if not known:  # no such image: never a stranger's memory
            value = real(math.nan)
        y[n, i, j, c] = value * real(scale[c]) + real(shift[c])
        c += cuda.blockDim.x


@device
def _fraction(place, real):
    """How far a place in units of 2**-32 is past its pixel: 24 bits, exact in float32."""
    return real(np.int32(place >> 8 & 0xFFFFFF)) * real(2.0**-24)


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
    _affine_batch[_cover(*y.shape)](images, index, matrix, scale, shift, y, edge)
    return y


@jit
def _cutout(x, corner, value, size):
    """A thread writes one number of a square: threadIdx is (channel, column, row)."""
    n, c = cuda.blockIdx.x, cuda.threadIdx.x
    top, left = corner[n, 0], corner[n, 1]
    i = max(top, 0) + cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z
    j = max(left, 0) + cuda.blockIdx.z * cuda.blockDim.y + cuda.threadIdx.y
    if i < min(top + size, x.shape[1]) and j < min(left + size, x.shape[2]):
        while c < x.shape[3]:
            x[n, i, j, c] = value[c]
            c += cuda.blockDim.x


def cutout_(x: InOut, corner: Array, value: Array, size: int) -> Array:
    """x[n, top : top + size, left : left + size] = value, as far as that lies in the image.

    x (N, H, W, C), corner (N, 2) int64: top and left, which may be negative, value (C,)
    """
    n, height, width, channels = x.shape
    launch = _cover(n, min(size, height), min(size, width), channels)
    _cutout[launch](x, corner, value, size)
    return x


@jit
def _mixup(x, index, lam, y):
    """A thread computes the numbers of one place in several samples."""
    k, n = cuda.grid(1), cuda.blockIdx.y
    if k >= y.shape[1]:
        return
    while n < y.shape[0]:
        m, share, one = index[n], lam[n], lam.dtype.type(1)
        value = lam.dtype.type(math.nan)  # no such sample: never a stranger's memory
        if 0 <= m < x.shape[0]:
            value = share * x[n, k] + (one - share) * x[m, k]
        y[n, k] = value
        n += cuda.gridDim.y


@dense
def mixup(x: Array, index: Array, lam: Array, y: Out) -> Array:
    """y[n] = lam[n] x[n] + (1 - lam[n]) x[index[n]].

    x (R, ...), index (N,) int64 from 0 and lam (N,) with N <= R -> y (N, ...)
    """
    n, width = y.shape[0], math.prod(y.shape[1:])
    grid = blocks(width, THREADS), min(n, MOST_BLOCKS)
    _mixup[grid, THREADS](x.reshape(x.shape[0], width), index, lam, y.reshape(n, width))
    return y
