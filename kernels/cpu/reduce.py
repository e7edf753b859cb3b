"""Sums over rows, in parts whose number depends on the shape alone."""

from collections.abc import Callable, Sequence

import numpy as np

from .. import reference
from ..reference.elementwise import store
from ..roles import Array, Out
from . import vector
from ._numba import loop
from .memory import ZERO, canonical, channels_last, outward, rare, settle, space, target

ROWS = 256  # that one task sums in float32; the sums of the tasks are added in float64


def sum_rows(dy: Array, db: Out, add: bool) -> Array:
    """db (F,) = sum of dy (..., F) over all axes but the last: the gradient of a bias."""
    if rare(dy, db):
        return reference.sum_rows(dy, db, add)
    rows = canonical(outward(dy, channels_last(dy))).reshape(-1, db.size)
    return _summed(_sum_parts, (rows,), db, add)


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
    arrays = (canonical(outward(dy, order)), canonical(outward(y, order)), value)
    _summed(_relu_parts, [x.reshape(-1, db.size) for x in arrays], db, add[1])
    settle(value, out, add[0])
    return dx, db


def _summed(run: Callable, arrays: Sequence[Array], db: Array, add: bool) -> Array:
    """db = the sum of the parts that run leaves for each task, of rows of the arrays."""
    tasks = -(-len(arrays[0]) // ROWS)
    if tasks == 1:
        total = target(db, add, 1)
        run(1, arrays[0].size, *arrays, total.reshape(1, -1))
        return settle(total, db, add)
    parts = space(2, (tasks, db.size))
    run(tasks, arrays[0].size, *arrays, parts)
    return store(parts.sum(axis=0, dtype=np.float64).astype(db.dtype), db, add)


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
    whole = c - c % vector.LANES
    for task in range(start, stop):
        total = parts[task]
        total[:] = 0
        for i in range(task * ROWS, min(rows, (task + 1) * ROWS)):
            for k in range(0, whole, vector.LANES):
                at = i * c + k
                slope = vector.where_positive(vector.load(y, at), vector.load(dy, at))
                vector.store(dx, at, slope)
                vector.store(total, k, vector.plus(vector.load(total, k), slope))
            for k in range(whole, c):
                dx[i, k] = ZERO if y[i, k] <= 0 else dy[i, k]
                total[k] += dx[i, k]
