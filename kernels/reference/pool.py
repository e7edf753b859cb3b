"""Average pooling: means over windows that slide across an image. Maxima are in window.py.

But for the gradients of a maximum and a relu in one.
"""

import numpy as np

from ..roles import Array, Out
from ..shapes import Padding, Pair
from .elementwise import quiet, store
from .reduce import sum_rows
from .window import max_pool2d_grad


@quiet
def avg_pool2d(
    x: Array, y: Out, size: Pair, stride: Pair, pad: Padding, count_padding: bool
) -> Array:
    """y = mean of each window of x, padded with zeros.

    x (N, H, W, C) -> y (N, OH, OW, C). count_padding: the sum is divided by KH KW; else by the
    number of cells inside the image, 0 / 0 for a window of padding alone.
    """
    wide = np.pad(x, ((0, 0), *pad, (0, 0)))
    with np.errstate(invalid="ignore"):
        total = sum(_taps(wide, size, y.shape[1:3], stride))
        y[...] = total / _cells(x.shape, y, size, stride, pad, count_padding)
    return y


@quiet
def avg_pool2d_grad(
    dy: Array, dx: Out, size: Pair, stride: Pair, pad: Padding, count_padding: bool, add: bool
) -> Array:
    """dx = an equal part of dy for each cell of its window, summed where windows overlap."""
    wide = np.pad(np.zeros(dx.shape, dx.dtype), ((0, 0), *pad, (0, 0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = dy / _cells(dx.shape, dy, size, stride, pad, count_padding)
    for part in _taps(wide, size, dy.shape[1:3], stride):
        part += share
    (top, _), (left, _) = pad
    return store(wide[:, top : top + dx.shape[1], left : left + dx.shape[2]], dx, add)


@quiet
def max_pool2d_relu_grad(
    dy: Array, y: Array, arg: Array, dx: Out, db: Out,
    size: Pair, stride: Pair, pad: Padding, add: tuple[bool, bool],
) -> tuple[Array, Array | None]:  # fmt: skip
    """Gradients of y, arg = max_pool2d(relu(x + b)): dx, and db (C,), its sum, or None.

    Where y <= 0, the relu held the winner of a window back, and dy does not count; all other cells
    of the window get nothing anyway. So max_pool2d_grad and relu_grad are one, and y is enough.
    """
    slope = np.where(y <= 0, dy.dtype.type(0), dy)
    max_pool2d_grad(slope, arg, dx, size, stride, pad, add[0])
    return dx, db if db is None else sum_rows(slope, db, add[1])


def _taps(wide: Array, size: Pair, out: Pair, stride: Pair) -> list[Array]:
    """For each cell of the window: the part of the image it touches, a view."""
    rows, columns = ((n - 1) * step + 1 for n, step in zip(out, stride))
    return [
        wide[:, r : r + rows : stride[0], s : s + columns : stride[1]]
        for r in range(size[0])
        for s in range(size[1])
    ]


def _cells(
    image: tuple[int, ...], y: Array, size: Pair, stride: Pair, pad: Padding, count_padding: bool
) -> Array:
    """How many cells each window divides its sum by: (OH, OW, 1), or (1, 1, 1)."""
    if count_padding:
        return np.full((1, 1, 1), size[0] * size[1], y.dtype)
    inside = np.pad(np.ones((1, *image[1:3], 1), y.dtype), ((0, 0), *pad, (0, 0)))
    cells: Array = sum(_taps(inside, size, y.shape[1:3], stride))
    return cells[0]
