"""Cases of recurrent layers."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ..roles import Array
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _steps(v: SimpleNamespace, backward: bool) -> Any:
    """The steps in order, each with the one before it in time, or None for the first."""
    order = list(range(v.y.shape[1]))[:: -1 if v.reverse else 1]
    pairs = list(zip(order, [None, *order]))
    return reversed(pairs) if backward else pairs


def _gru(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # An error e of a state is one of e |w| in what enters a gate, beside (4 + H) eps of the sum of
    # magnitudes there. sigmoid passes a quarter of it on, tanh all, and each of the few operations
    # behind it adds its rounding.
    n, _, size = v.y.shape
    w, b = np.abs(v.w), 0 if v.b is None else np.abs(v.b)
    first = np.zeros((n, size)) if v.h is None else np.abs(v.h)
    y, gates, e = np.zeros_like(v.y), np.zeros_like(v.gates), np.zeros((n, size))
    for t, before in _steps(v, backward=False):
        p = first if before is None else np.abs(v.y[:, before])
        r, z, new, q = np.split(np.abs(v.gates[:, t]), 4, axis=1)
        inner = e @ w + (4 + size) * (p @ w + b)
        e_r, e_z = (
            8 * gate + (inner[:, part] + 4 * np.abs(v.x[:, t, part])) / 4
            for gate, part in ((r, slice(size)), (z, slice(size, 2 * size)))
        )
        e_q, enters = inner[:, 2 * size :], np.abs(v.x[:, t, 2 * size :]) + r * q
        e_new = 8 * new + e_r * q + r * e_q + 4 * enters
        e = e_z * (new + p) + (1 - z) * e_new + z * e + 8 * (new + p)
        y[:, t], gates[:, t] = e, np.concatenate([e_r, e_z, e_new, e_q], axis=1)
    return {"y": y, "gates": gates}


def _gru_grad(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # The formula on magnitudes, where differences become sums; a number takes part in some 3 H + 16
    # roundings at each step through which it is sent back, and dw and db add up N T of them.
    n, steps, size = v.y.shape
    first = np.zeros((n, size)) if v.h is None else np.abs(v.h)
    dx, sent = (np.zeros((n, steps, 3 * size)) for _ in "xs")
    inner, back = np.zeros_like(v.y), np.zeros((n, size))
    for t, before in _steps(v, backward=True):
        r, z, new, q = np.split(np.abs(v.gates[:, t]), 4, axis=1)
        p = first if before is None else np.abs(v.y[:, before])
        e = np.abs(v.dy[:, t]) + back
        a_n, a_z = e * (1 - z) * (1 + new) * np.abs(1 - new), e * (p + new) * z * (1 - z)
        a_r = a_n * q * r * (1 - r)
        dx[:, t] = np.concatenate([a_r, a_z, a_n], axis=1)
        sent[:, t] = np.concatenate([a_r, a_z, a_n * r], axis=1)
        inner[:, t], back = p, e * z + sent[:, t] @ np.abs(v.w).T
    k, sent = 8 + steps * (3 * size + 16), sent.reshape(-1, 3 * size)
    dw, db = inner.reshape(-1, size).T @ sent, sent.sum(axis=0)
    dw, db = (k + n * steps) * dw, (k + n * steps) * db
    return {"dx": k * dx, "dh": k * back, "dw": dw, "db": db}


@case(
    "gru",
    bound={"gru": _gru, "": _gru_grad},
    blas=True,
    specials=lambda v: ["x", "h", "dy"],
    rejects=(
        bad("x and w have 6 and 9 columns, but 3 gates of 3 need 3 H (x (1, 2, 6), w (3, 9))",
            zeros(1, 2, 6), None, zeros(3, 9)),
        bad("x has 2 dimensions, but a batch of sequences", zeros(2, 6), None, zeros(2, 6)),
        bad("h needs a state of 2 numbers", zeros(1, 2, 6), zeros(2, 2), zeros(2, 6)),
        bad("b needs one number", zeros(1, 2, 6), None, zeros(2, 6), zeros(2)),
        bad("the sequences have no steps", zeros(1, 0, 6), None, zeros(2, 6)),
    ),
)  # fmt: skip
def _gru_case(d: Draw) -> Values:
    n, steps, size = d.batch(), d.size(1, 4, 9), d.size(1, 5, 40)
    h = d.pick("h", None, True) and d.array((n, size))
    b = d.pick("b", None, True) and d.array((3 * size,))
    # as trained ones are: with larger weights a rounding error grows from step to step
    w = (d.array((size, 3 * size)) / 2 / np.sqrt(size)).astype(d.dtype)
    outs = dict(y=Blank((n, steps, size)), gates=Blank((n, steps, 4 * size)))
    x = d.array((n, steps, 3 * size))
    return dict(x=x, h=h, w=w, b=b, reverse=d.pick("reverse", False, True)) | outs
