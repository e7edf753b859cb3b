"""Convolution without copies: a register tile runs over the images of a batch.

Images lie in the memory order H, W, N, C (`empty_image`): what a cell of the window reads for
neighbouring images is a matrix (N, C), whatever the stride, the dilation or the size of the map.
Each output is the sum of such matrices times the filters' (C, F), one for each cell that is inside
of the image: nothing is spread out or padded. The same loops over dy and the filters transposed
give the gradient of x. Small batches lie in plain order, and the tile runs along lines of outputs
that meet the same cells.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..roles import Array
from ..shapes import Padding, Pair
from . import simd
from .gemm import (
    Plan,
    Sums,
    column_blocks,
    multiply,
    multiply_transposed,
    pack,
    plan_sums,
    row_pieces,
)  # fmt: skip
from .memory import IMAGES, OUTWARD, canonical, outward, settle, space

_FEW = 8  # channels below which the cells of a window's row are taken together
_NEAR = 1 << 20  # bytes of images that stay in the second-level cache


class Window(NamedTuple):
    """The shapes of a convolution: what its plans depend on, besides strides."""

    images: int
    image: Pair
    output: Pair
    size: Pair
    stride: Pair
    pad: Pair  # top, left
    dilation: Pair
    channels: int  # of one group
    filters: int  # of one group
    groups: int


def conv2d(
    x: Array, w: Array, b: Array | None, y: Array, stride: Pair, pad: Padding, dilation: Pair,
    groups: int, relu: bool,
) -> Array:  # fmt: skip
    """y, as `window.conv2d` says."""
    v, x, w = _prepared(x, w, y, stride, pad, dilation, groups)
    out = _place(y)
    plan = _plan(simd.chosen, v, x.strides[:3], out.strides[:3], False)
    bias = None if b is None else canonical(b)
    packed = pack(plan, w.reshape(-1, *w.shape[2:]), False)
    multiply(plan, x, packed, bias, out, simd.RELU * relu)
    return settle(out, y)


def conv2d_grad_x(
    dy: Array, w: Array, dx: Array, stride: Pair, pad: Padding, dilation: Pair, groups: int,
    add: bool,
) -> Array:  # fmt: skip
    """dx, as `window.conv2d_grad_x` says."""
    v = _window(dx, w, dy, stride, pad, dilation, groups)
    dy, out = _images(dy, 7), _place(dx)
    plan = _plan(simd.chosen, v, dy.strides[:3], out.strides[:3], True)
    packed = pack(plan, canonical(w).reshape(-1, *w.shape[2:]), True)
    multiply(plan, dy, packed, None, out, simd.ADD * (add and out is dx))
    return settle(out, dx, add)


def conv2d_grad_w(
    dy: Array, x: Array, dw: Array, stride: Pair, pad: Padding, dilation: Pair, groups: int,
    add: bool,
) -> Array:  # fmt: skip
    """dw, as `window.conv2d_grad_w` says."""
    plain = dw.flags.carray and not add
    out = dw if plain else space(0, dw.shape)
    v, x, rows = _prepared(x, out, dy, stride, pad, dilation, groups)
    places = canonical(outward(dy, OUTWARD if len(x) >= IMAGES else None))
    sums = _sums(simd.chosen, v, x.strides[:3])
    multiply_transposed(sums, x, places, rows.reshape(-1, *rows.shape[2:]))
    return settle(out, dw, add)


def _window(x, w, y, stride, pad, dilation, groups) -> Window:
    return Window(
        len(x), x.shape[1:3], y.shape[1:3], w.shape[:2], stride, (pad[0][0], pad[1][0]), dilation,
        w.shape[2], w.shape[3] // groups, groups,
    )  # fmt: skip


def _prepared(x, w, y, stride, pad, dilation, groups) -> tuple[Window, Array, Array]:
    """A convolution in the form that tiles like: shapes, images and filters."""
    w = canonical(w)
    if x.shape[3] < _FEW and w.shape[1] > 1 and groups == dilation[1] == 1:
        x = _lines(x, w.shape[1], y.shape[2], stride[1], pad)
        w = w.reshape(w.shape[0], 1, -1, w.shape[3])
        stride, pad = (stride[0], 1), ((0, 0), (0, 0))
    else:
        x = _images(x, 8)
    return _window(x, w, y, stride, pad, dilation, groups), x, w


def _lines(x: Array, cells: int, outputs: int, step: int, pad: Padding) -> Array:
    """x (N, H, W, C), padded, as (N, H, OW, cells C): the cells of a row of a window lie in a row.

    A tile that has one channel at a time, or three, does next to nothing between its loads.
    """
    n, height, width, c = x.shape
    (top, bottom), (left, right) = pad
    wide = space(8, (top + height + bottom, n, left + width + right, c))
    wide[:top], wide[top + height :] = 0, 0
    wide[top : top + height, :, :left], wide[top : top + height, :, left + width :] = 0, 0
    wide[top : top + height, :, left : left + width] = x.swapaxes(0, 1)
    by_row, by_image, by_column, by_channel = wide.strides
    shape = n, len(wide), outputs, cells * c
    return as_strided(wide, shape, (by_image, by_row, step * by_column, by_channel))


def _tight(x: Array) -> bool:
    """Whether the channels of a pixel lie side by side."""
    return x.flags.aligned and (x.strides[3] == 4 or x.shape[3] == 1)


def _images(x: Array, nth: int) -> Array:
    """x, or a copy in the memory order that tiles like."""
    by_image = len(x) >= IMAGES
    if _tight(x) and (not by_image or x.transpose(1, 2, 0, 3).flags.c_contiguous):
        return x
    order = OUTWARD if by_image else (0, 1, 2, 3)
    copy = space(nth, tuple(x.shape[a] for a in order))
    copy[...] = x.transpose(order)
    return copy.transpose(2, 0, 1, 3) if by_image else copy


def _place(y: Array) -> Array:
    """Where tiles write: y, or working space where `settle` has to finish."""
    return y if _tight(y) and y.flags.writeable else space(0, y.shape)


Taps = Sequence[tuple[int, int]]  # cells of a window along an axis, and the places that they read


def _taps(v: Window, axis: int, transposed: bool) -> list[Taps]:
    """For each output along an axis, the cells of its window that are inside of the image.

    transposed: for each place in the image, the cells that read it and the outputs they did it for.
    """
    step, dilation, before = v.stride[axis], v.dilation[axis], v.pad[axis]
    n, limit = (v.image, v.output) if transposed else (v.output, v.image)
    found: list[Taps] = []
    for o in range(n[axis]):
        if transposed:
            reads = [divmod(o + before - k * dilation, step) for k in range(v.size[axis])]
        else:
            reads = [(o * step + k * dilation - before, 0) for k in range(v.size[axis])]
        found.append(
            [(k, i) for k, (i, rest) in enumerate(reads) if not rest and 0 <= i < limit[axis]]
        )
    return found


def _runs(outputs: list[Taps]) -> Iterator[tuple[list[int], int]]:
    """Outputs at a regular distance that meet the same cells, and how far apart they read."""
    waiting: dict[tuple[int, ...], list[int]] = {}
    for o, cells in enumerate(outputs):
        waiting.setdefault(tuple(k for k, _ in cells), []).append(o)
    for places in waiting.values():
        reads = [outputs[o][0][1] if outputs[o] else 0 for o in places]
        while places:
            step, move = (places[1] - places[0], reads[1] - reads[0]) if places[1:] else (0, 0)
            n = 1
            while places[n:] and (places[n], reads[n]) == (
                places[0] + n * step,
                reads[0] + n * move,
            ):
                n += 1
            yield places[:n], move
            places, reads = places[n:], reads[n:]


@functools.lru_cache(512)
def _plan(target, v: Window, a: tuple, out: tuple, transposed: bool) -> Plan:
    """What a convolution does, or the gradient of its images."""
    inner, columns = (v.filters, v.channels) if transposed else (v.channels, v.filters)
    count, area = v.size[0] * v.size[1], v.image if transposed else v.output
    blocks = column_blocks(target, columns, inner, count, v.groups)
    vertical, horizontal = (_taps(v, axis, transposed) for axis in (0, 1))
    tables = []
    for cells, by, number in ((vertical, a[1], v.size[1]), (horizontal, a[2], 1)):
        table = np.zeros((len(cells), 1 + 2 * max(map(len, cells))), np.int64)
        for row, found in zip(table, cells, strict=True):
            row[0] = len(found)
            row[1 : 1 + 2 * len(found)] = [n for k, i in found for n in (i * by, k * number)]
        tables.append(table)
    if v.images >= IMAGES:
        line = v.size[0] * max(v.image[1], v.output[1]) * inner * v.groups * 4
        tall = target.rows[int(blocks[:, 2].max())]
        strips = _over_images(v.images, max(1, _NEAR // (line * tall)) * tall, area, a, out)
    else:
        strips = _along_lines(v.images, vertical, horizontal, a, out)
    heights = sorted({int(rows) for rows in strips[:, 4]})
    cut = [row_pieces(target, rows, blocks) for rows in heights]
    ends = np.cumsum([0, *map(len, cut)])
    which = np.searchsorted(heights, strips[:, 4])
    strips[:, 4], strips[:, 5] = ends[which], ends[which + 1]
    work = v.images * area[0] * area[1] * count * columns * inner * v.groups
    down, right = tables
    return Plan(target, strips, down, right, np.concatenate(cut), blocks, count, inner, work)


def _over_images(n: int, chunk: int, area: Pair, a: tuple, out: tuple) -> Array:
    """Strips of the outputs at one place, for as many images as the cache holds lines of."""
    firsts = np.arange(0, n, chunk)
    grid = np.meshgrid(firsts, *map(np.arange, area), indexing="ij")
    first, i, j = (axis.reshape(-1) for axis in grid)
    strips = np.empty((len(first), 8), np.int64)
    strips[:, 0], strips[:, 1] = first * a[0], first * out[0] + i * out[1] + j * out[2]
    strips[:, 2], strips[:, 3], strips[:, 4] = a[0], out[0], np.minimum(chunk, n - first)
    strips[:, 6], strips[:, 7] = i, j
    return strips


def _along_lines(n: int, vertical: list, horizontal: list, a: tuple, out: tuple) -> Array:
    """Strips of outputs of one image that meet the same cells, as long as can be."""
    strips = []
    for (rows, down), (columns, right) in itertools.product(_runs(vertical), _runs(horizontal)):
        sets = [(1, rows, down), (2, columns, right)]
        (across, firsts, _), (along, line, move) = sets if len(columns) >= len(rows) else sets[::-1]
        step = line[1] - line[0] if line[1:] else 0
        for image, first in itertools.product(range(n), firsts):
            at = image * out[0] + first * out[across] + line[0] * out[along]
            which = (first, line[0]) if across == 1 else (line[0], first)
            strips.append(
                (image * a[0], at, move * a[along], step * out[along], len(line), 0, *which)
            )
    return np.array(sorted(strips, key=lambda strip: strip[1]))


@functools.lru_cache(512)
def _sums(target, v: Window, a: tuple) -> Sums:
    """What the gradient of filters does; a: bytes in x from image to image, row and column."""
    ranges = []  # along each axis, for each cell of the window: outputs, and where it reads
    for axis in (0, 1):
        taps, by = _taps(v, axis, False), a[1 + axis]
        inside = [[o for o, t in enumerate(taps) if k in dict(t)] for k in range(v.size[axis])]
        starts = [(k * v.dilation[axis] - v.pad[axis]) * by for k in range(v.size[axis])]
        ends = [(o[0], o[-1] + 1) if o else (0, 0) for o in inside]
        ranges.append(list(zip(ends, starts, strict=True)))
    steps, every = (v.stride[0] * a[1], v.stride[1] * a[2]), (0, v.images)
    cells = []
    for (rows, down), (columns, right) in itertools.product(*ranges):
        where = (every, rows, columns) if v.images < IMAGES else (rows, columns, every)
        cells.append([*itertools.chain(*where), down + right])
    by_image, places = a[0], (v.images, *v.output)
    if v.images < IMAGES:
        order = (by_image, *steps), places
    else:
        order = (*steps, by_image), (*places[1:], places[0])
    return plan_sums(target, np.array(cells), *order, v.channels, v.filters, v.groups)
