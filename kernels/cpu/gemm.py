"""Matrix products on the register tiles of `simd.py`: what is packed, and which tile comes when.

Two drivers serve convolutions, linear layers and all their gradients: `multiply` fills strips of
rows, and `multiply_transposed` sums outer products over images, for gradients of weights. Columns
of a result are cut into blocks as wide as a tile, of which the last may be narrower.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from ..reference.elementwise import quiet
from ..roles import Array
from . import simd
from ._numba import jit, loop
from ._threads import threads
from .memory import ZERO, space
from .simd import Target, call, tile, transposer

CONTINUE, FETCH = simd.CONTINUE, simd.FETCH  # numbers to compiled code
_HELP = 1 << 19  # multiplications of a task at least: about 6 us
_EACH = 8  # multiplications that take as long as an element of other work
_CACHE = 600_000  # bytes of filters that stay in the second-level cache beside the images


class Plan(NamedTuple):
    """What `multiply` does, apart from where its arrays are. It depends on shapes and strides.

    strips: (strip, 8): where in a and out its first row is, from row to row in a and out (all in
    bytes), its first piece and the one after its last, its rows of `vertical` and `horizontal`.
    vertical, horizontal: how many cells of the window there are along an axis, and for each its
    distance in a (bytes) and its number; b has a matrix for each pair of them.
    row: bytes from row to row of b where it is not packed, else 0. step: bytes from term to term
    of a sum in a.
    """

    target: Target
    strips: Array
    vertical: Array
    horizontal: Array
    pieces: Array
    blocks: Array
    taps: int
    depth: int
    work: int
    row: int = 0
    step: int = 4


@functools.lru_cache(1024)
def column_blocks(
    target: Target, columns: int, inner: int, taps: int = 1, groups: int = 1, plain: bool = False
) -> Array:
    """(block, 5): first column, columns, vectors - 1, bytes to its part of a row of a, and of b.

    columns, inner: of the result and of a, in one group; groups stand side by side in both.
    plain: b is not packed.
    """
    found, packed, width = [], 0, target.width
    for group in range(groups):
        for first in range(group * columns, (group + 1) * columns, 2 * width):
            some = min(2 * width, (group + 1) * columns - first)
            vectors, begin = 1 + (some > width), 4 * first if plain else packed
            found.append((first, some, vectors - 1, 4 * group * inner, begin))
            packed += 4 * taps * inner * vectors * width
    return np.array(found)


def row_pieces(target: Target, rows: int, blocks: Array, transposed: bool = False) -> Array:
    """Rows cut into tiles of about one height (piece, 3): first row, tiles of 1 and 2 vectors.

    The address of a tile that no block needs is 0: it is not compiled.
    """
    wide = sorted({int(kind) for kind in blocks[:, 2]})
    count = -(-rows // target.rows[wide[-1]])
    ends = [i * rows // count for i in range(count + 1)]
    found = np.zeros((count, 3), np.int64)
    found[:, 0] = ends[:-1]
    for i, (first, end) in enumerate(itertools.pairwise(ends)):
        for kind in wide:
            found[i, 1 + kind] = tile(target, end - first, kind + 1, transposed)
    return found


def pack(plan: Plan, w: Array, transposed: bool) -> Array:
    """w (taps, rows, columns) block by block (taps, rows, whole vectors), beyond its columns 0.

    transposed: rows and columns of each tap change places first.
    """
    if plan.row:
        return w
    last, width = plan.blocks[-1], plan.target.width
    size = last[4] // 4 + plan.taps * plan.depth * (last[2] + 1) * width
    out = space(5, (int(size),))
    work = w.size if len(plan.blocks) > 1 else 0
    given = w, out, plan.blocks, width, plan.depth
    if transposed:
        _pack_transposed(len(plan.blocks), work, *given, transposer(plan.target))
    else:
        _pack(len(plan.blocks), work, *given)
    return out


@loop
def _pack(start, stop, w, out, blocks, width, depth):
    taps, rows, _ = w.shape
    for block in range(start, stop):
        first, some, wide = blocks[block, 0], blocks[block, 1], (blocks[block, 2] + 1) * width
        begin = blocks[block, 4] // 4
        for t in range(taps):
            for k in range(rows):
                row, cells = w[t, k, first : first + some], out[begin : begin + wide]
                for j in range(some):
                    cells[j] = row[j]
                for j in range(some, wide):
                    cells[j] = 0
                begin += wide


@loop
def _pack_transposed(start, stop, w, out, blocks, width, depth, code):
    taps, rows, _ = w.shape
    squares = depth - depth % width
    for block in range(start, stop):
        first, some, wide = (
            blocks[block, 0] % rows,
            blocks[block, 1],
            (blocks[block, 2] + 1) * width,
        )
        skip, begin = blocks[block, 3] // 4, blocks[block, 4] // 4
        for t in range(taps):
            for j in range(0, wide, width):
                done = squares if j + width <= some else 0
                for k in range(0, done, width):
                    source, to = w[t, first + j, skip + k :], out[begin + k * wide + j :]
                    call(code, source.ctypes.data, 4 * w.shape[2], to.ctypes.data, 4 * wide)
                for i in range(j, j + width):
                    for k in range(done, depth):
                        value = w[t, first + i, skip + k] if i < some else ZERO
                        out[begin + k * wide + i] = value
            begin += depth * wide


def address(x: Array | None) -> int:
    """Where an array begins; 0 for None."""
    return 0 if x is None else x.__array_interface__["data"][0]


def multiply(plan: Plan, a: Array, b: Array, bias: Array | None, out: Array, flags: int) -> None:
    """out[i] = bias + sum over the cells t of its window of a[i moved by t] b[t].

    Each number is one tile's, whichever thread runs it: threads change no bits.
    """
    steps = (plan.row,) * 2 if plan.row else (4 * plan.target.width, 8 * plan.target.width)
    numbers = np.array(
        [address(a), address(b), address(bias), address(out), flags, plan.depth, *steps, plan.step]
    )
    strips, blocks, terms = len(plan.strips), len(plan.blocks), plan.taps * plan.depth
    rows = plan.work // (terms * 32 * blocks)
    tasks = _tasks(plan.work, terms, rows, strips, blocks, threads())
    given = plan.strips, plan.vertical, plan.horizontal, plan.pieces, plan.blocks, numbers
    _multiply(len(tasks), plan.work // _EACH, tasks, *given)


@functools.lru_cache(1024)
def _tasks(plan_work: int, terms: int, rows: int, strips: int, blocks: int, threads: int) -> Array:
    """Strips and blocks, from and to, of each task (task, 4).

    Of a and b, the smaller one is read by all threads.
    """
    most = min(16 * threads, plan_work // _HELP)
    if blocks > 1 and (4 * terms * 32 * blocks > _CACHE or rows < 32 * blocks):
        parts = min(strips, max(1, most // blocks))
        spans = [(c, c + 1) for c in range(blocks)]
    else:
        parts, spans = max(1, min(strips, most)), [(0, blocks)]
    cut = [(i * strips // parts, (i + 1) * strips // parts) for i in range(parts)]
    return np.array([(*own, *span) for span in spans for own in cut])


@loop
def _multiply(begin, end, tasks, strips, vertical, horizontal, pieces, blocks, numbers):
    most = vertical.shape[1] * horizontal.shape[1]
    a_taps, b_taps = np.empty(most, np.int64), np.empty((2, most), np.int64)
    for task in range(begin, end):
        start, stop, first, last = tasks[task]
        for s in range(start, stop):
            strip = strips[s]
            taps = _taps(vertical[strip[6]], horizontal[strip[7]], numbers, a_taps, b_taps)
            _fill_strip(strip, first, last, taps, a_taps, b_taps, pieces, blocks, numbers)


@jit
def _taps(vertical, horizontal, numbers, a_taps, b_taps):
    """Where the cells of a window are in a and in b, in bytes; how many."""
    depth, taps = numbers[5], 0
    for i in range(1, 2 * vertical[0], 2):
        for j in range(1, 2 * horizontal[0], 2):
            a_taps[taps] = vertical[i] + horizontal[j]
            number = vertical[i + 1] + horizontal[j + 1]
            for kind in range(2):
                b_taps[kind, taps] = number * depth * numbers[6 + kind]
            taps += 1
    return taps


@jit
def _fill_strip(strip, first, last, taps, a_taps, b_taps, pieces, blocks, numbers):
    a, b, bias, out, flags, depth, _, _, a_step = numbers
    from_a, from_out, a_row, out_row, piece, end, _, _ = strip
    for p in range(piece, end):
        row = pieces[p, 0]
        for c in range(first, last):
            column, columns, kind, skip, packed = blocks[c]
            call(
                pieces[p, 1 + kind],
                a + from_a + row * a_row + skip, a_taps.ctypes.data,
                b + packed, b_taps[kind].ctypes.data,
                taps, depth, a_row, a_step, numbers[6 + kind],
                out + from_out + row * out_row + 4 * column, out_row,
                bias + 4 * column if bias else 0, columns, flags,
            )  # fmt: skip


_TASKS = 16  # of a gradient of weights: from the shape alone, as the order of its sums is
_TERMS = 512  # of a sum before a tile's sums go back to memory; their part of b stays in the cache
_LINE = 64  # bytes of a line of the cache; a tile takes two steps at a time
_PARTIAL = 2 << 20  # bytes of partial sums


class Sums(NamedTuple):
    """What `multiply_transposed` does, apart from where its arrays are.

    A place (p, q, r) in b, which is (P, Q, R, columns), stands for one row of a and one of b.
    cells: (cell of the window, 7): where p, q and r begin and end for which the cell is inside of
    the image, and the distance in a (bytes) from the row that place (0, 0, 0) has to its own.
    steps: bytes in a from p to p + 1, q to q + 1 and r to r + 1.
    chunks: so many p, q and r are taken at a time.
    """

    target: Target
    cells: Array
    pieces: Array
    blocks: Array
    steps: tuple[int, int, int]
    chunks: tuple[int, int, int]
    parts: int
    work: int


def plan_sums(
    target: Target, cells: Array, steps: tuple, places: tuple, rows: int, columns: int, groups: int
) -> Sums:
    """rows, columns: of the result, in one group; places: (P, Q, R)."""
    blocks = column_blocks(target, columns, rows, groups=groups)
    cr = min(places[2], _TERMS)
    cq = min(places[1], max(1, _TERMS // cr))
    chunks = min(places[0], max(1, _TERMS // (cq * cr))), cq, cr
    units = math.prod(-(-n // chunk) for n, chunk in zip(places, chunks, strict=True))
    size = len(cells) * rows * columns * groups
    work = math.prod(places) * size
    parts = max(1, min(_TASKS, units, _PARTIAL // (4 * size), work // _HELP))
    pieces = row_pieces(target, rows, blocks, True)
    return Sums(target, cells, pieces, blocks, steps, chunks, parts, work)


@quiet
def multiply_transposed(sums: Sums, a: Array, b: Array, out: Array) -> None:
    """out[t] = sum over places i of a[i moved by t]' b[i], for each cell t of the window.

    b and out (cells, rows, columns) are in C order.
    """
    parts, blocks = sums.parts, len(sums.blocks)
    totals = out[None] if parts == 1 else space(6, (parts, *out.shape))
    numbers = np.array([address(a), *sums.steps, *sums.chunks, sums.target.width, parts])
    given = sums.cells, sums.pieces, sums.blocks, b, totals, numbers
    groups = min(blocks, -(-_TASKS // parts))
    _multiply_transposed(parts * groups, sums.work // _EACH, groups, *given)
    if parts > 1:
        np.add.reduce(totals, axis=0, out=out)


@loop
def _multiply_transposed(start, stop, groups, cells, pieces, blocks, b, totals, numbers):
    for task in range(start, stop):
        part, group = task // groups, task % groups
        first, last = group * len(blocks) // groups, (group + 1) * len(blocks) // groups
        _add_part(part, first, last, cells, pieces, blocks, b, totals, numbers)


@jit
def _add_part(part, first, last, cells, pieces, blocks, b, totals, numbers):
    cp, cq, cr, width, parts = numbers[4:]
    total, begun = totals[part], np.full((last, len(cells)), FETCH)
    tiles, ahead = (last - first) * len(cells) * len(pieces), np.empty((2, 2), np.int64)
    taps = np.empty((2, cp * cq), np.int64)
    packed = np.empty(cp * cq * cr * 2 * width + 16, np.float32)
    packed = packed[-packed.ctypes.data // 4 % 16 :]  # from a line of the cache on
    nq, nr = -(-b.shape[1] // cq), -(-b.shape[2] // cr)
    units = -(-b.shape[0] // cp) * nq * nr
    for unit in range(part * units // parts, (part + 1) * units // parts):
        begin = unit // (nq * nr) * cp, unit // nr % nq * cq, unit % nr * cr
        _look_ahead(begin, tiles, cells, b, numbers, ahead)
        for n in range(first, last):  # which read the same part of a
            own = begun[n], ahead
            _add_unit(begin, blocks[n], cells, pieces, b, packed, taps, total, numbers, *own)
    for n in range(first, last):
        column, columns = blocks[n, 0], blocks[n, 1]
        for t in range(len(cells)):
            if not begun[n, t] & CONTINUE:
                total[t, :, column : column + columns] = 0


@jit
def _look_ahead(begin, tiles, cells, b, numbers, ahead):
    """What the next unit will be first to read, for so many tiles of this one to ask for.

    That are rows of b, and those of a that the last cell of the window reads.
    ahead (2, 2): of each, where it begins, and the bytes for each step of a tile to ask for.
    """
    (p, q, r), (a, ap, aq, ar, cp, cq, cr, _, _) = begin, numbers
    rows, width = cp * cq * cr, 4 * b.shape[3]
    ahead[0, 0] = b.ctypes.data + ((p * b.shape[1] + q) * b.shape[2] + r + rows) * width
    move = cr * ar if cr < b.shape[2] else cq * aq if cq < b.shape[1] else cp * ap
    ahead[1, 0] = a + cells[-1, 6] + p * ap + q * aq + r * ar + move
    for i, bytes_ in enumerate((width, move // rows)):  # half of the tiles ask for each
        ahead[i, 1] = min(_LINE // 2, -(-2 * bytes_ // tiles))


@jit
def _add_unit(begin, block, cells, pieces, b, packed, taps, total, numbers, begun, ahead):
    """total += a' b over one chunk of places, in one block of columns.

    begun: for each cell, flags of its tiles: whether sums are there to go on with. ahead: what
    tiles ask for.
    """
    (p0, q0, r0), (column, columns, kind, skip, _) = begin, block
    a, ap, aq, ar, cp, cq, cr, width, _ = numbers
    own = b[p0 : p0 + cp, q0 : q0 + cq, r0 : r0 + cr, column : column + columns]
    p_end, q_end, r_end = p0 + own.shape[0], q0 + own.shape[1], r0 + own.shape[2]
    b_row, row_bytes = 4 * (kind + 1) * width, 4 * total.shape[2]
    if 4 * columns == b_row:  # else a tile would read on beyond a row
        b_row, from_b = 4 * b.shape[3], own.ctypes.data
        by_q, by_p = b.shape[2] * b_row, b.shape[1] * b.shape[2] * b_row
    else:
        _pack_rows(own, packed, b_row // 4)
        from_b, by_q = packed.ctypes.data, own.shape[2] * b_row
        by_p = own.shape[1] * by_q
    for t in range(len(cells)):
        p, p1, q, q1, r, r1, move = cells[t]
        p, q, r = max(p, p0), max(q, q0), max(r, r0)
        p1, q1, depth = min(p1, p_end), min(q1, q_end), min(r1, r_end) - r
        count = _pairs(taps[0], p, p1, ap, q, q1, aq)
        _pairs(taps[1], p - p0, p1 - p0, by_p, q - q0, q1 - q0, by_q)
        if depth <= 0 or not count:
            continue
        from_a, place = a + move + r * ar + skip, total[t].ctypes.data + 4 * column
        for n in range(len(pieces)):
            row, fetch = pieces[n, 0], ahead[(t + n) % 2]
            call(
                pieces[n, 1 + kind], from_a + 4 * row, taps[0].ctypes.data,
                from_b + (r - r0) * b_row, taps[1].ctypes.data, count, depth, 4, ar, b_row,
                place + row * row_bytes, row_bytes, 0, columns, begun[t], fetch[0], fetch[1],
            )  # fmt: skip
            fetch[0] += count * depth * fetch[1]
        begun[t] = CONTINUE | FETCH


@jit
def _pairs(places, p, p1, by_p, q, q1, by_q):
    """Where (i, j) are for i from p to p1 and j from q to q1, in bytes; returns how many."""
    n = 0
    for i in range(p, p1):
        for j in range(q, q1):
            places[n] = i * by_p + j * by_q
            n += 1
    return n


@jit
def _pack_rows(rows, out, width):
    begin = 0
    for p in range(rows.shape[0]):
        for q in range(rows.shape[1]):
            for r in range(rows.shape[2]):
                row, cells = rows[p, q, r], out[begin : begin + width]
                for j in range(row.size):
                    cells[j] = row[j]
                for j in range(row.size, width):
                    cells[j] = 0
                begin += width
