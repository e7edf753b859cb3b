"""Winograd's convolution: 3x3 filters with fewer multiplications (Lavin and Gray 2016).

Two neighbouring outputs of a filter of three numbers, y0 = d0 g0 + d1 g1 + d2 g2 and
y1 = d1 g0 + d2 g1 + d3 g2, take six multiplications, but four are enough (their equation 5):

    m0 = (d0 - d2) g0    m1 = (d1 + d2)(g0 + g1 + g2)/2    m2 = (d2 - d1)(g0 - g1 + g2)/2
    m3 = (d1 - d3) g2    y0 = m0 + m1 + m2                 y1 = m1 - m2 - m3

As matrices, y = A'[(G g) * (B'd)], * number by number. Along both axes of an image that is
F(m x m, 3 x 3), a *scheme*: from a tile d of n = m + 2 pixels squared,

    y = A'[(G g G') * (B'd B)] A                                       (their equation 8)

with 16 multiplications for 4 outputs instead of 36, F(2x2, 3x3), or 36 for 16 instead of 144,
F(4x4, 3x3). Summed over channels, what stands between the brackets is n x n matrix products, one
for each number of a tile (their section 4.3): rows are tiles, V = B'd B times U = G g G' gives M.
Both gradients are of the same kind. That of the image is a convolution of dy with the filters
turned around. That of the filters goes back through y: dg = G'[(B'd B) * (A dy A')] G, where the
products sum over tiles (Lavin and Gray do not say so; it is the transposed algorithm).

Rows of V are the images of a batch: a tile's pixel is a matrix (N, C) in the memory order H, W, N,
C, all of whose numbers are transformed alike, so one piece of code does it for whole vectors. As
many rows are taken at a time as fit into the second-level cache, with what they become.

How exact this is. Each transform is a sum with few terms, along each axis; so by the usual analysis
(Higham 2002, section 3.1) y errs by at most k u W, where u is half an epsilon, W the value that the
same algorithm gives for |d|, |g| and the magnitudes of A, B and G, and k the roundings on the way:
the products' terms, and 10 more for F(2x2, 3x3) or 22 more for F(4x4, 3x3) (`Scheme.roundings`). W
is larger than the sum of |d||g| in the bound of a direct convolution: it holds numbers of the tile
that an output does not read, and F(4x4, 3x3) multiplies them by up to 8 and 5 before they cancel.
Measured errors: `python -m benchmarks.winograd`.

What is not finite spreads over a tile, and huge numbers overflow where a direct sum does not. So
nothing that is not finite is ever handed out: each result is looked at on its way to memory, and
where one is not finite a launcher here returns False, and the direct kernel does it all again.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ..reference.elementwise import quiet
from ..roles import Array
from ..shapes import Padding, Pair
from . import simd
from ._numba import jit, loop
from ._threads import threads
from .gemm import Plan, address, column_blocks, pack, row_pieces
from .memory import IMAGES, OUTWARD, canonical, outward, settle, space, target
from .simd import CONTINUE, Target, call
from .transforms import SCHEMES, Scheme, transform

# Which convolutions are Winograd's.

CONV = "direct", "winograd", "auto"
_choice: tuple[str, int] = ("auto", 2)


def set_conv(choice: str, tile: int) -> None:
    """Choose what computes convolutions from now on: see minidl.set_conv."""
    global _choice
    if choice not in CONV or tile not in SCHEMES:
        raise ValueError(f"unknown convolution {choice!r} or tile {tile!r}; known: {CONV}, (2, 4)")
    if choice == "winograd" and not simd.chosen:
        raise RuntimeError("set_conv: 'winograd' needs the vectors of AVX2 or AVX-512")
    _choice = choice, tile


def get_conv() -> tuple[str, int]:
    """What set_conv chose."""
    return _choice


def suited(
    of: str, x: Array, w: Array, y: Array, stride: Pair, pad: Padding, dilation: Pair, groups: int
) -> Scheme | None:
    """The scheme for a convolution of x with w to y; None: it is computed directly.

    of: "y", or of which input it is the gradient, "x" or "w".
    """
    choice, tile = _choice
    if choice == "direct" or w.shape[:2] != (3, 3) or groups > 1:
        return None
    if (*stride, *dilation) != (1, 1, 1, 1):
        return None
    how = of, x.shape, w.shape[3], y.shape[1:3], (pad[0][0], pad[1][0])
    return SCHEMES[tile] if choice == "winograd" or _pays(tile, *how) else None


# From where on "auto" is not direct, by what `python -m benchmarks.winograd` measured with AVX-512
# on one and two threads. Multiplications of a direct convolution, without those with padding; and
# by how much Winograd's must be fewer.
_WORK, _FEWER = 1 << 27, {"y": 1.4, "x": 1.4, "w": 1.5}
# By the outputs of a tile: channels and filters at least, and rows of V for each of them. Few rows
# do not outweigh that U is made, and read.
_LEAST = {2: (32, 2.0), 4: (16, 0.5)}


@functools.lru_cache(512)
def _pays(tile: int, of: str, x: tuple, filters: int, area: Pair, before: Pair) -> bool:
    images, *image, channels = x
    pairs = math.prod(  # of outputs and what they read
        sum(0 <= o + k - p < n for o in range(out) for k in range(3))
        for n, out, p in zip(image, area, before, strict=True)
    )
    tiles = math.prod(-(-n // tile) for n in (image if of == "x" else area))
    planes, rows = (tile + 2) ** 2, images * tiles
    least, each = _LEAST[tile]
    return (
        images >= IMAGES
        and min(channels, filters) >= least
        and rows >= each * max(channels, filters)
        and pairs >= _FEWER[of] * planes * tiles
        and images * pairs * channels * filters >= _WORK
    )


# What is computed when.

# Bytes of V and M of a block: they stay in the second-level cache beside part of U. And rows below
# which U, which every block reads, would come from afar too often. From 256 to 512 KiB times hardly
# differ, with 1 MiB they are 5 % longer (`python -m benchmarks.winograd`).
_BLOCK, _ROWS = 3 << 17, 96


class Tiling(NamedTuple):
    """How the tiles of a batch are shared out: what follows from shapes alone.

    A block is `per` tiles of `chunk` images each, a row for every one of them. There are `blocks`,
    image by image and tile by tile; `across` tiles lie in a line of an image.
    """

    images: int
    across: int
    tiles: int
    chunk: int
    per: int
    blocks: int

    def heights(self) -> set[int]:
        """How many rows blocks have."""
        most = self.chunk, self.per
        least = self.images % self.chunk or self.chunk, self.tiles % self.per or self.per
        return {images * tiles for images in (most[0], least[0]) for tiles in (most[1], least[1])}


@functools.lru_cache(512)
def _tiling(scheme: Scheme, images: int, area: Pair, channels: int, room: int) -> Tiling:
    """channels: of both sides. room: bytes of V and M of a block."""
    down, across = (-(-n // scheme.outputs) for n in area)
    tiles, wanted = down * across, max(_ROWS, room // (4 * scheme.side**2 * channels))
    chunk = -(-images // -(-images // wanted))
    per = min(tiles, max(1, wanted // chunk))
    return Tiling(images, across, tiles, chunk, per, -(-images // chunk) * -(-tiles // per))


class Side(NamedTuple):
    """Images in the order H, W, N, C as compiled code sees them: where, how large, cut how.

    above, left: pixels of the first tile that are outside of the image. step: pixels from tile to
    tile, of n x n pixels each.
    """

    address: int
    height: int
    width: int
    channels: int
    above: int
    left: int
    step: int
    n: int


def _side(x: Array, above: int, left: int, step: int, n: int) -> Side:
    return Side(address(x), x.shape[0], x.shape[1], x.shape[3], above, left, step, n)


@jit
def _part(tiling, block):
    """The images and tiles of a block: from where to where."""
    groups = -(-tiling.tiles // tiling.per)
    image, tile = block // groups * tiling.chunk, block % groups * tiling.per
    ends = min(tiling.images, image + tiling.chunk), min(tiling.tiles, tile + tiling.per)
    return image, ends[0], tile, ends[1]


@jit
def _plane(rows, channels):
    """Bytes from plane to plane: so many that no two begin in the same set of the cache."""
    return -(-rows * channels // 16) * 64 + 64


@jit
def _pixels(found, side, tiling, tile, image, outside):
    """Where the pixels of a tile have their numbers, from an image on."""
    row = tile // tiling.across * side.step - side.above
    column = tile % tiling.across * side.step - side.left
    for i in range(row, row + side.n):
        for j in range(column, column + side.n):
            inside = 0 <= i < side.height and 0 <= j < side.width
            at = ((i * side.width + j) * tiling.images + image) * side.channels
            found[(i - row) * side.n + j - column] = side.address + 4 * at if inside else outside


@jit
def _spread(code, side, tiling, part, begin, planes, to, rows, zeros):
    """Transform tiles to planes of so many rows each; the one of tile `begin` is row 0.

    zeros: what is outside of the image.
    """
    pixels, places = np.empty(side.n * side.n, np.int64), np.empty(planes, np.int64)
    image, last, first, end = part
    length, size = (last - image) * side.channels, _plane(rows, side.channels)
    for tile in range(first, end):
        _pixels(pixels, side, tiling, tile, image, zeros)
        for f in range(planes):
            places[f] = to + f * size + 4 * (tile - begin) * length
        call(code, pixels.ctypes.data, places.ctypes.data, length)


@jit
def _gather(code, side, tiling, part, planes, source, rows, spare, bias, relu, check):
    """Transform planes back to the tiles of images: the opposite of `_spread`.

    spare: where what is outside of the image goes.
    """
    pixels, places = np.empty(side.n * side.n, np.int64), np.empty(planes, np.int64)
    image, last, first, end = part
    length, size = (last - image) * side.channels, _plane(rows, side.channels)
    for tile in range(first, end):
        _pixels(pixels, side, tiling, tile, image, spare)
        for f in range(planes):
            places[f] = source + f * size + 4 * (tile - first) * length
        call(code, places.ctypes.data, pixels.ctypes.data, length, check, bias, relu)


@jit
def _multiply(rows, pieces, blocks, width, planes, v, u, m, inner, columns):
    """M = V U, plane by plane."""
    zero, near, far = np.zeros(1, np.int64), _plane(rows, inner), _plane(rows, columns)
    for f in range(planes):
        for c in range(len(blocks)):
            column, some, kind, _, packed = blocks[c]
            step = 4 * (kind + 1) * width
            for p in range(len(pieces)):
                row = pieces[p, 0]
                call(
                    pieces[p, 1 + kind], v + f * near + 4 * row * inner, zero.ctypes.data,
                    u + packed + f * inner * step, zero.ctypes.data, 1, inner, 4 * inner, 4, step,
                    m + f * far + 4 * (row * columns + column), 4 * columns, 0, some, 0,
                )  # fmt: skip


@loop
def _convolve(
    start, stop, tiling, x, y, codes, pieces, spans, blocks, width, where, relu, room, checks
):
    """A convolution, block by block; each task has its own and a row of room and checks.

    where: the addresses of U and bias, and the places in room of what a tile writes in vain, V, M.
    """
    u, bias, spare, v, m = where
    planes, tasks = x.n * x.n, len(room)
    for task in range(start, stop):
        room[task, :spare] = 0
        zeros, check = room[task].ctypes.data, checks[task].ctypes.data
        for block in range(task * tiling.blocks // tasks, (task + 1) * tiling.blocks // tasks):
            part = _part(tiling, block)
            image, last, first, end = part
            rows, near, far = (last - image) * (end - first), zeros + 4 * v, zeros + 4 * m
            _spread(codes[0], x, tiling, part, first, planes, near, rows, zeros)
            own = pieces[spans[rows, 0] : spans[rows, 1]]
            _multiply(rows, own, blocks, width, planes, near, u, far, x.channels, y.channels)
            outside = zeros + 4 * spare
            _gather(codes[1], y, tiling, part, planes, far, rows, outside, bias, relu, check)


_EACH = 8  # multiplications that take as long as an element of other work
_CUTS = 8  # pieces of a block of filters, for threads


@loop
def _filters(start, stop, code, w, u, near, far, planes, inner, width, turned):
    """U of pieces of the blocks of filters; w, u: addresses. turned: w back to front."""
    cells, places = np.empty(9, np.int64), np.empty(planes, np.int64)
    for task in range(start, stop):
        c, cut = task // _CUTS, task % _CUTS
        row = 4 * (near[c, 2] + 1) * width
        first, last = cut * inner // _CUTS, (cut + 1) * inner // _CUTS
        for i in range(9):
            cells[8 - i if turned else i] = w + near[c, 4] + (i * inner + first) * row
        for f in range(planes):
            places[f] = u + far[c, 4] + (f * inner + first) * row
        call(code, cells.ctypes.data, places.ctypes.data, (last - first) * row // 4)


def _transformed(scheme: Scheme, w: Array, turned: bool) -> tuple[Array, Array]:
    """U, and its blocks of columns. turned: of the convolution that goes back to the images."""
    target: Any = simd.chosen
    planes = scheme.side**2
    inner, columns = w.shape[2:][::-1] if turned else w.shape[2:]
    near, far = (column_blocks(target, columns, inner, taps) for taps in (9, planes))
    none = np.zeros((0, 8), np.int64)
    packed = pack(
        Plan(target, none, none, none, none, near, 9, inner, 0), w.reshape(9, *w.shape[2:]), turned
    )
    u = space(9, (int(far[-1, 4]) // 4 + planes * inner * int(far[-1, 2] + 1) * target.width,))
    code, n = transform(target, scheme, "filters"), len(far) * _CUTS
    given = address(packed), address(u), near, far, planes, inner, target.width, turned
    _filters(n, packed.size, code, *given)
    return u, far


@functools.lru_cache(512)
def _pieces(target: Target, heights: frozenset[int], columns: int, inner: int, planes: int):
    """Tiles of the products of blocks with so many rows, and where those of a height stand."""
    blocks = column_blocks(target, columns, inner, planes)
    found, spans, first = [], np.zeros((max(heights) + 1, 2), np.int64), 0
    for rows in heights:
        found.append(row_pieces(target, rows, blocks))
        spans[rows] = first, first + len(found[-1])
        first += len(found[-1])
    return np.concatenate(found), spans


def _images(x: Array, nth: int) -> Array:
    """x (N, H, W, C) as (H, W, N, C), in this order in memory."""
    x = outward(x, OUTWARD)
    if x.flags.carray:
        return x
    copy = space(nth, x.shape)
    copy[...] = x
    return copy


def _tasks(tiling: Tiling, most: int) -> int:
    """Parts of a loop over blocks, for each of which there is working space."""
    return min(tiling.blocks, most, 4 * threads() if threads() > 1 else 1)


def _places(*sizes: int) -> list[int]:
    """Where so many numbers each begin that lie one behind the other, in lines of the cache."""
    return [sum(-(-n // 16) * 16 for n in sizes[:i]) for i in range(len(sizes) + 1)]


def _convolution(
    scheme: Scheme, x: Array, w: Array, b: Array | None, y: Array, before: Pair, relu: bool,
    turned: bool, add: bool,
) -> bool:  # fmt: skip
    """y = x convolved with w, turned or not; before: zeros above and to the left of x."""
    x, full = _images(x, 7), outward(y, OUTWARD)
    out = target(full, add)
    u, blocks = _transformed(scheme, canonical(w), turned)
    chosen: Any = simd.chosen
    step, n, planes = scheme.outputs, scheme.side, scheme.side**2
    inner, columns = x.shape[3], out.shape[3]
    tiling = _tiling(scheme, x.shape[2], out.shape[:2], inner + columns, _BLOCK)
    heights = tiling.heights()
    most, tasks = max(heights), _tasks(tiling, tiling.blocks)
    added = space(4, (tiling.chunk, columns))
    added[...] = 0 if b is None else b
    # zeros are as long as what a tile reads at once, and so is what it writes in vain
    v, m = (planes * _plane(most, c) // 4 for c in (inner, columns))
    *places, size = _places(tiling.chunk * inner, tiling.chunk * columns, v, m)
    room, checks = space(11, (tasks, size)), space(10, (tasks, 16))
    checks[...] = 0
    _convolve(
        tasks, planes * tiling.images * tiling.tiles * inner * columns // _EACH, tiling,
        _side(x, *before, step, n), _side(out, 0, 0, step, step),
        tuple(transform(chosen, scheme, of) for of in ("images", "products")),
        *_pieces(chosen, frozenset(heights), columns, inner, planes), blocks, chosen.width,
        (address(u), address(added), *places[1:]), int(relu), room, checks,
    )  # fmt: skip
    if checks.any():  # NaN, too
        return False
    settle(out, full, add)
    return True


def conv2d(
    scheme: Scheme, x: Array, w: Array, b: Array | None, y: Array, pad: Padding, relu: bool
) -> bool:
    """y, as `window.conv2d` says for filters of 3x3 and no strides; False if it is not finite."""
    before = pad[0][0], pad[1][0]
    return _convolution(scheme, x, w, b, y, before, relu, False, False)


def conv2d_grad_x(scheme: Scheme, dy: Array, w: Array, dx: Array, pad: Padding, add: bool) -> bool:
    """dx, as `window.conv2d_grad_x` says; False, and dx as it was, if it is not finite."""
    before = 2 - pad[0][0], 2 - pad[1][0]
    return _convolution(scheme, dy, w, None, dx, before, False, True, add)


# The gradient of the filters.

_TASKS = 16  # partial sums, each of blocks of its own: from the shape alone, as their order is
_PARTIAL, _HELP = 2 << 20, 1 << 21  # bytes of all of them, and multiplications in each at least
# Where those have no room, threads share planes instead of blocks; so much of V and D at a time.
_WIDE = 8 << 20


@jit
def _outer(first, last, rows, pieces, blocks, v, d, total, inner, columns, flags):
    """total = V' D for planes first to last, or more of it with CONTINUE."""
    zero, near, far = np.zeros(1, np.int64), _plane(rows, inner), _plane(rows, columns)
    for f in range(first, last):
        for c in range(len(blocks)):
            column, some, kind = blocks[c, :3]
            for p in range(len(pieces)):
                row = pieces[p, 0]
                call(
                    pieces[p, 1 + kind], v + f * near + 4 * row, zero.ctypes.data,
                    d + f * far + 4 * column, zero.ctypes.data, 1, rows, 4, 4 * inner,
                    4 * columns, total + 4 * ((f * inner + row) * columns + column), 4 * columns,
                    0, some, flags, 0, 0,
                )  # fmt: skip


