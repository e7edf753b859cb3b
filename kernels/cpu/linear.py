"""Matrix products by BLAS, straight into the output, its rows shared by threads."""

import itertools

import numpy as np

from ..reference.elementwise import quiet
from ..roles import Array, Out
from ._threads import share, single_blas
from .memory import settle, target

_SINGLE = 1 << 18  # multiplications up to which OpenBLAS uses no threads anyway
_PART = 1 << 22  # multiplications worth a helper: about 50 us


def matmul(a: Array, b: Array, y: Out) -> Array:
    """y (M, N) = a (M, K) b (K, N)."""
    return _product(a, b, y)


def matmul_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da (M, K) = dy (M, N) b' (N, K)."""
    return _filled(dy, b.T, da, add)


def matmul_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db (K, N) = a' (K, M) dy (M, N)."""
    return _filled(a.T, dy, db, add)


@quiet
def linear(x: Array, w: Array, b: Array | None, y: Out, relu: bool) -> Array:
    """y (R, O) = x (R, I) w (I, O) + b (O,), or 0 where relu and that is below; NaN stays NaN."""
    _product(x, w, y)
    if b is not None:
        np.add(y, b, out=y)
    return np.maximum(y, y.dtype.type(0), out=y) if relu else y


def linear_grad_x(dy: Array, w: Array, dx: Out, add: bool) -> Array:
    """dx (R, I) = dy (R, O) w' (O, I)."""
    return matmul_grad_a(dy, w, dx, add)


def linear_grad_w(dy: Array, x: Array, dw: Out, add: bool) -> Array:
    """dw (I, O) = x' (I, R) dy (R, O)."""
    return matmul_grad_b(dy, x, dw, add)


def _filled(a: Array, b: Array, out: Array, add: bool) -> Array:
    value = target(out, add) if add else out
    return settle(_product(a, b, value), out, add)


@quiet
def _product(a: Array, b: Array, y: Array) -> Array:
    work, rows = a.size * b.shape[1], len(a)
    if work <= _SINGLE:
        return np.matmul(a, b, out=y)
    with single_blas() as alone:
        # by the shape alone: the sums inside BLAS may depend on the number of rows
        parts = min(16, rows, work // _PART) if alone else 1
        if parts < 2:
            return np.matmul(a, b, out=y)
        ends = [i * rows // parts for i in range(parts + 1)]
        spans = [slice(*pair) for pair in itertools.pairwise(ends)]
        share(parts, lambda i: np.matmul(a[spans[i]], b, out=y[spans[i]]))
    return y
