"""Puzzle 2, guard: the same with more threads than numbers.

x (n,) -> y (n,), launched as enough blocks of 8 threads.
"""

from numba import cuda

from minidl.kernels.cuda import blocks
from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(x, y: Out):
    y[...] = x * x


puzzle = Puzzle(
    definition,
    shapes=lambda n: dict(x=(n,), y=(n,)),
    launch=lambda x, y: (blocks(x.size, 8), 8),
    sizes=((1,), (8,), (9,), (100,)),
    reads=lambda n: 2 * n,
)


@cuda.jit
def solution(x, y):
    i = cuda.blockIdx.x * 8 + cuda.threadIdx.x
    if i < x.size:
        y[i] = x[i] * x[i]


@cuda.jit
def no_guard(x, y):
    """out of bounds: the last block has more threads than there are numbers left.

    Shapes: x (1,), y (1,). Launch: no_guard[1, 8].
    Thread 1 of block 0 reads x[1], but x has one element, x[0].
        y[i] = x[i] * x[i]
    Only a thread whose index is in the array may go there: `if i < x.size:`, say. If this
    thread should have work, its index is off.
    """
    i = cuda.blockIdx.x * 8 + cuda.threadIdx.x
    y[i] = x[i] * x[i]


@cuda.jit
def block_forgotten(x, y):
    """not written: every block computes the first eight numbers.

    Shapes: x (9,), y (9,). Launch: block_forgotten[2, 8].
    y[8] was never written. Which thread should do it, and what are its index and that of its
    block?
    """
    i = cuda.threadIdx.x
    if i < x.size:
        y[i] = x[i] * x[i]