@loop
def _sum(start, stop, tiling, x, dy, codes, pieces, blocks, places, room, totals):
    """Each of totals is V' D, summed over blocks of its own. places: V and D in a row of room."""
    planes, tasks, parts = x.n * x.n, len(room), len(totals)
    for task in range(start, stop):
        room[task, : places[0]] = 0
        zeros = room[task].ctypes.data
        v, d = zeros + 4 * places[0], zeros + 4 * places[1]
        for number in range(task * parts // tasks, (task + 1) * parts // tasks):
            begin, total = number * tiling.blocks // parts, totals[number].ctypes.data
            for block in range(begin, (number + 1) * tiling.blocks // parts):
                part = _part(tiling, block)
                image, last, first, end = part
                rows, flags = (last - image) * (end - first), CONTINUE * (block > begin)
                _spread(codes[0], x, tiling, part, first, planes, v, rows, zeros)
                _spread(codes[1], dy, tiling, part, first, planes, d, rows, zeros)
                own = rows, pieces, blocks, v, d, total, x.channels, dy.channels, flags
                _outer(0, planes, *own)


@loop
def _tiles(start, stop, tiling, part, x, dy, codes, v, d, zeros):
    """V and D of some tiles of a block."""
    image, last, first, end = part
    own, rows = (image, last, first + start, first + stop), (last - image) * (end - first)
    _spread(codes[0], x, tiling, own, first, x.n * x.n, v, rows, zeros)
    _spread(codes[1], dy, tiling, own, first, x.n * x.n, d, rows, zeros)


@loop
def _planes(start, stop, rows, pieces, blocks, v, d, total, inner, columns, flags):
    _outer(start, stop, rows, pieces, blocks, v, d, total, inner, columns, flags)


@loop
def _finish(start, stop, code, total, dw, checks, planes, inner, columns):
    """dw from the sums, by pieces of their rows. All but checks are addresses and numbers."""
    cells, places = np.empty(9, np.int64), np.empty(planes, np.int64)
    row = 4 * columns
    for cut in range(start, stop):
        first, last = cut * inner // _CUTS, (cut + 1) * inner // _CUTS
        for i in range(9):
            cells[i] = dw + (i * inner + first) * row
        for f in range(planes):
            places[f] = total + (f * inner + first) * row
        length, check = (last - first) * columns, checks[cut].ctypes.data
        call(code, places.ctypes.data, cells.ctypes.data, length, check)


@quiet
def conv2d_grad_w(scheme: Scheme, dy: Array, x: Array, dw: Array, pad: Padding, add: bool) -> bool:
    """dw, as `window.conv2d_grad_w` says; False, and dw as it was, if it is not finite."""
    x, dy, out = _images(x, 7), _images(dy, 8), target(dw, add)
    chosen: Any = simd.chosen
    planes, (inner, columns) = scheme.side**2, dw.shape[2:]
    parts, step = _PARTIAL // (4 * planes * inner * columns), scheme.outputs
    room = _BLOCK if parts > 1 else _WIDE
    tiling = _tiling(scheme, x.shape[2], dy.shape[:2], inner + columns, room)
    work = planes * tiling.images * tiling.tiles * inner * columns
    parts = max(1, min(_TASKS, tiling.blocks, parts, work // _HELP))
    totals = space(6, (parts + (parts > 1), planes, inner, columns))  # the last: of all
    blocks = column_blocks(chosen, columns, inner)
    pieces = row_pieces(chosen, inner, blocks, True)
    sides = _side(x, pad[0][0], pad[1][0], step, scheme.side), _side(dy, 0, 0, step, step)
    codes = tuple(transform(chosen, scheme, of) for of in ("images", "slopes", "sums"))
    by = _by_blocks if parts > 1 else _by_planes
    by(tiling, sides, codes[:2], pieces, blocks, totals[:parts], planes, work // _EACH)
    if parts > 1:
        np.add.reduce(totals[:parts], axis=0, out=totals[parts])
    checks = space(10, (_CUTS, 16))
    checks[...] = 0
    given = address(totals[-1]), address(out), checks, planes, inner, columns
    _finish(_CUTS, totals[0].size, codes[2], *given)
    if checks.any():  # NaN, too
        return False
    settle(out, dw, add)
    return True


def _room(tiling: Tiling, sides: tuple[Side, Side], planes: int, tasks: int) -> tuple:
    """Rows of working space, one for each task, and where V and D are in each; first are zeros.

    A tile reads whole vectors of D: there is more behind it.
    """
    most, length = max(tiling.heights()), tiling.chunk * max(side.channels for side in sides)
    v, d = (planes * _plane(most, side.channels) // 4 for side in sides)
    _, *places, size = _places(length, v, d + 64)
    return space(11, (tasks, size)), tuple(places)


def _by_blocks(tiling, sides, codes, pieces, blocks, totals, planes, work) -> None:
    """Partial sums, each over neighbouring blocks."""
    tasks = _tasks(tiling, len(totals))
    room, places = _room(tiling, sides, planes, tasks)
    _sum(tasks, work, tiling, *sides, codes, pieces, blocks, places, room, totals)


def _by_planes(tiling, sides, codes, pieces, blocks, totals, planes, work) -> None:
    """One sum, to which every block adds: threads share first its tiles, then the planes."""
    room, places = _room(tiling, sides, planes, 1)
    room[0, : places[0]] = 0
    zeros, total = address(room), address(totals)
    v, d = (zeros + 4 * place for place in places)
    for block in range(tiling.blocks):
        image, last, first, end = part = _part(tiling, block)
        _tiles(end - first, work, tiling, part, *sides, codes, v, d, zeros)
        rows, flags = (last - image) * (end - first), CONTINUE * (block > 0)
        given = v, d, total, *(side.channels for side in sides), flags
        _planes(planes, work, rows, pieces, blocks, *given)
