"""Softmax and losses, a row at a time, in which LLVM finds vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import reference
from ..roles import Array, Out
from . import maths
from ._numba import jit, loop, widest
from .memory import ZERO, canonical, rare, settle, space, target


def log_softmax(x: Array, y: Out) -> Array:
    """y = x - log(sum of exp x) along the last axis; NaN in rows whose largest x is infinite."""
    return reference.log_softmax(x, y) if rare(x, y) else _rows(_log_softmax, (x,), y)


def log_softmax_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy - exp(y) (sum of dy along the last axis)."""
    if rare(dy, y, dx):
        return reference.log_softmax_grad(dy, y, dx, add)
    return _rows(_log_softmax_grad, (dy, y), dx, add)


def softmax(x: Array, y: Out) -> Array:
    """y = exp x / sum of exp x along the last axis; NaN in rows whose largest x is infinite."""
    return reference.softmax(x, y) if rare(x, y) else _rows(_softmax, (x,), y)


def softmax_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = y (dy - sum of dy y along the last axis)."""
    if rare(dy, y, dx):
        return reference.softmax_grad(dy, y, dx, add)
    return _rows(_softmax_grad, (dy, y), dx, add)


def _rows(run: Any, inputs: Sequence[Array], y: Array, add: bool = False) -> Array:
    """Fill y with what run makes of the rows of the inputs."""
    out, width = target(y, add), y.shape[-1]
    rows = [a.reshape(-1, width) for a in (out, *map(canonical, inputs))]
    run(len(rows[0]), y.size, *rows)
    return settle(out, y, add)


def cross_entropy(x: Array, label: Array, y: Out, lse: Out, scale: float) -> tuple[Array, Array]:
    """y = scale (log(sum of exp x) - x[label]) of each row, or the sum of these where y is ().

    x (N, C) logits, label (N,) integers in [0, C) -> y (N,) or (), lse (N,) = log(sum of exp x)
    """
    if rare(x, y, lse) or label.dtype != np.int64:
        return reference.cross_entropy(x, label, y, lse, scale)
    loss, kept = space(2, lse.shape), target(lse, nth=1)
    _cross_entropy(len(x), x.size, canonical(x), canonical(label), loss, kept)
    # in float64 the order of a long sum does not show
    y[...] = (loss if y.ndim else np.float32(loss.sum(dtype=np.float64))) * np.float32(scale)
    return y, settle(kept, lse)


def cross_entropy_grad(
    dy: Array, x: Array, label: Array, lse: Array, dx: Out, scale: float, add: bool
) -> Array:
    """dx = scale dy (softmax of x - 1 at the label)."""
    if rare(dy, x, lse, dx) or label.dtype != np.int64:
        return reference.cross_entropy_grad(dy, x, label, lse, dx, scale, add)
    out, slope = target(dx, add), canonical(dy).reshape(-1)
    arrays = slope, canonical(x), canonical(label), canonical(lse), out
    _cross_entropy_grad(len(x), x.size, *arrays, np.float32(scale))
    return settle(out, dx, add)


@jit(fast=("reassoc",))  # a sum in order would be one number at a time
def _sum_of_exp(row, top):
    total = ZERO
    for k in range(row.size):
        total += maths.exp(row[k] - top)
    return total


@jit
def _top(row):
    """The largest number of a row; NaN, or any number, where there is a NaN."""
    top = maths.rank(row[0])
    for k in range(1, row.size):
        top = max(top, maths.rank(row[k]))
    return maths.ranked(top)


@loop
def _log_softmax(start, stop, y, x):
    widest()
    for n in range(start, stop):
        top = _top(x[n])
        rest = maths.log(_sum_of_exp(x[n], top))
        for k in range(x.shape[1]):
            y[n, k] = x[n, k] - top - rest


@loop(fast=("reassoc",))
def _log_softmax_grad(start, stop, dx, dy, y):
    widest()
    for n in range(start, stop):
        total = ZERO
        for k in range(y.shape[1]):
            total += dy[n, k]
        for k in range(y.shape[1]):
            dx[n, k] = dy[n, k] - maths.exp(y[n, k]) * total


@loop(fast=("reassoc",))
def _softmax(start, stop, y, x):
    widest()
    for n in range(start, stop):
        top, total = _top(x[n]), ZERO
        for k in range(x.shape[1]):
            y[n, k] = maths.exp(x[n, k] - top)
            total += y[n, k]
        for k in range(x.shape[1]):
            y[n, k] = y[n, k] / total


@loop(fast=("reassoc",))
def _softmax_grad(start, stop, dx, dy, y):
    widest()
    for n in range(start, stop):
        total = ZERO
        for k in range(y.shape[1]):
            total += dy[n, k] * y[n, k]
        for k in range(y.shape[1]):
            dx[n, k] = y[n, k] * (dy[n, k] - total)


@loop
def _cross_entropy(start, stop, x, label, loss, lse):
    widest()
    for n in range(start, stop):
        if not 0 <= label[n] < x.shape[1]:
            raise IndexError("cross_entropy: a label is not a column of the logits")
        top = _top(x[n])
        rest = maths.log(_sum_of_exp(x[n], top))
        lse[n] = rest + top
        loss[n] = rest - (x[n, label[n]] - top)  # lse - x would cancel


@loop
def _cross_entropy_grad(start, stop, dy, x, label, lse, dx, scale):
    widest()
    for n in range(start, stop):
        if not 0 <= label[n] < x.shape[1]:
            raise IndexError("cross_entropy: a label is not a column of the logits")
        slope = dy[n if dy.size > 1 else 0] * scale
        for k in range(x.shape[1]):
            dx[n, k] = maths.exp(x[n, k] - lse[n]) * slope
        dx[n, label[n]] = (maths.exp(x[n, label[n]] - lse[n]) - np.float32(1)) * slope
