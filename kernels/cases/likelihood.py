"""Cases of losses on classes with weights, rows left out, smoothing, or soft targets."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ..roles import Array
from .case import bad, case, zeros
from .draw import Blank, Draw, Values
from .loss import logits, reduction

_NONE = -(2**63)  # a label that no row has


def _batch(d: Draw) -> Values:
    n, c = d.batch(), d.size(1, 6, 300)
    weight = d.pick("weight", None, (c,))
    if weight is not None:
        weight = d.array(weight, away=0.5, positive=True)
    return dict(x=logits(d, (n, c)), weight=weight, y=Blank(d.pick("y", (), (n,))))


def _labelled(d: Draw) -> Values:
    values = _batch(d)
    n, c = values["x"].shape
    ignore = d.pick("ignore", _NONE, -100, 0)
    label = d.integers((n,), 0, c)
    if ignore == -100:
        label[d.integers((n,), 0, 3) == 0] = ignore
    mean = d.pick("mean", False, True) and values["y"] == Blank(())
    mean &= d.mode != "smooth" or bool((label != ignore).any())  # the mean of no rows is NaN
    return values | dict(label=label, total=Blank(()), ignore=ignore, mean=mean)


def _reduction(v: Values) -> Values:
    mean = dict(reduction="mean") if v["mean"] else reduction(v)
    return mean | dict(ignore_index=v["ignore"])


def _shares(v: SimpleNamespace) -> Array:
    weight = np.ones(max(1, v.label.max(initial=0) + 1)) if v.weight is None else v.weight
    return np.where(v.label == v.ignore, 0, weight[np.where(v.label == v.ignore, 0, v.label)])


def _divided(each: Array, v: SimpleNamespace) -> dict[str, Array]:
    """Bounds of y and total where each loss has one, and the sums have N terms."""
    n = len(v.label)
    y = each if v.y.ndim else 4 * (1 + n) * each.sum() / v.total
    return {"y": y, "total": (1 + n) * v.total}


def _nll(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    at = np.where(v.label == v.ignore, 0, v.label)
    each = np.where(v.label == v.ignore, 0, np.abs(v.x[np.arange(len(v.x)), at]) * _shares(v))
    return _divided(4 * each, v)


def _nll_grad(v: SimpleNamespace, run: Any) -> Any:
    return 8 * np.abs(run())


@case(
    "nll_loss",
    inputs="x label",
    static=_reduction,
    bound={"nll_loss": _nll, "": _nll_grad},
    specials=lambda v: ["x", "dy"],
    rejects=(
        bad("label 2 is out of range for 2 classes", zeros(1, 2), np.array([2])),
        bad("label -100 is out of range for 2 classes (x (1, 2), label (1,)); ignore_index=-100 "
            "leaves such rows out", zeros(1, 2), np.array([-100])),
        bad("label is one-hot", zeros(3, 4), np.eye(4, dtype=np.int64)[:3]),
        bad("weight needs one number per class (x (1, 2), weight (3,))",
            zeros(1, 2), np.array([1]), zeros(3)),
    ),
)  # fmt: skip
def _nll_case(d: Draw) -> Values:
    return _labelled(d)


def _top(v: SimpleNamespace) -> Array:
    """The bound of log(sum of exp x), as for cross_entropy."""
    return (4 + v.x.shape[1]) * (1 + np.abs(v.x).max(axis=-1, initial=0))


def _weights(v: SimpleNamespace) -> Array:
    return np.ones(v.x.shape[1]) if v.weight is None else v.weight


def _weighted(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    kept = v.label != v.ignore
    whole = kept * (v.smoothing * _weights(v).mean() + _shares(v))
    each = np.where(kept, (4 + v.x.shape[1]) * whole * _top(v), 0)
    return {"lse": _top(v)} | _divided(each, v)


def _slope(v: SimpleNamespace, whole: Any, q: Any) -> Any:
    """exp takes the rounding of x - lse as a relative error; what it is scaled by sums C terms."""
    gap = v.x - v.lse[:, None]
    return (8 + v.x.shape[1]) * (np.exp(gap) * (1 + np.abs(gap)) * whole + q)


def _weighted_grad(v: SimpleNamespace, run: Any) -> Any:
    share = _shares(v)[:, None]
    rest = v.smoothing * _weights(v)
    at = np.arange(v.x.shape[1]) == v.label[:, None]
    slope = _slope(v, rest.mean() + share, rest / len(rest) + share * at)
    return np.where((v.label == v.ignore)[:, None], 0, slope * np.abs(v.dy / v.total)[..., None])


def _inputs(v: Values) -> list[str]:
    # no infinite dy: a slope that is 0 in one precision rounds to next to nothing in another
    return ["x"]


@case(
    "cross_entropy_weighted",
    bound={"cross_entropy_weighted": _weighted, "": _weighted_grad},
    specials=_inputs,
    inputs="x label",
    static=lambda v: _reduction(v) | dict(label_smoothing=v["smoothing"]),
    rejects=(
        bad("label 2 is out of range for 2 classes", zeros(1, 2), np.array([2])),
        bad("weight needs one number per class", zeros(1, 2), np.array([1]), zeros(3)),
        bad("label_smoothing is 2, but must lie in [0, 1]", zeros(1, 2), np.array([1]),
            label_smoothing=2),
    ),
)  # fmt: skip
def _weighted_case(d: Draw) -> Values:
    values = _labelled(d)
    return values | dict(lse=Blank(values["label"].shape), smoothing=d.pick("", 0.0, 0.1, 1.0))


def _soft_q(v: SimpleNamespace) -> Array:
    return _weights(v) * ((1 - v.smoothing) * np.abs(v.target) + v.smoothing / v.x.shape[1])


def _soft(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    each = 2 * (4 + v.x.shape[1]) * abs(v.scale) * _soft_q(v).sum(axis=-1) * _top(v)
    return {"lse": _top(v), "y": each if v.y.ndim else (1 + len(v.x)) * each.sum()}


def _soft_grad_x(v: SimpleNamespace, run: Any) -> Any:
    q = _soft_q(v)
    slope = _slope(v, q.sum(axis=-1, keepdims=True), q)
    return abs(v.scale) * np.abs(v.dy)[..., None] * slope


def _soft_grad_target(v: SimpleNamespace, run: Any) -> Any:
    slope = _weights(v) * (np.abs(v.x) + np.abs(v.lse)[:, None])
    return 8 * abs(v.scale) * np.abs(v.dy)[..., None] * slope


@case(
    "cross_entropy_soft",
    bound={
        "cross_entropy_soft": _soft,
        "cross_entropy_soft_grad_x": _soft_grad_x,
        "cross_entropy_soft_grad_target": _soft_grad_target,
    },
    specials=_inputs,
    inputs="x target",
    static=lambda v: reduction(v) | dict(label_smoothing=v["smoothing"]),
    rejects=(
        bad("target needs the shape of x (x (2, 3), target (2, 4))", zeros(2, 3), zeros(2, 4)),
        bad("weight needs one number per class", zeros(1, 2), zeros(1, 2), zeros(3)),
    ),
)
def _soft_case(d: Draw) -> Values:
    values = _batch(d)
    n, c = values["x"].shape
    target = (d.integers((n, c), 0, 5) / 4).astype(d.dtype)
    scale = d.pick("scale", 1.0, 1 / max(n, 1), 0.3)
    smoothing = d.pick("smoothing", 0.0, 0.1)
    return values | dict(target=target, lse=Blank((n,)), smoothing=smoothing, scale=scale)
