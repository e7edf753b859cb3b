"""Products of a sparse matrix and a dense one: only what is held is multiplied."""

import numpy as np

from ..roles import Array, Out
from . import memory
from ._numba import cuda, jit
from .intrinsics import plus
from .layout import WARP, cover
from .move import dense
from .rows import join_row, share_of, threads_of_rows


@jit
def _sum_lines(value, place, order, start, x, y, add):
    """A thread sums one number of y (M, N); its neighbours, along N, read the same values.

    So these come from the cache, and the lines of x in whole sectors. order: the places of the
    values, or of size 0 where they lie as they come.
    """
    j, i = cuda.grid(2)
    if j < y.shape[1]:
        while i < y.shape[0]:
            total = y.dtype.type(0)
            for n in range(start[i], start[i + 1]):
                e = order[n] if order.size else n
                total += value[e] * x[place[e], j]
            y[i, j] = plus(y[i, j], total) if add else total
            i += cuda.gridsize(2)[1]


@dense
def csr_matmul(
    value: Array,
    row: Array,
    column: Array,
    row_start: Array,
    order: Array,
    column_start: Array,
    x: Array,
    y: Out,
) -> Array:
    """y (M, N) = a (M, K) x (K, N); a has E values, of which its gradients need all places."""
    grid, block = cover(*y.shape[::-1])
    none = memory.scratch((0,), np.int64)
    _sum_lines[grid, block](value, column, none, row_start, x, y, False)
    return y


@jit
def _dots(dy, x, row, column, dvalue, bits, add):
    """blockDim.x neighbouring threads multiply a line of dy and one of x, and join their sums."""
    part = cuda.shared.array(WARP, x.dtype)
    place = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    e = min(place, row.size - 1)  # past the end, too: a shuffle needs every lane of its warp
    total = x.dtype.type(0)
    for k in range(share_of(x.shape[1], bits)):
        c = cuda.threadIdx.x + (k << bits)
        total += dy[row[e], c] * x[column[e], c]
    total = join_row(total, part, False)
    if place == e and cuda.threadIdx.x == 0:
        dvalue[e] = plus(dvalue[e], total) if add else total


@dense
def csr_matmul_grad_value(
    dy: Array, x: Array, row: Array, column: Array, dvalue: Out, add: bool
) -> Array:
    """dvalue (E,) = the numbers of dy x' that stand where a has values."""
    grid, block, bits = threads_of_rows(dvalue.size, x.shape[1])
    _dots[grid, block](dy, x, row, column, dvalue, bits, add)
    return dvalue


@dense
def csr_matmul_grad_x(
    dy: Array, value: Array, row: Array, order: Array, column_start: Array, dx: Out, add: bool
) -> Array:
    """dx (K, N) = a' (K, M) dy (M, N): down the columns of a."""
    grid, block = cover(*dx.shape[::-1])
    _sum_lines[grid, block](value, row, order, column_start, dy, dx, add)
    return dx
