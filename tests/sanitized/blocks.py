"""Blocks of a grid: global memory, atomics, fences, loops over a grid."""

import numpy as np
from numba import cuda, float32, int32

from . import count, launched, ones

N = 64


@launched(4, N, lambda: (ones(1),))
def everybody_adds(y):
    y[0] += 1  # race: y


@launched(4, N, lambda: (ones(1),))
def everybody_adds_atomically(y):
    cuda.atomic.add(y, 0, 1)


@launched(4, 1, lambda: (ones(1),))
def each_block_adds(y):
    y[0] += 1  # race: y


@launched(4, N, lambda: (count(4 * N),))
def shifted_in_place(x):
    i = cuda.grid(1)
    if i + N < x.size:
        x[i] = x[i + N]  # race: x


@launched(4, N, lambda: (count(4 * N), ones(4 * N)))
def shifted(x, y):
    i = cuda.grid(1)
    if i + N < x.size:
        y[i] = x[i + N]


def same_array_twice():
    x = count(4 * N)
    return x, x


@launched(4, N, same_array_twice)
def shifted_into_itself(x, y):
    i = cuda.grid(1)
    if i + N < x.size:
        y[i] = x[i + N]  # race: x|y


@launched(4, N, same_array_twice)
def doubled_into_itself(x, y):
    i = cuda.grid(1)
    y[i] = x[i] + x[i]


def overlapping_views():
    x = count(4 * N + 1)
    return x[1:], x[:-1]


@launched(4, N, overlapping_views)
def copied_to_an_overlapping_view(x, y):
    i = cuda.grid(1)
    y[i] = x[i]  # race: x|y


@launched(2, N, lambda: (count(1000), ones(1000)))
def grid_stride(x, y):
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        y[i] = 2 * x[i]


@launched(2, N, lambda: (count(1000), ones(1000)))
def stride_of_a_block(x, y):
    for i in range(cuda.grid(1), x.size, cuda.blockDim.x):
        y[i] = i + cuda.grid(1)  # race: y


@launched(2, N, lambda: (ones(16),))
def two_columns_of_a_thread(y):
    i = cuda.grid(1)
    if i < 9:
        y[i] = i  # race: y
        y[i + 1] = i  # race: y


@launched(2, N, lambda: (ones(1, dtype=np.bool_),))
def all_say_yes(y):
    y[0] = True


@launched(2, N, lambda: (ones(1, dtype=np.bool_),))
def yes_and_no(y):
    y[0] = cuda.grid(1) % 2 == 0  # race: y


@launched(2, N, lambda: (ones(1, dtype=np.int32), ones(2, dtype=np.int32)))
def set_and_read_elsewhere(flag, y):
    i = cuda.grid(1)
    if i == 3:
        flag[0] = 5  # race: flag
    if i == 77:
        y[0] = flag[0]  # race: flag


@launched(2, N, lambda: (ones(2 * N, dtype=np.float16),))
def half_precision(x):
    i = cuda.grid(1)
    x[i] = float32(x[i]) + float32(2)


@launched(2, N, lambda: (ones(2 * N, dtype=np.float16),))
def half_precision_of_neighbours(x):
    i = cuda.grid(1)
    x[i] = float32(x[i ^ 64])  # race: x


@launched(2, N, lambda: (ones(4 * N)[::2], ones(2 * N, 2)[:, 1]))
def strided(x, y):
    i = cuda.grid(1)
    y[i] = 2 * x[i]


@launched(2, N, lambda: (ones(4 * N)[::-2],))
def strided_reversal(x):
    i = cuda.grid(1)
    x[i] = x[x.size - 1 - i]  # race: x


@launched(1, N, lambda: (ones(N),))
def mixed_atomic_and_plain(y):
    i = cuda.grid(1)
    cuda.atomic.add(y, 0, 1)  # race: y
    if i == 40:
        y[0] = 3  # race: y


@launched(4, N, lambda: (ones(4 * N), ones(4), count(1, np.int32), ones(1)))
def last_block(x, part, done, y):
    s = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t == 0:
        part[cuda.blockIdx.x] = x[cuda.grid(1)]
        cuda.threadfence()
        s[0] = cuda.atomic.add(done, 0, 1)
    cuda.syncthreads()
    if s[0] == cuda.gridDim.x - 1 and t == 0:
        y[0] = part[0] + part[1] + part[2] + part[3]


