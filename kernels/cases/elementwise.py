"""Cases of elementwise maths."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import shapes
from .bounds import elementwise, exact
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _pow_grad_a(v: SimpleNamespace, run: Any) -> Any:
    # the exponent b - 1 is rounded, which changes a ** (b - 1) by |(b - 1) log a| roundings more
    spread = np.abs((v.b - 1) * np.log(np.abs(v.a) + (v.a == 0)))
    return elementwise(v, run) * (1 + np.max(spread, initial=0))


_REFUSED = (
    bad("the shapes do not broadcast (a (2, 3), b (2,))", zeros(2, 3), zeros(2)),
    bad(
        "b is float64, but the inputs before it are float32",
        zeros(2), zeros(2, dtype="float64"), error=TypeError,
    ),
)  # fmt: skip
_INTEGERS = (bad("x is int64, but must be float", zeros(2, dtype="int64"), error=TypeError),)


@case("add", "sub", "mul", bound=elementwise, rejects=_REFUSED)
def _binary(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    return dict(a=d.array(a), b=d.array(b), y=Blank(shapes.broadcast(a, b)))


@case("div", bound=elementwise, rejects=_REFUSED)
def _div(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    return dict(a=d.array(a), b=d.array(b, away=0.5), y=Blank(shapes.broadcast(a, b)))


@case("pow", bound={"pow_grad_a": _pow_grad_a, "": elementwise}, rejects=_REFUSED)
def _pow(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    a, b = d.array(a, away=0.5, positive=True), d.array(b)
    return dict(a=a, b=b, y=Blank(np.broadcast_shapes(a.shape, b.shape)))


@case("maximum", bound={"maximum": exact, "": elementwise}, rejects=_REFUSED)
def _maximum(d: Draw) -> Values:
    a, b = (d.array(shape, distinct=True) for shape in d.pair(0, 3))
    return dict(a=a, b=b, y=Blank(np.broadcast_shapes(a.shape, b.shape)))


@case("compare", bound=exact, rejects=(bad("do not broadcast", zeros(2), zeros(3), relation="lt"),))
def _compare(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    relation = d.pick("relation", "lt", "le", "gt", "ge", "eq", "ne")
    y = Blank(shapes.broadcast(a, b), "bool")
    return dict(a=d.array(a), b=d.array(b), y=y, relation=relation)


@case("neg", bound=exact, rejects=_INTEGERS)
@case("exp", bound=elementwise, rejects=_INTEGERS)
def _unary(d: Draw) -> Values:
    shape = d.shape(0, 4)
    return dict(x=d.array(shape), y=Blank(shape))


@case("log", "sqrt", bound=elementwise, rejects=_INTEGERS)
def _positive(d: Draw) -> Values:
    shape = d.shape(0, 4)
    return dict(x=d.array(shape, away=0.5, positive=True), y=Blank(shape))


@case("relu", bound={"relu": exact, "": elementwise}, rejects=_INTEGERS)
def _relu(d: Draw) -> Values:
    shape = d.shape(0, 4)
    return dict(x=d.array(shape, distinct=True), y=Blank(shape))
