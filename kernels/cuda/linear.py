"""Matrix products: our own kernels (gemm.py), or cuBLAS, as `set_matmul` says."""

from ..roles import Array, Out
from .gemm import gemm


def matmul(a: Array, b: Array, y: Out) -> Array:
    """y (M, N) = a (M, K) b (K, N)."""
    return _product(a, b, None, y, False, False)


def matmul_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da (M, K) = dy (M, N) b' (N, K)."""
    return _product(dy, b.T, None, da, False, add)


def matmul_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db (K, N) = a' (K, M) dy (M, N)."""
    return _product(a.T, dy, None, db, False, add)


def linear(x: Array, w: Array, b: Array | None, y: Out, relu: bool) -> Array:
    """y (R, O) = x (R, I) w (I, O) + b (O,), or 0 where relu and that is below; NaN stays NaN."""
    return _product(x, w, b, y, relu, False)


def linear_grad_x(dy: Array, w: Array, dx: Out, add: bool) -> Array:
    """dx (R, I) = dy (R, O) w' (O, I)."""
    return _product(dy, w.T, None, dx, False, add)


def linear_grad_w(dy: Array, x: Array, dw: Out, add: bool) -> Array:
    """dw (I, O) = x' (I, R) dy (R, O)."""
    return _product(x.T, dy, None, dw, False, add)


def _product(a: Array, b: Array, bias: Array | None, y: Array, relu: bool, add: bool) -> Array:
    return gemm(a, b, bias, y, relu, add)
