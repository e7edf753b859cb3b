"""Sums in a fixed order: the same bits in every run, on every launch of the same shape."""

import math

from ..roles import Array, Out
from . import memory
from ._numba import blocks, cuda, device, jit

LANES, ROWS = 32, 8  # the block: a warp along the columns, and 8 rows at a time
CHUNK = 256  # rows that one block adds up at least, so that partial sums stay few

EVERY_LANE = 0xFFFFFFFF


@device
def warp_sum(value):
    """The sum over the 32 lanes of a warp, in every lane."""
    for step in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(EVERY_LANE, value, step)
    return value


@device
def warp_max(value):
    """The largest value of the 32 lanes of a warp, in every lane."""
    for step in (16, 8, 4, 2, 1):
        value = max(value, cuda.shfl_xor_sync(EVERY_LANE, value, step))
    return value


@jit
def _sum_rows(x, y, chunk, add):
    """Each block adds up `chunk` rows of 32 columns of x (R, F) into one row of y (tasks, F).

    A thread walks down one column, 8 rows at a step, so that a warp reads 32 neighbours at once;
    then a tree in shared memory joins the 8 threads of each column.
    """
    part = cuda.shared.array((ROWS, LANES), x.dtype)
    lane, row, task = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y
    f = cuda.blockIdx.x * LANES + lane
    total = x.dtype.type(0)
    if f < x.shape[1]:
        for r in range(task * chunk + row, min((task + 1) * chunk, x.shape[0]), ROWS):
            total += x[r, f]
    part[row, lane] = total
    cuda.syncthreads()
    for half in (4, 2, 1):
        if row < half:
            part[row, lane] += part[row + half, lane]
        cuda.syncthreads()
    if row == 0 and f < x.shape[1]:
        y[task, f] = y[task, f] + part[0, lane] if add else part[0, lane]


def sum_rows(dy: Array, db: Out, add: bool) -> Array:
    """db (F,) = sum of dy (..., F) over all axes but the last: the gradient of a bias."""
    rows = math.prod(dy.shape[:-1])
    x = dy.reshape(rows, dy.shape[-1])
    chunk = max(CHUNK, blocks(rows, 1024))
    tasks = max(1, blocks(rows, chunk))
    partial = memory.scratch((tasks, db.size), db.dtype)
    columns = blocks(db.size, LANES)
    _sum_rows[(columns, tasks), (LANES, ROWS)](x, partial, chunk, False)
    _sum_rows[(columns, 1), (LANES, ROWS)](partial, db.reshape(1, db.size), tasks, add)
    return db
