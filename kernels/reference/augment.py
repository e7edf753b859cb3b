"""Batches of images for training: rows picked by number, mirrored, shifted, scaled, in one call."""

import numpy as np

from ..roles import Array, Out
from .random import philox4x32


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
    x = images[index].astype(y.dtype)
    n, height, width, _ = x.shape
    if pad or flip:
        top, left, mirror = _draws(index, seed, epoch, pad)
    if flip:
        x[mirror] = x[mirror, :, ::-1]
    if pad:
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        rows = top[:, None, None] + np.arange(height)[:, None]
        columns = left[:, None, None] + np.arange(width)
        x = padded[np.arange(n)[:, None, None], rows, columns]
    y[...] = x * scale.astype(y.dtype) + shift.astype(y.dtype)
    return y


def _draws(index: Array, seed: int, epoch: int, pad: int) -> tuple[Array, Array, Array]:
    """Where the crop begins in the padded image, top and left in [0, 2 pad], and who is mirrored.

    One Philox block each: counter (low, high half of index, epoch, 1), key = seed.
    """
    number = index.astype(np.uint64)
    low, high = number & np.uint64(0xFFFFFFFF), number >> np.uint64(32)
    # the 1 keeps this stream apart from the arrays of random.py, whose last counter word is 0
    counter = low, high, np.full_like(low, epoch), np.full_like(low, 1)
    top, left, mirror, _ = philox4x32(*counter, seed & 0xFFFFFFFF, seed >> 32)
    choices = np.uint64(2 * pad + 1)
    top, left = ((w * choices >> np.uint64(32)).astype(np.int64) for w in (top, left))
    return top, left, (mirror & np.uint32(1)).astype(bool)
