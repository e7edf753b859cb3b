"""One optimizer step in one pass over a flat buffer of parameters, in place."""

import math

import numpy as np

from .. import reference
from ..roles import Array, InOut
from ._numba import loop
from .memory import canonical, rare


def sgd_step_(
    dp: Array,
    lr: Array,
    p: InOut,
    v: InOut,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> tuple[Array, Array | None]:
    """p -= lr v with v = momentum v + dp + weight_decay p; nesterov looks one step further.

    dp, p, v (n,), lr (1,); v is None where momentum is 0. Sutskever et al. 2013, in PyTorch's form.
    """
    if rare(dp, lr, p, v) or not (p.flags.carray and (v is None or v.flags.carray)):
        return reference.sgd_step_(dp, lr, p, v, momentum, weight_decay, nesterov)
    kept = _NONE if v is None else v.reshape(-1)
    real = np.float32
    flat = canonical(dp).reshape(-1), p.reshape(-1), kept
    _sgd(p.size, 4 * p.size, *flat, lr[0], real(momentum), real(weight_decay), nesterov)
    return p, v


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
    added to the gradient.
    """
    plain = p.flags.carray and m.flags.carray and v.flags.carray
    if not plain or rare(dp, lr, p, m, v):
        return reference.adam_step_(dp, lr, t, p, m, v, beta1, beta2, eps, weight_decay)
    real = np.float32
    flat = canonical(dp).reshape(-1), p.reshape(-1), m.reshape(-1), v.reshape(-1)
    # 1 - beta**t; as expm1, since 1 - 0.999 in float32 has four digits
    c1, c2 = (-np.expm1(real(t[0]) * real(math.log(b))) if b else real(1) for b in (beta1, beta2))
    rates = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2)
    _adam(p.size, 4 * p.size, *flat, *rates, lr[0] / c1, np.sqrt(c2), real(eps), real(weight_decay))
    return p, m, v


_NONE = np.empty(0, np.float32)


@loop(fast=("contract",))
def _sgd(start, stop, dp, p, v, lr, momentum, decay, nesterov):
    dp, p, v = dp[start:stop], p[start:stop], v[start:stop]
    for i in range(p.size):
        step = dp[i]
        if decay != 0:
            step += decay * p[i]
        if v.size:
            v[i] = momentum * v[i] + step
            step = step + momentum * v[i] if nesterov else v[i]
        p[i] -= lr * step


@loop(fast=("contract",))
def _adam(start, stop, dp, p, m, v, beta1, rest1, beta2, rest2, step, root, eps, decay):
    dp, p, m, v = dp[start:stop], p[start:stop], m[start:stop], v[start:stop]
    for i in range(p.size):
        g = dp[i]
        if decay != 0:
            g += decay * p[i]
        m[i] = beta1 * m[i] + rest1 * g
        v[i] = beta2 * v[i] + rest2 * g * g
        p[i] -= step * m[i] / (math.sqrt(v[i]) / root + eps)
