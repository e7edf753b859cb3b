"""One optimizer step over a flat buffer of parameters, in place."""

import math

from ..roles import Array, InOut
from ._numba import blocks, cuda, jit

THREADS = 256


@jit
def _adam_step_(dp, lr, t, p, m, v, log1, log2, keep1, keep2, new1, new2, eps, weight_decay):
    """A thread updates one parameter: all four buffers are read and written once."""
    i = cuda.grid(1)
    if i >= p.size:
        return
    real = p.dtype.type
    step = real(t[0])
    c1, c2 = -math.expm1(step * log1), -math.expm1(step * log2)
    g = dp.flat[i]
    if weight_decay:  # 0 times an infinite parameter would be NaN
        g += weight_decay * p.flat[i]
    mean = keep1 * m.flat[i] + new1 * g
    square = keep2 * v.flat[i] + new2 * g * g
    m.flat[i] = mean
    v.flat[i] = square
    p.flat[i] -= lr[0] / c1 * mean / (math.sqrt(square) / math.sqrt(c2) + eps)


def adam_step_(
    dp: Array,
    lr: Array,
    t: Array,
    p: InOut,
    m: InOut,
    v: InOut,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Array, Array, Array]:
    """One step of Adam (Kingma and Ba 2015, Algorithm 1, eps as in PyTorch).

    dp, p, m, v (n,), lr (1,), t (1,) int64: the number of this step, from 1. weight_decay p is
    added to the gradient. 1 - beta**t is -expm1(t log beta): 1 - 0.999 in float32 has four digits.
    """
    log1, log2 = (math.log(beta) if beta else -math.inf for beta in (beta1, beta2))
    _adam_step_[blocks(p.size, THREADS), THREADS](
        dp, lr, t, p, m, v, log1, log2, float(beta1), float(beta2), 1.0 - beta1, 1.0 - beta2,
        float(eps), float(weight_decay),
    )  # fmt: skip
    return p, m, v


@jit
def _count_(t):
    """A thread adds one to one counter."""
    i = cuda.grid(1)
    if i < t.size:
        t.flat[i] += 1


def count_(t: InOut) -> Array:
    """t += 1."""
    _count_[blocks(t.size, THREADS), THREADS](t)
    return t
