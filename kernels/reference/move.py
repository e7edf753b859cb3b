"""Copies, and rows picked by number."""

import numpy as np

from ..roles import Array, Out
from .elementwise import quiet, store


@quiet
def copy(x: Array, y: Out, add: bool) -> Array:
    """y = x, cast to y's dtype."""
    return store(x, y, add)


def fill(y: Out, value: float) -> Array:
    """y = value everywhere."""
    y[...] = value
    return y


def take(x: Array, index: Array, y: Out) -> Array:
    """y[i...] = x[index[i...]]: rows of x (M, ...); a negative number counts from the end."""
    y[...] = x[index]
    return y


@quiet
def take_grad(dy: Array, index: Array, dx: Out, add: bool) -> Array:
    """dx[index[i...]] += dy[i...], in the order of i; a row taken twice gets both."""
    rows = np.zeros(dx.shape, dx.dtype)
    np.add.at(rows, index, dy)
    return store(rows, dx, add)
