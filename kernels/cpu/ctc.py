"""CTC, a sequence at a time: its states are few, and NumPy would pass over them many times."""

import numpy as np

from .. import reference
from ..roles import Array, Out
from . import maths, memory
from ._numba import callable_within, jit, loop, widest
from .memory import ZERO, canonical, rare, settle, space

_NONE, _INF = np.float32(-np.inf), np.float32(np.inf)
_EACH = 16  # what a state costs at each step, in elements of a plain pass
_ALPHA, _NLL, _ROWS, _LEAPS = range(2, 6)  # numbers of working space


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
    _alphas(len(each), _EACH * kept.size, x, *integers, each, kept, *_rows(alpha), blank)
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
    arrays = canonical(slope.astype(np.float32)), canonical(x), *integers, canonical(nll)
    out[...] = 0
    how = *_rows(alpha), blank, zero_infinity
    _betas(len(nll), _EACH * alpha.size, *arrays, canonical(alpha), out, *how)
    return settle(out, dx, add)


def _shares(each: Array, target_length: Array, mean: bool) -> Array:
    """each (N,), on mean by the number of labels, at least 1."""
    return each / np.maximum(target_length, 1) if mean else each


def _rows(alpha: Array) -> tuple[Array, Array]:
    """Working space of each sequence: four rows of numbers, one of truths, two places longer."""
    n, _, states = alpha.shape
    return space(_ROWS, (n, 4, states + 2)), space(_LEAPS, (n, states + 2), np.bool_)


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
    return (a if a > b else b) + maths.log1p(maths.exp(gap))


@jit
def _leaps(label, last, leap):
    """For each state whether it can be reached from two before it: from another label."""
    leap[:] = False
    for s in range(3, last, 2):
        leap[s] = label[s >> 1] != label[(s >> 1) - 1]


@jit
def _emitted(scores, label, last, blank, emit):
    """The log-probability of each state at a step."""
    for s in range(0, last, 2):
        emit[s], emit[s + 1] = scores[blank], scores[label[s >> 1]]
    emit[last] = scores[blank]


@loop
def _alphas(start, stop, x, target, input_length, target_length, nll, alpha, rows, leaps, blank):
    widest()
    for n in range(start, stop):
        last, emit, leap = 2 * target_length[n], rows[n, 0], leaps[n]
        before = rows[n, 1]  # the step before, behind two states that nobody is in
        _leaps(target[n], last, leap)
        before[:] = alpha[n] = _NONE
        before[2] = ZERO  # in no state yet, and so in the first two at the first step
        for t in range(input_length[n]):
            now = alpha[n, t]
            _emitted(x[t, n], target[n], last, blank, emit)
            for s in range(last + 1):
                two = before[s] if leap[s] else _NONE
                now[s] = emit[s] + _either(_either(before[s + 2], before[s + 1]), two)
            for s in range(last + 1):
                before[s + 2] = now[s]
        nll[n] = -_either(before[last + 2], before[last + 1])


@loop
def _betas(
    start, stop, slope, x, target, input_length, target_length, nll, alpha, dx, rows, leaps, blank,
    zero,
):  # fmt: skip
    widest()
    for n in range(start, stop):
        last, emit, leap, upper = 2 * target_length[n], rows[n, 0], leaps[n], nll[n]
        go, seen = rows[n, 2], rows[n, 3]
        ahead = rows[n, 1]  # the step behind, before two states that nobody is in
        _leaps(target[n], last, leap)
        ahead[:] = _NONE
        ahead[last] = ZERO
        for t in range(-1 if zero and upper == _INF else input_length[n] - 1, -1, -1):
            now = alpha[n, t]
            _emitted(x[t, n], target[n], last, blank, emit)
            for s in range(last + 1):
                two = ahead[s + 2] if leap[s + 2] else _NONE
                go[s] = _either(_either(ahead[s], ahead[s + 1]), two)
            for s in range(last + 1):
                ahead[s] = go[s] + emit[s]
            for s in range(last + 1):
                seen[s] = maths.exp(now[s] + go[s] + upper) * slope[n]
            for s in range(0, last, 2):
                dx[t, n, blank] -= seen[s]
                dx[t, n, target[n, s >> 1]] -= seen[s + 1]
            dx[t, n, blank] -= seen[last]
