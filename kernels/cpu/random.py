"""Dropout, with the random words of the definition made where they are used."""

import numpy as np

from .. import reference
from ..roles import Array, Out
from ._numba import jit, loop
from .memory import ZERO, as_one, batch_inside, canonical, rare, settle, target_as_one

_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_MULTIPLY_0, _MULTIPLY_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_STEP_0, _STEP_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_BLOCKS = 256  # of four words at a time: they stay in the first-level cache


def dropout(x: Array, key: Array, y: Out, p: float) -> Array:
    """y = x / (1 - p) with probability 1 - p, else 0."""
    return dropout_grad(x, key, y, p, False)


def dropout_grad(dy: Array, key: Array, dx: Out, p: float, add: bool) -> Array:
    """dx = dy / (1 - p) where dropout kept x, else 0."""
    if rare(dy, dx):
        return reference.dropout_grad(dy, key, dx, p, add)
    inside = batch_inside(dx)
    one, value, out = target_as_one(dx, inside, add)
    # rows of numbers that lie side by side, and where they come in the logical order
    shape = (dx.shape[1] * dx.shape[2], len(dx), dx.shape[3]) if inside else (1, 1, dx.size)
    x, y = as_one(dy, inside).reshape(shape), one.reshape(shape)
    limit, scale = np.uint64(p * 2**32), np.float32(1 / (1 - p) if p < 1 else 0)
    _drop(-(-dx.size // (4 * _BLOCKS)), 4 * dx.size, x, canonical(key), y, limit, scale)
    settle(value, out, add)
    return dx


@jit
def philox(c0, c1, c2, c3, k0, k1):
    """Ten rounds of Philox4x32 on one block: reference.random says what they are."""
    state = c0, c1, c2, c3, k0, k1
    for _ in range(10):
        state = _round(state)
    return state[:4]


@jit
def _round(state):
    c0, c1, c2, c3, k0, k1 = state
    # that these have 32 bits is said again, or LLVM multiplies them as if they had 64
    p0, p1 = (c0 & _LOW) * _MULTIPLY_0, (c2 & _LOW) * _MULTIPLY_1
    c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
    return c0, c1, c2, c3, (k0 + _STEP_0) & _LOW, (k1 + _STEP_1) & _LOW


@jit
def _words(words, seed, first):
    """words[:, i] = block first + i.

    The rounds are spelled out: LLVM does eight blocks at once only in a loop that has none within.
    """
    zero, rows = np.uint64(0), (words[0], words[1], words[2], words[3])
    for i in range(words.shape[1]):
        c = first + np.uint64(i)
        state = c & _LOW, c >> _32, zero, zero, seed & _LOW, seed >> _32
        state = _round(_round(_round(_round(_round(state)))))
        state = _round(_round(_round(_round(_round(state)))))
        rows[0][i], rows[1][i], rows[2][i], rows[3][i] = state[:4]


@loop
def _drop(start, stop, x, key, y, limit, scale):
    places, _, c = x.shape
    words, flat = np.empty((4, _BLOCKS), np.uint32), np.empty(4 * _BLOCKS, np.uint32)
    for part in range(start, stop):
        _words(words, key[0], key[1] + np.uint64(part * _BLOCKS))
        for i in range(_BLOCKS):
            for k in range(4):
                flat[4 * i + k] = words[k, i]
        begin = part * flat.size
        end = min(begin + flat.size, x.size)
        at = begin
        while at < end:
            row, skip = at // c, at % c  # row: in the logical order, image by image
            n = min(c - skip, end - at)
            image, place = row // places, row % places
            a, b = x[place, image, skip : skip + n], y[place, image, skip : skip + n]
            word = flat[at - begin : at - begin + n]
            for i in range(n):
                b[i] = a[i] * scale if word[i] >= limit else ZERO
            at += n
