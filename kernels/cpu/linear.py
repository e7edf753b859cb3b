"""Matrix products by BLAS, straight into the output."""

import numpy as np

from ..reference.elementwise import store
from ..roles import Array, Out


def matmul(a: Array, b: Array, y: Out) -> Array:
    """y (M, N) = a (M, K) b (K, N)."""
    return np.matmul(a, b, out=y)


def matmul_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da (M, K) = dy (M, N) b' (N, K)."""
    return store(dy @ b.T, da, True) if add else np.matmul(dy, b.T, out=da)


def matmul_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db (K, N) = a' (K, M) dy (M, N)."""
    return store(a.T @ dy, db, True) if add else np.matmul(a.T, dy, out=db)


def linear(x: Array, w: Array, b: Array | None, y: Out) -> Array:
    """y (R, O) = x (R, I) w (I, O) + b (O,)."""
    np.matmul(x, w, out=y)
    return y if b is None else np.add(y, b, out=y)


def linear_grad_x(dy: Array, w: Array, dx: Out, add: bool) -> Array:
    """dx (R, I) = dy (R, O) w' (O, I)."""
    return matmul_grad_a(dy, w, dx, add)


def linear_grad_w(dy: Array, x: Array, dw: Out, add: bool) -> Array:
    """dw (I, O) = x' (I, R) dy (R, O)."""
    return matmul_grad_b(dy, x, dw, add)
