"""Sums, means and maxima over axes. y has length 1 along every reduced axis."""

import math

import numpy as np

from ..roles import Array, Out
from .elementwise import store


def sum(x: Array, y: Out) -> Array:
    """y = sum of x over the axes along which y has length 1; 0 where there is nothing to sum."""
    return store(x, y, False)


def sum_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = dy, repeated along the reduced axes."""
    return store(np.broadcast_to(dy, dx.shape), dx, add)


def mean(x: Array, y: Out) -> Array:
    """y = mean of x over the axes along which y has length 1; NaN of nothing."""
    if not y.size:
        return y
    with np.errstate(invalid="ignore"):
        return np.divide(store(x, y, False), y.dtype.type(x.size / y.size), out=y)


def mean_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = dy / (number of elements in each mean), repeated along the reduced axes."""
    if not dx.size:
        return dx
    return store(np.broadcast_to(dy / dy.dtype.type(dx.size / dy.size), dx.shape), dx, add)


def max(x: Array, y: Out, arg: Out) -> tuple[Array, Array]:
    """y = maximum of x over the axes along which y has length 1; arg = where it stands.

    arg counts the reduced elements in C order. The first maximum wins: ties must not differ
    between devices. NaN wins over every number, the first NaN.
    """
    rows = _reduced_last(x, y.shape)
    winner = rows.argmax(axis=-1)[..., None]  # of NaN and numbers NumPy takes the first NaN
    arg[...] = winner.reshape(y.shape)
    y[...] = np.take_along_axis(rows, winner, -1).reshape(y.shape)
    return y, arg


def max_grad(dy: Array, arg: Array, dx: Out, add: bool) -> Array:
    """dx = dy at the maximum, 0 elsewhere."""
    if not dx.size:
        return dx
    kept, reduced = _split(dx.shape, dy.shape)
    rows = np.zeros((dy.size, dx.size // dy.size), dx.dtype)
    rows[np.arange(dy.size), arg.reshape(-1)] = dy.reshape(-1)
    value = rows.reshape([dx.shape[a] for a in kept + reduced])
    return store(value.transpose(np.argsort(kept + reduced)), dx, add)


def _split(shape: tuple[int, ...], y: tuple[int, ...]) -> tuple[list[int], list[int]]:
    reduced = [a for a, n in enumerate(shape) if y[a] == 1 != n]
    return [a for a in range(len(shape)) if a not in reduced], reduced


def _reduced_last(x: Array, y: tuple[int, ...]) -> Array:
    """x with its reduced axes made one, at the end."""
    kept, reduced = _split(x.shape, y)
    size = math.prod(x.shape[a] for a in reduced)
    return x.transpose(kept + reduced).reshape(*[x.shape[a] for a in kept], size)


def sum_rows(dy: Array, db: Out, add: bool) -> Array:
    """db (F,) = sum of dy (..., F) over all axes but the last: the gradient of a bias."""
    return store(dy.reshape(-1, db.size).sum(axis=0) if dy.size else np.zeros_like(db), db, add)


def sum_squares(x: Array, y: Out, add: bool) -> Array:
    """y () = sum of the squares of x."""
    return store(np.square(x).sum(), y, add)
