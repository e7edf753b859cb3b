"""Barriers that not all threads of a block come to."""

import numpy as np
from numba import cuda, float32, int32

from . import count, launched, ones

N = 64


@launched(1, N, lambda: (count(N), ones(N)))
def barrier_for_all(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    y[t] = s[N - 1 - t]


@launched(1, N, lambda: (count(N), ones(N)))
def barrier_in_a_branch(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    if t < N // 2:
        cuda.syncthreads()  # divergent barrier
        y[t] = s[t + N // 2]


@launched(1, N, lambda: (count(N), ones(N)))
def barrier_in_both_branches(x, y):
    t = cuda.threadIdx.x
    if t % 2:
        x[t] += 1
        cuda.syncthreads()  # divergent barrier
        x[t] += 2
    else:
        y[t] += 3
        cuda.syncthreads()  # divergent barrier
        y[t] += 5


@launched(1, N, lambda: (count(N - 4), ones(N)))
def early_return(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    if t >= x.size:
        return
    s[t] = x[t]
    cuda.syncthreads()  # divergent barrier
    y[t] = s[x.size - 1 - t]


@launched(1, N, lambda: (count(N - 4), ones(N)))
def guard_instead_of_return(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    if t < x.size:
        s[t] = x[t]
    cuda.syncthreads()
    if t < x.size:
        y[t] = s[x.size - 1 - t]


@launched(1, N, lambda: (count(N - 4), ones(N)))
def return_behind_the_barrier(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    if t < x.size:
        s[t] = x[t]
    cuda.syncthreads()
    if t >= x.size:
        return
    y[t] = s[x.size - 1 - t]


@launched(1, N, lambda: (count(N, np.int32),))
def loops_of_different_lengths(x):
    t = cuda.threadIdx.x
    for _ in range(1 + t // 32):
        cuda.syncthreads()  # divergent barrier
    x[t] = t


@launched(1, N, lambda: (count(N, np.int32),))
def loops_of_one_length(x):
    t = cuda.threadIdx.x
    for i in range(4):
        if i == t // 32:
            x[0] = t // 32
        cuda.syncthreads()
    x[t] = t


@launched(1, N, lambda: (count(N, np.int32), ones(1, dtype=np.int32)))
def counted_at_a_barrier(x, y):
    n = cuda.syncthreads_count(x[cuda.threadIdx.x] % 2)
    if cuda.threadIdx.x == 0:
        y[0] = n


@launched(1, N, lambda: (count(N, np.int32), ones(1, dtype=np.int32)))
def counted_by_some(x, y):
    t = cuda.threadIdx.x
    if t > 3:
        n = cuda.syncthreads_count(x[t] % 2)  # divergent barrier
        if t == 4:
            y[0] = n


@launched(1, N, lambda: (count(N, np.int32),))
def one_thread_waits(x):
    s = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = x[0]
        cuda.syncthreads()  # divergent barrier
    x[t] = t


@launched(4, N, lambda: (count(4 * N), ones(4 * N)))
def whole_blocks_return(x, y):
    s = cuda.shared.array(N, float32)
    if cuda.blockIdx.x > 1:
        return
    t, i = cuda.threadIdx.x, cuda.grid(1)
    s[t] = x[i]
    cuda.syncthreads()
    y[i] = s[N - 1 - t]
