"""Elements picked by number along an axis, and put back: a loop where NumPy builds arrays."""

import math

import numpy as np

from .. import reference
from ..roles import Array, Out
from ._numba import jit
from .memory import canonical, rare, settle, target


def gather(x: Array, index: Array, y: Out, axis: int) -> Array:
    """y[..., j, ...] = x[..., index[..., j, ...], ...] along an axis.

    x and index have the same lengths along the others; a negative number counts from the end.
    """
    if rare(x, y) or index.dtype != np.int64:
        return reference.gather(x, index, y, axis)
    out = target(y)
    _pick(_around(canonical(x), axis), _around(canonical(index), axis), _around(out, axis))
    return settle(out, y)


def gather_grad(dy: Array, index: Array, dx: Out, axis: int, add: bool) -> Array:
    """dx[..., index[..., j, ...], ...] += dy[..., j, ...], in the order of j."""
    if rare(dy, dx) or index.dtype != np.int64:
        return reference.gather_grad(dy, index, dx, axis, add)
    out = target(dx, add)
    _put(_around(canonical(dy), axis), _around(canonical(index), axis), _around(out, axis))
    return settle(out, dx, add)


def _around(x: Array, axis: int) -> Array:
    """x (outer, n, inner): the axis between all that are outside of it and all that are inside."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], -1)


@jit
def _pick(x, index, y):
    for o in range(y.shape[0]):
        for j in range(y.shape[1]):
            for i in range(y.shape[2]):
                at = index[o, j, i] + (x.shape[1] if index[o, j, i] < 0 else 0)
                if not 0 <= at < x.shape[1]:
                    raise IndexError("gather: an index is not a place of x")
                y[o, j, i] = x[o, at, i]


@jit
def _put(dy, index, dx):
    dx[:] = 0
    for o in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            for i in range(dy.shape[2]):
                at = index[o, j, i] + (dx.shape[1] if index[o, j, i] < 0 else 0)
                if not 0 <= at < dx.shape[1]:
                    raise IndexError("gather_grad: an index is not a place of dx")
                dx[o, at, i] += dy[o, j, i]
