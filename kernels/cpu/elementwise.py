"""Elementwise kernels that NumPy does in several passes. All others are its own."""

from .. import reference
from ..roles import Array, Out
from ._numba import loop
from .memory import ZERO, rare


def relu_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = 0 where y <= 0, else dy: the slope at 0 is 0, and NaN lets the gradient through."""
    plain = dy.flags.carray and y.flags.carray and dx.flags.carray
    if add or not plain or rare(dy, y, dx):
        return reference.relu_grad(dy, y, dx, add)
    _relu_grad(dx.size, dx.size, dy.reshape(-1), y.reshape(-1), dx.reshape(-1))
    return dx


@loop
def _relu_grad(start, stop, dy, y, dx):
    dy, y, dx = dy[start:stop], y[start:stop], dx[start:stop]
    for i in range(dx.size):
        dx[i] = ZERO if y[i] <= 0 else dy[i]
