"""Puzzle 4, shared memory: each block turns its 8 numbers around.

x (n,) -> y (n,), launched as enough blocks of 8 threads. The last block turns around what it has.
"""

from numba import cuda, float32

from minidl.kernels.cuda import blocks
from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(x, y: Out):
    for first in range(0, x.size, 8):
        y[first : first + 8] = x[first : first + 8][::-1]


puzzle = Puzzle(
    definition,
    shapes=lambda n: dict(x=(n,), y=(n,)),
    launch=lambda x, y: (blocks(x.size, 8), 8),
    sizes=((2,), (8,), (13,), (100,)),
    reads=lambda n: n,
)


@cuda.jit
def solution(x, y):
    tile = cuda.shared.array(8, float32)
    t, first = cuda.threadIdx.x, cuda.blockIdx.x * 8
    count = min(8, x.size - first)
    if t < count:
        tile[t] = x[first + t]
    cuda.syncthreads()
    if t < count:
        y[first + t] = tile[count - 1 - t]


@cuda.jit
def no_barrier(x, y):
    """race: numbers are read before their threads have written them.

    Shapes: x (2,), y (2,). Launch: no_barrier[1, 8].
    Thread 1 of block 0 writes tile[1]:
        tile[t] = x[first + t]
    Thread 0 reads it:
        y[first + t] = tile[count - 1 - t]
    Nobody knows which comes first. A cuda.syncthreads() between the two lines makes all threads
    of the block wait for each other.
    """
    tile = cuda.shared.array(8, float32)
    t, first = cuda.threadIdx.x, cuda.blockIdx.x * 8
    count = min(8, x.size - first)
    if t < count:
        tile[t] = x[first + t]
        y[first + t] = tile[count - 1 - t]


@cuda.jit
def always_eight(x, y):
    """uninitialised read: the last block has not always eight numbers.

    Shapes: x (2,), y (2,). Launch: always_eight[1, 8].
    Thread 0 of block 0 reads tile[7], which nobody has written.
        y[first + t] = tile[7 - t]
    In shared memory is what others left there. Either some thread must write to this place, if
    only a 0, or nobody may read it.
    """
    tile = cuda.shared.array(8, float32)
    t, first = cuda.threadIdx.x, cuda.blockIdx.x * 8
    if first + t < x.size:
        tile[t] = x[first + t]
    cuda.syncthreads()
    if first + t < x.size:
        y[first + t] = tile[7 - t]
