"""Recurrent layers: a product of matrices for each step, and one pass for all else of it."""

import numpy as np

from .. import reference
from ..roles import Array, Out
from . import maths
from ._numba import loop, widest
from .linear import linear, linear_grad_w, linear_grad_x
from .memory import canonical, rare, settle, space, target
from .reduce import sum_rows

_ONE = np.float32(1)
_EACH = 8  # what a number of a state costs, in elements of a plain pass
# numbers of this file's working space, which `linear` must not use meanwhile
_STATE, _INNER, _SENT, _BEFORE, _Y, _GATES = range(10, 16)


def gru(
    x: Array, h: Array | None, w: Array, b: Array | None, y: Out, gates: Out, reverse: bool
) -> tuple[Array, Array]:
    """y[:, t] = (1 - z) n + z p, where p is y of the step before, at first h; None is 0."""
    if rare(x, y):
        return reference.gru(x, h, w, b, y, gates, reverse)
    n, steps, size = y.shape
    x, w, b = canonical(x), canonical(w), None if b is None else canonical(b)
    out, kept = target(y, nth=_Y), target(gates, nth=_GATES)
    state, inner = _first(h, n, size), space(_INNER, (n, 3 * size))
    for t in reversed(range(steps)) if reverse else range(steps):
        linear(state, w, b, inner, False)
        _step(n, _EACH * state.size, t, x, inner, state, kept, out)
    return settle(out, y), settle(kept, gates)


def gru_grad(
    dy: Array, h: Array | None, w: Array, y: Array, gates: Array,
    dx: Out, dh: Out, dw: Out, db: Out, reverse: bool, add: tuple[bool, bool, bool, bool],
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Gradients of gru, of which those that are None are not wanted."""
    if rare(dy, y):
        return reference.gru_grad(dy, h, w, y, gates, dx, dh, dw, db, reverse, add)
    n, steps, size = y.shape
    dy, w, y, gates = (canonical(a) for a in (dy, w, y, gates))
    slope = space(_Y, (n, steps, 3 * size)) if dx is None else target(dx, add[0], _Y)
    sent, before = space(_SENT, (steps, n, 3 * size)), space(_BEFORE, (steps, n, size))
    before[-1 if reverse else 0] = 0 if h is None else h
    earlier, later = slice(None, -1), slice(1, None)
    to, of = (earlier, later) if reverse else (later, earlier)
    before[to] = y.swapaxes(0, 1)[of]
    back = _first(None, n, size)
    for t in range(steps) if reverse else reversed(range(steps)):
        _step_grad(n, _EACH * back.size, t, dy, gates, before[t], back, slope, sent[t])
        linear_grad_x(sent[t], w, back, True)
    rows, before = sent.reshape(-1, 3 * size), before.reshape(-1, size)
    if dx is not None:
        settle(slope, dx, add[0])
    if dh is not None:
        settle(back, dh, add[1])
    if dw is not None:
        linear_grad_w(rows, before, dw, add[2])
    if db is not None:
        sum_rows(rows, db, add[3])
    return dx, dh, dw, db


def _first(h: Array | None, n: int, size: int) -> Array:
    state = space(_STATE, (n, size))
    state[...] = 0 if h is None else h
    return state


@loop
def _step(start, stop, t, x, inner, state, gates, y):
    widest()
    size = state.shape[1]
    for n in range(start, stop):
        enters, own, gate, p, out = x[n, t], inner[n], gates[n, t], state[n], y[n, t]
        # a loop each for few arrays: LLVM asks of every two whether they overlap
        for j in range(2 * size):
            gate[j] = _ONE / (_ONE + maths.exp(-(enters[j] + own[j])))
        new, q, last = gate[2 * size : 3 * size], gate[3 * size :], enters[2 * size :]
        for j in range(size):
            q[j] = own[2 * size + j]
        for j in range(size):
            new[j] = maths.tanh(last[j] + gate[j] * q[j])
        for j in range(size):
            z = gate[size + j]
            p[j] = (_ONE - z) * new[j] + z * p[j]
        for j in range(size):
            out[j] = p[j]


@loop
def _step_grad(start, stop, t, dy, gates, before, back, slope, sent):
    widest()
    size = before.shape[1]
    for n in range(start, stop):
        gate, p, e, dx, s = gates[n, t], before[n], back[n], slope[n, t], sent[n]
        r, z, upper = gate[:size], gate[size : 2 * size], dy[n, t]
        new, q = gate[2 * size : 3 * size], gate[3 * size :]
        for j in range(size):
            e[j] += upper[j]
        for j in range(size):
            dx[size + j] = e[j] * (p[j] - new[j]) * (z[j] * (_ONE - z[j]))
        for j in range(size):
            dx[2 * size + j] = e[j] * (_ONE - z[j]) * ((_ONE - new[j]) * (_ONE + new[j]))
        for j in range(size):
            dx[j] = dx[2 * size + j] * q[j] * (r[j] * (_ONE - r[j]))
        for j in range(2 * size):
            s[j] = dx[j]
        for j in range(size):
            s[2 * size + j] = dx[2 * size + j] * r[j]
        for j in range(size):
            e[j] *= z[j]
