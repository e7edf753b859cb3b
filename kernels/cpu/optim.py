"""One optimizer step in one pass over a flat buffer of parameters, in place."""

import math

import numpy as np

from .. import reference
from ..roles import Array, InOut
from ._numba import loop
from .memory import ZERO, canonical, rare


def sgd_step_(
    dp: Array,
    lr: Array,
    momentum: Array,
    p: InOut,
    v: InOut,
    weight_decay: float,
    nesterov: bool,
) -> tuple[Array, Array | None]:
    """p -= lr v with v = momentum v + dp + weight_decay p; nesterov looks one step further.

    dp, p, v (n,), lr, momentum (1,); v is None where momentum is 0. Sutskever et al. 2013, in
    PyTorch's form.
    """
    if rare(dp, lr, p, v) or not (p.flags.carray and (v is None or v.flags.carray)):
        return reference.sgd_step_(dp, lr, momentum, p, v, weight_decay, nesterov)
    kept = _NONE if v is None else v.reshape(-1)
    real = np.float32
    flat = canonical(dp).reshape(-1), p.reshape(-1), kept
    _sgd(
        p.size,
        (2 + bool(kept.size)) * p.size,  # arrays to move; each thread's own part of p and dp
        *flat,
        lr[0],
        momentum[0],
        real(weight_decay),
        nesterov,
    )
    return p, v


