"""Batches of images for training: rows picked by number, moved and scaled, in one call.

And what draws the random numbers for it, cuts squares out, and mixes samples.
"""

import numpy as np

from ..roles import Array, InOut, Out
from .elementwise import quiet
from .random import philox4x32

_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


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
    # the 1 keeps this stream apart from the arrays of random.py, whose last counter word is 0
    top, left, mirror, _ = _block(index, seed, epoch, 1)
    choices = np.uint64(2 * pad + 1)
    top, left = ((w * choices >> _32).astype(np.int64) for w in (top, left))
    return top, left, (mirror & np.uint32(1)).astype(bool)


def _block(index: Array, seed: int, epoch: int, last: int) -> tuple[Array, ...]:
    """Four words of random bits for each number; last is the fourth word of the counter."""
    number = index.astype(np.uint64)
    low, high = number & _LOW, number >> _32
    counter = low, high, np.full_like(low, epoch), np.full_like(low, last)
    return philox4x32(*counter, seed & 0xFFFFFFFF, seed >> 32)


def uniform_rows(index: Array, y: Out, seed: int, epoch: int, stream: int) -> Array:
    """y = random numbers in [0, 1), 24 bits each, a row for each sample.

    index (N,) int64 from 0 -> y (N, K)

    A row depends on seed, epoch, stream and the sample's number alone. Four neighbours are the
    words of a Philox block: counter (low, high half of index, epoch, stream + column // 4), key =
    seed. Streams 0 and 1 belong to random.py and image_batch.
    """
    for column in range(y.shape[1]):
        words = _block(index, seed, epoch, stream + column // 4)[column % 4]
        y[:, column] = (words >> np.uint32(8)) * 2.0**-24
    return y


@quiet
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

    matrix leads from a place (column, row, 1) in y to (column, row) in the image, in units of
    2**-32 pixels. So places are integers, the same on every device and in every dtype: no rounding
    decides which pixels count. A place between four pixels gets their bilinear mean: the weights
    are the distances' upper 24 bits, and what has weight 0 does not count, not even NaN. Outside of
    the image are raw zeros, or with `edge` the nearest pixel.
    """
    _, height, width, _ = images.shape
    x, (rows, columns) = images[index].astype(y.dtype), np.indices(y.shape[1:3])
    across, down = (
        m[:, 0, None, None] * columns + m[:, 1, None, None] * rows + m[:, 2, None, None]
        for m in (matrix[:, 0], matrix[:, 1])
    )
    total = np.zeros_like(y)
    for i, row_weight in _neighbours(down):
        for j, column_weight in _neighbours(across):
            if edge:
                i, j = np.clip(i, 0, height - 1), np.clip(j, 0, width - 1)
            weight = (row_weight * column_weight).astype(y.dtype)
            counts = (weight > 0) & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            n, r, c = np.nonzero(counts)
            total[n, r, c] += weight[counts][:, None] * x[n, i[counts], j[counts]]
    y[...] = total * scale.astype(y.dtype) + shift.astype(y.dtype)
    return y


def _neighbours(place: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The pixels before and behind a place in units of 2**-32, each with its weight."""
    before, after = place >> 32, (place >> 8 & 0xFFFFFF) * 2.0**-24
    return (before, 1 - after), (before + 1, after)


def cutout_(x: InOut, corner: Array, value: Array, size: int) -> Array:
    """x[n, top : top + size, left : left + size] = value, as far as that lies in the image.

    x (N, H, W, C), corner (N, 2) int64: top and left, which may be negative, value (C,)

    DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout",
    2017.
    """
    for image, (top, left) in zip(x, corner):
        image[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = value
    return x


@quiet
def mixup(x: Array, index: Array, lam: Array, y: Out) -> Array:
    """y[n] = lam[n] x[n] + (1 - lam[n]) x[index[n]].

    x (R, ...), index (N,) int64 from 0 and lam (N,) with N <= R -> y (N, ...)

    Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.
    """
    lam = lam.reshape(-1, *[1] * (x.ndim - 1))
    y[...] = lam * x[: len(index)] + (1 - lam) * x[index]
    return y
