"""Elements picked by number, and put back: a loop where NumPy builds arrays."""

import math

import numpy as np

from .. import reference
from ..roles import Array, InOut, Out
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


MOST_ROWS = 1 << 30  # of a table: a number and a position are one key


def distinct(index: Array, rows: Out, place: Out, skip: int) -> tuple[Array, Array]:
    """rows: the numbers of index (n,), ascending, -1 where one comes again; place: where each is.

    index[i] = rows[place[i]]. The number skip, and those below 0, which stand behind all others,
    are left out: -1 in rows, and their place is n.
    """
    if index.dtype != np.int64 or index.max(initial=0) >= MOST_ROWS:
        return reference.distinct(index, rows, place, skip)
    key = np.where(index < 0, MOST_ROWS, index) << 32
    key += np.arange(len(index))
    key.sort()  # NumPy sorts numbers many times as fast as it finds out their order
    out = target(rows), target(place, nth=1)
    _number(key, *out, skip)
    return settle(out[0], rows), settle(out[1], place)


@jit
def _number(key, rows, place, skip):
    first = 0
    for i in range(len(key)):
        row, at = key[i] >> 32, key[i] & 0xFFFFFFFF
        if i == 0 or row != key[i - 1] >> 32:
            first = i
        known = row < MOST_ROWS and row != skip
        rows[i] = row if known and first == i else -1
        place[at] = first if known else len(key)


def put_(x: Array, rows: Array, y: InOut) -> Array:
    """y[rows[i]] = x[i], but where rows[i] is -1. x (n, ...), rows (n,), y (M, ...)."""
    if rare(x, y) or rows.dtype != np.int64 or not y.flags.carray:
        return reference.put_(x, rows, y)
    _put_rows(canonical(x).reshape(len(x), -1), canonical(rows), y.reshape(len(y), -1))
    return y


@jit
def _put_rows(x, rows, y):
    for i in range(len(x)):
        if rows[i] >= len(y):
            raise IndexError("put_: an index is not a row of y")
        if rows[i] >= 0:
            for k in range(x.shape[1]):
                y[rows[i], k] = x[i, k]
