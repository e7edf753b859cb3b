"""Rows put back where they were taken."""

import numpy as np

from .. import reference
from ..roles import Array, Out
from ._numba import jit
from .memory import canonical, rare, settle, target


def take_grad(dy: Array, index: Array, dx: Out, add: bool) -> Array:
    """dx[index[i...]] += dy[i...], in the order of i; a row taken twice gets both."""
    if rare(dy, dx) or index.dtype != np.int64:
        return reference.take_grad(dy, index, dx, add)
    out = target(dx, add)
    rows = canonical(dy).reshape(index.size, -1)
    _put(rows, canonical(index).reshape(-1), out.reshape(len(out), -1))
    return settle(out, dx, add)


@jit
def _put(dy, index, dx):
    dx[:] = 0
    for i in range(index.size):
        at = index[i] + (len(dx) if index[i] < 0 else 0)
        if not 0 <= at < len(dx):
            raise IndexError("take_grad: an index is not a row of dx")
        row, slope = dx[at], dy[i]
        for k in range(row.size):
            row[k] += slope[k]
