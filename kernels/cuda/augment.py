"""Batches of images for training: rows picked by number, mirrored, shifted, scaled, in one call."""

import math

from ..roles import Array, Out
from . import memory
from ._numba import blocks, cuda, jit
from .layout import MOST_DEEP, THREADS
from .random import LOW, WORD, philox4x32, u64


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
    across = max(1, min(channels, THREADS))
    wide = max(1, min(width, THREADS // across))
    deep = max(1, min(height, THREADS // (across * wide), MOST_DEEP))
    grid = n if channels else 0, blocks(height, deep), blocks(width, wide)
    _image_batch[grid, (across, wide, deep)](images, index, scale, shift, place, y, pad, flip)
    return y
