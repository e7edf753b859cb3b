"""One optimizer step over a flat buffer of parameters, in place.

A thread takes four neighbours of every buffer, each in one 128-bit load, and reads and writes each
of them once.
"""

import math

from ..roles import Array, InOut
from . import memory
from ._numba import blocks, cuda, device, jit
from .intrinsics import aligned
from .layout import THREADS
from .move import dense
from .vector import load4, store4


@device
def _sgd(dp, p, v, rate, momentum, decay, kept, nesterov):
    """One parameter's new value and its new velocity, which counts only where one is kept."""
    step = dp
    if decay:  # 0 times an infinite parameter would be NaN
        step += decay * p
    if kept:
        v = momentum * v + step
        step = step + momentum * v if nesterov else v
    return p - rate * step, v


@jit
def _sgd_step_(dp, lr, momenta, p, v, decay, nesterov, wide):
    """A thread steps four neighbouring parameters. v has no size where no velocity is kept."""
    i = 4 * cuda.grid(1)
    if i >= p.size:
        return
    rate, momentum, kept = lr[0], momenta[0], v.size > 0
    dp0, dp1, dp2, dp3 = load4(dp, i, wide)
    p0, p1, p2, p3 = load4(p, i, wide)
    v0, v1, v2, v3 = dp0, dp1, dp2, dp3
    if kept:
        v0, v1, v2, v3 = load4(v, i, wide)
    p0, v0 = _sgd(dp0, p0, v0, rate, momentum, decay, kept, nesterov)
    p1, v1 = _sgd(dp1, p1, v1, rate, momentum, decay, kept, nesterov)
    p2, v2 = _sgd(dp2, p2, v2, rate, momentum, decay, kept, nesterov)
    p3, v3 = _sgd(dp3, p3, v3, rate, momentum, decay, kept, nesterov)
    store4(p, i, wide, p0, p1, p2, p3)
    if kept:
        store4(v, i, wide, v0, v1, v2, v3)


@dense
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
    kept = memory.scratch((0,), p.dtype) if v is None else v
    rest = float(weight_decay), bool(nesterov), aligned(dp, p, kept)
    _sgd_step_[blocks(p.size, 4 * THREADS), THREADS](dp, lr, momentum, p, kept, *rest)
    return p, v


@device
def _adam(dp, p, m, v, options):
    """One parameter's new value, mean and mean square."""
    rate, root, keep1, keep2, new1, new2, eps, decay, shrink, decoupled = options
    if decay and decoupled:  # 0 times an infinite parameter would be NaN
        p -= shrink * p
    elif decay:
        dp += decay * p
    m = keep1 * m + new1 * dp
    v = keep2 * v + new2 * dp * dp
    return p - rate * m / (math.sqrt(v) / root + eps), m, v


@jit
def _adam_step_(dp, lr, betas, t, p, m, v, eps, decay, decoupled, wide):
    """A thread steps four neighbouring parameters."""
    i = 4 * cuda.grid(1)
    if i >= p.size:
        return
    step = p.dtype.type(t[0])
    keep1, new1, log1 = betas[0, 0], betas[0, 1], betas[0, 2]
    keep2, new2, log2 = betas[1, 0], betas[1, 1], betas[1, 2]
    rate, root = lr[0] / -math.expm1(step * log1), math.sqrt(-math.expm1(step * log2))
    options = rate, root, keep1, keep2, new1, new2, eps, decay, lr[0] * decay, decoupled
    dp0, dp1, dp2, dp3 = load4(dp, i, wide)
    p0, p1, p2, p3 = load4(p, i, wide)
    m0, m1, m2, m3 = load4(m, i, wide)
    v0, v1, v2, v3 = load4(v, i, wide)
    p0, m0, v0 = _adam(dp0, p0, m0, v0, options)
    p1, m1, v1 = _adam(dp1, p1, m1, v1, options)
    p2, m2, v2 = _adam(dp2, p2, m2, v2, options)
    p3, m3, v3 = _adam(dp3, p3, m3, v3, options)
    store4(p, i, wide, p0, p1, p2, p3)
    store4(m, i, wide, m0, m1, m2, m3)
    store4(v, i, wide, v0, v1, v2, v3)


