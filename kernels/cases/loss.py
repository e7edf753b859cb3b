"""Cases of softmax and losses."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ..roles import Array
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def reduction(v: Values) -> Values:
    """The reduction of a loss whose output is y."""
    return dict(reduction="none" if v["y"].shape else "sum")


def logits(d: Draw, shape: tuple[int, ...]) -> Array:
    large = d.mode != "smooth" and d.pick("", False, True)  # exp of these overflows
    return d.array(shape) * (200 if large else 1)


def specials(v: Values) -> list[str]:
    # exp(-200) is 0 in float32 alone, and then 0 times an infinite dy is NaN there alone
    return ["x"] if np.abs(v["x"]).max(initial=0) > 80 else ["x", "dy"]


def _log_softmax(v: SimpleNamespace, run: Any) -> Any:
    # x - log sum exp x in any order: the sum has n terms, and rounds to the size of the largest x
    top = np.abs(v.x).max(axis=-1, keepdims=True, initial=0)
    return (4 + v.x.shape[-1]) * (1 + np.abs(v.x) + top)


def _log_softmax_grad(v: SimpleNamespace, run: Any) -> Any:
    total = np.abs(v.dy).sum(axis=-1, keepdims=True)
    return (4 + v.dy.shape[-1]) * (np.abs(v.dy) + np.exp(v.y) * total)


@case(
    "log_softmax",
    bound={"log_softmax": _log_softmax, "": _log_softmax_grad},
    specials=specials,
    rejects=(bad("axis 1 is out of range for 1 dimensions", zeros(3), axis=1),),
)
def _log_softmax_case(d: Draw) -> Values:
    shape = (*d.shape(0, 2), d.size(1, 6, 300))
    return dict(x=logits(d, shape), y=Blank(shape))


def _softmax(v: SimpleNamespace, run: Any) -> Any:
    # exp takes the rounding of x - top as a relative error; the sum of n terms is one more
    gap = np.abs(v.x - v.x.max(axis=-1, keepdims=True, initial=-np.inf))
    wide = v.y * (gap + (gap * v.y).sum(axis=-1, keepdims=True))
    return (8 + v.x.shape[-1]) * v.y + 4 * wide


def _softmax_grad(v: SimpleNamespace, run: Any) -> Any:
    total = np.abs(v.dy * v.y).sum(axis=-1, keepdims=True)
    return (8 + v.dy.shape[-1]) * v.y * (np.abs(v.dy) + total)


@case(
    "softmax",
    bound={"softmax": _softmax, "": _softmax_grad},
    specials=specials,
    rejects=(bad("axis 1 is out of range for 1 dimensions", zeros(3), axis=1),),
)
def _softmax_case(d: Draw) -> Values:
    return _log_softmax_case(d)


def _cross_entropy(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # as log_softmax; the sum over rows adds one term for each
    n, classes = v.x.shape
    lse = (4 + classes) * (1 + np.abs(v.x).max(axis=-1, initial=0))
    each = 2 * abs(v.scale) * lse
    return {"lse": lse, "y": each if v.y.ndim else (1 + n) * each.sum()}


def _cross_entropy_grad(v: SimpleNamespace, run: Any) -> Any:
    # exp takes the rounding of x - lse as a relative error; then 1 may cancel at the label
    gap = v.x - v.lse[:, None]
    slope = np.exp(gap) * (1 + np.abs(gap)) + (np.arange(v.x.shape[1]) == v.label[:, None])
    return 8 * abs(v.scale) * np.abs(v.dy[..., None]) * slope


@case(
    "cross_entropy",
    static=reduction,
    bound={"cross_entropy": _cross_entropy, "": _cross_entropy_grad},
    specials=specials,
    rejects=(
        bad("label 2 is out of range for 2 classes (x (1, 2), label (1,))",
            zeros(1, 2), np.array([2])),
        bad("label is one-hot", zeros(3, 4), np.eye(4, dtype=np.int64)[:3]),
        bad("one label per row of x is needed", zeros(2, 9), np.array([1])),
        bad("label is float32, but must be integers", zeros(3, 4), zeros(3), error=TypeError),
    ),
)  # fmt: skip
def _cross_entropy_case(d: Draw) -> Values:
    n, c = d.batch(), d.size(1, 6, 300)
    y = Blank(d.pick("y", (), (n,)))
    label, scale = d.integers((n,), 0, c), d.pick("scale", 1.0, 1 / max(n, 1), 0.3)
    return dict(x=logits(d, (n, c)), label=label, y=y, lse=Blank((n,)), scale=scale)
