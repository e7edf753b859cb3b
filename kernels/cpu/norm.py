"""Batch normalisation over every axis but the last, in passes over rows of channels."""

import numpy as np

from .. import reference
from ..reference.elementwise import quiet, store
from ..roles import Array, Out
from ._numba import loop
from .memory import ZERO, canonical, channels_last, outward, rare, settle, space, target
from .reduce import ROWS, column_sums


@quiet
def batch_norm(
    x: Array,
    w: Array | None,
    b: Array | None,
    y: Out,
    mean: Out,
    var: Out,
    eps: float,
    relu: bool,
) -> tuple[Array, Array, Array]:
    """y = w (x - mean) / sqrt(var + eps) + b with the batch's own mean and (biased) variance.

    x (..., C), w, b (C,) or None -> y (..., C), mean, var (C,); relu: what is below 0 becomes 0,
    NaN stays NaN.
    """
    if rare(x, w, b, y, mean, var):
        return reference.batch_norm(x, w, b, y, mean, var, eps, relu)
    rows = _rows(x, channels_last(x))
    mean[...] = column_sums(rows) / len(rows)
    parts = _parts(1, rows)
    _square_parts(parts.shape[1], x.size, rows, canonical(mean), parts)
    var[...] = parts[0].sum(axis=0, dtype=np.float64) / len(rows)
    return batch_norm_eval(x, w, b, mean, var, y, eps, relu), mean, var


@quiet
def batch_norm_eval(
    x: Array,
    w: Array | None,
    b: Array | None,
    mean: Array,
    var: Array,
    y: Out,
    eps: float,
    relu: bool,
) -> Array:
    """y = w (x - mean) / sqrt(var + eps) + b with statistics that are given; relu as above."""
    if rare(x, w, b, mean, var, y):
        return reference.batch_norm_eval(x, w, b, mean, var, y, eps, relu)
    order, c = channels_last(x), x.shape[-1]
    out = outward(y, order)
    value = target(out)
    shift = np.zeros(c, np.float32) if b is None else canonical(b)
    rows, scale = _rows(x, order), _scale(w, var, eps)
    _affine(len(rows), x.size, rows, canonical(mean), scale, shift, value.reshape(-1, c), relu)
    settle(value, out)
    return y


@quiet
def batch_norm_grad(
    dy: Array,
    x: Array,
    w: Array | None,
    mean: Array,
    var: Array,
    dx: Out,
    dw: Out,
    db: Out,
    eps: float,
    add: tuple[bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of batch_norm through its mean and variance; dx, dw or db may be None.

    With z = (x - mean) / sqrt(var + eps): db = sum dy, dw = sum dy z and
    dx = w / sqrt(var + eps) (dy - mean of dy - z mean of dy z).
    """
    if rare(dy, x, w, mean, var, dx, dw, db):
        return reference.batch_norm_grad(dy, x, w, mean, var, dx, dw, db, eps, add)
    order, c = channels_last(x), x.shape[-1]
    slope, rows, mean = _rows(dy, order), _rows(x, order), canonical(mean)
    parts, rstd = _parts(2, rows), _scale(None, var, eps)
    _dot_parts(parts.shape[1], x.size, slope, rows, mean, parts)
    total, dot = parts.sum(axis=1, dtype=np.float64)  # of dy, of dy (x - mean)
    if dx is not None:
        out = outward(dx, order)
        value = target(out, add[0])
        flat, of_all = (total / len(rows)).astype(np.float32), dot * rstd * rstd / len(rows)
        lean, scale = of_all.astype(np.float32), _scale(w, var, eps)
        _slope(len(rows), x.size, slope, rows, mean, scale, flat, lean, value.reshape(-1, c))
        settle(value, out, add[0])
    if dw is not None:
        store((dot * rstd).astype(np.float32), dw, add[1])
    if db is not None:
        store(total.astype(np.float32), db, add[2])
    return dx, dw, db


def _rows(x: Array, order: tuple[int, ...] | None) -> Array:
    """x (..., C) as (R, C), in a memory order."""
    return canonical(outward(x, order)).reshape(-1, x.shape[-1])


def _parts(n: int, rows: Array) -> Array:
    return space(2, (n, -(-len(rows) // ROWS), rows.shape[1]))


def _scale(w: Array | None, var: Array, eps: float) -> Array:
    rstd = 1 / np.sqrt(var + np.float32(eps))
    return rstd if w is None else rstd * w


@loop(fast=("contract",))
def _square_parts(start, stop, x, mean, parts):
    rows, c = x.shape
    for task in range(start, stop):
        total = parts[0, task]
        total[:] = 0
        for i in range(task * ROWS, min(rows, (task + 1) * ROWS)):
            row = x[i]
            for k in range(c):
                total[k] += (row[k] - mean[k]) * (row[k] - mean[k])


@loop(fast=("contract",))
def _affine(start, stop, x, mean, scale, shift, y, relu):
    c = x.shape[1]
    for i in range(start, stop):
        row, out = x[i], y[i]
        for k in range(c):
            value = (row[k] - mean[k]) * scale[k] + shift[k]
            out[k] = ZERO if relu and value <= ZERO else value  # NaN is not <= 0


@loop(fast=("contract",))
def _dot_parts(start, stop, dy, x, mean, parts):
    rows, c = x.shape
    for task in range(start, stop):
        total, dot = parts[0, task], parts[1, task]
        total[:] = 0
        dot[:] = 0
        for i in range(task * ROWS, min(rows, (task + 1) * ROWS)):
            slope, row = dy[i], x[i]
            for k in range(c):
                total[k] += slope[k]
                dot[k] += slope[k] * (row[k] - mean[k])


@loop(fast=("contract",))
def _slope(start, stop, dy, x, mean, scale, flat, lean, dx):
    c = x.shape[1]
    for i in range(start, stop):
        slope, row, out = dy[i], x[i], dx[i]
        for k in range(c):
            out[k] = scale[k] * (slope[k] - flat[k] - (row[k] - mean[k]) * lean[k])