@dense
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
    Loshchilov and Hutter 2019). 1 - beta**t is -expm1(t log beta): 1 - 0.999 in float32
    has four digits.
    """
    rest = float(eps), float(weight_decay), bool(decoupled), aligned(dp, p, m, v)
    _adam_step_[blocks(p.size, 4 * THREADS), THREADS](dp, lr, betas, t, p, m, v, *rest)
    return p, m, v


@device
def _rmsprop(dp, p, v, m, b, options):
    """One parameter's new value, mean square, mean and momentum: the last two where they count."""
    rate, keep, new, eps, momentum, decay, centered, moving, zero = options
    if decay:  # 0 times an infinite parameter would be NaN
        dp += decay * p
    v = keep * v + new * dp * dp
    square = v
    if centered:
        m = keep * m + new * dp
        square = v - m * m
        if square < zero:  # a variance, whatever rounding does; NaN stays
            square = zero
    step = dp / (math.sqrt(square) + eps)
    if moving:
        b = momentum * b + step
        step = b
    return p - rate * step, v, m, b


@jit
def _rmsprop_step_(dp, lr, momenta, p, v, m, b, keep, new, eps, decay, wide):
    """A thread steps four neighbouring parameters. m and b have no size where they are not kept."""
    i = 4 * cuda.grid(1)
    if i >= p.size:
        return
    rate, momentum, centered, moving = lr[0], momenta[0], m.size > 0, b.size > 0
    dp0, dp1, dp2, dp3 = load4(dp, i, wide)
    p0, p1, p2, p3 = load4(p, i, wide)
    v0, v1, v2, v3 = load4(v, i, wide)
    m0, m1, m2, m3 = dp0, dp1, dp2, dp3
    b0, b1, b2, b3 = dp0, dp1, dp2, dp3
    if centered:
        m0, m1, m2, m3 = load4(m, i, wide)
    if moving:
        b0, b1, b2, b3 = load4(b, i, wide)
    options = rate, keep, new, eps, momentum, decay, centered, moving, p.dtype.type(0)
    p0, v0, m0, b0 = _rmsprop(dp0, p0, v0, m0, b0, options)
    p1, v1, m1, b1 = _rmsprop(dp1, p1, v1, m1, b1, options)
    p2, v2, m2, b2 = _rmsprop(dp2, p2, v2, m2, b2, options)
    p3, v3, m3, b3 = _rmsprop(dp3, p3, v3, m3, b3, options)
    store4(p, i, wide, p0, p1, p2, p3)
    store4(v, i, wide, v0, v1, v2, v3)
    if centered:
        store4(m, i, wide, m0, m1, m2, m3)
    if moving:
        store4(b, i, wide, b0, b1, b2, b3)


@dense
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
    none = memory.scratch((0,), p.dtype)
    mean, moved = (none if a is None else a for a in (m, b))
    rates = float(alpha), 1.0 - alpha, float(eps), float(weight_decay)
    _rmsprop_step_[blocks(p.size, 4 * THREADS), THREADS](
        dp, lr, momentum, p, v, mean, moved, *rates, aligned(dp, p, v, mean, moved)
    )
    return p, v, m, b


@device
def _adagrad(dp, p, v, rate, initial, eps, decay):
    """One parameter's new value and its new sum of squares."""
    if decay:  # 0 times an infinite parameter would be NaN
        dp += decay * p
    v += dp * dp
    return p - rate * dp / (math.sqrt(initial + v) + eps), v


@jit
def _adagrad_step_(dp, lr, t, p, v, initial, lr_decay, eps, decay, wide):
    """A thread steps four neighbouring parameters."""
    i = 4 * cuda.grid(1)
    if i >= p.size:
        return
    real = p.dtype.type
    rate = lr[0] / (real(1) + real(t[0] - 1) * lr_decay)
    dp0, dp1, dp2, dp3 = load4(dp, i, wide)
    p0, p1, p2, p3 = load4(p, i, wide)
    v0, v1, v2, v3 = load4(v, i, wide)
    p0, v0 = _adagrad(dp0, p0, v0, rate, initial, eps, decay)
    p1, v1 = _adagrad(dp1, p1, v1, rate, initial, eps, decay)
    p2, v2 = _adagrad(dp2, p2, v2, rate, initial, eps, decay)
    p3, v3 = _adagrad(dp3, p3, v3, rate, initial, eps, decay)
    store4(p, i, wide, p0, p1, p2, p3)
    store4(v, i, wide, v0, v1, v2, v3)


