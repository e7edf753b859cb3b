"""Losses of numbers against targets, one by one: a scalar function in one of two kernels.

One kernel computes a loss for every number, or adds the losses up in an order that the size alone
fixes (two stages, the second one is that of `reduce.py`); the other multiplies a slope by dy.
"""

import math
from collections.abc import Callable
from typing import Any

from ..reference.distance import LEAST_LOG, LEAST_SPREAD
from ..roles import Array, Out
from . import memory
from ._numba import blocks, cuda, device, jit
from .intrinsics import plus
from .layout import ENOUGH_LIGHT, THREADS
from .move import dense
from .reduce import add_tasks, join_rows, steps_of

EACH = 8  # numbers of a thread that make up for joining its sum with those of its block


def _losses(scalar: Callable[..., Any]) -> Any:
    inner = device(scalar)

    def kernel(x, target, weight, y, chunk, setting, scale, each):
        """A thread takes every blockDim.y-th of the `chunk` numbers of its block, its task.

        Each loss goes to y (size,), or the block's sum of them to y (tasks,).
        """
        part = cuda.shared.array(THREADS, x.dtype)
        task = cuda.blockIdx.x
        start = task * chunk + cuda.threadIdx.y
        total = x.dtype.type(0)
        for n in range(steps_of(min(chunk, x.size - task * chunk))):
            i = start + n * cuda.blockDim.y
            one = weight[i] if weight.size else x.dtype.type(1)
            loss = inner(x[i], target[i], one, setting)
            if each:
                y[i] = loss * scale
            else:
                total += loss
        if not each:
            total = join_rows(total, part)
            if cuda.threadIdx.y == 0:
                y[task] = total * scale

    return jit(kernel, name=scalar.__name__)


def _slopes(scalar: Callable[..., Any]) -> Any:
    inner = device(scalar)

    def kernel(dy, x, target, weight, dx, setting, scale, add):
        """A thread computes one number of dx, scale dy times the slope of its loss."""
        i = cuda.grid(1)
        if i < dx.size:
            one = weight[i] if weight.size else x.dtype.type(1)
            slope = inner(x[i], target[i], one, setting)
            value = slope * (dy[i if dy.size > 1 else 0] * scale)
            dx[i] = plus(dx[i], value) if add else value

    return jit(kernel, name=scalar.__name__)


def _weights(weight: Array | None, x: Array) -> Array:
    """A weight for each number of x: a copy where it is repeated, for kernels of one layout."""
    if weight is None:
        return memory.scratch((0,), x.dtype)
    return memory.contiguous(memory.broadcast_to(weight, x.shape)).reshape(-1)


def _forward(
    kernel: Any, x: Array, target: Array, y: Array, scale: float,
    weight: Array | None = None, setting: float = 0.0,
) -> Array:  # fmt: skip
    tasks = max(1, min(ENOUGH_LIGHT, blocks(x.size, THREADS * EACH)))
    chunk = max(1, blocks(x.size, tasks))
    out = y.reshape(-1)
    if tasks > 1 and not y.ndim:
        out = memory.scratch((tasks,), y.dtype)
    kernel[tasks, (1, THREADS)](
        x.reshape(-1), target.reshape(-1), _weights(weight, x), out,
        chunk, float(setting), float(scale), y.ndim > 0,
    )  # fmt: skip
    if tasks > 1 and not y.ndim:
        add_tasks(out.reshape(1, tasks, 1), y.reshape(1, 1), False)
    return y


def _backward(
    kernel: Any, dy: Array, x: Array, target: Array, dx: Array, scale: float, add: bool,
    weight: Array | None = None, setting: float = 0.0,
) -> Array:  # fmt: skip
    kernel[blocks(dx.size, THREADS), THREADS](
        dy.reshape(-1), x.reshape(-1), target.reshape(-1), _weights(weight, x), dx.reshape(-1),
        float(setting), float(scale), add,
    )  # fmt: skip
    return dx


@_losses
def _mse(x, target, weight, setting):
    return (x - target) * (x - target)


@_slopes
def _mse_grad(x, target, weight, setting):
    return (x - target) + (x - target)


@dense
def mse_loss(x: Array, target: Array, y: Out, scale: float) -> Array:
    """y = scale (x - target)**2."""
    return _forward(_mse, x, target, y, scale)


@dense
def mse_loss_grad(dy: Array, x: Array, target: Array, dx: Out, scale: float, add: bool) -> Array:
    """dx = 2 scale dy (x - target)."""
    return _backward(_mse_grad, dy, x, target, dx, scale, add)


@_losses
def _l1(x, target, weight, setting):
    return abs(x - target)


@_slopes
def _l1_grad(x, target, weight, setting):
    one = type(x)(1)
    return one if x > target else -one if x < target else type(x)(0)  # NaN: 0, too


@dense
def l1_loss(x: Array, target: Array, y: Out, scale: float) -> Array:
    """y = scale |x - target|."""
    return _forward(_l1, x, target, y, scale)


@dense
def l1_loss_grad(dy: Array, x: Array, target: Array, dx: Out, scale: float, add: bool) -> Array:
    """dx = scale dy sign(x - target), 0 where they are equal or one is NaN, as in abs."""
    return _backward(_l1_grad, dy, x, target, dx, scale, add)


@_losses
def _huber(x, target, weight, delta):
    far, half = abs(x - target), type(x)(0.5)
    return delta * (far - delta * half) if far > delta else far * far * half


@_slopes
def _huber_grad(x, target, weight, delta):
    d = x - target
    return delta if d > delta else -delta if d < -delta else d


