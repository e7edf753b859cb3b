"""Puzzle 10, matrix product: blocks compute tiles of 4 x 4, and walk along them in tiles.

a (n, k), b (k, m) -> y (n, m), launched as enough blocks of 4 x 4 threads. For each tile of y a
block reads each number of a's rows and b's columns once.
"""

from numba import cuda, float32

from minidl.kernels.cuda import blocks
from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(a, b, y: Out):
    y[...] = a @ b


puzzle = Puzzle(
    definition,
    shapes=lambda n, k, m: dict(a=(n, k), b=(k, m), y=(n, m)),
    launch=lambda a, b, y: ((blocks(y.shape[1], 4), blocks(y.shape[0], 4)), (4, 4)),
    sizes=((2, 3, 1), (4, 4, 4), (4, 8, 4), (5, 6, 7), (16, 20, 12)),
    reads=lambda n, k, m: n * k * blocks(m, 4) + k * m * blocks(n, 4),
)


@cuda.jit
def solution(a, b, y):
    left = cuda.shared.array((4, 4), float32)
    right = cuda.shared.array((4, 4), float32)
    j, i = cuda.grid(2)
    s, t = cuda.threadIdx.y, cuda.threadIdx.x
    total = float32(0)
    for first in range(0, a.shape[1], 4):
        left[s, t] = right[s, t] = 0  # past the edge there is nothing to add
        if i < a.shape[0] and first + t < a.shape[1]:
            left[s, t] = a[i, first + t]
        if first + s < b.shape[0] and j < b.shape[1]:
            right[s, t] = b[first + s, j]
        cuda.syncthreads()
        for k in range(4):
            total += left[s, k] * right[k, t]
        cuda.syncthreads()  # before the next tile replaces this one
    if i < y.shape[0] and j < y.shape[1]:
        y[i, j] = total


@cuda.jit
def next_tile_too_soon(a, b, y):
    """race: the next tile replaces numbers that others still read.

    Shapes: a (4, 8), b (8, 4), y (4, 4). Launch: next_tile_too_soon[(1, 1), (4, 4)].
    Thread (1, 0) of block 0 reads left[0, 0]:
        total += left[s, k] * right[k, t]
    Thread (0, 0) writes it:
        left[s, t] = a[i, first + t]
    Nobody knows which comes first. A cuda.syncthreads() between the two lines makes all threads
    of the block wait for each other.
    """
    left = cuda.shared.array((4, 4), float32)
    right = cuda.shared.array((4, 4), float32)
    j, i = cuda.grid(2)
    s, t = cuda.threadIdx.y, cuda.threadIdx.x
    total = float32(0)
    for first in range(0, a.shape[1], 4):
        left[s, t] = right[s, t] = 0
        if i < a.shape[0] and first + t < a.shape[1]:
            left[s, t] = a[i, first + t]
        if first + s < b.shape[0] and j < b.shape[1]:
            right[s, t] = b[first + s, j]
        cuda.syncthreads()
        for k in range(4):
            total += left[s, k] * right[k, t]
    if i < y.shape[0] and j < y.shape[1]:
        y[i, j] = total


@cuda.jit
def edge_forgotten(a, b, y):
    """uninitialised read: past the edge a tile is not filled.

    Shapes: a (2, 3), b (3, 1), y (2, 1). Launch: edge_forgotten[(1, 1), (4, 4)].
    Thread (0, 0) of block 0 reads left[0, 3], which nobody has written.
        total += left[s, k] * right[k, t]
    In shared memory is what others left there. Either some thread must write to this place, if
    only a 0, or nobody may read it.
    """
    left = cuda.shared.array((4, 4), float32)
    right = cuda.shared.array((4, 4), float32)
    j, i = cuda.grid(2)
    s, t = cuda.threadIdx.y, cuda.threadIdx.x
    total = float32(0)
    for first in range(0, a.shape[1], 4):
        if i < a.shape[0] and first + t < a.shape[1]:
            left[s, t] = a[i, first + t]
        if first + s < b.shape[0] and j < b.shape[1]:
            right[s, t] = b[first + s, j]
        cuda.syncthreads()
        for k in range(4):
            total += left[s, k] * right[k, t]
        cuda.syncthreads()
    if i < y.shape[0] and j < y.shape[1]:
        y[i, j] = total
