"""Sums over rows, in parts whose number depends on the shape alone."""

import numpy as np

from .. import reference
from ..reference.elementwise import quiet, store
from ..roles import Array, Out
from ._numba import loop
from .memory import ZERO, canonical, channels_last, outward, rare, settle, space, target

ROWS = 256  # that one task sums in float32; the sums of the tasks are added in float64


@quiet
def sum_rows(dy: Array, db: Out, add: bool) -> Array:
    """db (F,) = sum of dy (..., F) over all axes but the last: the gradient of a bias."""
    if rare(dy, db) or dy.size < _SMALL:
        return reference.sum_rows(dy, db, add)
    rows = canonical(outward(dy, channels_last(dy))).reshape(-1, db.size)
    return store(column_sums(rows).astype(db.dtype), db, add)


def column_sums(x: Array) -> Array:
    """Sum of each column of x (R, C), float64 (C,)."""
    parts = space(2, (-(-len(x) // ROWS), x.shape[1]))
    _sum_parts(len(parts), x.size, x, parts)
    return parts.sum(axis=0, dtype=np.float64)


def bias_relu_grad(
    dy: Array, y: Array, dx: Out, db: Out, add: tuple[bool, bool]
) -> tuple[Array, Array]:
    """Gradients of y = relu(x + b): dx = 0 where y <= 0, else dy, and db = its sum over all rows.

    dy, y, dx (..., F), db (F,): relu_grad and sum_rows of what it gives.
    """
    if rare(dy, y):
        return reference.bias_relu_grad(dy, y, dx, db, add)
    order = channels_last(dx)
    out = outward(dx, order)
    value = target(out, add[0])
    dy, y, rows = (
        x.reshape(-1, db.size) for x in (*(canonical(outward(x, order)) for x in (dy, y)), value)
    )
    parts = space(2, (-(-len(rows) // ROWS), db.size))
    _relu_parts(len(parts), dx.size, dy, y, rows, parts)
    settle(value, out, add[0])
    return dx, store(parts.sum(axis=0, dtype=np.float64).astype(db.dtype), db, add[1])


_SMALL = 1 << 11  # elements below which NumPy is as fast: benchmarks.kernels --small


@loop
def _sum_parts(start, stop, x, parts):
    rows, c = x.shape
    for task in range(start, stop):
        total = parts[task]
        total[:] = 0
        for i in range(task * ROWS, min(rows, (task + 1) * ROWS)):
            row = x[i]
            for k in range(c):
                total[k] += row[k]


@loop
def _relu_parts(start, stop, dy, y, dx, parts):
    rows, c = dx.shape
    for task in range(start, stop):
        total = parts[task]
        total[:] = 0
        for i in range(task * ROWS, min(rows, (task + 1) * ROWS)):
            slope, at, out = dy[i], y[i], dx[i]
            for k in range(c):
                value = ZERO if at[k] <= 0 else slope[k]
                out[k] = value
                total[k] += value
