"""Complex numbers, halves, tuples, records, and blocks that wait for each other."""

import numpy as np
from numba import complex64, cuda, float32

from . import count, launched, ones

N = 64
RECORD = np.dtype([("a", np.int32), ("b", np.complex64)], align=True)


def numbers(n, dtype=np.complex64):
    return count(n, dtype) + dtype(1j)


@launched(1, N, lambda: (numbers(N), numbers(N)))
def complex_turned(x, y):
    s = cuda.shared.array(N, complex64)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    y[t] = s[N - 1 - t] * 2


@launched(1, N, lambda: (numbers(N), numbers(N)))
def complex_turned_too_soon(x, y):
    s = cuda.shared.array(N, complex64)
    t = cuda.threadIdx.x
    s[t] = x[t]  # race: s
    y[t] = s[N - 1 - t] * 2


@launched(1, N, lambda: (numbers(N), ones(N)))
def imaginary_part_of_a_neighbour(x, y):
    t = cuda.threadIdx.x
    y[t] = x[(t + 1) % N].imag
    x[t] = 0  # race: x


@launched(1, N, lambda: (numbers(N, np.complex128), ones(N)))
def parts_of_two_elements(x, y):
    t = cuda.threadIdx.x
    parts = x.view(np.float64)
    parts[2 * t + 1] = 0
    y[t] = parts[2 * t]


@launched(1, N, lambda: (numbers(N - 1), numbers(N)))
def complex_without_a_guard(x, y):
    t = cuda.threadIdx.x
    y[t] = x[t]  # out of bounds: x


@launched(1, N, lambda: (numbers(N), numbers(N)), fresh=("x",))
def real_parts_of_nothing(x, y):
    t = cuda.threadIdx.x
    y[t] = x[t].real  # uninitialised read: x


@launched(2, 32, lambda: (ones(N, dtype=np.float16), ones(N, dtype=np.float16)))
def half_sums(x, y):
    i = cuda.grid(1)
    y[i] = x[i] + x[N - 1 - i] * x[i]


@launched(2, 32, lambda: (ones(N, dtype=np.float16),))
def half_sums_in_place(x):
    i = cuda.grid(1)
    x[i] = x[i] + x[N - 1 - i]  # race: x


@launched(2, 32, lambda: ((ones(N), ones(N)), (np.float32(2), (3, 4j))))
def arrays_of_a_tuple(arrays, factors):
    i = cuda.grid(1)
    arrays[1][i] = arrays[0][i] * factors[0] + factors[1][0] + factors[1][1].imag


@launched(2, 32, lambda: ((ones(N), ones(N - 1)),))
def arrays_of_two_lengths(arrays):
    i = cuda.grid(1)
    if i < arrays[0].size:
        arrays[1][i] = arrays[0][i]  # out of bounds: arrays[1]


@launched(2, 32, lambda: (np.zeros(1, RECORD)[0], ones(N)))
def record_read(r, y):
    y[cuda.grid(1)] = r.a + r.b.imag


@launched(2, 32, lambda: (np.zeros(1, RECORD)[0], ones(N)))
def record_counted(r, y):
    r.a += 1  # race: r
    y[cuda.grid(1)] = r.b.real


@launched(4, 16, lambda: (ones(N), ones(N)))
def grid_turned(x, y):
    i, grid = cuda.grid(1), cuda.cg.this_grid()
    s = cuda.shared.array(16, float32)
    s[cuda.threadIdx.x] = i
    x[i] = i
    grid.sync()
    y[i] = x[N - 1 - i] + s[15 - cuda.threadIdx.x]
    grid.sync()
    x[i] = y[(i + 1) % N]


@launched(4, 16, lambda: (ones(N), ones(N)))
def grid_turned_too_soon(x, y):
    i, grid = cuda.grid(1), cuda.cg.this_grid()
    x[i] = i
    grid.sync()
    y[i] = x[N - 1 - i]
    cuda.syncthreads()
    x[i] = 0  # race: x


@launched(4, 16, lambda: (ones(N), ones(1)))
def grid_sum(x, total):
    grid = cuda.cg.this_grid()
    if cuda.grid(1) == 0:
        total[0] = 0
    grid.sync()
    cuda.atomic.add(total, 0, x[cuda.grid(1)])
    grid.sync()
    x[cuda.grid(1)] /= total[0]


@launched(4, 16, lambda: (ones(N), ones(1)))
def grid_sum_from_the_start(x, total):
    grid = cuda.cg.this_grid()
    if cuda.grid(1) == 0:
        total[0] = 0  # race: total
    cuda.atomic.add(total, 0, x[cuda.grid(1)])
    grid.sync()
    x[cuda.grid(1)] /= total[0]


@launched(4, 16, lambda: (ones(N),))
def grid_shared_memory_of_nobody(x):
    s = cuda.shared.array(16, float32)
    if cuda.blockIdx.x == 0:
        s[cuda.threadIdx.x] = 1
    cuda.cg.this_grid().sync()
    x[cuda.grid(1)] = s[cuda.threadIdx.x]  # uninitialised read: s


@launched(4, 16, lambda: (ones(N),))
def grid_of_some_blocks(x):
    i = cuda.grid(1)
    x[i] = 0
    if cuda.blockIdx.x < 3:
        cuda.cg.this_grid().sync()  # divergent barrier


@launched(4, 16, lambda: (ones(N),))
def grid_of_some_threads(x):
    i = cuda.grid(1)
    x[i] = 0
    if cuda.threadIdx.x < 8:
        cuda.cg.this_grid().sync()  # divergent barrier


@launched(132 * 32 + 1, 64, lambda: (ones(N),))
def grid_too_large_to_be_there_at_once(x):  # launch
    cuda.cg.this_grid().sync()
