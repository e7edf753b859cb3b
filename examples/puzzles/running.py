"""Puzzle 8, prefix sum: each number plus all before it in its block.

x (n,) -> y (n,), launched as enough blocks of 8 threads. In three steps: add the number 1 place
before, then what is 2 places before, then 4 (Hillis and Steele, Data parallel algorithms, 1986).
"""

import numpy as np
from numba import cuda, float32

from minidl.kernels.cuda import blocks
from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(x, y: Out):
    for first in range(0, x.size, 8):
        y[first : first + 8] = np.cumsum(x[first : first + 8])


puzzle = Puzzle(
    definition,
    shapes=lambda n: dict(x=(n,), y=(n,)),
    launch=lambda x, y: (blocks(x.size, 8), 8),
    sizes=((3,), (8,), (9,), (100,)),
    reads=lambda n: n,
)


@cuda.jit
def solution(x, y):
    tile = cuda.shared.array(8, float32)
    i, t = cuda.grid(1), cuda.threadIdx.x
    tile[t] = x[i] if i < x.size else float32(0)
    step = 1
    while step < 8:
        cuda.syncthreads()
        total = tile[t]
        if t >= step:
            total += tile[t - step]
        cuda.syncthreads()  # all have read: now all may write
        tile[t] = total
        step *= 2
    if i < x.size:
        y[i] = tile[t]


@cuda.jit
def written_while_read(x, y):
    """race: a thread reads what another is about to change.

    Shapes: x (3,), y (3,). Launch: written_while_read[1, 8].
    Thread 2 of block 0 and thread 1 meet at tile[1]: one reads it, the other writes it.
        tile[t] += tile[t - step]
    Nobody knows which comes first. All must have read before somebody writes, and all must have
    written before somebody reads again: cuda.syncthreads() waits for that.
    """
    tile = cuda.shared.array(8, float32)
    i, t = cuda.grid(1), cuda.threadIdx.x
    tile[t] = x[i] if i < x.size else float32(0)
    step = 1
    while step < 8:
        cuda.syncthreads()
        if t >= step:
            tile[t] += tile[t - step]
        step *= 2
    if i < x.size:
        y[i] = tile[t]


@cuda.jit
def a_step_short(x, y):
    """wrong value: the loop ends before the last step.

    Shapes: x (8,), y (8,). Launch: a_step_short[1, 8].
    y[4] is -5, but should be 2 (4 of 8 numbers are wrong).
        y = [7.0, 10.0, 11.0, 6.0, -5.0, -17.0, -26.0, -30.0]
        should be [7.0, 10.0, 11.0, 6.0, 2.0, -7.0, -15.0, -24.0]
        x = [7.0, 3.0, 1.0, -5.0, -4.0, -9.0, -8.0, -9.0]
    """
    tile = cuda.shared.array(8, float32)
    i, t = cuda.grid(1), cuda.threadIdx.x
    tile[t] = x[i] if i < x.size else float32(0)
    step = 1
    while step < 4:
        cuda.syncthreads()
        total = tile[t]
        if t >= step:
            total += tile[t - step]
        cuda.syncthreads()
        tile[t] = total
        step *= 2
    if i < x.size:
        y[i] = tile[t]
