"""Cases of losses of numbers against targets."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .case import bad, case, zeros
from .draw import Blank, Draw, Values
from .loss import reduction


def _bounds(loss: Callable, slope: Callable, slope_target: Callable | None = None) -> Any:
    """Bounds from magnitudes: what a loss, and its slopes, would be if nothing cancelled.

    16: exp and log err by a few units in the last place, and few operations follow them.
    """

    def forward(v: SimpleNamespace, run: Any) -> Any:
        each = 16 * abs(v.scale) * loss(v)
        return each if v.y.ndim else (1 + v.x.size) * each.sum()

    def backward(v: SimpleNamespace, run: Any) -> Any:
        size = slope if run.out == "dx" or slope_target is None else slope_target
        return 16 * abs(v.scale) * np.abs(v.dy) * size(v)

    def bound(v: SimpleNamespace, run: Any) -> Any:
        return (forward if run.out == "y" else backward)(v, run)

    return bound


def _far(v: SimpleNamespace) -> Any:
    return np.abs(v.x - v.target)


def _near(v: SimpleNamespace) -> Any:
    return np.minimum(_far(v), v.delta)


def _logs(v: SimpleNamespace) -> tuple[Any, Any]:
    return tuple(np.minimum(np.abs(log), 100) for log in (np.log(v.x), np.log1p(-v.x)))


def _bce(v: SimpleNamespace) -> Any:
    yes, no = _logs(v)
    return np.abs(v.target) * yes + np.abs(1 - v.target) * no


def _bce_slope(v: SimpleNamespace) -> Any:
    return _far(v) / np.maximum(v.x * (1 - v.x), 1e-12)


def _positive(v: SimpleNamespace) -> Any:
    return 1 if v.pos_weight is None else np.abs(v.pos_weight)


def _softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


def _logits(v: SimpleNamespace) -> Any:
    yes = np.abs(v.target) * _positive(v) * _softplus(-v.x)
    return yes + np.abs(1 - v.target) * _softplus(v.x)


def _logits_slope(v: SimpleNamespace) -> Any:
    yes = np.abs(v.target) * _positive(v) * np.exp(-_softplus(v.x))
    return yes + np.abs(1 - v.target) * np.exp(-_softplus(-v.x))


def _kl(v: SimpleNamespace) -> Any:
    if v.log_target:
        return np.exp(v.target) * (np.abs(v.target) + np.abs(v.x))
    log = np.where(v.target == 0, 0, np.log(v.target))
    return np.abs(v.target) * (np.abs(log) + np.abs(v.x))


def _kl_slope(v: SimpleNamespace) -> Any:
    return np.exp(v.target) if v.log_target else np.abs(v.target)


def _kl_slope_target(v: SimpleNamespace) -> Any:
    log = v.target if v.log_target else np.log(v.target)
    return (np.exp(v.target) if v.log_target else 1) * (np.abs(log) + 1 + np.abs(v.x))


_SHAPES = (
    bad("target needs the shape of x; is an axis of 1 missing? (x (3, 1), target (3,))",
        zeros(3, 1), zeros(3)),
)  # fmt: skip


def _size(d: Draw) -> tuple[tuple[int, ...], Values]:
    shape = (d.size(2049, 5000),) if d.pick("", False, d.mode == "large") else d.shape(0, 3)
    n = int(np.prod(shape))
    scale = d.pick("scale", 1.0, 1 / max(n, 1), 0.3)
    return shape, dict(y=Blank(d.pick("y", (), shape)), scale=scale)


@case(
    "mse_loss",
    static=reduction,
    bound=_bounds(lambda v: _far(v) ** 2, _far),
    rejects=_SHAPES,
)
@case(
    "l1_loss",
    static=reduction,
    bound=_bounds(_far, lambda v: np.ones(v.x.shape)),
    rejects=_SHAPES,
)
def _difference(d: Draw) -> Values:
    shape, values = _size(d)
    return dict(x=d.array(shape, distinct=True), target=d.array(shape, distinct=True)) | values


@case(
    "huber_loss",
    static=lambda v: reduction(v) | dict(delta=v["delta"]),
    bound=_bounds(lambda v: _near(v) * (_far(v) + v.delta), _near),
    rejects=(*_SHAPES, bad("delta is 0, but must be above 0", zeros(3), zeros(3), delta=0)),
)
def _huber(d: Draw) -> Values:
    # numbers that differ by odd eighths in smooth mode: none lies where the two branches meet
    return _difference(d) | dict(delta=d.pick("delta", 1.0, 0.3, 2.5))


@case(
    "binary_cross_entropy",
    static=reduction,
    bound=_bounds(_bce, _bce_slope, lambda v: sum(_logs(v))),
    specials=lambda v: ["x", "target"],  # log 0.5 - log(1 - 0.5) may be no 0: no infinite dy
    rejects=(
        *_SHAPES,
        bad("x has 3.0, which is no probability", zeros(2) + 3, zeros(2)),
    ),
)
def _binary_cross_entropy(d: Draw) -> Values:
    shape, values = _size(d)
    low = 0.375 if d.mode == "smooth" else 0  # and 0 and 1 themselves
    x = low + (1 - 2 * low) * (d.integers(shape, 0, 65) / 64)
    target = d.integers(shape, 0, 5) / 4
    return dict(x=x.astype(d.dtype), target=target.astype(d.dtype)) | values


def _finite(v: Values) -> list[str]:
    # exp(-500) is 0 in float32 alone, and then 0 times an infinity is NaN there alone
    return ["x"] if np.abs(v["x"]).max(initial=0) > 80 else ["x", "target", "dy"]


@case(
    "binary_cross_entropy_with_logits",
    inputs="x target",
    static=reduction,
    bound=_bounds(_logits, _logits_slope,
                  lambda v: _positive(v) * _softplus(-v.x) + _softplus(v.x)),
    specials=_finite,
    rejects=(
        *_SHAPES,
        bad("pos_weight does not broadcast to x (x (2, 3), pos_weight (2,))",
            zeros(2, 3), zeros(2, 3), zeros(2)),
    ),
)  # fmt: skip
def _binary_cross_entropy_with_logits(d: Draw) -> Values:
    shape, values = _size(d)
    large = d.mode != "smooth" and d.pick("", False, True)
    x = d.array(shape) * (2000 if large else 1)
    weight = d.pick("pos_weight", None, shape[-1:], ())
    if weight is not None:
        weight = d.array(weight, away=0.5, positive=True)
    target = (d.integers(shape, 0, 5) / 4).astype(d.dtype)
    return dict(x=x, target=target, pos_weight=weight) | values


@case(
    "kl_div",
    static=lambda v: reduction(v) | dict(log_target=v["log_target"]),
    bound=_bounds(_kl, _kl_slope, _kl_slope_target),
    rejects=_SHAPES,
)
def _kl_div(d: Draw) -> Values:
    shape, values = _size(d)
    log_target = d.pick("log_target", False, True)
    low = 2 if d.mode == "smooth" else 0  # 0 log 0 is 0, but has no slope
    target = d.array(shape) if log_target else (d.integers(shape, low, 5) / 4).astype(d.dtype)
    return dict(x=d.array(shape), target=target, log_target=log_target) | values
