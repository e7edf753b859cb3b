"""Puzzle 1, map: each thread doubles one number.

x (n,) -> y (n,), launched as one block with exactly n threads.
"""

from numba import cuda

from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(x, y: Out):
    y[...] = 2 * x


puzzle = Puzzle(
    definition,
    shapes=lambda n: dict(x=(n,), y=(n,)),
    launch=lambda x, y: (1, x.size),
    sizes=((1,), (2,), (8,), (100,)),
    reads=lambda n: n,
)


@cuda.jit
def solution(x, y):
    i = cuda.threadIdx.x
    y[i] = 2 * x[i]


@cuda.jit
def off_by_one(x, y):
    """out of bounds: the last thread goes past the end.

    Shapes: x (1,), y (1,). Launch: off_by_one[1, 1].
    Thread 0 of block 0 reads x[1], but x has one element, x[0].
        y[i] = 2 * x[i]
    Only a thread whose index is in the array may go there: `if i < x.size:`, say. If this
    thread should have work, its index is off.
    """
    i = cuda.threadIdx.x + 1
    y[i] = 2 * x[i]


@cuda.jit
def all_in_one_place(x, y):
    """race: the index of the block, where that of the thread was meant.

    Shapes: x (2,), y (2,). Launch: all_in_one_place[1, 2].
    Thread 1 of block 0 and thread 0 both write y[0].
        y[i] = 2 * x[cuda.threadIdx.x]
    Nobody knows which comes first, and one may undo what the other did. Give each thread a
    place of its own, or let one thread do it when all others are ready.
    """
    i = cuda.blockIdx.x
    y[i] = 2 * x[cuda.threadIdx.x]
