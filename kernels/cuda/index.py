"""Elements by their places: picked by number, put back, and repeated around the edges."""

import math

import numpy as np

from ..roles import Array, InOut, Out
from . import memory
from ._numba import blocks, cuda, device, jit
from .intrinsics import plus
from .layout import THREADS, cover
from .move import (
    POSITION,
    below,
    copy,
    dense,
    fill,
    row_launch,
    row_place,
    sorted_keys,
    take_grad,
)

Shape4 = tuple[int, int, int, int]
Widths = tuple[tuple[int, int], ...]

# Numbers of a line that one thread adds up by itself. For longer ones sorting all of them pays:
# else a few long lines would keep a few threads busy, and the rest of the GPU waiting.
SHORT = 64
MOST_ROWS = 1 << 29  # of a table: a number and a position are one key


@device
def _counted(number, length):
    """A number from 0 on for one that may count from the end; and whether there is such a place."""
    number += length if number < 0 else 0
    return number, 0 <= number < length


@jit
def _gather(x, index, y):
    """A thread copies an element of y (outer, n, inner), its neighbours their neighbours."""
    i, first, o = cuda.grid(3)
    _, rows, planes = cuda.gridsize(3)
    if i < y.shape[2]:
        while o < y.shape[0]:
            j = first
            while j < y.shape[1]:
                at, known = _counted(index[o, j, i], x.shape[1])
                y[o, j, i] = x[o, at, i] if known else y.dtype.type(math.nan)  # as in take
                j += rows
            o += planes


