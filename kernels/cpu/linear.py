"""Matrix products, on register tiles where they fit, else by BLAS with its rows shared by threads.

BLAS is ahead where there are few rows, sums so long that they must be cut to stay in the cache, or
a large result of short sums, and it reads matrices that lie transposed without a copy.
"""

import functools
import itertools

import numpy as np

from ..reference.elementwise import quiet
from ..roles import Array, Out
from . import simd
from ._threads import share, single_blas
from .gemm import (
    Plan,
    Sums,
    column_blocks,
    multiply,
    multiply_transposed,
    pack,
    plan_sums,
    row_pieces,
)  # fmt: skip
from .memory import canonical, rare, settle, target

_SINGLE = 1 << 18  # multiplications up to which OpenBLAS uses no threads anyway
# Multiplications worth a helper, about 50 us, and rows or columns of the result for each but the
# second one: BLAS packs the other factor anew for every part.
_PART, _SPAN = 1 << 22, 512


def matmul(a: Array, b: Array, y: Out) -> Array:
    """y (M, N) = a (M, K) b (K, N)."""
    return linear(a, b, None, y, False)


def matmul_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da (M, K) = dy (M, N) b' (N, K)."""
    return linear_grad_x(dy, b, da, add)


def matmul_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db (K, N) = a' (K, M) dy (M, N)."""
    return linear_grad_w(dy, a, db, add)


@quiet
def linear(x: Array, w: Array, b: Array | None, y: Out, relu: bool) -> Array:
    """y (R, O) = x (R, I) w (I, O) + b (O,), or 0 where relu and that is below; NaN stays NaN."""
    if _fits(*x.shape, w.shape[1], x, w, y):
        _tiles(x, w, None if b is None else canonical(b), y, simd.RELU * relu, False)
        return y
    _product(x, w, y)
    if b is not None:
        np.add(y, b, out=y)
    return np.maximum(y, y.dtype.type(0), out=y) if relu else y


def linear_grad_x(dy: Array, w: Array, dx: Out, add: bool) -> Array:
    """dx (R, I) = dy (R, O) w' (O, I)."""
    if _fits(*dy.shape, len(w), dy, w, dx):
        _tiles(dy, w, None, dx, simd.ADD * add, True)
        return dx
    return _filled(dy, w.T, dx, add)


def linear_grad_w(dy: Array, x: Array, dw: Out, add: bool) -> Array:
    """dw (I, O) = x' (I, R) dy (R, O)."""
    if dw.nbytes <= _RESULT and _fits(x.shape[1], min(len(x), _TERMS), dw.shape[1], dy, x, dw):
        if len(x) <= _TERMS:
            plan = _plan(simd.chosen, x.shape[1], len(x), dw.shape[1], "x")
            multiply(plan, x, pack(plan, dy[None], False), None, dw, simd.ADD * add)
            return dw
        out = target(dw, add)
        sums = _sums(simd.chosen, *x.shape, dy.shape[1])
        multiply_transposed(sums, x, dy[None, None], out[None])
        return settle(out, dw, add)
    return _filled(x.T, dy, dw, add)


# Where BLAS is not ahead: `python -m benchmarks.kernels --only linear`.
_WORK = 1 << 20  # multiplications; for fewer, OpenBLAS has kernels that pack nothing
_ROWS, _DEPTH = 32, 1024  # rows from which packing pays, and terms of a sum
_WEIGHTS = 600_000  # bytes of weights, which stay in the second-level cache
_RESULT = 1 << 20  # bytes of a gradient of weights
_STRIPS = 16  # of rows, at least, for threads to share
_TERMS = 512  # of a sum for which a gradient of weights is made tile by tile
_PLAIN = 128  # columns up to which the rows of w lie close enough to be read as they are


def _fits(rows: int, inner: int, columns: int, *arrays: Array) -> bool:
    some = rows * inner * columns > _WORK and rows >= _ROWS and inner <= _DEPTH
    some = some and 4 * inner * columns <= _WEIGHTS
    plain = all(x.flags.carray for x in arrays)
    return simd.chosen is not None and some and plain and not rare(*arrays)


def _tiles(
    x: Array, w: Array, bias: Array | None, out: Array, flags: int, transposed: bool
) -> None:
    """out = bias + x w, or x w' if transposed."""
    plan = _plan(simd.chosen, *x.shape, out.shape[1], "w" if transposed else "")
    multiply(plan, x, pack(plan, w[None], transposed), bias, out, flags)


@functools.lru_cache(512)
def _plan(target, rows: int, inner: int, columns: int, transposed: str) -> Plan:
    """transposed: "x", "w" or neither."""
    plain = not transposed and columns <= _PLAIN and columns % target.width == 0
    blocks = column_blocks(target, columns, inner, plain=plain)
    tallest = target.rows[int(blocks[:, 2].max())]
    chunk = tallest * max(1, min(4, rows // (_STRIPS * tallest)))  # rows
    strips = np.zeros((-(-rows // chunk), 8), np.int64)
    firsts, out_row = chunk * np.arange(len(strips)), 4 * columns
    a_row, step = (4, 4 * rows) if transposed == "x" else (4 * inner, 4)
    strips[:, 0], strips[:, 1], strips[:, 2:4] = firsts * a_row, firsts * out_row, (a_row, out_row)
    sizes = [min(chunk, rows - first) for first in firsts.tolist()]
    cut = [row_pieces(target, size, blocks, transposed == "x") for size in sizes]
    ends = np.cumsum([0, *map(len, cut)])
    strips[:, 4], strips[:, 5] = ends[:-1], ends[1:]
    one = np.array([[1, 0, 0]])
    work = rows * inner * columns
    tiles, row = np.concatenate(cut), 4 * columns * plain
    return Plan(target, strips, one, one, tiles, blocks, 1, inner, work, row, step)


@functools.lru_cache(512)
def _sums(target, terms: int, rows: int, columns: int) -> Sums:
    cell = np.array([[0, 1, 0, 1, 0, terms, 0]])
    return plan_sums(target, cell, (0, 0, 4 * rows), (1, 1, terms), rows, columns, 1)


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
        longer = max(y.shape)
        most = min(16, max(longer // _SPAN, 2), work // _PART) if longer >= _SPAN and alone else 1
        parts = 1 << max(1, most).bit_length() - 1  # an even number, for two threads
        if parts < 2:
            return np.matmul(a, b, out=y)
        ends = [i * longer // parts for i in range(parts + 1)]
        spans = [slice(*pair) for pair in itertools.pairwise(ends)]
        if rows == longer:
            share(parts, lambda i: np.matmul(a[spans[i]], b, out=y[spans[i]]))
        else:
            share(parts, lambda i: np.matmul(a, b[:, spans[i]], out=y[:, spans[i]]))
    return y
