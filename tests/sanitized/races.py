"""Races of shared memory in a block: reductions, scans, tiles, histograms, stencils."""

import numpy as np
from numba import cuda, float32, int32

from . import count, launched, ones

N, T = 128, 8
HALO = N + 2


@launched(1, N, lambda: (ones(1),))
def everybody_adds(y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = 0
    cuda.syncthreads()
    s[0] += 1  # race: s
    cuda.syncthreads()
    if t == 0:
        y[0] = s[0]


@launched(1, N, lambda: (ones(1),))
def everybody_adds_atomically(y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = 0
    cuda.syncthreads()
    cuda.atomic.add(s, 0, 1)
    cuda.syncthreads()
    if t == 0:
        y[0] = s[0]


@launched(1, N, lambda: (ones(1),))
def added_and_read_at_once(y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = 0
    cuda.syncthreads()
    cuda.atomic.add(s, 0, 1)  # race: s
    if t == N - 1:
        y[0] = s[0]  # race: s


@launched(1, N, lambda: (ones(1),))
def added_and_read_by_the_first(y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = 0
    cuda.syncthreads()
    cuda.atomic.add(s, 0, 1)  # race: s
    if t == 0:
        y[0] = s[0]  # race: s


@launched(1, N, lambda: (ones(1),))
def read_and_added_at_once(y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = 0
    cuda.syncthreads()
    if t == 0:
        y[0] = s[0]  # race: s
    cuda.atomic.add(s, 0, 1)  # race: s


@launched(1, N, lambda: (ones(1),))
def begun_without_a_barrier(y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = 0  # race: s
    cuda.atomic.add(s, 0, 1)  # race: s
    cuda.syncthreads()
    if t == 0:
        y[0] = s[0]


@launched(2, N, lambda: (count(2 * N), ones(2)))
def sum_with_barriers(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = x[cuda.grid(1)]
    step = N // 2
    while step:
        cuda.syncthreads()
        if t < step:
            s[t] += s[t + step]
        step //= 2
    if t == 0:
        y[cuda.blockIdx.x] = s[0]


@launched(2, N, lambda: (count(2 * N), ones(2)))
def sum_without_barriers(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = x[cuda.grid(1)]
    cuda.syncthreads()
    step = N // 2
    while step:
        if t < step:
            s[t] += s[t + step]  # race: s
        step //= 2
    if t == 0:
        y[cuda.blockIdx.x] = s[0]


@launched(1, N, lambda: (count(N), ones(1)))
def sum_read_too_early(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]  # race: s
    if t == 0:
        total = x[0]
        for i in range(1, N):
            total += s[i]  # race: s
        y[0] = total


@launched(1, N, lambda: (count(N),))
def maximum_broadcast(x):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    for _ in range(2):
        if t == 0:
            s[0] = x[0]
        cuda.syncthreads()
        x[t] = max(x[t], s[0])
        cuda.syncthreads()


@launched(1, N, lambda: (count(N),))
def maximum_broadcast_again(x):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    for _ in range(2):
        if t == 0:
            s[0] = x[0] + 1  # race: s
        cuda.syncthreads()
        x[t] += s[0]  # race: s


@launched(1, N, lambda: (count(N), ones(N)))
def scan_in_two_buffers(x, y):
    s = cuda.shared.array((2, N), float32)
    t = cuda.threadIdx.x
    s[0, t] = x[t]
    now, step = 0, 1
    while step < N:
        cuda.syncthreads()
        s[1 - now, t] = s[now, t] + s[now, t - step] if t >= step else s[now, t]
        now, step = 1 - now, 2 * step
    y[t] = s[now, t]


@launched(1, N, lambda: (count(N), ones(N)))
def scan_in_place(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    step = 1
    while step < N:
        cuda.syncthreads()
        if t >= step:
            s[t] += s[t - step]  # race: s
        step *= 2
    y[t] = s[t]


@launched(1, N, lambda: (count(N), ones(N)))
def scan_in_place_with_two_barriers(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    step = 1
    while step < N:
        left = s[t - step] if t >= step else float32(0)
        cuda.syncthreads()
        s[t] += left
        cuda.syncthreads()
        step *= 2
    y[t] = s[t]


@launched((2, 2), (T, T), lambda: (ones(16, 16), ones(16, 16), ones(16, 16)))
def matmul_in_tiles(a, b, y):
    left, right = cuda.shared.array((T, T), float32), cuda.shared.array((T, T), float32)
    column, row = cuda.grid(2)
    x, z = cuda.threadIdx.x, cuda.threadIdx.y
    total = float32(0)
    for k in range(0, 16, T):
        left[z, x], right[z, x] = a[row, k + x], b[k + z, column]
        cuda.syncthreads()
        for i in range(T):
            total += left[z, i] * right[i, x]
        cuda.syncthreads()
    y[row, column] = total


@launched((2, 2), (T, T), lambda: (count(256).reshape(16, 16), ones(16, 16)))
def square_in_tiles_with_one_barrier(a, y):
    tile = cuda.shared.array((T, T), float32)
    column, row = cuda.grid(2)
    x, z = cuda.threadIdx.x, cuda.threadIdx.y
    total = float32(0)
    for k in range(0, 16, T):
        tile[z, x] = a[row, k + x]  # race: tile
        cuda.syncthreads()
        for i in range(T):
            total += tile[i, x]  # race: tile
    y[row, column] = total


@launched(1, N, lambda: (count(4 * N), ones(N)))
def double_buffer(x, y):
    s = cuda.shared.array((2, N), float32)
    t = cuda.threadIdx.x
    s[0, t] = x[t]
    cuda.syncthreads()
    total = float32(0)
    for k in range(4):
        if k < 3:
            s[(k + 1) % 2, t] = x[(k + 1) * N + t]
        total += s[k % 2, N - 1 - t]
        cuda.syncthreads()
    y[t] = total


@launched(1, N, lambda: (count(4 * N), ones(N)))
def double_buffer_of_one(x, y):
    s = cuda.shared.array((2, N), float32)
    t = cuda.threadIdx.x
    s[0, t] = x[t]
    cuda.syncthreads()
    total = float32(0)
    for k in range(4):
        if k < 3:
            s[k % 2, t] = x[(k + 1) * N + t]  # race: s
        total += s[k % 2, N - 1 - t]  # race: s
        cuda.syncthreads()
    y[t] = total


@launched((2, 2), (16, 16), lambda: (ones(32, 32), ones(32, 32)))
def transpose(x, y):
    tile = cuda.shared.array((16, 17), float32)
    column, row = cuda.grid(2)
    i, j = cuda.threadIdx.x, cuda.threadIdx.y
    tile[j, i] = x[row, column]
    cuda.syncthreads()
    y[cuda.blockIdx.x * 16 + j, cuda.blockIdx.y * 16 + i] = tile[i, j]


@launched((2, 2), (16, 16), lambda: (ones(32, 32), ones(32, 32)))
def transpose_without_barrier(x, y):
    tile = cuda.shared.array((16, 17), float32)
    column, row = cuda.grid(2)
    i, j = cuda.threadIdx.x, cuda.threadIdx.y
    tile[j, i] = x[row, column]  # race: tile
    y[cuda.blockIdx.x * 16 + j, cuda.blockIdx.y * 16 + i] = tile[i, j]  # race: tile


@launched(1, (16, 16), lambda: (count(256).reshape(16, 16),))
def transpose_in_place(x):
    i, j = cuda.threadIdx.x, cuda.threadIdx.y
    mine = x[j, i]  # race: x
    x[i, j] = mine  # race: x


@launched(1, N, lambda: (count(N, np.int32), ones(4, dtype=np.int32)))
def histogram(x, y):
    bins = cuda.shared.array(4, int32)
    t = cuda.threadIdx.x
    if t < 4:
        bins[t] = 0
    cuda.syncthreads()
    cuda.atomic.add(bins, x[t] % 4, 1)
    cuda.syncthreads()
    if t < 4:
        cuda.atomic.add(y, t, bins[t])


@launched(1, N, lambda: (count(N, np.int32), ones(4, dtype=np.int32)))
def histogram_without_atomics(x, y):
    bins = cuda.shared.array(4, int32)
    t = cuda.threadIdx.x
    if t < 4:
        bins[t] = 0
    cuda.syncthreads()
    bins[x[t] % 4] += 1  # race: bins
    cuda.syncthreads()
    if t < 4:
        y[t] = bins[t]


@launched(2, N, lambda: (count(2 * N), ones(2 * N)))
def stencil(x, y):
    s = cuda.shared.array(HALO, float32)
    t, i = cuda.threadIdx.x, cuda.grid(1)
    s[t + 1] = x[i]
    if t == 0:
        s[0] = x[i - 1] if i > 0 else float32(0)
    if t == N - 1:
        s[N + 1] = x[i + 1] if i + 1 < x.size else float32(0)
    cuda.syncthreads()
    y[i] = s[t] + s[t + 1] + s[t + 2]


@launched(1, N, lambda: (count(N), ones(N)))
def stencil_twice(x, y):
    s = cuda.shared.array(HALO, float32)
    t = cuda.threadIdx.x
    s[t + 1] = x[t]
    if t < 2:
        s[t * (N + 1)] = 0
    cuda.syncthreads()
    s[t + 1] = s[t] + s[t + 2]  # race: s
    cuda.syncthreads()
    y[t] = s[t + 1]


@launched(1, N, lambda: (ones(N, dtype=np.int8),))
def neighbours_of_one_byte(x):
    s = cuda.shared.array(N, np.int8)
    t = cuda.threadIdx.x
    s[t] = x[t]
    x[t] = s[t]


@launched(1, N, lambda: (ones(N, dtype=np.int8),))
def bytes_that_overlap(x):
    s = cuda.shared.array(N, np.int8)
    t = cuda.threadIdx.x
    s[t // 2] = t  # race: s
    cuda.syncthreads()
    x[t] = s[t // 2]


@launched(1, N, lambda: (ones(1, dtype=np.int32),))
def flag_that_all_set(found):
    s = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = 0
    cuda.syncthreads()
    if t % 3 == 0:
        s[0] = 1
    cuda.syncthreads()
    if t == 0:
        found[0] = s[0]


@launched(1, N, lambda: (ones(1, dtype=np.int32),))
def flag_that_differs(found):
    s = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t % 3 == 0:
        s[0] = t  # race: s
    cuda.syncthreads()
    if t == 0:
        found[0] = s[0]


@cuda.jit(device=True)
def put(s, t, value):
    s[t] = value


@launched(1, N, lambda: (count(N),))
def through_a_device_function(x):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    put(s, t, x[t])
    cuda.syncthreads()
    x[t] = s[N - 1 - t]


@launched(1, N, lambda: (count(N),))
def read_behind_a_device_function(x):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    put(s, t, x[t])
    x[t] = s[N - 1 - t]  # race: s


@launched(1, N, lambda: (count(N),), shared=4 * N)
def dynamic_memory(x):
    s = cuda.shared.array(0, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    x[t] = s[N - 1 - t]


@launched(1, N, lambda: (count(N),), shared=4 * N)
def dynamic_memory_without_barrier(x):
    s = cuda.shared.array(0, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]  # race: s
    x[t] = s[N - 1 - t]  # race: s


@launched(1, N, lambda: (count(N, np.float64),))
def two_of_three_dimensions(x):
    s = cuda.shared.array((2, 8, 8), np.float64)
    t = cuda.threadIdx.x
    s[t // 64, t // 8 % 8, t % 8] = x[t]
    cuda.syncthreads()
    if t < 64:
        s[0, t // 8, t % 8] += s[1, t // 8, t % 8]
    cuda.syncthreads()
    x[t] = s[0, t % 8, t // 8 % 8]


@launched(1, N, lambda: (count(N, np.float64),))
def three_dimensions_without_barrier(x):
    s = cuda.shared.array((2, 8, 8), np.float64)
    t = cuda.threadIdx.x
    s[t // 64, t // 8 % 8, t % 8] = x[t]
    cuda.syncthreads()
    if t < 64:
        s[0, t // 8, t % 8] += s[1, t // 8, t % 8]  # race: s
    x[t] = s[0, t % 8, t // 8 % 8]  # race: s
