"""What is read before it is written, what lies outside, and what lies wrong."""

from itertools import pairwise

import numpy as np
from numba import cuda, float32, int32

from minidl.kernels.cuda.intrinsics import ld4, st4

from . import count, launched, ones

N = 64


def of_one(*sizes: int, dtype=np.float32):
    """Arrays that lie one after the other in one piece of memory."""
    ends = np.cumsum((0, *sizes))
    whole = np.ones(ends[-1], dtype)
    return tuple(whole[a:b] for a, b in pairwise(ends))


@launched(1, N, lambda: (ones(N, dtype=np.int32),))
def largest_of_nothing(y):
    s = cuda.shared.array(N, int32)
    t = cuda.threadIdx.x
    s[t] = max(s[t], y[t])  # uninitialised read: s
    y[t] = s[t]


@launched(1, N, lambda: (ones(N, dtype=np.int32),))
def largest_of_something(y):
    s = cuda.shared.array(N, int32)
    t = cuda.threadIdx.x
    s[t] = -1
    s[t] = max(s[t], y[t])
    y[t] = s[t]


@launched(1, N, lambda: (count(N), ones(1)))
def half_filled(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    if t < 60:
        s[t] = x[t]
    cuda.syncthreads()
    if t == 0:
        largest = s[0]
        for i in range(1, N):
            largest = max(largest, s[i])  # uninitialised read: s
        y[0] = largest


@launched(1, N, lambda: (count(N), ones(1)))
def filled_to_the_end(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = x[t] if t < 60 else x[0]
    cuda.syncthreads()
    if t == 0:
        largest = s[0]
        for i in range(1, N):
            largest = max(largest, s[i])
        y[0] = largest


@launched(2, N, lambda: (ones(2 * N),))
def left_by_the_block_before(y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    if cuda.blockIdx.x == 0:
        s[t] = y[t]
    cuda.syncthreads()
    y[cuda.grid(1)] = s[t]  # uninitialised read: s


@launched(1, N, lambda: (ones(4, dtype=np.int32),))
def counted_from_nothing(y):
    bins = cuda.shared.array(4, int32)
    t = cuda.threadIdx.x
    cuda.atomic.add(bins, t % 4, 1)  # uninitialised read: bins
    cuda.syncthreads()
    if t < 4:
        y[t] = bins[t]


@launched(1, N, lambda: (count(N), np.empty(N, np.float32)), fresh=("y",))
def added_to_a_fresh_array(x, y):
    i = cuda.grid(1)
    y[i] += x[i]  # uninitialised read: y


@launched(1, N, lambda: (count(N), np.empty(N, np.float32)), fresh=("y",))
def written_to_a_fresh_array(x, y):
    i = cuda.grid(1)
    y[i] = x[i]
    y[i] += x[i]


@launched(2, N, lambda: (count(N), np.zeros(N, np.float32)), fresh=("y",))
def zeros_to_a_fresh_array(x, y):
    i = cuda.grid(1)
    if i < y.size:
        y[i] = 0
        x[i] = y[i]


@launched(1, N, lambda: (ones(N),))
def rest_of_a_local_array(y):
    mine = cuda.local.array(4, float32)
    t = cuda.threadIdx.x
    for i in range(4):
        mine[i] = y[t]
    total = float32(0)
    for i in range(4):
        total += mine[i]
    y[t] = total


@launched(2, N, lambda: (count(100), ones(100)))
def guarded(x, y):
    i = cuda.grid(1)
    if i < x.size:
        y[i] = x[i]


@launched(2, N, lambda: (count(100), ones(128)))
def without_guard(x, y):
    i = cuda.grid(1)
    y[i] = x[i]  # out of bounds: x


@launched(2, N, lambda: (count(100), ones(100)))
def guarded_by_one_too_many(x, y):
    i = cuda.grid(1)
    if i <= y.size:
        y[i] = x[0]  # out of bounds: y


@launched(1, N, lambda: of_one(N, N))
def into_the_next_array(x, y):
    i = cuda.grid(1)
    x[i + 1] = y[i]  # out of bounds: x


@launched(1, N, lambda: of_one(N, N))
def beside_the_next_array(x, y):
    i = cuda.grid(1)
    if i + 1 < x.size:
        x[i] = y[i]


@launched(1, N, lambda: of_one(N, N))
def before_the_first(x, y):
    i = cuda.grid(1)
    x[i] = y[i - N - 1]  # out of bounds: y


@launched(1, N, lambda: (count(N), ones(N)))
def from_the_end(x, y):
    i = cuda.grid(1)
    y[i] = x[-1 - i]


@launched(1, N, lambda: (count(N), ones(N)))
def left_neighbour_of_shared(x, y):
    other = cuda.shared.array(N, float32)
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = other[t] = x[t]
    cuda.syncthreads()
    y[t] = s[t + 1] + other[t]  # out of bounds: s


@launched(1, N, lambda: (count(N), ones(N)))
def neighbours_of_shared(x, y):
    other = cuda.shared.array(N, float32)
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = other[t] = x[t]
    cuda.syncthreads()
    y[t] = s[(t + 1) % N] + other[t]


@launched(1, N, lambda: (count(N),), shared=4 * N - 4)
def dynamic_memory_that_is_short(x):
    s = cuda.shared.array(0, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]  # out of bounds: s
    x[t] = 0


@launched(1, (8, 8), lambda: (ones(8, 8), ones(8, 8)))
def below_the_last_row(x, y):
    i, j = cuda.grid(2)
    y[i, j] = x[i, j] + x[i + 1, j]  # out of bounds: x


@launched(1, (8, 8), lambda: (ones(8, 8), ones(8, 8)))
def rows_below(x, y):
    i, j = cuda.grid(2)
    y[i, j] = x[i, j] + (x[i + 1, j] if i + 1 < x.shape[0] else float32(0))


@launched(1, (8, 8), lambda: (ones(8, 16)[:, :8],))
def beside_a_view(x):
    i, j = cuda.grid(2)
    if j < 7:
        x[j, i + 1] = 0  # out of bounds: x


@launched(1, (8, 8), lambda: (ones(8, 16)[:, :8],))
def within_a_view(x):
    i, j = cuda.grid(2)
    x[j, i] = 0


@launched(1, N, lambda: (ones(N), ones(1)))
def loop_by_one_too_far(x, y):
    if cuda.grid(1) == 0:
        total = float32(0)
        for i in range(x.size + 1):
            total += x[i]  # out of bounds: x
        y[0] = total


@launched(1, N, lambda: (*of_one(N, N), ones(1)))
def loop_into_the_next_array(x, y, sums):
    if cuda.grid(1) == 0:
        total = y[0]
        for i in range(x.size + 1):
            total += x[i]  # out of bounds: x
        sums[0] = total


@cuda.jit(device=True)
def right_of(x, i):
    return x[i + 1]  # out of bounds: x


@launched(1, N, lambda: (count(N), ones(N)))
def beyond_by_a_device_function(x, y):
    i = cuda.grid(1)
    y[i] = right_of(x, i)


@launched(2, N, lambda: (count(2 * N, np.int64), ones(2 * N, dtype=np.bool_)))
def gathered(x, y):
    i = cuda.grid(1)
    y[x[i]] = x[i] > 3


@launched(2, N, lambda: (count(2 * N, np.int64) * 2, ones(2 * N, dtype=np.bool_)))
def gathered_from_outside(x, y):
    i = cuda.grid(1)
    y[x[i]] = x[i] > 3  # out of bounds: y


@launched(1, N, lambda: (ones(4 * N), ones(4 * N)))
def four_at_a_time(x, y):
    i = 4 * cuda.grid(1)
    a, b, c, d = ld4(x, i)
    st4(y, i, d, c, b, a)


@launched(1, N, lambda: (ones(4 * N + 1)[1:], ones(4 * N)))
def four_from_the_second_on(x, y):
    i = 4 * cuda.grid(1)
    a, b, c, d = ld4(x, i)  # misaligned access: x
    st4(y, i, d, c, b, a)


@launched(1, N, lambda: (ones(4 * N), ones(4 * N + 4)))
def four_to_the_third_on(x, y):
    i = 4 * cuda.grid(1)
    a, b, c, d = ld4(x, i)
    st4(y, i + 2, d, c, b, a)  # misaligned access: y


@launched(1, N, lambda: (ones(4 * N), ones(4 * N - 2)))
def four_where_two_are_left(x, y):
    i = 4 * cuda.grid(1)
    a, b, c, d = ld4(x, i)
    st4(y, i, d, c, b, a)  # out of bounds: y


@launched(1, N, lambda: (ones(4 * N),))
def four_of_the_neighbours(x):
    i = 4 * cuda.grid(1)
    a, b, c, d = ld4(x, i)
    st4(x, (i + 4) % x.size, d, c, b, a)  # race: x


@launched(1, 2000, lambda: (ones(2000),))
def block_of_too_many(x):  # launch
    x[cuda.grid(1)] = 0


@launched((1, 70000), 1, lambda: (ones(1),))
def grid_of_too_many(x):  # launch
    if cuda.blockIdx.y == 0:
        x[0] = 0


@launched(1, (1, 1, 128), lambda: (ones(128),))
def block_of_too_many_layers(x):  # launch
    x[cuda.threadIdx.z] = 0


@launched(1, N, lambda: (ones(N),))
def shared_memory_of_52_kilobytes(x):  # launch
    s = cuda.shared.array(13 * 1024, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    x[t] = s[t]


@launched(1, N, lambda: (ones(N),))
def shared_memory_of_48_kilobytes(x):
    s = cuda.shared.array(12 * 1024, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    x[t] = s[t]


@launched(1, N, lambda: (ones(N),), shared=48 * 1024)
def static_and_dynamic_of_52_kilobytes(x):  # launch
    s = cuda.shared.array(1024, float32)
    more = cuda.shared.array(0, float32)
    t = cuda.threadIdx.x
    s[t] = more[t] = x[t]
    x[t] = s[t] + more[t]