@dense
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
    rates = float(initial), float(lr_decay), float(eps), float(weight_decay)
    _adagrad_step_[blocks(p.size, 4 * THREADS), THREADS](dp, lr, t, p, v, *rates, aligned(dp, p, v))
    return p, v


@device
def _lion(dp, p, m, options):
    """One parameter's new value and its new mean gradient."""
    rate, keep1, new1, keep2, new2, decay, zero, one = options
    step = keep1 * m + new1 * dp
    if step > zero:
        step = one
    elif step < zero:  # 0 and NaN stay
        step = -one
    if decay:  # 0 times an infinite parameter would be NaN
        step += decay * p
    return p - rate * step, keep2 * m + new2 * dp


@jit
def _lion_step_(dp, lr, betas, p, m, decay, wide):
    """A thread steps four neighbouring parameters."""
    i = 4 * cuda.grid(1)
    if i >= p.size:
        return
    zero, one = p.dtype.type(0), p.dtype.type(1)
    options = lr[0], betas[0, 0], betas[0, 1], betas[1, 0], betas[1, 1], decay, zero, one
    dp0, dp1, dp2, dp3 = load4(dp, i, wide)
    p0, p1, p2, p3 = load4(p, i, wide)
    m0, m1, m2, m3 = load4(m, i, wide)
    p0, m0 = _lion(dp0, p0, m0, options)
    p1, m1 = _lion(dp1, p1, m1, options)
    p2, m2 = _lion(dp2, p2, m2, options)
    p3, m3 = _lion(dp3, p3, m3, options)
    store4(p, i, wide, p0, p1, p2, p3)
    store4(m, i, wide, m0, m1, m2, m3)


@dense
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
    rest = float(weight_decay), aligned(dp, p, m)
    _lion_step_[blocks(p.size, 4 * THREADS), THREADS](dp, lr, betas, p, m, *rest)
    return p, m


@jit
def _trust_step_(u, lr, weights, steps, p, wide):
    """A thread moves four neighbours."""
    i = 4 * cuda.grid(1)
    if i >= p.size:
        return
    zero, rate = p.dtype.type(0), lr[0]
    if weights[0] > zero and steps[0] > zero:
        rate *= math.sqrt(weights[0]) / math.sqrt(steps[0])
    u0, u1, u2, u3 = load4(u, i, wide)
    p0, p1, p2, p3 = load4(p, i, wide)
    store4(p, i, wide, p0 - rate * u0, p1 - rate * u1, p2 - rate * u2, p3 - rate * u3)


@dense
def trust_step_(u: Array, lr: Array, weights: Array, steps: Array, p: InOut) -> Array:
    """p -= lr r u, where r = sqrt(weights) / sqrt(steps), or 1 unless both are above 0.

    u, p (n,), lr (1,), weights and steps (): the squared lengths of p and of u. The last line of
    Algorithm 2 in You et al., "Large batch optimization for deep learning" (LAMB), ICLR 2020.
    """
    squares = weights.reshape(1), steps.reshape(1)
    _trust_step_[blocks(p.size, 4 * THREADS), THREADS](u, lr, *squares, p, aligned(u, p))
    return p


@jit
def _count_(t):
    """A thread adds one to one counter."""
    i = cuda.grid(1)
    if i < t.size:
        t[i] += 1


@dense
def count_(t: InOut) -> Array:
    """t += 1."""
    _count_[blocks(t.size, THREADS), THREADS](t.reshape(-1))
    return t


@jit
def _clip_(square, x, limit, wide):
    """A thread scales four neighbours."""
    i = 4 * cuda.grid(1)
    if i >= x.size:
        return
    real = x.dtype.type
    factor = limit / (math.sqrt(square[0]) + real(1e-6))
    if factor > real(1):  # not min(): NaN must stay NaN
        factor = real(1)
    a, b, c, d = load4(x, i, wide)
    store4(x, i, wide, a * factor, b * factor, c * factor, d * factor)


@dense
def clip_(square: Array, x: InOut, limit: float) -> Array:
    """x *= min(1, limit / (sqrt(square) + 1e-6)): scale a vector of squared length `square`."""
    grid = blocks(x.size, 4 * THREADS)
    _clip_[grid, THREADS](square.reshape(1), x.reshape(-1), float(limit), aligned(x))
    return x