def _around(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """The axis between all that are outside of it and all that are inside."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


@dense
def gather(x: Array, index: Array, y: Out, axis: int) -> Array:
    """y[..., j, ...] = x[..., index[..., j, ...], ...] along an axis.

    x and index have the same lengths along the others; a negative number counts from the end.
    """
    shape = _around(y.shape, axis)
    grid, block = cover(*shape[::-1])
    _gather[grid, block](x.reshape(_around(x.shape, axis)), index.reshape(shape), y.reshape(shape))
    return y


@jit
def _put_lines(dy, index, dx):
    """A thread adds the numbers of one line of dy to where they were picked, in their order.

    No other thread writes to its line of dx, so that the order is always the same.
    """
    i, o = cuda.grid(2)
    if i < dy.shape[2]:
        while o < dy.shape[0]:
            for j in range(dy.shape[1]):
                at, known = _counted(index[o, j, i], dx.shape[1])
                if known:
                    dx[o, at, i] += dy[o, j, i]
            o += cuda.gridsize(2)[1]


@jit
def _number_cells(index, cell, length):
    """A thread computes where in dx (outer, length, inner), as one row, an element of dy goes."""
    i, first, o = cuda.grid(3)
    _, rows, planes = cuda.gridsize(3)
    if i < cell.shape[2]:
        while o < cell.shape[0]:
            j = first
            while j < cell.shape[1]:
                at, known = _counted(index[o, j, i], length)
                nowhere = cell.shape[0] * length * cell.shape[2]
                cell[o, j, i] = (o * length + at) * cell.shape[2] + i if known else nowhere
                j += rows
            o += planes


@dense
def gather_grad(dy: Array, index: Array, dx: Out, axis: int, add: bool) -> Array:
    """dx[..., index[..., j, ...], ...] += dy[..., j, ...], in the order of j."""
    shape = outer, n, inner = _around(dy.shape, axis)
    wide = _around(dx.shape, axis)
    if n > SHORT:
        cell = memory.scratch(shape, np.int64)
        grid, block = cover(*shape[::-1])
        _number_cells[grid, block](index.reshape(shape), cell, wide[1])
        take_grad(dy.reshape(-1), cell.reshape(-1), dx.reshape(-1), add)
        return dx
    out = memory.scratch(dx.shape, dx.dtype) if add else dx  # sums are finished, then added
    fill(out, 0.0)
    grid, block = cover(inner, outer)
    _put_lines[grid, block](dy.reshape(shape), index.reshape(shape), out.reshape(wide))
    return copy(out, dx, True) if add else dx


@jit
def _distinct(key, rows, place, skip):
    """A thread looks at one of the sorted keys: whether it is the first of its number."""
    i = cuda.grid(1)
    if i >= key.size:
        return
    row = key[i] >> POSITION
    known = row < MOST_ROWS and row != skip
    first = below(key, 0, i, row << POSITION)
    rows[i] = row if known and first == i else -1
    place[key[i] & ((1 << POSITION) - 1)] = first if known else key.size


@dense
def distinct(index: Array, rows: Out, place: Out, skip: int) -> tuple[Array, Array]:
    """rows: the numbers of index (n,), ascending, -1 where one comes again; place: where each is.

    index[i] = rows[place[i]]. The number skip, and those below 0, which stand behind all others,
    are left out: -1 in rows, and their place is n.
    """
    key = sorted_keys(index, 2 * MOST_ROWS)  # to a number below 0 it adds as many
    _distinct[blocks(index.size, THREADS), THREADS](key, rows, place, skip)
    return rows, place


@jit
def _put(x, rows, y):
    """A thread copies elements of one row of x; its neighbours copy their neighbours."""
    i, c, step = row_place()
    if i < x.shape[0] and 0 <= rows[i] < y.shape[0]:
        while c < x.shape[1]:
            y[rows[i], c] = x[i, c]
            c += step


@dense
def put_(x: Array, rows: Array, y: InOut) -> Array:
    """y[rows[i]] = x[i], but where rows[i] is -1. x (n, ...), rows (n,), y (M, ...)."""
    columns = math.prod(x.shape[1:])
    grid, block = row_launch(rows.size, columns)
    _put[grid, block](x.reshape(rows.size, columns), rows, y.reshape(y.shape[0], columns))
    return y


# pad works on two neighbouring axes at a time, (outer, height, width, inner): one launch for
# images, and as many as it takes for any other axes.

CONSTANT, EDGE, REFLECT = range(3)
MODES = {"constant": CONSTANT, "edge": EDGE, "reflect": REFLECT}


@device
def _source(place, length, mode):
    """The place in x that is repeated at a place before, in or behind it; outside: none is."""
    at = place
    if mode == EDGE:
        at = min(max(place, 0), length - 1)
    elif mode == REFLECT:
        at = min(abs(place), 2 * (length - 1) - abs(place))
    return at


@jit
def _pad(x, y, top, left, mode, value):
    """A thread computes an element of each image y[o]: it looks for its source once."""
    i, first, row = cuda.grid(3)
    _, columns, rows = cuda.gridsize(3)
    if i < y.shape[3]:
        while row < y.shape[1]:
            h = _source(row - top, x.shape[1], mode)
            column = first
            while column < y.shape[2]:
                w = _source(column - left, x.shape[2], mode)
                inside = 0 <= h < x.shape[1] and 0 <= w < x.shape[2]
                for o in range(y.shape[0]):
                    y[o, row, column, i] = x[o, h, w, i] if inside else y.dtype.type(value)
                column += columns
            row += rows


def _turns(shape: tuple[int, ...], widths: Widths) -> list[tuple[int, int, Shape4, Shape4]]:
    """Paddings of two neighbouring axes, one after the other: top, left, the shape before, after.

    The shapes are (outer, height, width, inner), for all axes before the two and all behind them.
    """
    lead = max(2 - len(shape), 0)
    lengths, undone = [1] * lead + list(shape), [(0, 0)] * lead + list(widths)
    turns = []
    while any(map(any, undone)):
        a = min(next(a for a, pair in enumerate(undone) if any(pair)), len(undone) - 2)
        (top, bottom), (left, right) = undone[a : a + 2]
        outer, (height, width), inner = lengths[:a], lengths[a : a + 2], lengths[a + 2 :]
        small = math.prod(outer), height, width, math.prod(inner)
        large = small[0], top + height + bottom, left + width + right, small[3]
        turns.append((top, left, small, large))
        lengths[a : a + 2], undone[a : a + 2] = large[1:3], [(0, 0)] * 2
    return turns


@dense
def pad(x: Array, y: Out, widths: Widths, mode: str, value: float) -> Array:
    """y = x with (before, after) more elements along each axis.

    mode: "constant", they are value; "edge", the nearest of x; "reflect", x mirrored at its first
    and last element, which are not repeated.
    """
    turns = _turns(x.shape, widths)
    for n, (top, left, small, large) in enumerate(turns, 1):
        out = y.reshape(large) if n == len(turns) else memory.scratch(large, y.dtype)
        grid, block = cover(*large[:0:-1])
        _pad[grid, block](x.reshape(small), out, top, left, MODES[mode], float(value))
        x = out
    return y if turns else copy(x, y, False)


@device
def _repeats(part, place, length, before, total, mode):
    """The neighbours in y that repeat one place of x: from the first to behind the last.

    Part 0 is the place itself, at an edge with all that repeats it; 1 and 2 are its mirror images.
    """
    start = before + place
    stop = start + 1
    if mode == EDGE:
        start = 0 if place == 0 else start
        stop = total if place == length - 1 else stop
    elif part == 1:
        start = before - place
        stop = start + (1 if place > 0 and start >= 0 else 0)
    elif part == 2:
        start = before + 2 * (length - 1) - place
        stop = start + (1 if place < length - 1 and start < total else 0)
    return start, stop


@jit
def _pad_grad(dy, dx, top, left, mode, add):
    """A thread adds up what came from one element, in a fixed order: the border has no thread."""
    i, first, row = cuda.grid(3)
    _, columns, rows = cuda.gridsize(3)
    height, width = dx.shape[1], dx.shape[2]
    parts = 3 if mode == REFLECT else 1
    if i >= dx.shape[3]:
        return
    while row < height:
        column = first
        while column < width:
            for o in range(dx.shape[0]):
                total = dx.dtype.type(0)
                for a in range(parts):
                    h, h_stop = _repeats(a, row, height, top, dy.shape[1], mode)
                    while h < h_stop:
                        for b in range(parts):
                            w, w_stop = _repeats(b, column, width, left, dy.shape[2], mode)
                            while w < w_stop:
                                total += dy[o, h, w, i]
                                w += 1
                        h += 1
                dx[o, row, column, i] = plus(dx[o, row, column, i], total) if add else total
            column += columns
        row += rows


@dense
def pad_grad(dy: Array, dx: Out, widths: Widths, mode: str, add: bool) -> Array:
    """dx = sum of dy over the places where pad puts each element."""
    turns = _turns(dx.shape, widths)
    for n, (top, left, small, large) in zip(range(len(turns))[::-1], turns[::-1]):
        out = memory.scratch(small, dx.dtype) if n else dx.reshape(small)
        grid, block = cover(*small[:0:-1])
        _pad_grad[grid, block](
            dy.reshape(large), out, top, left, MODES[mode], add if n == 0 else False
        )
        dy = out
    return dx if turns else copy(dy, dx, add)
