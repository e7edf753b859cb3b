"""Matrix products: by our own kernels (gemm.py), or by cuBLAS, as `set_matmul` says."""

import numpy as np

from ..roles import Array, Out
from .gemm import bias_and_relu, gemm

MATMUL = "kernel", "cublas", "auto"
# Multiplications from which on "auto" takes cuBLAS, 512 x 512 x 512: below that a launch takes
# longer than its sums, and ours fuses bias, relu and the sum of gradients.
WORTH_CUBLAS = 2**27
_chosen = {"matmul": ("kernel", False)}


def set_matmul(choice: str, tf32: bool) -> None:
    """Choose what computes matrix products from now on: see minidl.set_matmul."""
    if choice not in MATMUL:
        raise ValueError(f"unknown matmul {choice!r}; known: {', '.join(MATMUL)}")
    _chosen["matmul"] = choice, tf32


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
    choice, tf32 = _chosen["matmul"]
    tf32 = tf32 and y.dtype == "float32"
    emulated = isinstance(y, np.ndarray)
    work = a.shape[0] * a.shape[1] * b.shape[1]
    if choice == "kernel" or (choice == "auto" and (emulated or work < WORTH_CUBLAS)):
        return gemm(a, b, bias, y, relu, add, tf32)
    if emulated:
        raise RuntimeError(
            "matmul: cuBLAS was chosen, which needs a GPU, and here the emulator stands in for "
            "one; minidl.set_matmul('auto') takes cuBLAS on a GPU alone, 'kernel' never"
        )
    if work == 0:  # cuBLAS refuses matrices without elements
        return gemm(a, b, bias, y, relu, add)
    return _cublas(a, b, bias, y, relu, add, tf32)


def _cublas(
    a: Array, b: Array, bias: Array | None, y: Array, relu: bool, add: bool, tf32: bool
) -> Array:
    """y by cuBLAS; bias and relu in a pass of our own."""
    from cupy import cublas as gemms
    from cupy.cuda import cublas, device

    handle = device.get_cublas_handle()
    before = cublas.getMathMode(handle)
    mode = cublas.CUBLAS_TF32_TENSOR_OP_MATH if tf32 else cublas.CUBLAS_DEFAULT_MATH
    cublas.setMathMode(handle, mode)
    try:
        gemms.gemm("N", "N", a, b, out=y, beta=1.0 if add else 0.0)
    finally:
        cublas.setMathMode(handle, before)
    return y if bias is None and not relu else bias_and_relu(y, bias, relu)
