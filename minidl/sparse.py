"""Sparse matrices: what is 0 is neither kept nor multiplied.

    a = sparse.CSR.from_dense(weight)       # compressed by rows
    y = a @ x                               # backward fills a.value.grad and x.grad
    sparse.convert(model, density=0.05)     # Linear layers that pruning has made sparse

Kept numbers need a place each, and they are multiplied one by one where a dense product works on
tiles: so a product of dense matrices is faster until most of the numbers are 0, and the file is
smaller long before. `python -m benchmarks.sparse` measures where, on your machine.
"""

from typing import Any

import numpy as np

from . import check, ops
from .backend import Device
from .nn import Linear as DenseLinear
from .nn import Module, Parameter
from .tensor import Tensor

PLACES = "row", "column", "row_start", "order", "column_start"


class CSR:
    """A sparse matrix of a shape (M, K): value (E,), row by row, and where each number stands.

    column (E,) are their columns; those of row i stand from row_start[i] to before
    row_start[i + 1]. value is a Tensor, which may be trained; the places stay as they are.
    ValueError where they are not those of a matrix of this shape. A place may be held twice: then
    the sum of both counts.
    """

    def __init__(self, value: Any, column: Any, row_start: Any, shape: tuple[int, int]):
        self.value = value if isinstance(value, Tensor) else Tensor(value)
        self.shape = rows, columns = int(shape[0]), int(shape[1])
        at, start = (np.asarray(_host(a), np.int64) for a in (column, row_start))
        _refuse(self.value, at, start, self.shape)
        row = np.repeat(np.arange(rows), np.diff(start))
        order = np.argsort(at, kind="stable")
        column_start = np.concatenate([[0], np.bincount(at, minlength=columns).cumsum()])
        found = row, at, start, order, column_start.astype(np.int64)
        self.places = {n: Tensor(a, device=self.device) for n, a in zip(PLACES, found)}

    @classmethod
    def from_dense(cls, x: Any) -> "CSR":
        """Of a matrix (M, K), a Tensor or an array, what is not 0: a copy, without gradients."""
        host = np.asarray(_host(x))
        if host.ndim != 2:
            check.fail("CSR", f"x has {host.ndim} dimensions, but a matrix (M, K) has 2", x=host)
        row, column = np.nonzero(host)
        start = np.concatenate([[0], np.bincount(row, minlength=len(host)).cumsum()])
        device = x.device if isinstance(x, Tensor) else None
        return cls(Tensor(host[row, column], device=device), column, start, host.shape)

    @classmethod
    def from_scipy(cls, a: Any) -> "CSR":
        """A copy of a matrix or array of scipy.sparse, in any of its formats."""
        rows = a.tocsr()
        return cls(np.array(rows.data), rows.indices, rows.indptr, rows.shape)

    def to_scipy(self) -> Any:
        """The same as a scipy.sparse.csr_array, a copy. ImportError without SciPy."""
        from scipy.sparse import csr_array

        parts = self.value, self.places["column"], self.places["row_start"]
        return csr_array(tuple(np.array(t.numpy_view()) for t in parts), shape=self.shape)

    def to_dense(self) -> Tensor:
        """The same with all its zeros (M, K), a copy, without gradients."""
        dense = np.zeros(self.shape, self.value.dtype)
        places = tuple(self.places[n].numpy_view() for n in ("row", "column"))
        np.add.at(dense, places, self.value.numpy_view())
        return Tensor(dense, device=self.device)

    @property
    def device(self) -> Device:
        """Where it is."""
        return self.value.device

    @property
    def nnz(self) -> int:
        """How many numbers it holds."""
        return self.value.size

    @property
    def density(self) -> float:
        """How many numbers it holds of those that a dense matrix would; 0 of none."""
        return self.nnz / max(self.shape[0] * self.shape[1], 1)

    @property
    def T(self) -> "CSR":
        """Rows for columns. A gradient of its values goes on to these."""
        row, column, row_start, order, column_start = (t.numpy_view() for t in self.places.values())
        back = np.empty_like(order)
        back[order] = np.arange(order.size)
        found = column[order], row[order], column_start, back, row_start
        places = {n: Tensor(a, device=self.device) for n, a in zip(PLACES, found)}
        value = ops.take(self.value, self.places["order"])
        return _placed(value, places, (self.shape[1], self.shape[0]))

    def __matmul__(self, x: Tensor) -> Tensor:
        """(M, K) times x (K, N) -> (M, N), or x (K,) -> (M,)."""
        x = x if isinstance(x, Tensor) else Tensor(x, device=self.device)
        if x.ndim == 1:
            return (self @ ops.reshape(x, shape=(-1, 1))).reshape(-1)
        return ops.csr_matmul(self.value, *self.places.values(), x, checked=True)

    def __repr__(self) -> str:
        return f"CSR({self.shape}, {self.nnz:,} values, density {self.density:.2%})"


