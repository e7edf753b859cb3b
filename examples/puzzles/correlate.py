"""Puzzle 7, convolution: four weights slide over x.

x (n + 3,), w (4,) -> y (n,), launched as enough blocks of 8 threads. A block reads each number of
x and each weight once. (Deep learning says convolution, and does not turn w around.)
"""

import numpy as np
from numba import cuda, float32

from minidl.kernels.cuda import blocks
from minidl.kernels.roles import Out

from .verdict import Puzzle


def definition(x, w, y: Out):
    y[...] = np.correlate(x, w)


puzzle = Puzzle(
    definition,
    shapes=lambda n: dict(x=(n + 3,), w=(4,), y=(n,)),
    launch=lambda x, w, y: (blocks(y.size, 8), 8),
    sizes=((1,), (8,), (14,), (100,)),
    reads=lambda n: n + (3 + 4) * blocks(n, 8),
)


@cuda.jit
def solution(x, w, y):
    tile = cuda.shared.array(11, float32)
    taps = cuda.shared.array(4, float32)
    t, first = cuda.threadIdx.x, cuda.blockIdx.x * 8
    for j in range(t, 11, 8):
        if first + j < x.size:
            tile[j] = x[first + j]
    if t < 4:
        taps[t] = w[t]
    cuda.syncthreads()
    if first + t < y.size:
        total = float32(0)
        for j in range(4):
            total += tile[t + j] * taps[j]
        y[first + t] = total


@cuda.jit
def one_weight_too_many(x, w, y):
    """out of bounds: `<=` lets a fifth thread in.

    Shapes: x (4,), w (4,), y (1,). Launch: one_weight_too_many[1, 8].
    Thread 4 of block 0 reads w[4], but w has 4 elements, so its last index is 3.
        taps[t] = w[t]
    Only a thread whose index is in the array may go there: `if i < x.size:`, say. If this
    thread should have work, its index is off.
    """
    tile = cuda.shared.array(11, float32)
    taps = cuda.shared.array(4, float32)
    t, first = cuda.threadIdx.x, cuda.blockIdx.x * 8
    for j in range(t, 11, 8):
        if first + j < x.size:
            tile[j] = x[first + j]
    if t <= 4:
        taps[t] = w[t]
    cuda.syncthreads()
    if first + t < y.size:
        total = float32(0)
        for j in range(4):
            total += tile[t + j] * taps[j]
        y[first + t] = total


@cuda.jit
def weights_come_late(x, w, y):
    """race: the barrier stands before what it should wait for.

    Shapes: x (4,), w (4,), y (1,). Launch: weights_come_late[1, 8].
    Thread 1 of block 0 writes taps[1]:
        taps[t] = w[t]
    Thread 0 reads it:
        total += tile[t + j] * taps[j]
    Nobody knows which comes first. A cuda.syncthreads() between the two lines makes all threads
    of the block wait for each other.
    """
    tile = cuda.shared.array(11, float32)
    taps = cuda.shared.array(4, float32)
    t, first = cuda.threadIdx.x, cuda.blockIdx.x * 8
    for j in range(t, 11, 8):
        if first + j < x.size:
            tile[j] = x[first + j]
    cuda.syncthreads()
    if t < 4:
        taps[t] = w[t]
    if first + t < y.size:
        total = float32(0)
        for j in range(4):
            total += tile[t + j] * taps[j]
        y[first + t] = total
