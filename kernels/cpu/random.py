"""Dropout, with the random words of the definition made where they are used."""

import numpy as np

from .. import reference
from ..roles import Array, Out
from ._numba import jit, loop
from .memory import ZERO, canonical, rare, settle, target

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
    out, scale = target(dx, add), np.float32(1 / (1 - p) if p < 1 else 0)
    limit = np.uint64(p * 2**32)
    parts, flat = -(-dx.size // (4 * _BLOCKS)), canonical(dy).reshape(-1)
    _drop(parts, 4 * dx.size, flat, canonical(key), out.reshape(-1), limit, scale)
    return settle(out, dx, add)


@jit
def philox(c0, c1, c2, c3, k0, k1):
    """Ten rounds of Philox4x32 on one block: reference.random says what they are."""
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLY_0, c2 * _MULTIPLY_1
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _STEP_0) & _LOW, (k1 + _STEP_1) & _LOW
    return c0, c1, c2, c3


@jit
def _words(words, seed, first):
    """words[:, i] = block first + i. In a loop of its own LLVM does eight blocks at once."""
    zero = np.uint64(0)
    for i in range(words.shape[1]):
        c = first + np.uint64(i)
        four = philox(c & _LOW, c >> _32, zero, zero, seed & _LOW, seed >> _32)
        words[0, i], words[1, i], words[2, i], words[3, i] = four


@loop
def _drop(start, stop, x, key, y, limit, scale):
    words = np.empty((4, _BLOCKS), np.uint32)
    for part in range(start, stop):
        _words(words, key[0], key[1] + np.uint64(part * _BLOCKS))
        a, b = x[part * 4 * _BLOCKS :], y[part * 4 * _BLOCKS :]
        if a.size >= 4 * _BLOCKS:
            for i in range(_BLOCKS):
                for k in range(4):
                    b[4 * i + k] = a[4 * i + k] * scale if words[k, i] >= limit else ZERO
        else:
            for i in range(a.size):
                b[i] = a[i] * scale if words[i % 4, i // 4] >= limit else ZERO
