"""Cases of sums, means and maxima."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from .bounds import exact, magnitudes
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _reduced(d: Draw, keep_first: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = d.shape(1, 4)
    kinds = [d.source.integer(0, 1) for _ in shape]
    kinds[0] |= keep_first
    return shape, tuple(n if kind else 1 for n, kind in zip(shape, kinds))


def _mean(v: SimpleNamespace, run: Any) -> Any:
    return (4 + v.x.size / max(v.y.size, 1)) * run(x=np.abs(v.x))  # it sums before it divides


_AXIS = bad("axis 2 is out of range for 2 dimensions", zeros(2, 3), axis=2)


@case("sum", rejects=(_AXIS,))
@case("mean", bound={"mean": _mean, "": magnitudes}, rejects=(_AXIS,))
def _reduction(d: Draw) -> Values:
    shape, kept = _reduced(d)
    return dict(x=d.array(shape), y=Blank(kept))


@case("max", bound=exact, rejects=(_AXIS, bad("no maximum of nothing", zeros(0, 3))))
def _max(d: Draw) -> Values:
    shape, kept = _reduced(d)
    if 0 in shape:  # there is no maximum of nothing
        kept = (shape[0], *kept[1:])
    return dict(x=d.array(shape, distinct=True), y=Blank(kept), arg=Blank(kept, "int64"))


@case("sum_rows")
def _sum_rows(d: Draw) -> Values:
    shape = d.shape(2, 4)
    return dict(dy=d.array(shape), db=Blank(shape[-1:]))


@case("sum_squares")
def _sum_squares(d: Draw) -> Values:
    return dict(x=d.array((d.size(0, 30, 9000),)), y=Blank(()))
