"""Depthwise convolution: a channel of an image meets filters of its own, so nothing is a matrix.

A number of x takes part in KH KW products and no more: memory sets the pace. So a thread takes four
neighbouring channels, in 128-bit loads where it can, and neighbours take neighbouring fours; and
for each number of a filter that it loads it has four pixels of a line.
"""

from ..roles import Array, Out
from ..shapes import Padding, Pair
from . import memory
from ._numba import blocks, cuda, device, jit
from .intrinsics import aligned, ld4, plus, st4
from .layout import ENOUGH_LIGHT, MOST_BLOCKS, THREADS, WARP
from .move import dense
from .reduce import sum_rows
from .window import _divmod, _pixel

PIXELS = 4  # that a thread computes
MOST_LANES = 64  # threads of a block along the channels, four each
SHORTEST = 4  # lines of dy that a task of depthwise_conv2d_grad_w sums at least


@jit
def _depthwise_conv2d(
    x, w, b, y, height, width, channels, down, right, across, multiplier, lines, kw, sh, sw, top,
    left, dh, dw, relu, wide,
):  # fmt: skip
    """A thread computes four channels of PIXELS neighbours in a line of y."""
    filters = channels * multiplier
    cells, taps = cuda.local.array(4, x.dtype), cuda.local.array(4, x.dtype)
    total, source = cuda.local.array((PIXELS, 4), x.dtype), cuda.local.array(4, "int64")
    n, i, group = _pixel(cuda.blockIdx.x, down, across)
    j = PIXELS * (group * cuda.blockDim.y + cuda.threadIdx.y)
    f = 4 * cuda.threadIdx.x
    while f < filters:
        for d in range(4):
            source[d] = _divmod(min(f + d, filters - 1), multiplier)[0]
            for p in range(PIXELS):
                total[p, d] = b[min(f + d, filters - 1)] if b.size else x.dtype.type(0)
        for r in range(lines):
            h = i * sh + r * dh - top
            if 0 <= h < height:
                for s in range(kw):
                    _load(w, (r * kw + s) * filters, f, filters, 1, wide, taps)
                    for p in range(PIXELS):
                        v = (j + p) * sw + s * dw - left
                        if 0 <= v < width:
                            at = ((n * height + h) * width + v) * channels
                            _load_picked(x, at, source, wide, cells)
                            _multiply(cells, taps, total, p)
        for p in range(PIXELS):
            if j + p < right:
                at = ((n * down + i) * right + j + p) * filters
                _store(y, at, f, filters, total, p, relu, False, wide)
        f += 4 * cuda.blockDim.x


@dense
def depthwise_conv2d(
    x: Array,
    w: Array,
    b: Array | None,
    y: Out,
    stride: Pair,
    pad: Padding,
    dilation: Pair,
    relu: bool,
) -> Array:
    """y[n, i, j, c, m] = b[c, m] + sum over r, s of x[n, i sh + r dh, j sw + s dw, c] w[r, s, c, m]

    x (N, H, W, C) padded with zeros, w (KH, KW, C, M), b (C*M,) or None -> y (N, OH, OW, C*M):
    here channel c*M + m is written c, m. relu: the larger of that and 0; NaN stays NaN.
    """
    b = memory.scratch((0,), y.dtype) if b is None else b
    multiplier, wide = w.shape[3], _wide(w, x, w, y)
    grid, block, across = _groups(y, blocks(y.shape[2], PIXELS))
    _depthwise_conv2d[grid, block](
        x.reshape(-1), w.reshape(-1), b, y.reshape(-1), *x.shape[1:], *y.shape[1:3], across,
        multiplier, *w.shape[:2], *stride, pad[0][0], pad[1][0], *dilation, relu, wide,
    )  # fmt: skip
    return y


