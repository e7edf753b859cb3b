"""Puzzle 3, 2-D map: each thread adds one number of a column and one of a row.

a (n,), b (m,) -> y (n, m), launched as enough blocks of 4 x 4 threads.
"""

from numba import cuda

from minidl.kernels.cuda import blocks
from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(a, b, y: Out):
    y[...] = a[:, None] + b


puzzle = Puzzle(
    definition,
    shapes=lambda n, m: dict(a=(n,), b=(m,), y=(n, m)),
    launch=lambda a, b, y: ((blocks(b.size, 4), blocks(a.size, 4)), (4, 4)),
    sizes=((1, 1), (2, 3), (4, 4), (4, 8), (9, 5), (30, 20)),
    reads=lambda n, m: 2 * n * m,
)


@cuda.jit
def solution(a, b, y):
    j, i = cuda.grid(2)
    if i < a.size and j < b.size:
        y[i, j] = a[i] + b[j]


@cuda.jit
def half_a_guard(a, b, y):
    """out of bounds: rows are guarded, columns are not.

    Shapes: a (1,), b (1,), y (1, 1). Launch: half_a_guard[(1, 1), (4, 4)].
    Thread (1, 0) of block 0 reads b[1], but b has one element, b[0].
        y[i, j] = a[i] + b[j]
    Only a thread whose index is in the array may go there: `if i < x.size:`, say. If this
    thread should have work, its index is off.
    """
    j, i = cuda.grid(2)
    if i < a.size:
        y[i, j] = a[i] + b[j]


@cuda.jit
def swapped(a, b, y):
    """not written: x runs along the columns, the second index.

    Shapes: a (4,), b (8,), y (4, 8). Launch: swapped[(2, 1), (4, 4)].
    y[0, 4] was never written, nor were 15 others. Which thread should do it, and what are its
    index and that of its block?
    """
    i, j = cuda.grid(2)
    if i < a.size and j < b.size:
        y[i, j] = a[i] + b[j]
