"""Puzzle 6, dot product: eight threads add up all products.

a (n,), b (n,) -> y (1,), launched as one block of 8 threads, however many numbers there are.
"""

from numba import cuda, float32

from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(a, b, y: Out):
    y[0] = a @ b


puzzle = Puzzle(
    definition,
    shapes=lambda n: dict(a=(n,), b=(n,), y=(1,)),
    launch=lambda a, b, y: (1, 8),
    sizes=((3,), (8,), (9,), (100,)),
    reads=lambda n: 2 * n,
)


@cuda.jit
def solution(a, b, y):
    part = cuda.shared.array(8, float32)
    t = cuda.threadIdx.x
    total = float32(0)
    for i in range(t, a.size, 8):
        total += a[i] * b[i]
    part[t] = total
    cuda.syncthreads()
    half = 4
    while half > 0:  # 8 sums become 4, 2, 1
        if t < half:
            part[t] += part[t + half]
        cuda.syncthreads()
        half //= 2
    if t == 0:
        y[0] = part[0]


@cuda.jit
def all_add_to_one(a, b, y):
    """race: eight threads add to one number at once.

    Shapes: a (3,), b (3,), y (1,). Launch: all_add_to_one[1, 8].
    Thread 1 of block 0 and thread 0 meet at y[0]: one reads it, the other writes it.
        y[0] += a[i] * b[i]
    Nobody knows which comes first, and one may undo what the other did. Give each thread a
    place of its own, or let one thread do it when all others are ready.
    """
    t = cuda.threadIdx.x
    if t == 0:
        y[0] = 0
    cuda.syncthreads()
    for i in range(t, a.size, 8):
        y[0] += a[i] * b[i]


@cuda.jit
def waits_once(a, b, y):
    """race: the next round begins before the last has ended.

    Shapes: a (3,), b (3,), y (1,). Launch: waits_once[1, 8].
    Thread 1 of block 0 and thread 0 meet at part[1]: one writes it, the other reads it.
        part[t] += part[t + half]
    Nobody knows which comes first. All must have read before somebody writes, and all must have
    written before somebody reads again: cuda.syncthreads() waits for that.
    """
    part = cuda.shared.array(8, float32)
    t = cuda.threadIdx.x
    total = float32(0)
    for i in range(t, a.size, 8):
        total += a[i] * b[i]
    part[t] = total
    cuda.syncthreads()
    half = 4
    while half > 0:
        if t < half:
            part[t] += part[t + half]
        half //= 2
    if t == 0:
        y[0] = part[0]