def adam_step_(
    dp: Array,
    lr: Array,
    betas: Array,
    t: Array,
    p: InOut,
    m: InOut,
    v: InOut,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> tuple[Array, Array, Array]:
    """One step of Adam (Kingma and Ba 2015, Algorithm 1, eps as in PyTorch).

    dp, p, m, v (n,), lr (1,), t (1,) int64: the number of this step, from 1. betas (2, 3): beta,
    1 - beta and log beta of m, and the same of v, each exact before it is rounded. weight_decay p
    is added to the gradient, or if decoupled, lr weight_decay p subtracted from p first (AdamW,
    Loshchilov and Hutter 2019).
    """
    plain = p.flags.carray and m.flags.carray and v.flags.carray
    if not plain or rare(dp, lr, p, m, v):
        return reference.adam_step_(dp, lr, betas, t, p, m, v, eps, weight_decay, decoupled)
    real = np.float32
    flat = canonical(dp).reshape(-1), p.reshape(-1), m.reshape(-1), v.reshape(-1)
    # 1 - beta**t; as expm1, since 1 - 0.999 in float32 has four digits
    c1, c2 = -np.expm1(real(t[0]) * betas[:, 2])
    rates = *betas[0, :2], *betas[1, :2], lr[0] / c1, np.sqrt(c2)
    decay = real(weight_decay)
    _adam(p.size, 4 * p.size, *flat, *rates, real(eps), decay, lr[0] * decay, bool(decoupled))
    return p, m, v


def rmsprop_step_(
    dp: Array,
    lr: Array,
    momentum: Array,
    p: InOut,
    v: InOut,
    m: InOut,
    b: InOut,
    alpha: float,
    eps: float,
    weight_decay: float,
) -> tuple[Array, Array, Array | None, Array | None]:
    """p -= lr g / (sqrt(v) + eps) with v = alpha v + (1 - alpha) g^2, g = dp + weight_decay p.

    dp, p, v, m, b (n,), lr, momentum (1,). m, the mean of g (None: not centered): v - m^2, at least
    0, stands in for v. b (None where momentum is 0): b = momentum b + g / (...), and p -= lr b.
    Hinton 2012, in PyTorch's form.
    """
    kept = [a for a in (p, v, m, b) if a is not None]
    if rare(dp, lr, *kept) or not all(a.flags.carray for a in kept):
        return reference.rmsprop_step_(dp, lr, momentum, p, v, m, b, alpha, eps, weight_decay)
    flat = (_NONE if a is None else a.reshape(-1) for a in (canonical(dp), p, v, m, b))
    rates = (np.float32(a) for a in (alpha, 1 - alpha, eps, momentum[0], weight_decay))
    _rmsprop(p.size, 4 * p.size, *flat, lr[0], *rates)
    return p, v, m, b


def adagrad_step_(
    dp: Array,
    lr: Array,
    t: Array,
    p: InOut,
    v: InOut,
    initial: float,
    lr_decay: float,
    eps: float,
    weight_decay: float,
) -> tuple[Array, Array]:
    """p -= lr g / (sqrt(initial + v) + eps) with v += g^2 and g = dp + weight_decay p.

    dp, p, v (n,), lr (1,), t (1,) int64: the number of this step, from 1; lr_decay divides lr by
    1 + (t - 1) lr_decay. Duchi et al. 2011, in PyTorch's form.
    """
    if rare(dp, lr, p, v) or not (p.flags.carray and v.flags.carray):
        return reference.adagrad_step_(dp, lr, t, p, v, initial, lr_decay, eps, weight_decay)
    real = np.float32
    rate = lr[0] / (real(1) + real(t[0] - 1) * real(lr_decay))
    flat = canonical(dp).reshape(-1), p.reshape(-1), v.reshape(-1)
    _adagrad(p.size, 4 * p.size, *flat, rate, real(initial), real(eps), real(weight_decay))
    return p, v


def lion_step_(
    dp: Array,
    lr: Array,
    betas: Array,
    p: InOut,
    m: InOut,
    weight_decay: float,
) -> tuple[Array, Array]:
    """p -= lr (sign(beta1 m + (1 - beta1) dp) + weight_decay p), then m = beta2 m + (1 - beta2) dp.

    dp, p, m (n,), lr (1,), betas (2, 2): beta1, 1 - beta1; beta2, 1 - beta2. The sign of 0 is 0.
    Chen et al., "Symbolic discovery of optimization algorithms", 2023, Algorithm 2.
    """
    if rare(dp, lr, p, m) or not (p.flags.carray and m.flags.carray):
        return reference.lion_step_(dp, lr, betas, p, m, weight_decay)
    flat = canonical(dp).reshape(-1), p.reshape(-1), m.reshape(-1)
    _lion(p.size, 3 * p.size, *flat, lr[0], *betas[0], *betas[1], np.float32(weight_decay))
    return p, m


_NONE, _ONE = np.empty(0, np.float32), np.float32(1)


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
def _adam(
    start, stop, dp, p, m, v, beta1, rest1, beta2, rest2, step, root, eps, decay, shrink, decoupled
):
    dp, p, m, v = dp[start:stop], p[start:stop], m[start:stop], v[start:stop]
    for i in range(p.size):
        g = dp[i]
        if decay != 0:
            if decoupled:
                p[i] -= shrink * p[i]
            else:
                g += decay * p[i]
        m[i] = beta1 * m[i] + rest1 * g
        v[i] = beta2 * v[i] + rest2 * g * g
        p[i] -= step * m[i] / (math.sqrt(v[i]) / root + eps)


@loop(fast=("contract",))
def _rmsprop(start, stop, dp, p, v, m, b, lr, alpha, rest, eps, momentum, decay):
    dp, p, v, m, b = dp[start:stop], p[start:stop], v[start:stop], m[start:stop], b[start:stop]
    for i in range(p.size):
        g = dp[i]
        if decay != 0:
            g += decay * p[i]
        v[i] = alpha * v[i] + rest * g * g
        square = v[i]
        if m.size:
            m[i] = alpha * m[i] + rest * g
            square -= m[i] * m[i]
            if square < 0:  # a variance, whatever rounding does; NaN stays
                square = ZERO
        step = g / (math.sqrt(square) + eps)
        if b.size:
            b[i] = momentum * b[i] + step
            step = b[i]
        p[i] -= lr * step


@loop(fast=("contract",))
def _adagrad(start, stop, dp, p, v, rate, initial, eps, decay):
    dp, p, v = dp[start:stop], p[start:stop], v[start:stop]
    for i in range(p.size):
        g = dp[i]
        if decay != 0:
            g += decay * p[i]
        v[i] += g * g
        p[i] -= rate * g / (math.sqrt(initial + v[i]) + eps)


@loop(fast=("contract",))
def _lion(start, stop, dp, p, m, lr, keep1, new1, keep2, new2, decay):
    dp, p, m = dp[start:stop], p[start:stop], m[start:stop]
    for i in range(p.size):
        step = keep1 * m[i] + new1 * dp[i]
        if step > 0:
            step = _ONE
        elif step < 0:  # 0 and NaN stay
            step = -_ONE
        if decay != 0:
            step += decay * p[i]
        p[i] -= lr * step
        m[i] = keep2 * m[i] + new2 * dp[i]
