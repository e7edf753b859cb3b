"""Puzzle 9, axis sum: each block adds up one row.

x (n, m) -> y (n,), launched as n blocks of 8 threads, however long the rows are.
"""

from numba import cuda, float32

from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(x, y: Out):
    y[...] = x.sum(axis=1)


puzzle = Puzzle(
    definition,
    shapes=lambda n, m: dict(x=(n, m), y=(n,)),
    launch=lambda x, y: (x.shape[0], 8),
    sizes=((1, 8), (2, 5), (3, 8), (5, 20), (30, 40)),
    reads=lambda n, m: n * m,
)


@cuda.jit
def solution(x, y):
    part = cuda.shared.array(8, float32)
    i, t = cuda.blockIdx.x, cuda.threadIdx.x
    total = float32(0)
    for j in range(t, x.shape[1], 8):
        total += x[i, j]
    part[t] = total
    half = 4
    while half > 0:
        cuda.syncthreads()
        if t < half:
            part[t] += part[t + half]
        half //= 2
    if t == 0:
        y[i] = part[0]


@cuda.jit
def nothing_is_not_zero(x, y):
    """uninitialised read: in short rows some threads write nothing, and are added all the same.

    Shapes: x (2, 5), y (2,). Launch: nothing_is_not_zero[2, 8].
    Thread 1 of block 0 reads part[5], which nobody has written.
        part[t] += part[t + half]
    In shared memory is what others left there. Either some thread must write to this place, if
    only a 0, or nobody may read it.
    """
    part = cuda.shared.array(8, float32)
    i, t = cuda.blockIdx.x, cuda.threadIdx.x
    if t < x.shape[1]:
        part[t] = 0
    for j in range(t, x.shape[1], 8):
        part[t] += x[i, j]
    half = 4
    while half > 0:
        cuda.syncthreads()
        if t < half:
            part[t] += part[t + half]
        half //= 2
    if t == 0:
        y[i] = part[0]


@cuda.jit
def goes_home_early(x, y):
    """divergent barrier: threads return before the barriers are over.

    Shapes: x (1, 8), y (1,). Launch: goes_home_early[1, 8].
    Thread 0 of block 0 waits for all threads of its block:
        cuda.syncthreads()
    Thread 4 has ended, and will never come.
    On a GPU this may hang for ever. Every thread of a block must come to every barrier, those
    without work too: put it outside of the `if`, and no `return` before it.
    """
    part = cuda.shared.array(8, float32)
    i, t = cuda.blockIdx.x, cuda.threadIdx.x
    total = float32(0)
    for j in range(t, x.shape[1], 8):
        total += x[i, j]
    part[t] = total
    half = 4
    while half > 0:
        if t >= 2 * half:
            return
        cuda.syncthreads()
        if t < half:
            part[t] += part[t + half]
        half //= 2
    y[i] = part[0]
