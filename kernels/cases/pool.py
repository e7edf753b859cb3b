"""Cases of average pooling, and of a gradient of maxima and a relu in one."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import shapes
from ..reference.window import max_pool2d
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _mean(v: SimpleNamespace, run: Any) -> Any:
    # Sums of at most KH KW numbers, and a quotient. A pixel is in no more windows than they have
    # cells.
    return (4 + v.size[0] * v.size[1]) * run(**{n: np.abs(a) for n, a in run.floats.items()})


@case(
    "avg_pool2d",
    bound=_mean,
    rejects=(
        bad("must be smaller than the window (2, 2)", zeros(1, 4, 4, 3), size=2, padding=2),
        bad("the window (3, 3) is larger than the padded image (2, 2)",
            zeros(1, 2, 2, 3), size=3),
        bad("x has 2 dimensions", zeros(4, 4), size=2),
    ),
)  # fmt: skip
def _avg_pool2d(d: Draw) -> Values:
    size, stride, pad = d.window(pool=True)
    x = d.image(size, pad, d.size(1, 4, 35))
    y = Blank(shapes.pool2d(x.shape, size, stride, pad))
    counted = d.pick("count_padding", True, False)
    return dict(x=x, y=y, size=size, stride=stride, pad=pad, count_padding=counted)


def _pooled(v: SimpleNamespace, run: Any) -> dict[str, Any]:
    # A pixel gets the sum of at most KH KW of dy; db is the sum of all, of which each counts once.
    slopes = run.all(dy=np.abs(v.dy))
    windows = v.dy.size / max(v.dy.shape[3], 1)
    bounds = {"dx": (4 + v.size[0] * v.size[1]) * slopes["dx"]}
    return bounds | ({} if v.db is None else {"db": (4 + windows) * slopes["db"]})


@case("max_pool2d_relu_grad", bound=_pooled)
def _max_pool2d_relu_grad(d: Draw) -> Values:
    size, stride, pad = d.window(pool=True)
    x = np.maximum(d.image(size, pad, d.size(1, 4, 35)), 0)
    shape = shapes.pool2d(x.shape, size, stride, pad)
    y, arg = max_pool2d(x, np.empty(shape, x.dtype), np.empty(shape, np.int32), size, stride, pad)
    db = d.pick("db", None, True) and Blank(shape[3:])
    how = dict(size=size, stride=stride, pad=pad, add=(False, False))
    return dict(dy=d.array(shape), y=y, arg=arg, dx=Blank(x.shape), db=db) | how
