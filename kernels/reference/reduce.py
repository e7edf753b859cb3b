"""Sums, means, variances, maxima and minima over axes. y has length 1 along every reduced axis."""

import math
from builtins import max as larger  # max is a kernel here
from collections.abc import Callable

import numpy as np

from ..roles import Array, Out
from .elementwise import quiet, store


@quiet
def sum(x: Array, y: Out) -> Array:
    """y = sum of x over the axes along which y has length 1; 0 where there is nothing to sum."""
    return store(x, y, False)


@quiet
def sum_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = dy, repeated along the reduced axes."""
    return store(np.broadcast_to(dy, dx.shape), dx, add)


@quiet
def mean(x: Array, y: Out) -> Array:
    """y = mean of x over the axes along which y has length 1; NaN of nothing."""
    return _divided(x, y, x.size / (y.size or 1))


@quiet
def _divided(x: Array, y: Array, count: float) -> Array:
    """y = sum of x / count."""
    return np.divide(store(x, y, False), y.dtype.type(count), out=y)


@quiet
def mean_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = dy / (number of elements in each mean), repeated along the reduced axes."""
    if not dx.size:
        return dx
    return store(np.broadcast_to(dy / dy.dtype.type(dx.size / dy.size), dx.shape), dx, add)


@quiet
def var(x: Array, y: Out, mean: Out, correction: float) -> tuple[Array, Array]:
    """y = sum of (x - mean) ** 2 / (n - correction) over the axes along which y has length 1.

    mean = that of the same n elements. Where n <= correction: 0 / 0, or inf where they differ.
    """
    _divided(x, mean, x.size / (y.size or 1))
    # in two passes: E[x^2] - mean^2 cancels
    return _divided(np.square(x - mean), y, _freedom(x, y, correction)), mean


@quiet
def var_grad(dy: Array, x: Array, mean: Array, dx: Out, correction: float, add: bool) -> Array:
    """dx = 2 dy (x - mean) / (n - correction)."""
    count = dy.dtype.type(_freedom(x, dy, correction))
    return store((dy + dy) / count * (x - mean), dx, add)


@quiet
def std(x: Array, y: Out, mean: Out, correction: float) -> tuple[Array, Array]:
    """y = square root of the variance; mean = that of the same elements."""
    var(x, y, mean, correction)
    return np.sqrt(y, out=y), mean


@quiet
def std_grad(
    dy: Array, x: Array, y: Array, mean: Array, dx: Out, correction: float, add: bool
) -> Array:
    """dx = dy (x - mean) / (y (n - correction)), and 0 where y is 0, as in PyTorch."""
    count = dy.dtype.type(_freedom(x, dy, correction))
    slope = np.where(y == 0, dy.dtype.type(0), dy / (y * count))
    return store(slope * (x - mean), dx, add)


def _freedom(x: Array, y: Array, correction: float) -> float:
    """What a sum of squares is divided by: n - correction, at least 0."""
    return larger(0.0, x.size / (y.size or 1) - correction)


def max(x: Array, y: Out, arg: Out) -> tuple[Array, Array]:
    """y = maximum of x over the axes along which y has length 1; arg = where it stands.

    arg counts the reduced elements in C order. The first maximum wins: ties must not differ
    between devices. NaN wins over every number, the first NaN.
    """
    return _pick(np.argmax, x, y, arg)


def min(x: Array, y: Out, arg: Out) -> tuple[Array, Array]:
    """y = minimum of x over the axes along which y has length 1; arg = where it stands.

    As for max: the first minimum wins, and NaN over every number, the first NaN.
    """
    return _pick(np.argmin, x, y, arg)


def _pick(place: Callable, x: Array, y: Array, arg: Array) -> tuple[Array, Array]:
    rows = _reduced_last(x, y.shape)
    winner = place(rows, axis=-1)[..., None]  # of NaN and numbers NumPy takes the first NaN
    arg[...] = winner.reshape(y.shape)
    y[...] = np.take_along_axis(rows, winner, -1).reshape(y.shape)
    return y, arg


@quiet
def max_grad(dy: Array, arg: Array, dx: Out, add: bool) -> Array:
    """dx = dy at the maximum (or the minimum), 0 elsewhere."""
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


@quiet
def sum_rows(dy: Array, db: Out, add: bool) -> Array:
    """db (F,) = sum of dy (..., F) over all axes but the last: the gradient of a bias."""
    return store(dy.reshape(-1, db.size).sum(axis=0) if dy.size else np.zeros_like(db), db, add)


@quiet
def bias_relu_grad(
    dy: Array, y: Array, dx: Out, db: Out, add: tuple[bool, bool]
) -> tuple[Array, Array]:
    """Gradients of y = relu(x + b): dx = 0 where y <= 0, else dy, and db = its sum over all rows.

    dy, y, dx (..., F), db (F,): relu_grad and sum_rows of what it gives.
    """
    slope = np.where(y <= 0, dy.dtype.type(0), dy)
    return store(slope, dx, add[0]), sum_rows(slope, db, add[1])


@quiet
def sum_squares(x: Array, y: Out, add: bool) -> Array:
    """y () = sum of the squares of x."""
    return store(np.square(x).sum(), y, add)
