"""CTC, a sequence at a time: its states are few, and NumPy would pass over them many times."""

import numpy as np

from .. import reference
from ..roles import Array, Out
from . import maths, memory
from ._numba import callable_within, jit, loop
from .memory import ZERO, canonical, rare, settle, space

_NONE, _INF = np.float32(-np.inf), np.float32(np.inf)
_EACH = 16  # what a state costs at each step, in elements of a plain pass
_ALPHA, _NLL, _BETA = range(2, 5)  # numbers of working space


def ctc_loss(
    x: Array, target: Array, input_length: Array, target_length: Array,
    y: Out, nll: Out, alpha: Out, blank: int, zero_infinity: bool, mean: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """nll = -log(sum over all paths that spell the target of the product of exp x along a path)."""
    integers = target, input_length, target_length
    if rare(x, nll, alpha) or any(a.dtype != np.int64 for a in integers):
        return reference.ctc_loss(x, *integers, y, nll, alpha, blank, zero_infinity, mean)
    x, integers = canonical(x), _counted(x, *integers)
    kept, each = memory.target(alpha, nth=_ALPHA), memory.target(nll, nth=_NLL)
    _alphas(len(each), _EACH * kept.size, x, *integers, each, kept, blank)
    loss = np.where(zero_infinity & (each == np.inf), ZERO, each)
    # in float64 the order of a long sum does not show
    loss = loss if y.ndim else _shares(loss, integers[2], mean).sum(dtype=np.float64)
    y[...] = loss if y.ndim or not mean else loss / len(each)
    return y, settle(each, nll), settle(kept, alpha)


def ctc_loss_grad(
    dy: Array, x: Array, target: Array, input_length: Array, target_length: Array,
    nll: Array, alpha: Array, dx: Out, blank: int, zero_infinity: bool, mean: bool, add: bool,
) -> Array:  # fmt: skip
    """dx = -dy times how probable it is, given the target, that a path is at this label then."""
    integers = target, input_length, target_length
    if rare(dy, x, dx, alpha) or any(a.dtype != np.int64 for a in integers):
        given = dy, x, *integers, nll, alpha
        return reference.ctc_loss_grad(*given, dx, blank, zero_infinity, mean, add)
    integers, out = _counted(x, *integers), memory.target(dx, add)
    mean = mean and not dy.ndim
    slope = np.broadcast_to(dy / len(nll) if mean else dy, nll.shape)
    slope = _shares(slope, integers[2], mean)
    betas = space(_BETA, (len(nll), 2, alpha.shape[2]))
    arrays = canonical(slope.astype(np.float32)), canonical(x), *integers, canonical(nll)
    out[...] = 0
    _betas(
        len(nll), _EACH * alpha.size, *arrays, canonical(alpha), betas, out, blank, zero_infinity
    )
    return settle(out, dx, add)


def _shares(each: Array, target_length: Array, mean: bool) -> Array:
    """each (N,), on mean by the number of labels, at least 1."""
    return each / np.maximum(target_length, 1) if mean else each


def _counted(x: Array, *integers: Array) -> tuple[Array, ...]:
    """Labels and lengths as compiled code takes them; IndexError where it would leave an array."""
    integers = tuple(map(canonical, integers))
    if not _inside(*x.shape, *integers):  # here, for a thread that helps cannot raise
        raise IndexError("ctc_loss: a length or a label is out of range")
    return integers


@jit
def _inside(steps, count, classes, target, input_length, target_length):
    inside = True
    for n in range(count):
        inside &= 0 <= input_length[n] <= steps and 0 <= target_length[n] <= target.shape[1]
        for i in range(target_length[n] if inside else 0):
            inside &= 0 <= target[n, i] < classes
    return inside


@callable_within
def _either(a, b):
    """log(e ** a + e ** b)."""
    gap = ZERO if a == b else -maths.fabs(a - b)  # of equal infinities, too
    return max(a, b) + maths.log1p(maths.exp(gap))


@callable_within
def _leaps(target, s):
    """Whether state s can be reached from two before it: from another label."""
    return s & 1 == 1 and s > 2 and target[s >> 1] != target[(s >> 1) - 1]


@loop
def _alphas(start, stop, x, target, input_length, target_length, nll, alpha, blank):
    for n in range(start, stop):
        label, steps, last = target[n], input_length[n], 2 * target_length[n]
        alpha[n] = _NONE
        for t in range(steps):
            for s in range(last + 1):
                came = ZERO if t == 0 and s < 2 else _NONE
                if t > 0:
                    before = alpha[n, t - 1]
                    came = before[s]
                    if s > 0:
                        came = _either(came, before[s - 1])
                    if _leaps(label, s):
                        came = _either(came, before[s - 2])
                alpha[n, t, s] = came + x[t, n, label[s >> 1] if s & 1 else blank]
        if steps == 0:
            nll[n] = ZERO if last == 0 else _INF
        else:
            total = alpha[n, steps - 1, last]
            nll[n] = -(_either(total, alpha[n, steps - 1, last - 1]) if last else total)


@loop
def _betas(
    start, stop, slope, x, target, input_length, target_length, nll, alpha, betas, dx, blank, zero
):
    for n in range(start, stop):
        label, steps, last = target[n], input_length[n], 2 * target_length[n]
        for t in range(-1 if zero and nll[n] == _INF else steps - 1, -1, -1):
            ahead, beta = betas[n, t + 1 & 1], betas[n, t & 1]
            for s in range(last + 1):
                if t == steps - 1:
                    go = ZERO if s >= last - 1 else _NONE
                else:
                    go = ahead[s]
                    if s < last:
                        go = _either(go, ahead[s + 1])
                    if s < last - 1 and _leaps(label, s + 2):
                        go = _either(go, ahead[s + 2])
                c = label[s >> 1] if s & 1 else blank
                dx[t, n, c] -= slope[n] * maths.exp(alpha[n, t, s] + go + nll[n])
                beta[s] = go + x[t, n, c]
