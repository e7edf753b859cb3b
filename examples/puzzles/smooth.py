"""Puzzle 5, pooling: the mean of every three neighbours.

x (n + 2,) -> y (n,), launched as enough blocks of 8 threads. A block reads each number of x once.
"""

from numba import cuda, float32

from minidl.kernels.cuda import blocks
from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(x, y: Out):
    y[...] = (x[:-2] + x[1:-1] + x[2:]) / 3


puzzle = Puzzle(
    definition,
    shapes=lambda n: dict(x=(n + 2,), y=(n,)),
    launch=lambda x, y: (blocks(y.size, 8), 8),
    sizes=((1,), (8,), (11,), (100,)),
    reads=lambda n: n + 2 * blocks(n, 8),
)


@cuda.jit
def solution(x, y):
    tile = cuda.shared.array(10, float32)
    t, first = cuda.threadIdx.x, cuda.blockIdx.x * 8
    for j in range(t, 10, 8):  # threads 0 and 1 bring two numbers
        if first + j < x.size:
            tile[j] = x[first + j]
    cuda.syncthreads()
    if first + t < y.size:
        y[first + t] = (tile[t] + tile[t + 1] + tile[t + 2]) / 3


@cuda.jit
def two_are_missing(x, y):
    """uninitialised read: eight results need ten numbers.

    Shapes: x (10,), y (8,). Launch: two_are_missing[1, 8].
    Thread 6 of block 0 reads tile[8], which nobody has written.
        y[first + t] = (tile[t] + tile[t + 1] + tile[t + 2]) / 3
    In shared memory is what others left there. Either some thread must write to this place, if
    only a 0, or nobody may read it.
    """
    tile = cuda.shared.array(10, float32)
    t, first = cuda.threadIdx.x, cuda.blockIdx.x * 8
    if first + t < x.size:
        tile[t] = x[first + t]
    cuda.syncthreads()
    if first + t < y.size:
        y[first + t] = (tile[t] + tile[t + 1] + tile[t + 2]) / 3


@cuda.jit
def barrier_in_the_if(x, y):
    """divergent barrier: threads without a result never come to the barrier.

    Shapes: x (3,), y (1,). Launch: barrier_in_the_if[1, 8].
    Thread 0 of block 0 waits for all threads of its block:
        cuda.syncthreads()
    Thread 1 has ended, and will never come.
    On a GPU this may hang for ever. Every thread of a block must come to every barrier, those
    without work too: put it outside of the `if`, and no `return` before it.
    """
    tile = cuda.shared.array(10, float32)
    t, first = cuda.threadIdx.x, cuda.blockIdx.x * 8
    for j in range(t, 10, 8):
        if first + j < x.size:
            tile[j] = x[first + j]
    if first + t < y.size:
        cuda.syncthreads()
        y[first + t] = (tile[t] + tile[t + 1] + tile[t + 2]) / 3
