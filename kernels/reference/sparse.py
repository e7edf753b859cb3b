"""Products of a sparse matrix and a dense one.

The sparse matrix a (M, K) is compressed by rows (CSR): row i holds value[row_start[i] :
row_start[i + 1]], which stand in the columns column[...] of the same places; what is not held is 0.
row: the row of each value. order: the places of all values column by column, those of column j
from column_start[j] to column_start[j + 1]. All of them but value are int64.
"""

import numpy as np

from ..roles import Array, Out
from .elementwise import quiet, store


@quiet
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
    return store(_sums(value, x[column], row_start, y), y, False)


@quiet
def csr_matmul_grad_value(
    dy: Array, x: Array, row: Array, column: Array, dvalue: Out, add: bool
) -> Array:
    """dvalue (E,) = the numbers of dy x' that stand where a has values."""
    return store((dy[row] * x[column]).sum(axis=1), dvalue, add)


@quiet
def csr_matmul_grad_x(
    dy: Array, value: Array, row: Array, order: Array, column_start: Array, dx: Out, add: bool
) -> Array:
    """dx (K, N) = a' (K, M) dy (M, N): down the columns of a."""
    return store(_sums(value[order], dy[row[order]], column_start, dx), dx, add)


def _sums(value: Array, lines: Array, start: Array, y: Array) -> Array:
    """For each line of y the sum of value times lines, over start[i] to before start[i + 1]."""
    sums = np.zeros(y.shape, y.dtype)
    np.add.at(sums, np.repeat(np.arange(len(y)), np.diff(start)), value[:, None] * lines)
    return sums
