"""Copies, and rows picked by number."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import scalars
from ..roles import Array, Out, roles
from . import memory
from ._numba import blocks, cuda, device, jit
from .intrinsics import plus
from .layout import MOST_BLOCKS, THREADS, collapse, cover
from .pointwise import Pointwise, planes

TILE, ROWS = 32, 8  # of a turned copy: a warp per line of a tile, 8 lines at a time
PITCH = TILE + 1  # neighbours along a column of the tile lie in different banks


_copies = Pointwise(scalars.copy)


@jit(mixed=True)
def _copy_turned(x, y, add):
    """A block copies tiles of y[h, i] whose lines lie along k in y, but along j in x.

    So it reads x along j and writes y along k, in both 32 neighbours at once; the tile turns in
    shared memory.
    """
    tile = cuda.shared.array((TILE, PITCH), x.dtype)
    lane, line = cuda.threadIdx.x, cuda.threadIdx.y
    k0, i = cuda.blockIdx.x * TILE, cuda.blockIdx.z
    while i < y.shape[1]:
        j0 = cuda.blockIdx.y * TILE
        while j0 < y.shape[2]:
            for h in range(y.shape[0]):
                for n in range(line, TILE, ROWS):
                    if j0 + lane < y.shape[2] and k0 + n < y.shape[3]:
                        tile[n, lane] = x[h, i, j0 + lane, k0 + n]
                cuda.syncthreads()
                for n in range(line, TILE, ROWS):
                    j, k = j0 + n, k0 + lane
                    if j < y.shape[2] and k < y.shape[3]:
                        value = y.dtype.type(tile[lane, n])
                        y[h, i, j, k] = plus(y[h, i, j, k], value) if add else value
                cuda.syncthreads()
            j0 += cuda.gridDim.y * TILE
        i += cuda.gridDim.z


def copy(x: Array, y: Out, add: bool) -> Array:
    """y = x, cast to y's dtype."""
    if x.flags.c_contiguous and y.flags.c_contiguous:
        return _copies((x,), y, add)
    shape, (from_, to) = collapse(y.shape, x.strides, y.strides)
    *others, k = range(len(shape)) or [0]  # neighbours in y lie along k,
    j = min(others, key=lambda a: abs(from_[a]), default=k)  # in x along j, or along k, too
    if j == k or not 0 < abs(from_[j]) < abs(from_[k]) or min(shape[j], shape[k]) < ROWS:
        return _copies((x,), y, add)
    for views in planes(shape, (x, y), (from_, to), j - len(shape)):
        _, i, rows, columns = views[-1].shape
        grid = blocks(columns, TILE), min(blocks(rows, TILE), MOST_BLOCKS), min(i, MOST_BLOCKS)
        _copy_turned[grid, (TILE, ROWS)](*views, add)
    return y


def dense(launcher: Callable[..., Any]) -> Callable[..., Any]:
    """Let a launcher see arrays in C order alone, so that its kernels need one layout.

    Others are copied to scratch before the call, and outputs back after it.
    """
    names, kinds = zip(*roles(launcher).items())
    signature = inspect.signature(launcher)

    @functools.wraps(launcher)
    def call(*args: Any, **named: Any) -> Any:
        if named:
            args = signature.bind(*args, **named).args
        away = [i for i, a in enumerate(args) if hasattr(a, "flags") and not a.flags.c_contiguous]
        if not away:
            return launcher(*args)
        inside = list(args)
        adds = names[-1] == "add" and args[-1] not in (False, (False,) * kinds.count("out"))
        for i in away:
            inside[i] = memory.scratch(args[i].shape, args[i].dtype)
            if kinds[i] != "out" or adds:
                copy(args[i], inside[i], False)
        launcher(*inside)
        for i in away:
            if "out" in kinds[i]:
                copy(inside[i], args[i], False)
        outputs = tuple(a for a, kind in zip(args, kinds) if "out" in kind)
        return outputs if len(outputs) > 1 else outputs[0]

    return call


@jit
def _fill(y, value):
    """A thread writes one element."""
    i = cuda.grid(1)
    if i < y.size:
        y[i] = y.dtype.type(value)


@dense
def fill(y: Out, value: float) -> Array:
    """y = value everywhere."""
    _fill[blocks(y.size, THREADS), THREADS](y.reshape(-1), value)
    return y


@device
def row_place():
    """A thread's row and first column in a launch over rows, and the step to its next column."""
    across, down = cuda.blockDim.x, cuda.blockDim.y
    row = cuda.blockIdx.x * down + cuda.threadIdx.y
    return row, cuda.blockIdx.y * across + cuda.threadIdx.x, cuda.gridDim.y * across


@jit
def _take(x, index, y):
    """A thread copies elements of one row of y; its neighbours copy their neighbours."""
    i, c, step = row_place()
    if i >= y.shape[0]:
        return
    row = index[i] + (x.shape[0] if index[i] < 0 else 0)
    known = 0 <= row < x.shape[0]  # a wrong number gives NaN, never a stranger's memory
    while c < y.shape[1]:
        y[i, c] = x[row, c] if known else y.dtype.type(math.nan)
        c += step