@dense
def huber_loss(x: Array, target: Array, y: Out, delta: float, scale: float) -> Array:
    """y = scale d**2 / 2 with d = |x - target| up to delta, scale delta (d - delta / 2) beyond."""
    return _forward(_huber, x, target, y, scale, setting=delta)


@dense
def huber_loss_grad(
    dy: Array, x: Array, target: Array, dx: Out, delta: float, scale: float, add: bool
) -> Array:
    """dx = scale dy (x - target), with the difference clipped to [-delta, delta]."""
    return _backward(_huber_grad, dy, x, target, dx, scale, add, setting=delta)


@device
def at_least(value, least):
    """The larger of two numbers; NaN where the value is NaN."""
    return least if value < least else value


@_losses
def _bce(x, target, weight, setting):
    least = type(x)(LEAST_LOG)
    yes, no = at_least(math.log(x), least), at_least(math.log1p(-x), least)
    return -(target * yes + (type(x)(1) - target) * no)


@_slopes
def _bce_grad_x(x, target, weight, setting):
    return (x - target) / at_least(x * (type(x)(1) - x), type(x)(LEAST_SPREAD))


@_slopes
def _bce_grad_target(x, target, weight, setting):
    least = type(x)(LEAST_LOG)
    return at_least(math.log1p(-x), least) - at_least(math.log(x), least)


@dense
def binary_cross_entropy(x: Array, target: Array, y: Out, scale: float) -> Array:
    """y = -scale (target log x + (1 - target) log(1 - x)); no log is below -100."""
    return _forward(_bce, x, target, y, scale)


@dense
def binary_cross_entropy_grad_x(
    dy: Array, x: Array, target: Array, dx: Out, scale: float, add: bool
) -> Array:
    """dx = scale dy (x - target) / (x (1 - x)), whose divisor is at least 1e-12."""
    return _backward(_bce_grad_x, dy, x, target, dx, scale, add)


@dense
def binary_cross_entropy_grad_target(
    dy: Array, x: Array, dtarget: Out, scale: float, add: bool
) -> Array:
    """dtarget = scale dy (log(1 - x) - log x)."""
    return _backward(_bce_grad_target, dy, x, x, dtarget, scale, add)


@device
def softplus(x):
    """log(1 + exp x), where exp does not overflow."""
    return math.log1p(math.exp(-abs(x))) + at_least(x, type(x)(0))


@device
def sigmoid(x):
    """1 / (1 + exp -x), where exp does not overflow."""
    one, small = type(x)(1), math.exp(-abs(x))
    return (small if x < 0 else one) / (one + small)


@_losses
def _bce_logits(x, target, weight, setting):
    return target * weight * softplus(-x) + (type(x)(1) - target) * softplus(x)


@_slopes
def _bce_logits_grad_x(x, target, weight, setting):
    return (type(x)(1) - target) * sigmoid(x) - target * weight * sigmoid(-x)


@_slopes
def _bce_logits_grad_target(x, target, weight, setting):
    return weight * softplus(-x) - softplus(x)


@dense
def binary_cross_entropy_with_logits(
    x: Array, target: Array, pos_weight: Array, y: Out, scale: float
) -> Array:
    """y = scale (target pos_weight log(1 + exp -x) + (1 - target) log(1 + exp x)).

    pos_weight broadcasts to x; None means 1.
    """
    return _forward(_bce_logits, x, target, y, scale, pos_weight)


@dense
def binary_cross_entropy_with_logits_grad_x(
    dy: Array, x: Array, target: Array, pos_weight: Array, dx: Out, scale: float, add: bool
) -> Array:
    """dx = scale dy ((1 - target) sigmoid x - target pos_weight sigmoid -x)."""
    return _backward(_bce_logits_grad_x, dy, x, target, dx, scale, add, pos_weight)


@dense
def binary_cross_entropy_with_logits_grad_target(
    dy: Array, x: Array, pos_weight: Array, dtarget: Out, scale: float, add: bool
) -> Array:
    """dtarget = scale dy (pos_weight log(1 + exp -x) - log(1 + exp x))."""
    return _backward(_bce_logits_grad_target, dy, x, x, dtarget, scale, add, pos_weight)


@_losses
def _kl(x, target, weight, log_target):
    if log_target > 0:
        return math.exp(target) * (target - x)
    entropy = target if target == 0 else target * math.log(target)
    return entropy - target * x


@_slopes
def _kl_grad_x(x, target, weight, log_target):
    return -math.exp(target) if log_target > 0 else -target


@_slopes
def _kl_grad_target(x, target, weight, log_target):
    if log_target > 0:
        return math.exp(target) * (target - x + type(x)(1))
    return math.log(target) - x + type(x)(1)


@dense
def kl_div(x: Array, target: Array, y: Out, log_target: bool, scale: float) -> Array:
    """y = scale p (log p - x): x is a log-probability, and target is p, or log p on log_target."""
    return _forward(_kl, x, target, y, scale, setting=log_target)


@dense
def kl_div_grad_x(
    dy: Array, target: Array, dx: Out, log_target: bool, scale: float, add: bool
) -> Array:
    """dx = -scale dy p."""
    return _backward(_kl_grad_x, dy, target, target, dx, scale, add, setting=log_target)


@dense
def kl_div_grad_target(
    dy: Array, x: Array, target: Array, dtarget: Out, log_target: bool, scale: float, add: bool
) -> Array:
    """dtarget = scale dy (log p - x + 1), times p on log_target."""
    return _backward(_kl_grad_target, dy, x, target, dtarget, scale, add, setting=log_target)