@launched(4, N, lambda: (ones(4 * N), ones(4), count(1, np.int32), ones(1)))
def last_block_without_fence(x, part, done, y):
    s = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t == 0:
        part[cuda.blockIdx.x] = x[cuda.grid(1)]  # race: part
        s[0] = cuda.atomic.add(done, 0, 1)
    cuda.syncthreads()
    if s[0] == cuda.gridDim.x - 1 and t == 0:
        y[0] = part[0] + part[1] + part[2] + part[3]  # race: part


@launched(4, N, lambda: (ones(4 * N), ones(4), count(1, np.int32), ones(1)))
def last_block_with_the_fence_too_early(x, part, done, y):
    s = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t == 0:
        cuda.threadfence()
        part[cuda.blockIdx.x] = x[cuda.grid(1)]  # race: part
        s[0] = cuda.atomic.add(done, 0, 1)
    cuda.syncthreads()
    if s[0] == cuda.gridDim.x - 1 and t == 0:
        y[0] = part[0] + part[1] + part[2] + part[3]  # race: part


@launched(4, N, lambda: (ones(4 * N), ones(4 * N), count(1, np.int32), ones(1)))
def last_block_of_all_threads(x, part, done, y):
    s = cuda.shared.array(1, int32)
    t, i = cuda.threadIdx.x, cuda.grid(1)
    part[i] = x[i]
    cuda.threadfence()
    cuda.syncthreads()
    if t == 0:
        s[0] = cuda.atomic.add(done, 0, 1)
    cuda.syncthreads()
    if s[0] == cuda.gridDim.x - 1 and t == 0:
        total = float32(0)
        for k in range(part.size):
            total += part[k]
        y[0] = total


@launched(4, N, lambda: (ones(4 * N), ones(4 * N), count(1, np.int32), ones(1)))
def last_block_whose_threads_do_not_wait(x, part, done, y):
    s = cuda.shared.array(1, int32)
    t, i = cuda.threadIdx.x, cuda.grid(1)
    part[i] = x[i]  # race: part
    cuda.threadfence()
    if t == 0:
        s[0] = cuda.atomic.add(done, 0, 1)
    cuda.syncthreads()
    if s[0] == cuda.gridDim.x - 1 and t == 0:
        total = float32(0)
        for k in range(part.size):
            total += part[k]  # race: part
        y[0] = total


@launched(4, N, lambda: (ones(4), ones(1)))
def sum_of_blocks_at_once(part, y):
    if cuda.threadIdx.x == 0:
        part[cuda.blockIdx.x] = cuda.blockIdx.x  # race: part
        if cuda.blockIdx.x == 3:
            y[0] = part[0] + part[1] + part[2] + part[3]  # race: part


@launched(4, N, lambda: (count(4 * N, np.int32), ones(8, dtype=np.int32)))
def histogram(x, y):
    cuda.atomic.add(y, x[cuda.grid(1)] % 8, 1)


@launched(4, N, lambda: (count(4 * N, np.int32), ones(8, dtype=np.int32)))
def histogram_without_atomics(x, y):
    y[x[cuda.grid(1)] % 8] += 1  # race: y


@launched(4, N, lambda: (count(4 * N), ones(1)))
def largest(x, y):
    cuda.atomic.max(y, 0, x[cuda.grid(1)])


@launched(4, N, lambda: (count(4 * N), ones(1)))
def largest_without_atomics(x, y):
    i = cuda.grid(1)
    if x[i] > y[0]:  # race: y
        y[0] = x[i]  # race: y


@launched(4, N, lambda: (count(4 * N, np.int32), ones(4 * N, dtype=np.int32), count(1, np.int32)))
def filtered(x, y, size):
    i = cuda.grid(1)
    if x[i] % 3 == 0:
        y[cuda.atomic.add(size, 0, 1)] = x[i]


@launched(4, N, lambda: (count(1, np.int32), ones(1, dtype=np.int32)))
def won_by_the_first(lock, y):
    if cuda.atomic.cas(lock, 0, 0, 1) == 0:
        y[0] = cuda.grid(1)
