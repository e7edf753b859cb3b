"""Random numbers that depend on a counter alone, and dropout.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a
counter and a key into four words of 32 random bits. Element i of an array, counted in C order of
its logical index, takes word i % 4 of block offset + i // 4: the same number in every memory
order, on every device, with any number of threads.
"""

import math

import numpy as np

from ..roles import Array, InOut, Out
from .elementwise import quiet

_MULTIPLY = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEP = 0x9E3779B9, 0xBB67AE85  # golden ratio, sqrt(3) - 1
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(c0: Array, c1: Array, c2: Array, c3: Array, k0: int, k1: int) -> tuple[Array, ...]:
    """Four arrays of uint32: ten rounds over counters c0..c3 (uint64 arrays below 2**32)."""
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLY[0], c2 * _MULTIPLY[1]
        c0, c1, c2, c3 = (
            (p1 >> _32) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _32) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEP[0]) & 0xFFFFFFFF, (k1 + _KEY_STEP[1]) & 0xFFFFFFFF
    return tuple(c.astype(np.uint32) for c in (c0, c1, c2, c3))


def words(key: Array, n: int) -> Array:
    """The first n words of the stream that key = (seed, offset) starts, uint32 (n,)."""
    seed, offset = int(key[0]), np.uint64(key[1])
    block = offset + np.arange(-(-n // 4), dtype=np.uint64)
    zero = np.zeros_like(block)
    four = philox4x32(block & _LOW, block >> _32, zero, zero, seed & 0xFFFFFFFF, seed >> 32)
    return np.stack(four, axis=-1).reshape(-1)[:n]


def reserve_(state: InOut, key: Out, n: int) -> tuple[Array, Array]:
    """key = state = (seed, offset), and state moves on by the blocks that n numbers take."""
    key[...] = state
    state[1] += np.uint64(-(-n // 4))
    return state, key


def uniform(key: Array, y: Out, low: float, high: float) -> Array:
    """y = random numbers in [low, high), 24 bits each."""
    unit = (words(key, y.size) >> np.uint32(8)).astype(np.float64) * 2.0**-24
    y[...] = (low + (high - low) * unit).reshape(y.shape)
    return y


def normal(key: Array, y: Out) -> Array:
    """y = random numbers of the standard normal distribution, by Box and Muller (1958)."""
    even = words(key, y.size + y.size % 2).astype(np.float64).reshape(-1, 2)
    radius = np.sqrt(-2 * np.log((even[:, 0] + 1) * 2.0**-32))
    angle = 2 * math.pi * even[:, 1] * 2.0**-32
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    y[...] = both.reshape(-1)[: y.size].reshape(y.shape)
    return y


@quiet
def dropout(x: Array, key: Array, y: Out, p: float) -> Array:
    """y = x / (1 - p) with probability 1 - p, else 0."""
    y[...] = np.where(_kept(key, x, p), x * x.dtype.type(_scale(p)), x.dtype.type(0))
    return y


@quiet
def dropout_grad(dy: Array, key: Array, dx: Out, p: float, add: bool) -> Array:
    """dx = dy / (1 - p) where dropout kept x, else 0."""
    slope = np.where(_kept(key, dy, p), dy * dy.dtype.type(_scale(p)), dy.dtype.type(0))
    if add:
        dx += slope
    else:
        dx[...] = slope
    return dx


def _kept(key: Array, x: Array, p: float) -> Array:
    return (words(key, x.size) >= np.uint64(p * 2**32)).reshape(x.shape)


def _scale(p: float) -> float:
    return 1 / (1 - p) if p < 1 else 0.0
