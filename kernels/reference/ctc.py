"""Connectionist temporal classification: sequences of labels without saying when each one comes.

Graves, Fernandez, Gomez and Schmidhuber, "Connectionist Temporal Classification", ICML 2006. A
network says at every step how probable each label is, and a blank. A path takes one of them a step;
what it spells is found by dropping repetitions first and then blanks. The probability of a target
is that of all paths that spell it. They walk through its 2 S + 1 states, the labels with a blank
before, between and behind them: at each step they stay, go on by one, or leave out a blank between
two labels that differ. All in logarithms.
"""

import numpy as np

from ..roles import Array, Out
from .elementwise import quiet, store


@quiet
def ctc_loss(
    x: Array, target: Array, input_length: Array, target_length: Array,
    y: Out, nll: Out, alpha: Out, blank: int, zero_infinity: bool, mean: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """nll = -log(sum over all paths that spell the target of the product of exp x along the path).

    x (T, N, C) log-probabilities, of which the first input_length (N,) steps count; target (N, S)
    labels, of which the first target_length (N,) count, none of them the blank
    -> y (N,) = nll, or 0 where zero_infinity and it is inf; or the sum of these (); on mean of each
    by its number of labels, at least 1, and by N;
    nll (N,); alpha (N, T, 2 S + 1) = log(sum over paths up to a step that end in a state)
    """
    n, _, states = alpha.shape
    label, skip, last = _states(target, target_length, states, blank)
    row, none = np.arange(n)[:, None], alpha.dtype.type(-np.inf)
    before = np.full((n, states), none)
    before[:, 0] = 0
    for t, now in enumerate(x):
        counts = (t < input_length[:, None]) & (np.arange(states) <= last)
        came = np.logaddexp(before, _moved(before, 1))
        came = np.logaddexp(came, np.where(skip, _moved(before, 2), none))
        alpha[:, t] = np.where(counts, now[row, label] + came, none)
        before = np.where(t < input_length[:, None], alpha[:, t], before)
    ends = np.where(last > 0, before[row, np.maximum(last - 1, 0)], none)
    nll[...] = -np.logaddexp(before[row, last], ends)[:, 0]
    loss = np.where(zero_infinity & (nll == np.inf), nll.dtype.type(0), nll)
    y[...] = loss if y.ndim else _shares(loss, target_length, mean).sum() / (n if mean else 1)
    return y, nll, alpha


@quiet
def ctc_loss_grad(
    dy: Array, x: Array, target: Array, input_length: Array, target_length: Array,
    nll: Array, alpha: Array, dx: Out, blank: int, zero_infinity: bool, mean: bool, add: bool,
) -> Array:  # fmt: skip
    """dx = -dy times how probable it is, given the target, that a path is at this label then.

    That is the sum over the label's states of exp(alpha + beta + nll), beta being alpha from the
    end, without the step itself. NaN where nll is inf and not zero_infinity: no path spells the
    target.
    """
    n, _, states = alpha.shape
    label, skip, last = _states(target, target_length, states, blank)
    row, none, state = np.arange(n)[:, None], alpha.dtype.type(-np.inf), np.arange(states)
    mean = mean and not dy.ndim
    slope = _shares(np.broadcast_to(dy / (n if mean else 1), (n,)), target_length, mean)
    zero = zero_infinity & (nll == np.inf)
    value, beta, ahead = np.zeros_like(dx), np.full((n, states), none), np.full((n, states), none)
    for t in reversed(range(len(x))):
        go = np.logaddexp(ahead, _moved(ahead, -1))
        go = np.logaddexp(go, _moved(np.where(skip, ahead, none), -2))
        ends = np.where((last - state == 0) | (last - state == 1), alpha.dtype.type(0), none)
        beta = np.where(t == input_length[:, None] - 1, ends, go)
        counts = (t < input_length[:, None]) & (state <= last) & ~zero[:, None]
        ahead = np.where(state <= last, beta + x[t][row, label], none)
        seen = np.where(counts, np.exp(alpha[:, t] + beta + nll[:, None]), alpha.dtype.type(0))
        np.add.at(value[t], (row, label), -slope[:, None] * seen)
    return store(value, dx, add)


def _states(
    target: Array, target_length: Array, states: int, blank: int
) -> tuple[Array, Array, Array]:
    """The label of each state (N, 2 S + 1), whether it can be reached from two before, the last."""
    label = np.full((len(target), states), blank, np.int64)
    inside = np.arange(target.shape[1]) < target_length[:, None]
    label[:, 1::2] = np.where(inside, target, blank)  # what stands behind the target is not read
    skip = np.zeros(label.shape, bool)
    skip[:, 2:] = (label[:, 2:] != blank) & (label[:, 2:] != label[:, :-2])
    return label, skip, 2 * target_length[:, None].astype(np.int64)


def _moved(x: Array, by: int) -> Array:
    """x (N, L) with each row moved by so many places to the right, -inf coming in."""
    y = np.full_like(x, -np.inf)
    if by > 0:
        y[:, by:] = x[:, :-by]
    else:
        y[:, :by] = x[:, -by:]
    return y


def _shares(each: Array, target_length: Array, mean: bool) -> Array:
    """each (N,), on mean by the number of labels, at least 1."""
    return (each / np.maximum(target_length, 1)).astype(each.dtype) if mean else each
