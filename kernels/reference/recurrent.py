"""Recurrent layers: what they remember of a sequence, computed step by step."""

import numpy as np

from ..roles import Array, Out
from .elementwise import quiet, store


@quiet
def gru(
    x: Array, h: Array | None, w: Array, b: Array | None, y: Out, gates: Out, reverse: bool
) -> tuple[Array, Array]:
    """y[:, t] = (1 - z) n + z p, where p is y of the step before, at first h; None is 0.

    r = sigmoid(x_r + p w_r + b_r), z = sigmoid(x_z + p w_z + b_z), n = tanh(x_n + r q) with
    q = p w_n + b_n. reverse: from the last step to the first. Cho et al., "Learning Phrase
    Representations using RNN Encoder-Decoder", 2014, in the form of cuDNN and PyTorch.

    x (N, T, 3 H), h (N, H), w (H, 3 H), b (3 H,): r, z and n side by side
    -> y (N, T, H), gates (N, T, 4 H): r, z, n and q of every step
    """
    n, steps, size = y.shape
    state = np.zeros((n, size), x.dtype) if h is None else h
    for t in reversed(range(steps)) if reverse else range(steps):
        inner = state @ w if b is None else state @ w + b
        r, z = (
            1 / (1 + np.exp(-(x[:, t, part] + inner[:, part])))
            for part in (slice(size), slice(size, 2 * size))
        )
        q = inner[:, 2 * size :]
        new = np.tanh(x[:, t, 2 * size :] + r * q)
        state = (1 - z) * new + z * state
        y[:, t], gates[:, t] = state, np.concatenate([r, z, new, q], axis=1)
    return y, gates


@quiet
def gru_grad(
    dy: Array, h: Array | None, w: Array, y: Array, gates: Array,
    dx: Out, dh: Out, dw: Out, db: Out, reverse: bool, add: tuple[bool, bool, bool, bool],
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Gradients of gru, of which those that are None are not wanted.

    Backwards in time with e = dy[:, t] + what later steps send back:
    dx = (a_r, a_z, a_n), where a_n = e (1 - z)(1 - n n), a_z = e (p - n) z (1 - z) and
    a_r = a_n q r (1 - r); with s = (a_r, a_z, a_n r) it sends back e z + s w',
    and dw = sum of p' s, db = sum of s.
    """
    n, length, size = y.shape
    steps, sent = range(length), np.empty((n, length, 3 * size), y.dtype)
    slope, inner, back = np.empty_like(sent), np.empty_like(y), np.zeros((n, size), y.dtype)
    first = back if h is None else h
    for t in steps if reverse else reversed(steps):
        r, z, new, q = np.split(gates[:, t], 4, axis=1)
        before = t + 1 if reverse else t - 1
        p = y[:, before] if before in steps else first
        e = dy[:, t] + back
        a_n = e * (1 - z) * ((1 - new) * (1 + new))
        a_z, a_r = e * (p - new) * (z * (1 - z)), a_n * q * (r * (1 - r))
        slope[:, t] = np.concatenate([a_r, a_z, a_n], axis=1)
        sent[:, t] = np.concatenate([a_r, a_z, a_n * r], axis=1)
        inner[:, t], back = p, e * z + sent[:, t] @ w.T
    sent, inner = sent.reshape(-1, 3 * size), inner.reshape(-1, size)
    found = slope, back, inner.T @ sent, sent.sum(axis=0)
    for value, out, adds in zip(found, (dx, dh, dw, db), add):
        if out is not None:
            store(value, out, adds)
    return dx, dh, dw, db
