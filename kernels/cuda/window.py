"""Convolution as matrix products ("implicit GEMM"), and pooling.

y = X w, where a row of X is what one window covers and a column of w is one filter. X is never
written down: a block gathers what it needs of it from the images into shared memory, 16 terms of
the sums at a time, with the filters beside it, and each thread multiplies some rows by 4 columns in
registers. (gemm.py draws such a tile.)

In memory the W C numbers of a line of an image lie side by side, and so do the KW C that a window
takes of it. These are its cells here; pixels and channels play no part. For windows of 3 x 3 pixels
on images of 8 x 10, with 4 channels:

    an image   height = 8 lines of width = 10 * 4 = 40 cells          v
    a window   lines  = 3 lines of run   =  3 * 4 = 12 cells     h  ..[ 0 .. 11]............
               depth  = 3 * 12 = 36 cells, the terms of a sum       ..[12 .. 23]............
                                                                    ..[24 .. 35]............

The window starts in line h and cell v of the image, or outside, in the padding. The first 16 terms
are its line 0 and cells 0 to 3 of its line 1, the next 16 start at (line 1, cell 4).

With dilation, or groups that each take a part of the channels, a window has gaps: a line of it is
so many `pixels` of run cells each, `apart` cells from one to the next. Kernels of their own do
these, so that the others keep their registers; they are the same code, in which a line of a window
is not one "pixel" as wide as the line.
"""

import math
from typing import NamedTuple

import numpy as np

from ..roles import Array, Out
from ..shapes import Padding, Pair
from . import memory
from ._numba import Kernel, blocks, cuda, device, jit
from .intrinsics import aligned, ld4, plus, st4
from .layout import ENOUGH_BLOCKS, THREADS
from .move import copy, dense
from .reduce import sum_rows

DEPTH = 16  # terms of the sums that a tile takes at a time
# Windows that a task of conv2d_grad_w has at least: 8 steps, for in the first one nothing is
# multiplied yet.
SHORTEST = 8 * DEPTH


class ConvTile(NamedTuple):
    """What a block computes: rows by columns of a matrix, of which a thread has `high` by 4."""

    rows: int
    columns: int
    high: int = 4

    @property
    def block(self) -> Pair:
        return self.columns // 4, self.rows // self.high


_LARGE = ConvTile(128, 64, 8)  # a thread reads 12 numbers of shared memory for 32 products
_SQUARE = ConvTile(64, 64)  # 8 for 16, in fewer registers: where blocks are few, and in float64
_NARROW, _SLIM = ConvTile(64, 32), ConvTile(64, 16)  # for few filters
_LOW = ConvTile(16, 64)  # for the gradient of few weights