class Linear(Module):
    """x (..., in) times sparse weights, plus bias -> (..., out): of a dense layer what is not 0.

    Only these weights are kept and trained, as `value` (E,).
    """

    def __init__(self, layer: DenseLinear):
        turned = CSR.from_dense(layer.weight.detach().T)  # rows are outputs: each is one sum
        self.shape = turned.shape
        self.value = Parameter(turned.value)
        for name, places in turned.places.items():
            self.register_buffer(name, places)
        self.bias = layer.bias

    @property
    def weight(self) -> CSR:
        """The weights (out, in)."""
        return _placed(self.value, {name: getattr(self, name) for name in PLACES}, self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        outputs, inputs = self.shape
        if x.shape[-1] != inputs:
            check.fail("Linear", f"x does not have {inputs} features", x=x.data)
        rows = ops.reshape(x, shape=(-1, inputs)) if x.ndim != 2 else x
        y = (self.weight @ rows.T).T
        y = y if self.bias is None else y + self.bias
        return y if x.ndim == 2 else ops.reshape(y, shape=(*x.shape[:-1], outputs))

    def flops(self, x: Tensor, y: Tensor) -> int:
        """A multiplication and an addition for each weight that is there."""
        return 2 * self.value.size * (x.size // max(self.shape[1], 1))

    def extra_repr(self) -> str:
        """Outputs, inputs, and how many weights are there."""
        return f"{self.shape[1]}, {self.shape[0]}, {self.weight.density:.2%} of the weights"


def convert(model: Module, density: float) -> Module:
    """Replace each Linear within a model of whose weights at most this share is not 0.

    Returns the model. Make the optimizer after it: there are other parameters.
    """
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is not DenseLinear:
                continue
            weight = layer.weight.numpy_view()
            if np.count_nonzero(weight) <= density * weight.size:
                setattr(module, name, Linear(layer))
    return model


def _placed(value: Tensor, places: dict[str, Tensor], shape: tuple[int, int]) -> CSR:
    """A CSR whose places are known to be right."""
    made = CSR.__new__(CSR)
    made.value, made.places, made.shape = value, places, shape
    return made


def _host(x: Any) -> Any:
    return x.numpy_view() if isinstance(x, Tensor) else x


def _refuse(value: Tensor, at: np.ndarray, start: np.ndarray, shape: tuple[int, int]) -> None:
    """ValueError unless these are the places of a matrix."""
    rows, columns = shape
    if value.ndim != 1 or at.shape != value.shape:
        check.fail("CSR", "column needs a number for each value", value=value.data, column=at)
    if start.shape != (rows + 1,) or (start[0], start[-1]) != (0, at.size):
        problem = f"row_start needs {rows + 1} numbers from 0 to {at.size}, the number of values"
        check.fail("CSR", problem, row_start=start)
    if (np.diff(start) < 0).any():
        check.fail("CSR", "row_start must not fall", row_start=start)
    if at.size and not 0 <= at.min() <= at.max() < columns:
        check.fail("CSR", f"column {at.max() if at.min() >= 0 else at.min()} is none of {columns}")
