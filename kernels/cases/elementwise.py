"""Cases of elementwise maths."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import shapes
from .bounds import elementwise, exact
from .case import case
from .draw import Blank, Draw, Values


def _pow_grad_a(v: SimpleNamespace, run: Any) -> Any:
    # the exponent b - 1 is rounded, which changes a ** (b - 1) by |(b - 1) log a| roundings more
    spread = np.abs((v.b - 1) * np.log(np.abs(v.a) + (v.a == 0)))
    return elementwise(v, run) * (1 + np.max(spread, initial=0))


@case("add", "sub", "mul", bound=elementwise)
def _binary(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    return dict(a=d.array(a), b=d.array(b), y=Blank(shapes.broadcast(a, b)))


@case("div", bound=elementwise)
def _div(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    return dict(a=d.array(a), b=d.array(b, away=0.5), y=Blank(shapes.broadcast(a, b)))


@case("pow", bound={"pow_grad_a": _pow_grad_a, "": elementwise})
def _pow(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    a, b = d.array(a, away=0.5, positive=True), d.array(b)
    return dict(a=a, b=b, y=Blank(np.broadcast_shapes(a.shape, b.shape)))


@case("maximum", bound={"maximum": exact, "": elementwise})
def _maximum(d: Draw) -> Values:
    a, b = (d.array(shape, distinct=True) for shape in d.pair(0, 3))
    return dict(a=a, b=b, y=Blank(np.broadcast_shapes(a.shape, b.shape)))


@case("compare", bound=exact)
def _compare(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    relation = d.pick("relation", "lt", "le", "gt", "ge", "eq", "ne")
    y = Blank(shapes.broadcast(a, b), "bool")
    return dict(a=d.array(a), b=d.array(b), y=y, relation=relation)


@case("neg", bound=exact)
@case("exp", bound=elementwise)
def _unary(d: Draw) -> Values:
    shape = d.shape(0, 4)
    return dict(x=d.array(shape), y=Blank(shape))


@case("log", "sqrt", bound=elementwise)
def _positive(d: Draw) -> Values:
    shape = d.shape(0, 4)
    return dict(x=d.array(shape, away=0.5, positive=True), y=Blank(shape))


@case("relu", bound={"relu": exact, "": elementwise})
def _relu(d: Draw) -> Values:
    shape = d.shape(0, 4)
    return dict(x=d.array(shape, distinct=True), y=Blank(shape))
