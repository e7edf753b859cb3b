"""Products of a sparse matrix and a dense one: only what is held is multiplied."""

from .. import reference
from ..roles import Array, Out
from ._numba import loop, widest
from .memory import ZERO, canonical, rare, settle, space, target


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
    if rare(value, x, y):
        return reference.csr_matmul(value, row, column, row_start, order, column_start, x, y)
    out = target(y)
    lines = canonical(value), canonical(column), canonical(row_start), canonical(x)
    _sum_lines(len(out), value.size * x.shape[1], *lines, out)
    return settle(out, y)


def csr_matmul_grad_value(
    dy: Array, x: Array, row: Array, column: Array, dvalue: Out, add: bool
) -> Array:
    """dvalue (E,) = the numbers of dy x' that stand where a has values."""
    if rare(dy, x, dvalue):
        return reference.csr_matmul_grad_value(dy, x, row, column, dvalue, add)
    out = target(dvalue, add)
    lines = canonical(dy), canonical(x), canonical(row), canonical(column)
    _dots(out.size, out.size * x.shape[1], *lines, out)
    return settle(out, dvalue, add)


def csr_matmul_grad_x(
    dy: Array, value: Array, row: Array, order: Array, column_start: Array, dx: Out, add: bool
) -> Array:
    """dx (K, N) = a' (K, M) dy (M, N): down the columns of a."""
    if rare(dy, value, dx):
        return reference.csr_matmul_grad_x(dy, value, row, order, column_start, dx, add)
    out = target(dx, add)
    held, rows = space(1, value.shape, value.dtype), space(2, row.shape, row.dtype)
    value.take(order, out=held, mode="clip")  # they are in range: else NumPy makes a copy to see
    row.take(order, out=rows, mode="clip")
    _sum_lines(len(out), value.size * dy.shape[1], held, rows, canonical(column_start),
               canonical(dy), out)  # fmt: skip
    return settle(out, dx, add)


@loop(fast=("contract",))
def _sum_lines(first, stop, value, place, start, x, y):
    """Four lines of x at a time: each number of y is read and written a quarter as often."""
    widest()
    for i in range(first, stop):
        sums, e, end = y[i], start[i], start[i + 1]
        sums[:] = ZERO
        while e + 4 <= end:
            a, b, c, d = value[e], value[e + 1], value[e + 2], value[e + 3]
            xa, xb, xc, xd = x[place[e]], x[place[e + 1]], x[place[e + 2]], x[place[e + 3]]
            for j in range(sums.size):
                sums[j] += (a * xa[j] + b * xb[j]) + (c * xc[j] + d * xd[j])
            e += 4
        while e < end:
            a, xa = value[e], x[place[e]]
            for j in range(sums.size):
                sums[j] += a * xa[j]
            e += 1


@loop(fast=("contract", "reassoc"))
def _dots(first, stop, dy, x, row, column, dvalue):
    widest()
    for e in range(first, stop):
        slope, line, total = dy[row[e]], x[column[e]], ZERO
        for j in range(line.size):
            total += slope[j] * line[j]
        dvalue[e] = total
