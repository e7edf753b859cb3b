"""CTC: a block takes a sequence, its threads the states of a step.

A length or a label that is out of range gives NaN, never a stranger's memory.
"""

import math

import numpy as np

from ..roles import Array, Out
from . import memory
from ._numba import blocks, cuda, device, jit
from .intrinsics import plus
from .layout import THREADS, WARP
from .likelihood import place, tiles
from .loss import sum_losses
from .move import dense
from .rows import threads_of_rows


def _threads(states: int) -> int:
    """A thread for each state, as far as there are, in whole warps."""
    return min(-(-states // WARP) * WARP, THREADS)


@device
def _either(a, b):
    """log(e ** a + e ** b)."""
    gap = type(a)(0) if a == b else -math.fabs(a - b)  # of equal infinities, too
    return max(a, b) + math.log1p(math.exp(gap))


@device
def _leaps(target, n, s):
    """Whether state s can be reached from two before it: from another label."""
    return s & 1 == 1 and s > 2 and target[n, s >> 1] != target[n, (s >> 1) - 1]


@device
def _value(x, target, t, n, s, blank):
    """The log-probability of state s at step t."""
    c = np.int64(target[n, s >> 1]) if s & 1 else blank
    return x[t, n, c] if 0 <= c < x.shape[2] else x.dtype.type(math.nan)


@device
def _lengths(x, target, input_length, target_length, n):
    """How many steps count, the last state, and whether both are possible."""
    steps, labels = np.int64(input_length[n]), np.int64(target_length[n])
    fine = 0 <= steps <= x.shape[0] and 0 <= labels <= target.shape[1]
    return (steps, 2 * labels, fine) if fine else (np.int64(0), np.int64(0), fine)


@jit
def _alphas(x, target, input_length, target_length, nll, alpha, blank):
    """A block goes through all steps of a sequence; a thread computes states of each."""
    n, real = cuda.blockIdx.x, x.dtype.type
    steps, last, fine = _lengths(x, target, input_length, target_length, n)
    none = real(-math.inf)
    for t in range(x.shape[0]):
        s = cuda.threadIdx.x
        while s < alpha.shape[2]:
            came = none
            if t < steps and s <= last:
                if t == 0:
                    came = real(0) if s < 2 else none
                else:
                    came = alpha[n, t - 1, s]
                    if s > 0:
                        came = _either(came, alpha[n, t - 1, s - 1])
                    if _leaps(target, n, s):
                        came = _either(came, alpha[n, t - 1, s - 2])
                came += _value(x, target, t, n, s, blank)
            alpha[n, t, s] = came
            s += cuda.blockDim.x
        cuda.syncthreads()  # this step is whole
    if cuda.threadIdx.x == 0:
        total = real(0) if last == 0 else none
        if steps > 0:
            total = alpha[n, steps - 1, last]
            if last > 0:
                total = _either(total, alpha[n, steps - 1, last - 1])
        nll[n] = -total if fine else real(math.nan)


@device
def _share(value, target_length, n, mean):
    """value, by the number of labels of sequence n, at least 1, where the mean is wanted."""
    return value / type(value)(max(np.int64(target_length[n]), 1)) if mean else value


@jit
def _losses(nll, target_length, loss, zero, mean):
    """A thread takes a sequence."""
    n = cuda.grid(1)
    if n < nll.size:
        value = nll[n]
        if zero and value == nll.dtype.type(math.inf):
            value = nll.dtype.type(0)
        loss[n] = _share(value, target_length, n, mean)


@dense
def ctc_loss(
    x: Array, target: Array, input_length: Array, target_length: Array,
    y: Out, nll: Out, alpha: Out, blank: int, zero_infinity: bool, mean: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """nll = -log(sum over all paths that spell the target of the product of exp x along a path)."""
    n, _, states = alpha.shape
    mean = mean and not y.ndim
    _alphas[n, _threads(states)](x, target, input_length, target_length, nll, alpha, blank)
    loss = y if y.ndim else memory.scratch((n,), y.dtype)
    _losses[blocks(n, THREADS), THREADS](nll, target_length, loss, zero_infinity, mean)
    if not y.ndim:
        _, block, bits = threads_of_rows(1, n)
        sum_losses[1, block](loss, y.reshape(1), _scale(n, mean), bits)
    return y, nll, alpha


def _scale(count: int, mean: bool) -> float:
    return 1.0 if not mean else 1 / count if count else math.nan  # the mean of none


@jit
def _betas(x, target, input_length, target_length, nll, alpha, beta, seen, blank, zero):
    """A block goes back through all steps of a sequence; a thread computes states of each.

    beta has the step before, the value of the state itself counted in, and this one, in turns.
    """
    n, real = cuda.blockIdx.x, x.dtype.type
    steps, last, _ = _lengths(x, target, input_length, target_length, n)
    none, left_out = real(-math.inf), zero and nll[n] == real(math.inf)
    for back in range(x.shape[0]):
        t = x.shape[0] - 1 - back
        s = cuda.threadIdx.x
        while s < alpha.shape[2]:
            chance = real(0)
            if t < steps and s <= last and not left_out:
                if t == steps - 1:
                    go = real(0) if s >= last - 1 else none
                else:
                    go = beta[n, (t + 1) & 1, s]
                    if s < last:
                        go = _either(go, beta[n, (t + 1) & 1, s + 1])
                    if s < last - 1 and _leaps(target, n, s + 2):
                        go = _either(go, beta[n, (t + 1) & 1, s + 2])
                chance = math.exp(alpha[n, t, s] + go + nll[n])
                beta[n, t & 1, s] = go + _value(x, target, t, n, s, blank)
            seen[n, t, s] = chance
            s += cuda.blockDim.x
        cuda.syncthreads()  # this step is whole, and nobody reads the other one any more


@jit
def _slopes(dy, target, input_length, target_length, seen, dx, blank, scale, mean, add):
    """A thread computes one element of dx: it looks for the states of its label, in their order."""
    row, c = place()
    if row >= dx.shape[0] * dx.shape[1] or c >= dx.shape[2]:
        return
    t = row // dx.shape[1]
    n = row - t * dx.shape[1]
    _, last, fine = _lengths(dx, target, input_length, target_length, n)
    total = dx.dtype.type(0) if fine else dx.dtype.type(math.nan)
    for s in range(0, last + 1, 2):
        if c == blank:
            total += seen[n, t, s]
        elif s < last and target[n, s >> 1] == c:
            total += seen[n, t, s + 1]
    value = -_share(dy[n if dy.size > 1 else 0] * scale, target_length, n, mean) * total
    dx[t, n, c] = plus(dx[t, n, c], value) if add else value


@dense
def ctc_loss_grad(
    dy: Array, x: Array, target: Array, input_length: Array, target_length: Array,
    nll: Array, alpha: Array, dx: Out, blank: int, zero_infinity: bool, mean: bool, add: bool,
) -> Array:  # fmt: skip
    """dx = -dy times how probable it is, given the target, that a path is at this label then."""
    n, _, states = alpha.shape
    beta, seen = memory.scratch((n, 2, states), x.dtype), memory.scratch(alpha.shape, x.dtype)
    given, mean = (target, input_length, target_length), mean and not dy.ndim
    _betas[n, _threads(states)](x, *given, nll, alpha, beta, seen, blank, zero_infinity)
    grid, block = tiles(dx.shape[0] * n, dx.shape[2])
    _slopes[grid, block](dy.reshape(-1), *given, seen, dx, blank, _scale(n, mean), mean, add)
    return dx
