"""Random numbers that depend on a counter alone, and dropout.

Four words of random bits make one Philox block, so a thread makes one block and the four
neighbours that take their numbers from it: element i takes word i % 4 of block offset + i // 4.
"""

import math

import numpy as np

from ..roles import Array, InOut, Out
from ._numba import blocks, cuda, device, jit
from .intrinsics import aligned, plus
from .layout import THREADS
from .move import dense
from .vector import load4, store4

# All of it is uint64: a uint64 and an int64 would make a float64, and where both factors are below
# 2**32 the compiler sees that one 32-bit multiplication does.
u64, LOW, WORD = np.uint64, np.uint64(0xFFFFFFFF), np.uint64(32)
_MULTIPLY_0, _MULTIPLY_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_STEP_0, _STEP_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@device
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Ten rounds of Philox4x32 on one block: reference/random.py says what they are."""
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLY_0, c2 * _MULTIPLY_1
        c0, c1, c2, c3 = (p1 >> WORD) ^ c1 ^ k0, p1 & LOW, (p0 >> WORD) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + _STEP_0) & LOW, (k1 + _STEP_1) & LOW
    return c0, c1, c2, c3


@device
def _words(key, i):
    """The four words of the stream of key = (seed, offset) that elements 4 i to 4 i + 3 take."""
    seed, block, zero = key[0], key[1] + u64(i), u64(0)
    return philox4x32(block & LOW, block >> WORD, zero, zero, seed & LOW, seed >> WORD)


@jit
def _reserve_(state, key, taken):
    """One thread does it all."""
    key[0], key[1] = state[0], state[1]
    state[1] += u64(taken)


@dense
def reserve_(state: InOut, key: Out, n: int) -> tuple[Array, Array]:
    """key = state = (seed, offset), and state moves on by the blocks that n numbers take."""
    _reserve_[1, 1](state, key, blocks(n, 4))
    return state, key


@device
def unit(word, dtype):
    """A random number in [0, 1): the upper 24 bits of a word, which float32 holds exactly."""
    return dtype(np.uint32(word >> u64(8))) * dtype(2.0**-24)


@jit
def _uniform(key, y, low, span, wide):
    """A thread makes one Philox block and four neighbours of y."""
    block = cuda.grid(1)
    if 4 * block >= y.size:
        return
    real = y.dtype.type
    a, b, c, d = _words(key, block)
    store4(
        y, 4 * block, wide, low + span * unit(a, real), low + span * unit(b, real),
        low + span * unit(c, real), low + span * unit(d, real),
    )  # fmt: skip


@dense
def uniform(key: Array, y: Out, low: float, high: float) -> Array:
    """y = random numbers in [low, high), 24 bits each."""
    grid, low, span = blocks(y.size, 4 * THREADS), float(low), float(high - low)
    _uniform[grid, THREADS](key, y.reshape(-1), low, span, aligned(y))
    return y


@device
def _radius(word, real):
    """sqrt(-2 log u) with u = (word + 1) / 2**32 in (0, 1]."""
    if word < u64(2**31):
        log = math.log(real(np.uint32(word + u64(1))) * real(2.0**-32))
    else:  # near 1, u has too few digits in float32; 1 - u has them all
        log = math.log1p(real(np.uint32(LOW - word)) * real(-(2.0**-32)))
    return math.sqrt(real(-2) * log)


@device
def _cos_sin(word, real):
    """cos and sin of 2 pi word / 2**32.

    Whole quarters of a turn are taken off as integers. Within an eighth of the rest, Taylor's
    series to t**17 are exact to float64, and need no stack frame and no float64, as the slow path
    of math.sin does.
    """
    quarter = (word + u64(2**29)) >> u64(30) & u64(3)
    rest = np.int32(np.uint32(word + u64(2**29)) & np.uint32(2**30 - 1)) - np.int32(2**29)
    t = real(np.int32(rest)) * real(2 * math.pi * 2.0**-32)
    square, one = t * t, real(1)
    cosine = sine = one
    for k in (16, 14, 12, 10, 8, 6, 4, 2):
        sine = one - sine * (square * (one / real(k * (k + 1))))
        cosine = one - cosine * (square * (one / real(k * (k - 1))))
    sine *= t
    if quarter & u64(1):
        cosine, sine = -sine, cosine
    return (-cosine, -sine) if quarter & u64(2) else (cosine, sine)


@jit
def _normal(key, y, wide):
    """A thread makes one Philox block and four neighbours of y, two from each pair of words."""
    block = cuda.grid(1)
    if 4 * block >= y.size:
        return
    real = y.dtype.type
    a, b, c, d = _words(key, block)
    first, second = _radius(a, real), _radius(c, real)
    cos0, sin0 = _cos_sin(b, real)
    cos1, sin1 = _cos_sin(d, real)
    store4(y, 4 * block, wide, first * cos0, first * sin0, second * cos1, second * sin1)


@dense
def normal(key: Array, y: Out) -> Array:
    """y = random numbers of the standard normal distribution, by Box and Muller (1958)."""
    _normal[blocks(y.size, 4 * THREADS), THREADS](key, y.reshape(-1), aligned(y))
    return y


@jit
def _dropout(x, key, y, limit, scale, wide, add):
    """A thread makes one Philox block and keeps or drops four neighbours of x."""
    block = cuda.grid(1)
    if 4 * block >= y.size:
        return
    zero = x.dtype.type(0)
    word0, word1, word2, word3 = _words(key, block)
    a, b, c, d = load4(x, 4 * block, wide)
    a = a * scale if word0 >= limit else zero
    b = b * scale if word1 >= limit else zero
    c = c * scale if word2 >= limit else zero
    d = d * scale if word3 >= limit else zero
    if add:
        old0, old1, old2, old3 = load4(y, 4 * block, wide)
        a, b, c, d = plus(old0, a), plus(old1, b), plus(old2, c), plus(old3, d)
    store4(y, 4 * block, wide, a, b, c, d)


@dense
def dropout(x: Array, key: Array, y: Out, p: float) -> Array:
    """y = x / (1 - p) with probability 1 - p, else 0."""
    return dropout_grad(x, key, y, p, False)


@dense
def dropout_grad(dy: Array, key: Array, dx: Out, p: float, add: bool) -> Array:
    """dx = dy / (1 - p) where dropout kept x, else 0."""
    scale = 1 / (1 - p) if p < 1 else 0.0
    _dropout[blocks(dx.size, 4 * THREADS), THREADS](
        dy.reshape(-1), key, dx.reshape(-1), u64(p * 2**32), float(scale), aligned(dy, dx), add
    )
    return dx