@dense
def take(x: Array, index: Array, y: Out) -> Array:
    """y[i...] = x[index[i...]]: rows of x (M, ...); a negative number counts from the end."""
    columns = math.prod(x.shape[1:])
    grid, block = row_launch(index.size, columns)
    _take[grid, block](
        x.reshape(x.shape[0], columns), index.reshape(-1), y.reshape(index.size, columns)
    )
    return y


def row_launch(count: int, columns: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block for rows: along the grid's first axis, which has room for any number."""
    (across, *_), (lanes, *_) = cover(columns)
    height = THREADS // lanes
    return (blocks(count, height), min(across, MOST_BLOCKS)), (lanes, height)


# take_grad: the rows of dy are put in the order of where they go, by sorting, so that each row of
# dx finds its own side by side. That costs n log n for n indices, however many rows dx has; to look
# through all of them for each row of dx would cost their product, and atomic additions another
# order, and so other bits, in every run. A key is (row of dx, position in dy) in one integer: no
# two are equal, and their order is that of i within each row.

CHUNK = 256  # keys that one block sorts by itself
PIECE = 128  # sorted keys in a task: a row that is taken often is added up by many threads
POSITION = 32  # bits of a key for the position


@jit
def _sort_chunks(index, key, rows):
    """A block sorts 256 keys: a thread's key goes where the number of smaller ones says."""
    chunk = cuda.shared.array(CHUNK, key.dtype)
    i, here = cuda.grid(1), cuda.threadIdx.x
    mine = (rows + 1) << POSITION  # behind all others
    if i < index.size:
        row = index[i] + (rows if index[i] < 0 else 0)
        row = row if 0 <= row < rows else rows  # a number that is no row of dx: behind all that are
        mine = (row << POSITION) + i
    chunk[here] = mine
    cuda.syncthreads()
    rank = 0
    for k in range(CHUNK):
        rank += chunk[k] < mine
    if i < index.size:
        key[i - here + rank] = mine


@device
def below(key, start, stop, limit):
    """How many of the sorted key[start:stop] are less than limit."""
    low, high = start, stop
    while low < high:
        middle = (low + high) >> 1
        if key[middle] < limit:
            low = middle + 1
        else:
            high = middle
    return low - start


@jit
def _merge(key, merged, run):
    """A thread moves one key to its place in two sorted runs joined to one.

    That is its place in its own run, and as many further as keys of the other run are smaller. The
    length of a run is a power of two, so that its bits tell where it starts, and the other one.
    """
    i = cuda.grid(1)
    if i >= key.size:
        return
    own = i & -run
    other = own ^ run
    start, stop = min(other, key.size), min(other + run, key.size)
    merged[(own & other) + (i - own) + below(key, start, stop, key[i])] = key[i]


def sorted_keys(index: Array, rows: int) -> Array:
    """The keys of index (n,), numbers of so many rows: (number, position), ascending."""
    count, run = index.size, CHUNK
    key, spare = memory.scratch((count,), np.int64), memory.scratch((count,), np.int64)
    _sort_chunks[blocks(count, CHUNK), CHUNK](index, key, rows)
    while run < count:
        _merge[blocks(count, THREADS), THREADS](key, spare, run)
        key, spare, run = spare, key, 2 * run
    return key


@device
def _run_sum(dy, key, start, stop, row, c):
    """Sum of column c of dy over sorted keys from start on, as far as they go to this row."""
    total = dy.dtype.type(0)
    while start < stop and key[start] >> POSITION == row:
        total += dy[key[start] & ((1 << POSITION) - 1), c]
        start += 1
    return total


@jit
def _sum_pieces(dy, key, partial):
    """A thread adds up one column over the row with which a piece of the sorted keys begins."""
    t, c, step = row_place()
    start = t * PIECE
    if start < key.size:
        stop, row = min(start + PIECE, key.size), key[start] >> POSITION
        while c < dy.shape[1]:
            partial[t, c] = _run_sum(dy, key, start, stop, row, c)
            c += step


@jit
def _sum_runs(dy, key, partial, dx, add):
    """A thread computes one column of one row of dx, from where its keys start.

    What stands before the next piece it adds up itself; of each piece that begins with this row it
    takes the sum that is there.
    """
    row, c, step = row_place()
    if row >= dx.shape[0]:
        return
    start = below(key, 0, key.size, row << POSITION)
    piece = (start + PIECE - 1) // PIECE
    while c < dx.shape[1]:
        total = _run_sum(dy, key, start, min(piece * PIECE, key.size), row, c)
        t = piece
        while t < partial.shape[0] and key[t * PIECE] >> POSITION == row:
            total += partial[t, c]
            t += 1
        dx[row, c] = plus(dx[row, c], total) if add else total
        c += step


@dense
def take_grad(dy: Array, index: Array, dx: Out, add: bool) -> Array:
    """dx[index[i...]] += dy[i...], in the order of i; a row taken twice gets both."""
    rows, columns, count = dx.shape[0], math.prod(dx.shape[1:]), index.size
    key = sorted_keys(index.reshape(-1), rows)
    dy, pieces = dy.reshape(count, columns), blocks(count, PIECE)
    partial = memory.scratch((pieces, columns), dx.dtype)
    grid, block = row_launch(pieces, columns)
    _sum_pieces[grid, block](dy, key, partial)
    grid, block = row_launch(rows, columns)
    _sum_runs[grid, block](dy, key, partial, dx.reshape(rows, columns), add)
    return dx