def _convolution(tile: ConvTile, whole: bool) -> Kernel:
    """The kernel that multiplies windows by filters, for tiles of one size.

    whole: windows have no gaps, and there is one group.
    """
    rows, columns, high = tile
    share = columns // 4 // high  # threads that load cells of the same window
    # cells that each of them loads for a step; x_tile is written across: rows begin 4 banks apart
    held, pitch = DEPTH // share, rows + 4

    def kernel(
        x, w, b, y, height, width, lines, pixels, run, dh, apart, depth, images, down, across, sh,
        sv, top, left, filters, own, tiles, y_image, y_line, y_pixel, relu, add, wide_x, wide_w,
    ):  # fmt: skip
        """A block computes `rows` windows by `columns` filters.

        A thread loads cells of one window throughout, so that it finds its place once. It loads a
        step ahead, into registers: the loads are on their way while the block multiplies.

        Of `images` there are down x across windows each, sh lines and sv cells apart; the first
        begins at (-top, -left). Their pixels in y lie y_image, y_line and y_pixel numbers apart.
        A group has `own` of the filters, and as many blocks as there are tiles of windows.
        """
        x_tile = cuda.shared.array((DEPTH, pitch), x.dtype, 16)
        w_tile = cuda.shared.array((DEPTH, columns), x.dtype, 16)
        place = cuda.shared.array(rows, np.int64)
        x_next, w_next = cuda.local.array(held, x.dtype), cuda.local.array(4, x.dtype)
        total = cuda.local.array((high, 4), x.dtype)
        _clear(total)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        row, part = _divmod(ty * (columns // 4) + tx, share)
        group, number, window = _place_of_block(tiles, (lines, pixels, run, dh, apart), whole)
        column, end = group * own + cuda.blockIdx.y * columns + 4 * tx, (group + 1) * own
        image, i, j = _pixel(number * rows + row, down, across)
        h, v = i * sh - top if image < images else height, j * sv - left + group * run
        if part == 0:
            place[row] = image * y_image + i * y_line + j * y_pixel if image < images else -1
        cuda.syncthreads()
        cells = _further((0, 0, 4 * part), window)
        for ahead in range(0, depth + DEPTH, DEPTH):
            if ahead:
                for k in range(held):
                    x_tile[4 * (part + k // 4 * share) + k % 4, row] = x_next[k]
                _store_rows(w_next, w_tile, ty, DEPTH, 4 * tx)
                cuda.syncthreads()
            for k in range(0, held, 4):
                _gather(x, image, h, v, cells, height, width, window, wide_x, x_next, k)
                cells = _further((cells[0], cells[1], cells[2] + 4 * share), window)
            _load_rows(w, ahead + ty, DEPTH, column, depth, filters, wide_w, w_next)
            if ahead:
                _multiply(x_tile, w_tile, high * ty, 4 * tx, total)
                cuda.syncthreads()
        for k in range(high):
            _write_row(y, place[high * ty + k], total, k, b, column, end, relu, add, wide_w)

    return jit(kernel, name=f"_convolve_{rows}x{columns}{'' if whole else '_gaps'}")


_CONVOLVE = {
    (tile, whole): _convolution(tile, whole)
    for tile in (_LARGE, _SQUARE, _NARROW, _SLIM)
    for whole in (True, False)
}


def _pixels(shape: tuple[int, ...]) -> int:
    """How many pixels there are in images (N, H, W); ValueError from 2**32 on."""
    count = math.prod(shape)
    if count >= 2**32:  # _divmod would lose the high bits of their numbers
        raise ValueError(f"conv2d: {count} pixels in a batch (N, H, W) = {shape}; split the batch")
    return count


def _tile(columns: int, large: bool) -> ConvTile:
    """The narrowest tile that holds all columns, or the large or the square one."""
    if columns <= _SLIM.columns:
        return _SLIM
    if columns <= _NARROW.columns:
        return _NARROW
    return _LARGE if large else _SQUARE


def _wide(columns: int, *matrices: Array) -> bool:
    """Whether rows are whole fours that each start at a multiple of 16 bytes, for 128-bit loads."""
    return columns % 4 == 0 and aligned(*matrices)


def _window(w: tuple[int, ...], channels: int, dilation: Pair, groups: int):
    """Whether windows have no gaps, and their (lines, pixels, run, dh, apart)."""
    lines, kw, own, _ = w
    dh, dw = (d if n > 1 else 1 for d, n in zip(dilation, w))  # there are no gaps in one pixel
    if groups == dh == dw == 1:
        return True, (lines, 1, max(1, kw * own), 1, 0)
    return False, (lines, kw, max(1, own), dh, dw * channels)


def _convolve(x, w, b, y, count, stride, begin, steps, dilation, groups, relu, add):
    """y = b + the windows of x times w: count (N, down, across) windows, the first at -begin.

    A window and its right and lower neighbours lie `stride` apart in x, and `steps` in y.
    """
    _, height, width, channels = x.shape
    filters, windows, depth = w.shape[3], _pixels(count), math.prod(w.shape[:3])
    own = filters // groups
    whole, window = _window(w.shape, channels, dilation, groups)
    large = groups * blocks(windows, _LARGE.rows) * blocks(own, _LARGE.columns)
    # a large tile is as much work as 2 square ones, and in float64 does not fit into registers
    tile = _tile(own, large >= ENOUGH_BLOCKS // 2 and y.dtype == "float32")
    tiles = blocks(windows, tile.rows)
    grid = groups * tiles, blocks(own, tile.columns)
    _CONVOLVE[tile, whole][grid, tile.block](
        x.reshape(-1), w.reshape(-1), b, y, height, width * channels, *window, depth,
        *count, stride[0], stride[1] * channels, begin[0], begin[1] * channels, filters, own,
        tiles, *steps, relu, add, _wide(channels // groups, x), _wide(own, w, y),
    )  # fmt: skip


@dense
def conv2d(
    x: Array, w: Array, b: Array | None, y: Out,
    stride: Pair, pad: Padding, dilation: Pair, groups: int, relu: bool,
) -> Array:  # fmt: skip
    """y[n, i, j, f] = b[f] + sum over r, s, c of x[n, i sh + r dh, j sw + s dw, c] w[r, s, c, f].

    x (N, H, W, C) padded with zeros, w (KH, KW, C / groups, F), b (F,) or None -> y (N, OH, OW, F).
    Of several groups, each takes its share of the channels to its share of the filters.
    relu: the larger of that and 0; NaN stays NaN. y may leave out windows at the end of an axis.
    """
    b = memory.scratch((0,), y.dtype) if b is None else b
    _, oh, ow, f = y.shape
    begin, steps = (pad[0][0], pad[1][0]), (oh * ow * f, ow * f, f)
    how = stride, begin, steps, dilation, groups, relu, False
    _convolve(x, w, b, y.reshape(-1), y.shape[:3], *how)
    return y


@dense
def conv2d_grad_x(
    dy: Array, w: Array, dx: Out,
    stride: Pair, pad: Padding, dilation: Pair, groups: int, add: bool,
) -> Array:  # fmt: skip
    """dx = every dy put back where its window read: dx[.., i sh + r dh, j sw + s dw] += dy w[r, s].

    A convolution of dy with w turned around, its channels and filters swapped. With strides, the
    pixels of dx that lie whole strides apart met the same cells of w: sh sw convolutions, each
    with its own part of w, do no work that is not needed.
    """
    n, height, width, c = dx.shape
    (sh, sw), none = stride, memory.scratch((0,), dx.dtype)
    split = w.reshape(*w.shape[:3], groups, w.shape[3] // groups)
    for i in range(min(sh, height)):
        for j in range(min(sw, width)):
            rows, top, dh = _met_by(i + pad[0][0], w.shape[0], sh, dilation[0])
            columns, left, dw = _met_by(j + pad[1][0], w.shape[1], sw, dilation[1])
            part = split[rows, columns][::-1, ::-1].swapaxes(2, 4)
            turned = copy(part, memory.scratch(part.shape, w.dtype), False)
            turned = turned.reshape(*part.shape[:3], c)
            count = n, blocks(height - i, sh), blocks(width - j, sw)
            steps = height * width * c, sh * width * c, sw * c
            place = dx.reshape(-1)[(i * width + j) * c :]
            how = (1, 1), (top, left), steps, (dh, dw), groups, False, add
            _convolve(dy, turned, none, place, count, *how)
    return dx


def _met_by(place: int, size: int, stride: int, dilation: int) -> tuple[slice, int, int]:
    """Which of `size` cells of windows along an axis met a place of the padded image.

    As a slice; and of the window that these cells, turned around, are to gradients: how far before
    the first one it begins, and its dilation. Cell r of window i lies at i stride + r dilation.
    """
    common = math.gcd(stride, dilation)
    step, gap = stride // common, dilation // common
    first = next((r for r in range(step) if (place - r * dilation) % stride == 0), size)
    last = first + (len(range(first, size, step)) - 1) * step
    return slice(first, None, step), -((place - last * dilation) // stride), gap


def _weight_gradient(tile: ConvTile, whole: bool) -> Kernel:
    """The kernel that multiplies cells of windows by gradients, summed over windows."""
    rows, columns, high = tile
    x_step, dy_step = columns // high, rows // high  # windows that a block loads at a time
    x_held, dy_held = 4 * DEPTH // x_step, 4 * DEPTH // dy_step  # and numbers of them a thread

    def kernel(
        x, dy, dw, height, width, lines, pixels, run, dh, apart, weights, windows, chunk, down,
        across, sh, sv, top, left, filters, own, tiles, add, wide_x, wide_dy,
    ):  # fmt: skip
        """A block computes `rows` weights of `columns` filters, over the windows of its task.

        A thread loads the same cells of one window after the other, a step ahead.
        """
        x_tile = cuda.shared.array((DEPTH, rows), x.dtype, 16)
        dy_tile = cuda.shared.array((DEPTH, columns), x.dtype, 16)
        x_next, dy_next = cuda.local.array(x_held, x.dtype), cuda.local.array(dy_held, x.dtype)
        total = cuda.local.array((high, 4), x.dtype)
        _clear(total)
        tx, ty, task = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.z
        mine, quad = _divmod(ty * (columns // 4) + tx, rows // 4)
        group, number, window = _place_of_block(tiles, (lines, pixels, run, dh, apart), whole)
        cells = _pixel(number * rows + 4 * quad, window[1], run)
        column, end = group * own + cuda.blockIdx.y * columns + 4 * tx, (group + 1) * own
        first = task * chunk
        stop = min(first + chunk, windows)
        image, i, j = _pixel(first + mine, down, across)
        for ahead in range(first, stop + DEPTH, DEPTH):
            if ahead > first:
                _store_rows(x_next, x_tile, mine, x_step, 4 * quad)
                _store_rows(dy_next, dy_tile, ty, dy_step, 4 * tx)
                cuda.syncthreads()
            for k in range(0, x_held, 4):
                real = ahead + mine + k // 4 * x_step < stop
                h, v = i * sh - top if real else height, j * sv - left + group * run
                _gather(x, image, h, v, cells, height, width, window, wide_x, x_next, k)
                image, i, j = _carry(image, i, j + x_step, down, across)
            _load_rows(dy, ahead + ty, dy_step, column, stop, filters, wide_dy, dy_next)
            if ahead > first:
                _multiply(x_tile, dy_tile, high * ty, 4 * tx, total)
                cuda.syncthreads()
        for k in range(high):
            row = number * rows + high * ty + k
            at = (task * weights + row) * filters if row < weights else -1
            _write_row(dw, at, total, k, dw[:0], column, end, False, add, wide_dy)

    return jit(kernel, name=f"_correlate_{rows}x{columns}{'' if whole else '_gaps'}")


_CORRELATE = {
    (tile, whole): _weight_gradient(tile, whole)
    for tile in (_LARGE, _SQUARE, _NARROW, _SLIM, _LOW)
    for whole in (True, False)
}


@dense
def conv2d_grad_w(
    dy: Array, x: Array, dw: Out,
    stride: Pair, pad: Padding, dilation: Pair, groups: int, add: bool,
) -> Array:  # fmt: skip
    """dw[r, s, c, f] = sum over n, i, j of x[n, i sh + r dh, j sw + s dw, c] dy[n, i, j, f]."""
    _, height, width, channels = x.shape
    filters, windows, weights = dw.shape[3], _pixels(dy.shape[:3]), math.prod(dw.shape[:3])
    own = filters // groups
    whole, window = _window(dw.shape, channels, dilation, groups)
    large = weights > _LARGE.rows and x.dtype == "float32"
    tile = _LOW if weights <= _LOW.rows else _tile(own, large)
    tiles = blocks(weights, tile.rows)
    grid = groups * tiles, blocks(own, tile.columns)
    tasks = max(1, min(windows // SHORTEST, ENOUGH_BLOCKS // max(1, math.prod(grid))))
    chunk = max(1, blocks(windows, tasks * DEPTH)) * DEPTH
    tasks = max(1, blocks(windows, chunk))
    out = memory.scratch((tasks, dw.size), dw.dtype) if tasks > 1 else dw
    _CORRELATE[tile, whole][(*grid, tasks), tile.block](
        x.reshape(-1), dy.reshape(-1), out.reshape(-1), height, width * channels, *window,
        weights, windows, chunk, *dy.shape[1:3], stride[0], stride[1] * channels, pad[0][0],
        pad[1][0] * channels, filters, own, tiles, add and tasks == 1,
        _wide(channels // groups, x), _wide(own, dy, out),
    )  # fmt: skip
    if tasks > 1:
        sum_rows(out, dw.reshape(-1), add)
    return dw


# What the kernels are made of: where a pixel lies, and the way of a tile, from memory to memory.


@device
def _divmod(number, size):
    """number // size and number % size in 32 bits, for a GPU divides no longer numbers."""
    quotient = np.int64(np.uint32(number) // np.uint32(size))
    return quotient, number - quotient * size


@device
def _pixel(number, down, across):
    """(image, line, place in the line) of a pixel, by its number; or so of a cell in a window."""
    line, j = _divmod(number, across)
    image, i = _divmod(line, down)
    return image, i, j


@device
def _place_of_block(tiles, window, whole):
    """The group, the number of the block's tile in it, and the window.

    whole: what is then known of them is said in constants, so that it costs nothing.
    """
    group, number = 0, cuda.blockIdx.x
    lines, pixels, run, dh, apart = window
    if whole:
        pixels, dh, apart = 1, 1, 0
    else:
        group, number = _divmod(number, tiles)
    return group, number, (lines, pixels, run, dh, apart)


@device
def _wrap(line, cell, run):
    """The same place where the cell has run past the end of its line."""
    while cell >= run:
        line += 1
        cell -= run
    return line, cell


@device
def _further(cells, window):
    """The same place (line, pixel, cell) of a window where the cell has run past its pixel."""
    line, pixel, cell = cells
    _, pixels, run, _, _ = window
    while cell >= run:
        cell -= run
        pixel += 1
        if pixel == pixels:
            line, pixel = line + 1, 0
    return line, pixel, cell


@device
def _carry(image, i, j, down, across):
    """The pixel (image, i, j) where j has run past the end of its line."""
    i, j = _wrap(i, j, across)
    image, i = _wrap(image, i, down)
    return image, i, j


@device
def _gather(x, image, h, v, cells, height, width, window, wide, out, slot):
    """out[slot : slot + 4] = four cells of a window of x; 0 outside the image and the window.

    The window begins in cell v of line h of the image. wide: the four are one aligned load.
    """
    at = (image * height + h) * width + v
    line, pixel, cell = cells
    lines, _, _, dh, apart = window
    for d in range(4):
        out[slot + d] = x.dtype.type(0)
    if wide:
        down, along = line * dh, pixel * apart + cell
        if line < lines and 0 <= h + down < height and 0 <= v + along < width:
            quad = ld4(x, at + down * width + along)
            out[slot], out[slot + 1], out[slot + 2], out[slot + 3] = quad
    else:
        for d in range(4):
            down, along = line * dh, pixel * apart + cell
            if line < lines and 0 <= h + down < height and 0 <= v + along < width:
                out[slot + d] = x[at + down * width + along]
            line, pixel, cell = _further((line, pixel, cell + 1), window)


@device
def _load_rows(x, row, step, column, rows, columns, wide, out):
    """out = four neighbours each in rows of the matrix x, `step` apart; 0 outside of it."""
    for k in range(out.size):
        out[k] = x.dtype.type(0)
    for k in range(0, out.size, 4):
        if row < rows:
            at = row * columns + column
            if wide:
                if column < columns:
                    out[k], out[k + 1], out[k + 2], out[k + 3] = ld4(x, at)
            else:
                for d in range(4):
                    if column + d < columns:
                        out[k + d] = x[at + d]
        row += step


@device
def _store_rows(x, tile, row, step, column):
    """Four numbers each of x to rows of a tile, `step` apart, in one store."""
    for k in range(0, x.size, 4):
        st4(tile, row * tile.shape[1] + column, x[k], x[k + 1], x[k + 2], x[k + 3])
        row += step


@device
def _clear(total):
    for i in range(total.shape[0]):
        for j in range(total.shape[1]):
            total[i, j] = total.dtype.type(0)


@device
def _multiply(left, right, row, column, total):
    """total += the products of as many columns of left, from `row` on, and 4 of right."""
    a = cuda.local.array(4, total.dtype)
    b = cuda.local.array(4, total.dtype)
    for k in range(DEPTH):
        b[0], b[1], b[2], b[3] = ld4(right, k * right.shape[1] + column)
        for i in range(total.shape[0]):
            if i % 4 == 0:
                a[0], a[1], a[2], a[3] = ld4(left, k * left.shape[1] + row + i)
            for j in range(4):
                total[i, j] += a[i % 4] * b[j]


@device
def _write_row(y, at, total, i, b, column, columns, relu, add, wide):
    """Row i of total to the row of y that begins at y[at], from a column on; at -1 nowhere."""
    value = cuda.local.array(4, y.dtype)
    for j in range(4):
        value[j] = total[i, j]
        if at >= 0 and column + j < columns:
            if b.size:
                value[j] += b[column + j]
            if relu and value[j] <= 0:  # NaN is not
                value[j] = y.dtype.type(0)
            if add:
                value[j] = plus(y[at + column + j], value[j])
            if not wide:
                y[at + column + j] = value[j]
    if wide and at >= 0 and column < columns:
        st4(y, at + column, value[0], value[1], value[2], value[3])


@jit
def _max_pool2d(x, y, arg, across, kh, kw, sh, sw, top, left):
    """A row of threads computes a pixel of y, channel by channel.

    Neighbouring threads take neighbouring channels, which lie side by side in memory.
    """
    n, i, j = _pixel(cuda.blockIdx.x, y.shape[1], across)
    j = j * cuda.blockDim.y + cuda.threadIdx.y
    if j >= y.shape[2]:
        return
    h, v = i * sh - top, j * sw - left
    above, before = max(0, -h), max(0, -v)  # padding, which never wins
    below, after = min(kh, x.shape[1] - h), min(kw, x.shape[2] - v)
    real = above < below and before < after
    c = cuda.threadIdx.x
    while c < y.shape[3]:
        best, winner = x.dtype.type(-math.inf), above * kw + before if real else 0
        for r in range(above, below):
            for s in range(before, after):
                value = x[n, h + r, v + s, c]
                if value > best or (value != value and best == best):  # the first NaN stays
                    best, winner = value, r * kw + s
        y[n, i, j, c], arg[n, i, j, c] = best, winner
        c += cuda.blockDim.x


@dense
def max_pool2d(
    x: Array, y: Out, arg: Out, size: Pair, stride: Pair, pad: Padding
) -> tuple[Array, Array]:
    """y = maximum of each window of x, arg = which of its cells, r * KW + s.

    x (N, H, W, C) -> y, arg (N, OH, OW, C). The first maximum wins, padding never does, and NaN
    wins over every number.
    """
    grid, block, across = _a_pixel_each(y)
    _max_pool2d[grid, block](x, y, arg, across, *size, *stride, pad[0][0], pad[1][0])
    return y, arg


@jit
def _max_pool2d_grad(dy, arg, dx, across, kh, kw, sh, sw, top, left, add):
    """A row of threads gathers a pixel of dx, channel by channel, from the windows that cover it.

    In a fixed order: no atomics, and the same bits in every run.
    """
    n, h, v = _pixel(cuda.blockIdx.x, dx.shape[1], across)
    v = v * cuda.blockDim.y + cuda.threadIdx.y
    if v >= dx.shape[2]:
        return
    top, left = h + top, v + left  # of the pixel in the padded image
    low, high = _divmod(max(0, top - kh + sh), sh)[0], min(_divmod(top, sh)[0] + 1, dy.shape[1])
    near, far = _divmod(max(0, left - kw + sw), sw)[0], min(_divmod(left, sw)[0] + 1, dy.shape[2])
    c = cuda.threadIdx.x
    while c < dx.shape[3]:
        total = dx.dtype.type(0)
        for i in range(low, high):
            for j in range(near, far):
                if arg[n, i, j, c] == (top - i * sh) * kw + left - j * sw:
                    total += dy[n, i, j, c]
        dx[n, h, v, c] = plus(dx[n, h, v, c], total) if add else total
        c += cuda.blockDim.x


@dense
def max_pool2d_grad(
    dy: Array, arg: Array, dx: Out, size: Pair, stride: Pair, pad: Padding, add: bool
) -> Array:
    """dx = dy at the winner of each window, summed where windows overlap."""
    grid, block, across = _a_pixel_each(dx)
    _max_pool2d_grad[grid, block](dy, arg, dx, across, *size, *stride, pad[0][0], pad[1][0], add)
    return dx


def _a_pixel_each(y: Array) -> tuple[int, Pair, int]:
    """Grid and block in which a row of threads takes a pixel of y, and blocks across a line."""
    n, height, width, channels = y.shape
    lanes = min(64, 1 << max(0, channels - 1).bit_length())
    across = blocks(width, THREADS // lanes)
    return n * height * across, (lanes, THREADS // lanes), across
