"""Cases of normalisation."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ..roles import Array
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _batch_norm(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # Let a = |x| + mean |x|. The mean of n numbers errs by n eps mean |x|, so d = |x - mean| by
    # n eps a, and var by the mean of 2 d (n eps a) and (n eps a)^2, and n eps var.
    # y = w d / sqrt(var + eps) + b + r takes over the error of d, and half the relative one of var.
    over = tuple(range(v.x.ndim - 1))
    n = 8 + v.x.size / max(v.mean.size, 1)
    mean = np.abs(v.x).mean(axis=over)
    a, d = np.abs(v.x) + mean, np.abs(v.x - v.mean)
    var = (2 * d * a + n * run.eps * a * a).mean(axis=over) + v.var
    rstd = 1 / np.sqrt(v.var + v.eps)
    y = np.abs(1 if v.w is None else v.w) * rstd * (a + d * rstd**2 * var / 2)
    return {"y": n * (y + _shifts(v)), "mean": n * mean, "var": n * var}


def _shifts(v: SimpleNamespace) -> Any:
    return np.abs(0 if v.b is None else v.b) + np.abs(0 if v.r is None else v.r)


def _batch_norm_eval(v: SimpleNamespace, run: Any) -> Any:
    # w rstd x - w rstd mean + b is a legal order, in which x and the mean may cancel
    z = (np.abs(v.x) + np.abs(v.mean)) / np.sqrt(v.var + v.eps)
    return 8 * (np.abs(1 if v.w is None else v.w) * z + _shifts(v))


def _batch_norm_grad(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # the formula on magnitudes, where x - mean may again be taken apart; dr is dy or 0, exactly
    over = tuple(range(v.x.ndim - 1))
    rows = max(v.x.size // v.mean.size, 1)
    rstd = 1 / np.sqrt(v.var + v.eps)
    dy = np.where(v.y <= 0, 0, np.abs(v.dy)) if v.relu else np.abs(v.dy)
    z = (np.abs(v.x) + np.abs(v.mean)) * rstd
    db, dw = dy.sum(axis=over), (dy * z).sum(axis=over)
    through = 0 if run.name == "batch_norm_eval_grad" else (db + z * dw) / rows
    dx = np.abs(1 if v.w is None else v.w) * rstd * (dy + through)
    return {name: (8 + rows) * a for name, a in (("dx", dx), ("dw", dw), ("db", db))}


def _norm_specials(v: Values) -> list[str]:
    # What w multiplies may be 0 in theory and a rounding error in practice: times inf, NaN or inf.
    return [name for name in v if name != "w"]


def _normalised(d: Draw, batch: int) -> Values:
    shape = (batch, *d.shape(1, 3))[:4]
    shape = (batch, *(max(n, 1) for n in shape[1:]))
    x = d.array(shape, distinct=True)
    w, b = (d.pick(name, None, True) and d.array(shape[-1:]) for name in "wb")
    r = d.pick("r", None, True) and d.array(shape)
    relu = d.mode != "smooth" and d.pick("relu", False, True)  # no kinks where it is smooth
    eps = d.pick("eps", 1e-5, 0.125)
    return dict(x=x, w=w, b=b, r=r, y=Blank(shape), eps=eps, relu=relu)


@case(
    "batch_norm",
    bound={"batch_norm": _batch_norm, "": _batch_norm_grad},
    specials=_norm_specials,
    inputs="x w b running_mean running_var r",
    static=lambda v: dict(training=True, eps=v["eps"], relu=v["relu"]),
    rejects=(
        bad("r needs the shape of x", zeros(4, 3), *[None] * 4, zeros(4, 1), training=True),
        bad("training needs more than one value per channel", zeros(1, 3), training=True),
        bad("w needs one number per channel", zeros(4, 3), zeros(4), training=True),
    ),
)
def _batch_norm_case(d: Draw) -> Values:
    v = _normalised(d, d.size(1, 6, 30))  # never empty: the op wants two rows
    channels = v["x"].shape[-1:]
    return v | dict(mean=Blank(channels), var=Blank(channels))


@case(
    "batch_norm_eval",
    bound={"batch_norm_eval": _batch_norm_eval, "": _batch_norm_grad},
    op="batch_norm",
    inputs="x w b mean var r",
    rejects=(bad("evaluation needs the running statistics", zeros(4, 3), training=False),),
)
def _batch_norm_eval_case(d: Draw) -> Values:
    v = _normalised(d, d.batch())
    channels = v["x"].shape[-1:]
    return v | dict(mean=d.array(channels), var=d.array(channels, positive=True))


def _layer_norm(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # as batch_norm, row by row; rstd^2 times half the error of var is a relative error of rstd
    over = tuple(range(v.mean.ndim, v.x.ndim))
    n = 8 + v.x.size / max(v.mean.size, 1)
    middle, rstd = (a.reshape(*a.shape, *(1 for _ in over)) for a in (v.mean, v.rstd))
    mean = np.abs(v.x).mean(axis=over, keepdims=True)
    a, d = np.abs(v.x) + mean, np.abs(v.x - middle)
    var = (2 * d * a + n * run.eps * a * a + d * d).mean(axis=over, keepdims=True)
    relative = 1 + rstd**2 * var / 2
    y = np.abs(1 if v.w is None else v.w) * rstd * (a + d * relative)
    y = n * (y + np.abs(0 if v.b is None else v.b))
    flat = {"mean": mean, "rstd": rstd * relative}
    return {"y": y} | {name: n * np.reshape(e, v.mean.shape) for name, e in flat.items()}


def _layer_norm_grad(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # the formula on magnitudes, where x - mean may again be taken apart
    over, rows = tuple(range(v.mean.ndim, v.x.ndim)), tuple(range(v.mean.ndim))
    n = v.x.size / max(v.mean.size, 1)
    middle, rstd = (a.reshape(*a.shape, *(1 for _ in over)) for a in (v.mean, v.rstd))
    dy, z = np.abs(v.dy), (np.abs(v.x) + np.abs(middle)) * rstd
    g = dy * np.abs(1 if v.w is None else v.w)
    lean = (g * z).mean(axis=over, keepdims=True)
    dx = rstd * (g + g.mean(axis=over, keepdims=True) + z * lean)
    sums = {"dw": (dy * z).sum(axis=rows), "db": dy.sum(axis=rows)}
    return {"dx": (8 + n) * dx} | {name: (8 + v.mean.size) * a for name, a in sums.items()}


@case(
    "layer_norm",
    bound={"layer_norm": _layer_norm, "": _layer_norm_grad},
    specials=_norm_specials,
    static=lambda v: dict(normalized_shape=v["x"].shape[len(v["mean"].shape) :], eps=v["eps"]),
    rejects=(
        bad("does not end in normalized_shape (4,)", zeros(4, 3), normalized_shape=(4,)),
        bad("normalized_shape has no axes", zeros(4, 3), normalized_shape=()),
        bad("there is no mean of nothing", zeros(4, 0), normalized_shape=(0,)),
        bad("w needs one number per feature", zeros(4, 3), zeros(4), normalized_shape=(3,)),
    ),
)
def _layer_norm_case(d: Draw) -> Values:
    rows, features = d.shape(0, 2), (d.size(1, 6, 70), *(d.pick("", (), (3,))))
    shape = (*rows, *features)
    x = d.array(shape, distinct=True)
    w, b = (d.pick(name, None, True) and d.array(features) for name in "wb")
    blanks = {name: Blank(rows) for name in ("mean", "rstd")}
    return dict(x=x, w=w, b=b, y=Blank(shape), eps=d.pick("eps", 1e-5, 0.125)) | blanks


def _track(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    unbiased = np.abs(v.var) * v.rows / (v.rows - 1)
    mean, var = np.abs(v.running_mean), np.abs(v.running_var)
    return {"running_mean": 8 * (mean + np.abs(v.mean)), "running_var": 8 * (var + unbiased)}


@case("batch_norm_track_", bound=_track)
def _batch_norm_track(d: Draw) -> Values:
    mean, var, running_mean, running_var = (
        d.array(shape, positive=positive)
        for shape in [(d.size(1, 9, 70),)]
        for positive in (False, True, False, True)
    )
    momentum, rows = d.pick("momentum", 0.1, 0.0, 1.0), d.pick("rows", 2, 3, 1000)
    statistics = dict(mean=mean, var=var, running_mean=running_mean, running_var=running_var)
    return statistics | dict(momentum=momentum, rows=rows)
