"""Matrix products: by our own kernels (gemm.py), or by cuBLAS, as `set_matmul` says."""

import numpy as np

from ..roles import Array, Out
from ..shapes import broadcast, count
from . import memory
from .gemm import bias_and_relu, gemm
from .layout import broadcast_strides
from .move import copy
from .reduce import add_up

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


def bmm(a: Array, b: Array, y: Out) -> Array:
    """y (..., M, N) = a (..., M, K) b (..., K, N); the leading axes broadcast."""
    return _stacks(a, b, y, False)


def bmm_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da (..., M, K) = dy (..., M, N) b' (..., N, K), summed where a was broadcast."""
    return _summed(dy, b.swapaxes(-1, -2), da, add)


def bmm_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db (..., K, N) = a' (..., K, M) dy (..., M, N), summed where b was broadcast."""
    return _summed(a.swapaxes(-1, -2), dy, db, add)


def _summed(a: Array, b: Array, out: Array, add: bool) -> Array:
    """out = a b, summed over the leading axes along which out was broadcast."""
    lead, (m, n) = broadcast(a.shape[:-2], b.shape[:-2]), out.shape[-2:]
    if out.shape == (*lead, m, n):
        return _stacks(a, b, out, add)
    if count(out.shape[:-2]) == 1 and a.shape[:-2] == b.shape[:-2]:
        # one matrix for all: the stack is a part of the axis that is summed over
        terms = count(lead) * b.shape[-2]
        a = memory.contiguous(a.swapaxes(-1, -2)).reshape(terms, m).T
        b = memory.contiguous(b).reshape(terms, n)
        return _stacks(a, b, out, add) if out.ndim == 2 else _in_one(a, b, out, add)
    each = _stacks(a, b, memory.scratch((*lead, m, n), out.dtype), False)
    add_up(each, out[(None,) * (each.ndim - out.ndim)], add)
    return out


def _in_one(a: Array, b: Array, out: Array, add: bool) -> Array:
    """The only matrix of out = a b."""
    _product(a, b, None, out[(0,) * (out.ndim - 2)], False, add)
    return out


def _stacks(a: Array, b: Array, y: Array, add: bool) -> Array:
    """y (..., M, N) = a b, for two matrices or stacks of them that broadcast."""
    if y.ndim == 2:
        return _product(a, b, None, y, False, add)
    if not y.flags.c_contiguous:
        return copy(_stacks(a, b, memory.scratch(y.shape, y.dtype), False), y, add)
    lead, (m, n) = y.shape[:-2], y.shape[-2:]
    a, b = _stack(a, lead), _stack(b, lead)
    if len(b) == 1 and len(a) == count(lead) and a.flags.c_contiguous:
        # one matrix for all: the stack is more rows of a
        rows = len(a) * m
        _product(a.reshape(rows, b.shape[1]), b[0], None, y.reshape(rows, n), False, add)
    else:
        _product(a, b, None, y.reshape(count(lead), m, n), False, add)
    return y


def _stack(x: Array, lead: tuple[int, ...]) -> Array:
    """x (..., M, K) with its leading axes made one: all matrices, or the one for all."""
    mine, (m, k) = x.shape[:-2], x.shape[-2:]
    if count(mine) == 1 or mine == lead:
        turned = x.swapaxes(-1, -2)
        if turned.flags.c_contiguous:
            return turned.reshape(count(mine), k, m).swapaxes(1, 2)
        return memory.contiguous(x).reshape(count(mine), m, k)
    wide = memory.as_strided(x, (*lead, m, k), broadcast_strides(x, (*lead, m, k)))
    return memory.contiguous(wide).reshape(count(lead), m, k)


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
    """y = a b + bias of two matrices, or of stacks of them: see gemm."""
    choice, tf32 = _chosen["matmul"]
    tf32 = tf32 and y.dtype == "float32"
    emulated = isinstance(y, np.ndarray)
    work = a.shape[-2] * a.shape[-1] * b.shape[-1]
    ours = choice == "kernel" or (choice == "auto" and (emulated or work < WORTH_CUBLAS))
    if y.ndim == 3 and (tf32 or not ours):  # these take a matrix at a time
        for i in range(len(y)):
            _product(a[i % len(a)], b[i % len(b)], bias, y[i], relu, add)
        return y
    if ours:
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
