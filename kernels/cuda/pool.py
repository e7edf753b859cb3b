"""Average pooling. A row of threads has a pixel, and neighbours have neighbouring channels."""

from ..roles import Array, Out
from ..shapes import Padding, Pair
from . import memory
from ._numba import cuda, device, jit
from .elementwise import relu_grad
from .intrinsics import plus
from .move import dense
from .reduce import sum_rows
from .window import _a_pixel_each, _divmod, _pixel, max_pool2d_grad


@jit
def _avg_pool2d(x, y, across, kh, kw, sh, sw, top, left, count_padding):
    """A row of threads computes a pixel of y, channel by channel."""
    n, i, j = _pixel(cuda.blockIdx.x, y.shape[1], across)
    j = j * cuda.blockDim.y + cuda.threadIdx.y
    if j >= y.shape[2]:
        return
    h, v = i * sh - top, j * sw - left
    above, below = max(0, -h), min(kh, x.shape[1] - h)
    before, after = max(0, -v), min(kw, x.shape[2] - v)
    cells = x.dtype.type(kh * kw if count_padding else _cells(h, v, x.shape[1], x.shape[2], kh, kw))
    c = cuda.threadIdx.x
    while c < y.shape[3]:
        total = x.dtype.type(0)
        for r in range(above, below):
            for s in range(before, after):
                total += x[n, h + r, v + s, c]
        y[n, i, j, c] = total / cells
        c += cuda.blockDim.x


@dense
def avg_pool2d(
    x: Array, y: Out, size: Pair, stride: Pair, pad: Padding, count_padding: bool
) -> Array:
    """y = mean of each window of x, padded with zeros.

    x (N, H, W, C) -> y (N, OH, OW, C). count_padding: the sum is divided by KH KW; else by the
    number of cells inside the image, 0 / 0 for a window of padding alone.
    """
    grid, block, across = _a_pixel_each(y)
    begin = pad[0][0], pad[1][0]
    _avg_pool2d[grid, block](x, y, across, *size, *stride, *begin, count_padding)
    return y


@jit
def _avg_pool2d_grad(dy, dx, across, kh, kw, sh, sw, top, left, count_padding, add):
    """A row of threads gathers a pixel of dx, channel by channel, from the windows that cover it.

    In a fixed order: no atomics, and the same bits in every run.
    """
    n, h, v = _pixel(cuda.blockIdx.x, dx.shape[1], across)
    v = v * cuda.blockDim.y + cuda.threadIdx.y
    if v >= dx.shape[2]:
        return
    low, high = _windows_over(h + top, kh, sh, dy.shape[1])
    near, far = _windows_over(v + left, kw, sw, dy.shape[2])
    c = cuda.threadIdx.x
    while c < dx.shape[3]:
        total = dx.dtype.type(0)
        for i in range(low, high):
            for j in range(near, far):
                cells = kh * kw
                if not count_padding:
                    corner = i * sh - top, j * sw - left
                    cells = _cells(corner[0], corner[1], dx.shape[1], dx.shape[2], kh, kw)
                total += dy[n, i, j, c] / dx.dtype.type(cells)
        dx[n, h, v, c] = plus(dx[n, h, v, c], total) if add else total
        c += cuda.blockDim.x


@dense
def avg_pool2d_grad(
    dy: Array, dx: Out, size: Pair, stride: Pair, pad: Padding, count_padding: bool, add: bool
) -> Array:
    """dx = an equal part of dy for each cell of its window, summed where windows overlap."""
    grid, block, across = _a_pixel_each(dx)
    begin = pad[0][0], pad[1][0]
    _avg_pool2d_grad[grid, block](dy, dx, across, *size, *stride, *begin, count_padding, add)
    return dx


@dense
def max_pool2d_relu_grad(
    dy: Array, y: Array, arg: Array, dx: Out, db: Out,
    size: Pair, stride: Pair, pad: Padding, add: tuple[bool, bool],
) -> tuple[Array, Array | None]:  # fmt: skip
    """Gradients of y, arg = max_pool2d(relu(x + b)): dx, and db (C,), its sum, or None.

    Where y <= 0, the relu held the winner of a window back, and dy does not count. What passes on
    is as small as y: three kernels, of which one touches an array as large as dx.
    """
    slope = relu_grad(dy, y, memory.scratch(dy.shape, dy.dtype), False)
    max_pool2d_grad(slope, arg, dx, size, stride, pad, add[0])
    return dx, db if db is None else sum_rows(slope, db, add[1])


@device
def _cells(h, v, height, width, kh, kw):
    """How many cells of a window that begins at (h, v) lie inside the image."""
    return (min(kh, height - h) - max(0, -h)) * (min(kw, width - v) - max(0, -v))


@device
def _windows_over(place, size, step, windows):
    """First and past the last of the windows, `step` apart, that cover a place of the image."""
    first, last = _divmod(max(0, place - size + step), step)[0], _divmod(place, step)[0]
    return first, min(last + 1, windows)
