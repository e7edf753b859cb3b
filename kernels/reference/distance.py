"""Losses of numbers against targets, one by one.

y is scale times each loss, or where y is (), scale times their sum. Gradients take dy in y's shape.
"""

import numpy as np

from ..roles import Array, Out
from .elementwise import quiet, store

LEAST_LOG, LEAST_SPREAD = -100, 1e-12  # what keeps binary_cross_entropy finite, as in PyTorch


@quiet
def mse_loss(x: Array, target: Array, y: Out, scale: float) -> Array:
    """y = scale (x - target)**2."""
    return _reduced((x - target) ** 2, y, scale)


@quiet
def mse_loss_grad(dy: Array, x: Array, target: Array, dx: Out, scale: float, add: bool) -> Array:
    """dx = 2 scale dy (x - target)."""
    return store(2 * (x - target) * _scaled(dy, scale), dx, add)


@quiet
def l1_loss(x: Array, target: Array, y: Out, scale: float) -> Array:
    """y = scale |x - target|."""
    return _reduced(np.abs(x - target), y, scale)


@quiet
def l1_loss_grad(dy: Array, x: Array, target: Array, dx: Out, scale: float, add: bool) -> Array:
    """dx = scale dy sign(x - target), 0 where they are equal or one is NaN, as in abs."""
    sign = np.select([x > target, x < target], [1, -1], 0).astype(x.dtype)
    return store(sign * _scaled(dy, scale), dx, add)


@quiet
def huber_loss(x: Array, target: Array, y: Out, delta: float, scale: float) -> Array:
    """y = scale d**2 / 2 with d = |x - target| up to delta, scale delta (d - delta / 2) beyond."""
    far, delta = np.abs(x - target), x.dtype.type(delta)
    return _reduced(np.where(far > delta, delta * (far - delta / 2), far**2 / 2), y, scale)


@quiet
def huber_loss_grad(
    dy: Array, x: Array, target: Array, dx: Out, delta: float, scale: float, add: bool
) -> Array:
    """dx = scale dy (x - target), with the difference clipped to [-delta, delta]."""
    return store(np.clip(x - target, -delta, delta) * _scaled(dy, scale), dx, add)


@quiet
def binary_cross_entropy(x: Array, target: Array, y: Out, scale: float) -> Array:
    """y = -scale (target log x + (1 - target) log(1 - x)); no log is below -100."""
    yes, no = _logs(x)
    return _reduced(-(target * yes + (1 - target) * no), y, scale)


@quiet
def binary_cross_entropy_grad_x(
    dy: Array, x: Array, target: Array, dx: Out, scale: float, add: bool
) -> Array:
    """dx = scale dy (x - target) / (x (1 - x)), whose divisor is at least 1e-12."""
    spread = np.maximum(x * (1 - x), x.dtype.type(LEAST_SPREAD))
    return store((x - target) / spread * _scaled(dy, scale), dx, add)


@quiet
def binary_cross_entropy_grad_target(
    dy: Array, x: Array, dtarget: Out, scale: float, add: bool
) -> Array:
    """dtarget = scale dy (log(1 - x) - log x)."""
    yes, no = _logs(x)
    return store((no - yes) * _scaled(dy, scale), dtarget, add)


@quiet
def binary_cross_entropy_with_logits(
    x: Array, target: Array, pos_weight: Array, y: Out, scale: float
) -> Array:
    """y = scale (target pos_weight log(1 + exp -x) + (1 - target) log(1 + exp x)).

    pos_weight broadcasts to x; None means 1.
    """
    positive = target if pos_weight is None else target * pos_weight
    return _reduced(positive * _softplus(-x) + (1 - target) * _softplus(x), y, scale)


@quiet
def binary_cross_entropy_with_logits_grad_x(
    dy: Array, x: Array, target: Array, pos_weight: Array, dx: Out, scale: float, add: bool
) -> Array:
    """dx = scale dy ((1 - target) sigmoid x - target pos_weight sigmoid -x)."""
    positive = target if pos_weight is None else target * pos_weight
    slope = (1 - target) * _sigmoid(x) - positive * _sigmoid(-x)
    return store(slope * _scaled(dy, scale), dx, add)


@quiet
def binary_cross_entropy_with_logits_grad_target(
    dy: Array, x: Array, pos_weight: Array, dtarget: Out, scale: float, add: bool
) -> Array:
    """dtarget = scale dy (pos_weight log(1 + exp -x) - log(1 + exp x))."""
    positive = _softplus(-x) * (1 if pos_weight is None else pos_weight)
    return store((positive - _softplus(x)) * _scaled(dy, scale), dtarget, add)


@quiet
def kl_div(x: Array, target: Array, y: Out, log_target: bool, scale: float) -> Array:
    """y = scale p (log p - x): x is a log-probability, and target is p, or log p on log_target."""
    if log_target:
        return _reduced(np.exp(target) * (target - x), y, scale)
    entropy = np.where(target == 0, target, target * np.log(target))
    return _reduced(entropy - target * x, y, scale)


@quiet
def kl_div_grad_x(
    dy: Array, target: Array, dx: Out, log_target: bool, scale: float, add: bool
) -> Array:
    """dx = -scale dy p."""
    return store(-(np.exp(target) if log_target else target) * _scaled(dy, scale), dx, add)


@quiet
def kl_div_grad_target(
    dy: Array, x: Array, target: Array, dtarget: Out, log_target: bool, scale: float, add: bool
) -> Array:
    """dtarget = scale dy (log p - x + 1), times p on log_target."""
    if log_target:
        slope = np.exp(target) * (target - x + 1)
    else:
        slope = np.log(target) - x + 1
    return store(slope * _scaled(dy, scale), dtarget, add)


def _reduced(loss: Array, y: Array, scale: float) -> Array:
    y[...] = (loss if y.ndim else loss.sum()) * y.dtype.type(scale)
    return y


def _scaled(dy: Array, scale: float) -> Array:
    return dy * dy.dtype.type(scale)


def _logs(x: Array) -> tuple[Array, Array]:
    """log x and log(1 - x), at least -100."""
    least = x.dtype.type(LEAST_LOG)
    return np.maximum(np.log(x), least), np.maximum(np.log1p(-x), least)


def _softplus(x: Array) -> Array:
    """log(1 + exp x), where exp does not overflow."""
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, x.dtype.type(0))


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp -x), where exp does not overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, x.dtype.type(1)) / (1 + small)
