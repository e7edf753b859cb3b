"""Cases of sums, means, variances, maxima and minima."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import shapes
from .bounds import exact, magnitudes
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _reduced(d: Draw, keep_first: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = d.shape(1, 4)
    kinds = [d.source.integer(0, 1) for _ in shape]
    kinds[0] |= keep_first
    return shape, tuple(n if kind else 1 for n, kind in zip(shape, kinds))


def _axes(v: Values) -> Values:
    over = tuple(a for a, n in enumerate(v["x"].shape) if v["y"].shape[a] == 1 != n)
    return dict(axis=over, keepdims=True)


def _axes_and_correction(v: Values) -> Values:
    return _axes(v) | dict(correction=v["correction"])


def _mean(v: SimpleNamespace, run: Any) -> Any:
    return (4 + v.x.size / max(v.y.size, 1)) * run(x=np.abs(v.x))  # it sums before it divides


_AXIS = bad("axis 2 is out of range for 2 dimensions", zeros(2, 3), axis=2)


@case("sum", static=_axes, rejects=(_AXIS,))
@case("mean", static=_axes, bound={"mean": _mean, "": magnitudes}, rejects=(_AXIS,))
def _reduction(d: Draw) -> Values:
    shape, kept = _reduced(d)
    return dict(x=d.array(shape), y=Blank(kept))


def _spread(v: SimpleNamespace, run: Any) -> dict[str, Any]:
    # Let a = |x| + mean |x|. The mean of n numbers errs by n eps mean |x|, so d = |x - mean| by
    # n eps a, and the variance by the mean of 2 d (n eps a) + (n eps a)^2, and n eps times itself,
    # each scaled by n / (n - correction) as it is. A root: dy^2 = 2 y dy, and dy <= sqrt(dy^2).
    n = v.x.size / max(v.y.size, 1)
    over = tuple(a for a, size in enumerate(v.x.shape) if v.y.shape[a] == 1 != size)
    mean = np.abs(v.x).sum(axis=over, keepdims=True) / n
    a, d = np.abs(v.x) + mean, np.abs(v.x - v.mean)
    terms = 8 + n
    wide = (2 * d * a + terms * run.eps * a * a).sum(axis=over, keepdims=True)
    freedom = np.float64(max(0.0, n - v.correction))
    if run.name == "var":
        return {"mean": terms * mean, "y": terms * (wide / freedom + v.y)}
    square = terms * (wide / freedom + v.y * v.y)
    safe = np.where(v.y > 0, v.y, 1)
    relative = np.where(v.y > 0, square / safe, np.inf)
    return {"mean": terms * mean, "y": np.minimum(relative, np.sqrt(square / run.eps)) + 8 * v.y}


def _spread_grad(v: SimpleNamespace, run: Any) -> Any:
    # x - mean may cancel
    dx = np.abs(v.dy) * (np.abs(v.x) + np.abs(v.mean))
    freedom = np.float64(max(0.0, v.x.size / max(v.dy.size, 1) - v.correction))
    if run.name == "std_grad":
        return np.where(v.y == 0, 0, 8 * dx / (v.y * freedom))
    return 16 * dx / freedom


@case(
    "var",
    "std",
    static=_axes_and_correction,
    bound={"var": _spread, "std": _spread, "": _spread_grad},
    rejects=(_AXIS,),
)
def _variance(d: Draw) -> Values:
    shape, kept = _reduced(d)
    correction = d.pick("correction", 1, 0, 2)
    if d.mode == "smooth" and shapes.count(shape) <= correction * shapes.count(kept):
        correction = 0  # the variance of one value is no number
    blanks = {name: Blank(kept) for name in ("y", "mean")}
    return dict(x=d.array(shape, distinct=True), correction=correction) | blanks


@case(
    "min",
    grads=("max_grad",),
    static=_axes,
    bound=exact,
    rejects=(_AXIS, bad("no minimum", zeros(0, 3))),
)
@case("max", static=_axes, bound=exact, rejects=(_AXIS, bad("no maximum of nothing", zeros(0, 3))))
def _max(d: Draw) -> Values:
    shape, kept = _reduced(d)
    if 0 in shape:  # there is no maximum of nothing
        kept = (shape[0], *kept[1:])
    return dict(x=d.array(shape, distinct=True), y=Blank(kept), arg=Blank(kept, "int64"))


@case("sum_rows")
def _sum_rows(d: Draw) -> Values:
    shape = d.shape(2, 4)
    return dict(dy=d.array(shape), db=Blank(shape[-1:]))


def _bias_relu(v: SimpleNamespace, run: Any) -> dict[str, Any]:
    slopes = run.all(dy=np.abs(v.dy))
    return {"dx": 0, "db": (4 + v.dy.size / max(v.db.size, 1)) * slopes["db"]}


@case("bias_relu_grad", bound=_bias_relu)
def _bias_relu_grad(d: Draw) -> Values:
    shape = d.shape(2, 4)
    slopes = dict(dx=Blank(shape), db=Blank(shape[-1:]), add=(False, False))
    return dict(dy=d.array(shape), y=d.array(shape)) | slopes


@case("sum_squares")
def _sum_squares(d: Draw) -> Values:
    return dict(x=d.array((d.size(0, 30, 9000),)), y=Blank(()))
