"""Recurrent layers: a block takes a sequence from its first step to its last, in one launch.

The sequences of a batch do not wait for each other, and a step of one is short; so what would cost
is a launch for each step, not that each block reads the weights, which stay in the second-level
cache.
"""

import math

from ..roles import Array, Out
from . import memory
from ._numba import cuda, device, jit
from .intrinsics import plus
from .layout import WARP
from .linear import linear_grad_w
from .move import copy, dense, fill
from .reduce import sum_rows

MOST_THREADS = 512  # of a block: more could not have the registers that exp and tanh need


def _threads(size: int) -> int:
    """A thread for each number of a state, as far as there are, in whole warps."""
    return min(-(-max(size, 1) // WARP) * WARP, MOST_THREADS)


@device
def _sigmoid(x):
    one = type(x)(1)
    return one / (one + math.exp(-x))


@jit
def _gru(x, state, w, b, y, gates, reverse):
    """A block computes all steps of a sequence; a thread numbers of the state, each with its gates.

    It reads the last state number by number, as its neighbours do, and beside them along w's rows.
    The last state and the one that comes to be take the two rows of `state` in turns.
    """
    n, size = cuda.blockIdx.x, y.shape[2]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for step in range(y.shape[1]):
        t = y.shape[1] - 1 - step if reverse else step
        j = cuda.threadIdx.x
        while j < size:
            in_r = in_z = q = zero
            for i in range(size):
                p = state[n, step & 1, i]
                in_r += p * w[i, j]
                in_z += p * w[i, size + j]
                q += p * w[i, 2 * size + j]
            if b.size:
                in_r, in_z, q = in_r + b[j], in_z + b[size + j], q + b[2 * size + j]
            r = _sigmoid(x[n, t, j] + in_r)
            z = _sigmoid(x[n, t, size + j] + in_z)
            new = math.tanh(x[n, t, 2 * size + j] + r * q)
            gates[n, t, j], gates[n, t, size + j] = r, z
            gates[n, t, 2 * size + j], gates[n, t, 3 * size + j] = new, q
            value = (one - z) * new + z * state[n, step & 1, j]
            y[n, t, j] = state[n, (step + 1) & 1, j] = value
            j += cuda.blockDim.x
        cuda.syncthreads()  # this state is whole, and the last one is read


@dense
def gru(
    x: Array, h: Array | None, w: Array, b: Array | None, y: Out, gates: Out, reverse: bool
) -> tuple[Array, Array]:
    """y[:, t] = (1 - z) n + z p, where p is y of the step before, at first h; None is 0."""
    n, _, size = y.shape
    state = memory.scratch((n, 2, size), x.dtype)
    _begin(h, state[:, 0])
    b = memory.scratch((0,), x.dtype) if b is None else b
    _gru[n, _threads(size)](x, state, w, b, y, gates, reverse)
    return y, gates


def _begin(h: Array | None, state: Array) -> None:
    """The state before the first step."""
    if h is None:
        fill(state, 0.0)
    else:
        copy(h, state, False)


@jit
def _gru_grad(dy, before, turned, gates, dx, sent, back, reverse, add):
    """A block goes back through all steps of a sequence; a thread has numbers of its state.

    They send back what other numbers of the last state have a part in, so these add it up: along
    rows of w', where neighbours read side by side.
    """
    n, size = cuda.blockIdx.x, dy.shape[2]
    zero, one = dy.dtype.type(0), dy.dtype.type(1)
    j = cuda.threadIdx.x
    while j < size:
        back[n, j] = zero
        j += cuda.blockDim.x
    for step in range(dy.shape[1]):
        t = step if reverse else dy.shape[1] - 1 - step
        j = cuda.threadIdx.x
        while j < size:
            r, z = gates[n, t, j], gates[n, t, size + j]
            new, q = gates[n, t, 2 * size + j], gates[n, t, 3 * size + j]
            e = dy[n, t, j] + back[n, j]
            a_n = e * (one - z) * ((one - new) * (one + new))
            a_z = e * (before[n, t, j] - new) * (z * (one - z))
            a_r = a_n * q * (r * (one - r))
            sent[n, t, j], sent[n, t, size + j], sent[n, t, 2 * size + j] = a_r, a_z, a_n * r
            if dx.size:
                dx[n, t, j] = plus(dx[n, t, j], a_r) if add else a_r
                dx[n, t, size + j] = plus(dx[n, t, size + j], a_z) if add else a_z
                dx[n, t, 2 * size + j] = plus(dx[n, t, 2 * size + j], a_n) if add else a_n
            back[n, j] = e * z
            j += cuda.blockDim.x
        cuda.syncthreads()  # all that is sent back from this step is there
        j = cuda.threadIdx.x
        while j < size:
            total = back[n, j]
            for i in range(3 * size):
                total += sent[n, t, i] * turned[i, j]
            back[n, j] = total
            j += cuda.blockDim.x


@dense
def gru_grad(
    dy: Array, h: Array | None, w: Array, y: Array, gates: Array,
    dx: Out, dh: Out, dw: Out, db: Out, reverse: bool, add: tuple[bool, bool, bool, bool],
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Gradients of gru, of which those that are None are not wanted."""
    n, _, size = y.shape
    before, sent = (memory.scratch((*y.shape[:2], k * size), y.dtype) for k in (1, 3))
    turned, back = memory.scratch((3 * size, size), y.dtype), memory.scratch((n, size), y.dtype)
    copy(w.T, turned, False)
    if reverse:
        copy(y[:, 1:], before[:, :-1], False)
    else:
        copy(y[:, :-1], before[:, 1:], False)
    _begin(h, before[:, -1 if reverse else 0])
    out = memory.scratch((0, 0, 0), y.dtype) if dx is None else dx
    _gru_grad[n, _threads(size)](dy, before, turned, gates, out, sent, back, reverse, add[0])
    rows, before = sent.reshape(-1, 3 * size), before.reshape(-1, size)
    if dh is not None:
        copy(back, dh, add[1])
    if dw is not None:
        linear_grad_w(rows, before, dw, add[2])
    if db is not None:
        sum_rows(rows, db, add[3])
    return dx, dh, dw, db
