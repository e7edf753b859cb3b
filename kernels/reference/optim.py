"""One optimizer step over a flat buffer of parameters, in place."""

import numpy as np

from ..roles import Array, InOut
from .elementwise import quiet


@quiet
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
    real = p.dtype.type
    step = dp + real(weight_decay) * p if weight_decay else dp
    if v is not None:
        v *= momentum
        v += step
        step = step + momentum * v if nesterov else v
    p -= lr * step
    return p, v


@quiet
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
    real = p.dtype.type
    if weight_decay and decoupled:
        p -= lr * real(weight_decay) * p
    g = dp + real(weight_decay) * p if weight_decay and not decoupled else dp
    (keep1, new1, log1), (keep2, new2, log2) = betas
    m *= keep1
    m += new1 * g
    v *= keep2
    v += new2 * g * g
    # 1 - beta**t; as expm1, since 1 - 0.999 in float32 has four digits
    c1, c2 = (-np.expm1(t.astype(p.dtype) * log) for log in (log1, log2))
    p -= lr / c1 * m / (np.sqrt(v) / np.sqrt(c2) + real(eps))
    return p, m, v


@quiet
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
    real = p.dtype.type
    g = dp + real(weight_decay) * p if weight_decay else dp
    v *= real(alpha)
    v += real(1 - alpha) * g * g
    square = v
    if m is not None:
        m *= real(alpha)
        m += real(1 - alpha) * g
        square = np.maximum(v - m * m, real(0))  # a variance, whatever rounding does
    step = g / (np.sqrt(square) + real(eps))
    if b is not None:
        b *= momentum
        b += step
        step = b
    p -= lr * step
    return p, v, m, b


@quiet
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
    real = p.dtype.type
    g = dp + real(weight_decay) * p if weight_decay else dp
    v += g * g
    rate = lr / (real(1) + (t - 1).astype(p.dtype) * real(lr_decay))
    p -= rate * g / (np.sqrt(real(initial) + v) + real(eps))
    return p, v


@quiet
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
    (keep1, new1), (keep2, new2) = betas
    step = np.sign(keep1 * m + new1 * dp)
    p -= lr * (step + p.dtype.type(weight_decay) * p if weight_decay else step)
    m *= keep2
    m += new2 * dp
    return p, m


@quiet
def trust_step_(u: Array, lr: Array, weights: Array, steps: Array, p: InOut) -> Array:
    """p -= lr r u, where r = sqrt(weights) / sqrt(steps), or 1 unless both are above 0.

    u, p (n,), lr (1,), weights and steps (): the squared lengths of p and of u. The last line of
    Algorithm 2 in You et al., "Large batch optimization for deep learning" (LAMB), ICLR 2020.
    """
    both = (weights > 0) & (steps > 0)
    ratio = np.where(both, np.sqrt(weights) / np.sqrt(steps), 1).astype(p.dtype)
    p -= lr * ratio * u
    return p


def count_(t: InOut) -> Array:
    """t += 1."""
    t += 1
    return t


@quiet
def clip_(square: Array, x: InOut, limit: float) -> Array:
    """x *= min(1, limit / (sqrt(square) + 1e-6)): scale a vector of squared length `square`."""
    real = x.dtype.type
    x *= np.minimum(real(1), real(limit) / (np.sqrt(square) + real(1e-6))).astype(x.dtype)
    return x