@jit
def _depthwise_conv2d_grad_x(
    dy, w, dx, height, width, channels, down, right, across, multiplier, lines, kw, sh, sw, top,
    left, dh, dw, add, wide,
):  # fmt: skip
    """A thread gathers four channels of PIXELS pixels in a line of dx, a stride apart.

    Those met the same cells of the filters, in neighbouring windows.
    """
    filters = channels * multiplier
    slopes, taps = cuda.local.array(4, dy.dtype), cuda.local.array(4, dy.dtype)
    total = cuda.local.array((PIXELS, 4), dy.dtype)
    n, h, group = _pixel(cuda.blockIdx.x, height, across)
    part, v = _divmod(group * cuda.blockDim.y + cuda.threadIdx.y, sw)
    v += part * PIXELS * sw
    c = 4 * cuda.threadIdx.x
    while c < channels:
        for p in range(PIXELS):
            for d in range(4):
                total[p, d] = dy.dtype.type(0)
        for r in range(lines):
            i, between = _window_of(h + top, r * dh, lines * dh, sh)
            if between == 0 and 0 <= i < down:
                for s in range(kw):
                    j, between = _window_of(v + left, s * dw, kw * dw, sw)
                    if between == 0:
                        at = (n * down + i) * right
                        for m in range(multiplier):
                            tap = (r * kw + s) * filters + m
                            _load(w, tap, c, channels, multiplier, wide, taps)
                            for p in range(PIXELS):
                                if 0 <= j + p < right:
                                    window = (at + j + p) * filters + m
                                    _load(dy, window, c, channels, multiplier, wide, slopes)
                                    _multiply(slopes, taps, total, p)
        for p in range(PIXELS):
            if v + p * sw < width:
                at = ((n * height + h) * width + v + p * sw) * channels
                _store(dx, at, c, channels, total, p, False, add, wide)
        c += 4 * cuda.blockDim.x


@dense
def depthwise_conv2d_grad_x(
    dy: Array, w: Array, dx: Out, stride: Pair, pad: Padding, dilation: Pair, add: bool
) -> Array:
    """dx = every dy put back where its window read, times the cell of the filter it met there."""
    multiplier, wide = w.shape[3], _wide(w, dy, w, dx)
    grid, block, across = _groups(dx, blocks(blocks(dx.shape[2], stride[1]), PIXELS) * stride[1])
    _depthwise_conv2d_grad_x[grid, block](
        dy.reshape(-1), w.reshape(-1), dx.reshape(-1), *dx.shape[1:], *dy.shape[1:3], across,
        multiplier, *w.shape[:2], *stride, pad[0][0], pad[1][0], *dilation, add, wide,
    )  # fmt: skip
    return dx


@jit
def _depthwise_conv2d_grad_w(
    dy, x, dw, height, width, down, right, channels, filters, multiplier, lines, kw, sh, sw, top,
    left, dilate_h, dilate_w, rows, chunk, add, wide,
):  # fmt: skip
    """A thread computes one cell of four filters, over the `chunk` lines of dy of its task.

    The threads of a block read the same numbers of dy, and of x, for several cells.
    """
    cells, slopes = cuda.local.array(4, x.dtype), cuda.local.array(4, x.dtype)
    total, source = cuda.local.array((1, 4), x.dtype), cuda.local.array(4, "int64")
    tap = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    f, task = 4 * (cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x), cuda.blockIdx.z
    if f >= filters or tap >= lines * kw:
        return
    for d in range(4):
        total[0, d] = x.dtype.type(0)
        source[d] = _divmod(min(f + d, filters - 1), multiplier)[0]
    r, s = _divmod(tap, kw)
    h, v = r * dilate_h - top, s * dilate_w - left
    near = _divmod(max(0, -v) + sw - 1, sw)[0]  # windows whose cell s lies inside the image
    far = min(right, _divmod(max(0, width - v + sw - 1), sw)[0])
    for line in range(task * chunk, min((task + 1) * chunk, rows)):
        image, i = _divmod(line, down)
        if 0 <= i * sh + h < height:
            at = ((image * height + i * sh + h) * width + v) * channels
            for j in range(near, far):
                _load(dy, (line * right + j) * filters, f, filters, 1, wide, slopes)
                _load_picked(x, at + j * sw * channels, source, wide, cells)
                _multiply(cells, slopes, total, 0)
    _store(dw, (task * lines * kw + tap) * filters, f, filters, total, 0, False, add, wide)


