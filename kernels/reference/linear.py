"""Matrix products."""

import numpy as np

from ..roles import Array, Out
from .elementwise import quiet, store


@quiet
def matmul(a: Array, b: Array, y: Out) -> Array:
    """y (M, N) = a (M, K) b (K, N)."""
    return store(a @ b, y, False)


@quiet
def matmul_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da (M, K) = dy (M, N) b' (N, K)."""
    return store(dy @ b.T, da, add)


@quiet
def matmul_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db (K, N) = a' (K, M) dy (M, N)."""
    return store(a.T @ dy, db, add)


@quiet
def bmm(a: Array, b: Array, y: Out) -> Array:
    """y (..., M, N) = a (..., M, K) b (..., K, N); the leading axes broadcast."""
    return store(a @ b, y, False)


@quiet
def bmm_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da (..., M, K) = dy (..., M, N) b' (..., N, K), summed where a was broadcast."""
    return store(dy @ b.swapaxes(-1, -2), da, add)


@quiet
def bmm_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db (..., K, N) = a' (..., K, M) dy (..., M, N), summed where b was broadcast."""
    return store(a.swapaxes(-1, -2) @ dy, db, add)


@quiet
def linear(x: Array, w: Array, b: Array | None, y: Out, relu: bool) -> Array:
    """y (R, O) = x (R, I) w (I, O) + b (O,), or 0 where relu and that is below; NaN stays NaN."""
    value = x @ w if b is None else x @ w + b
    return store(np.maximum(value, value.dtype.type(0)) if relu else value, y, False)


@quiet
def linear_grad_x(dy: Array, w: Array, dx: Out, add: bool) -> Array:
    """dx (R, I) = dy (R, O) w' (O, I)."""
    return store(dy @ w.T, dx, add)


@quiet
def linear_grad_w(dy: Array, x: Array, dw: Out, add: bool) -> Array:
    """dw (I, O) = x' (I, R) dy (R, O)."""
    return store(x.T @ dy, dw, add)
