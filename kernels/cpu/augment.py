"""Batches of images for training, made in one pass."""

import numpy as np

from .. import reference
from ..roles import Array, Out
from ._numba import loop
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