@dense
def depthwise_conv2d_grad_w(
    dy: Array, x: Array, dw: Out, stride: Pair, pad: Padding, dilation: Pair, add: bool
) -> Array:
    """dw[r, s, c, m] = sum over n, i, j of x[n, i sh + r dh, j sw + s dw, c] dy[n, i, j, c, m]."""
    (lines, kw, channels, multiplier), (n, down, right, filters) = dw.shape, dy.shape
    taps, quads, rows = lines * kw, blocks(filters, 4), n * down
    lanes = min(WARP, 1 << (quads - 1).bit_length())
    threads = lanes, min(THREADS // lanes, 1 << (taps - 1).bit_length())
    grid = blocks(quads, lanes), blocks(taps, threads[1])
    tasks = max(1, min(rows // SHORTEST, ENOUGH_LIGHT * THREADS // (taps * quads), MOST_BLOCKS))
    chunk = max(1, blocks(rows, tasks))
    tasks = max(1, blocks(rows, chunk))
    out = memory.scratch((tasks, dw.size), dw.dtype) if tasks > 1 else dw
    _depthwise_conv2d_grad_w[(*grid, tasks), threads](
        dy.reshape(-1), x.reshape(-1), out.reshape(-1), *x.shape[1:3], down, right, channels,
        filters, multiplier, lines, kw, *stride, pad[0][0], pad[1][0], *dilation, rows, chunk,
        add and tasks == 1, _wide(dw, dy, x, out),
    )  # fmt: skip
    if tasks > 1:
        sum_rows(out, dw.reshape(-1), add)
    return dw


def _wide(w: Array, *arrays: Array) -> bool:
    """Whether fours of channels are one filter each, whole, and aligned for 128-bit loads."""
    return w.shape[3] == 1 and w.shape[2] % 4 == 0 and aligned(*arrays)


def _groups(y: Array, groups: int) -> tuple[int, Pair, int]:
    """Grid and block with a row of threads for each of the groups of pixels in a line of y.

    The last number: blocks across a line.
    """
    n, height, _, channels = y.shape
    lanes = min(MOST_LANES, 1 << max(0, blocks(channels, 4) - 1).bit_length())
    high = min(THREADS // lanes, 1 << max(0, groups - 1).bit_length())
    across = blocks(groups, high)
    return n * height * across, (lanes, high), across


@device
def _window_of(place, cell, most, step):
    """(window, 0) for the window whose cell lies on a place of the padded image, if there is one.

    Else the second number is not 0. most: so many windows more keep what is divided positive.
    """
    window, rest = _divmod(place - cell + most * step, step)
    return window - most, rest


@device
def _load(x, at, column, columns, multiplier, wide, out):
    """out = the four numbers of x from a column on, `multiplier` apart; 0 past the last column."""
    if wide:
        out[0], out[1], out[2], out[3] = ld4(x, at + column)
    else:
        for d in range(4):
            out[d] = x.dtype.type(0)
            if column + d < columns:
                out[d] = x[at + (column + d) * multiplier]


@device
def _load_picked(x, at, source, wide, out):
    """out = the numbers of x[at:] at four places, which are neighbours if it is wide."""
    if wide:
        out[0], out[1], out[2], out[3] = ld4(x, at + source[0])
    else:
        for d in range(4):
            out[d] = x[at + source[d]]


@device
def _multiply(a, b, total, p):
    for d in range(4):
        total[p, d] += a[d] * b[d]


@device
def _store(y, at, column, columns, total, p, relu, add, wide):
    """Row p of total to the numbers of y from a column on."""
    for d in range(4):
        if relu and total[p, d] <= 0:  # NaN is not
            total[p, d] = y.dtype.type(0)
        if add and column + d < columns:
            total[p, d] = plus(y[at + column + d], total[p, d])
        if not wide and column + d < columns:
            y[at + column + d] = total[p, d]
    if wide:
        st4(y, at + column, total[p, 0], total[p, 1], total[p, 2], total[p, 3])
