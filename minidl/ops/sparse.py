"""The product of a sparse matrix and a dense one. Loaded when it is asked for."""

from .. import check
from ..op import op

PLACES = "row", "column", "row_start", "order", "column_start"


@op(integer=PLACES)
def csr_matmul(k, value, row, column, row_start, order, column_start, x, *, checked=False):
    """a (M, K) times x (K, N) -> (M, N), where a is sparse: only its values (E,) are multiplied.

    The values stand row by row, in row (E,) and column (E,), those of row i from row_start[i] to
    before row_start[i + 1]; order (E,) numbers them column by column, those of column j from
    column_start[j] on. minidl.sparse.CSR makes all that. The gradient of value has a number for
    each value: what is not there stays 0. checked: the places are known to be right, as those of a
    CSR are.
    """
    check.rank("csr_matmul", "x", x, 2, "a matrix (K, N)")
    rows, columns, count = len(row_start) - 1, len(column_start) - 1, len(value)
    if len(x) != columns:
        check.fail("csr_matmul", f"x does not have a's {columns} columns", x=x)
    for name, a in (("row", row), ("column", column), ("order", order)):
        if a.shape != value.shape:
            check.fail("csr_matmul", f"{name} needs a number for each of {count} values", a=a)
    limits = rows, columns, count + 1, count, count + 1
    for name, a, n in zip(PLACES, (row, column, row_start, order, column_start), limits):
        if not checked:
            check.within("csr_matmul", name, a, 0, n, x=x)
    y = k.empty((rows, x.shape[1]), x.dtype)
    y = k.csr_matmul(value, row, column, row_start, order, column_start, x, y)

    def grad_value(dy, dvalue, add):
        return k.csr_matmul_grad_value(dy, x, row, column, dvalue, add)

    def grad_x(dy, dx, add):
        return k.csr_matmul_grad_x(dy, value, row, order, column_start, dx, add)

    return y, (grad_value, None, None, None, None, None, grad_x)
