"""Cases of elementwise maths."""

import math
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


def _sigmoid_of(v: SimpleNamespace) -> tuple[Any, Any, Any]:
    """w, sigmoid(w) and x times its slope, where silu and gelu's approximation are x sigmoid(w)."""
    x, tanh = v.x, getattr(v, "approximate", "none") == "tanh"
    rate, cubic = (np.sqrt(8 / np.pi), 0.044715) if tanh else (1, 0)
    w = rate * (x + cubic * x**3)
    s = 1 / (1 + np.exp(-w))
    return w, s, x * s / (1 + np.exp(w)) * rate * (1 + 3 * cubic * x * x)


def _logistic_grad(v: SimpleNamespace, run: Any) -> Any:
    # two terms, which may cancel; rounding w by u changes its exponential by |w| u
    w, s, slope = _sigmoid_of(v)
    return np.abs(v.dy) * (8 + 4 * np.abs(w)) * (s + np.abs(slope))


def _gelu(v: SimpleNamespace, run: Any) -> Any:
    # near x << 0 the normal tail changes by x x relative to a rounding of x; sigmoid(w) by |w|
    w = v.x**2 if v.approximate == "none" else np.abs(_sigmoid_of(v)[0])
    return (8 + 4 * w) * np.abs(run())


def _gelu_grad(v: SimpleNamespace, run: Any) -> Any:
    if v.approximate == "tanh":
        return _logistic_grad(v, run)
    square = v.x**2
    slope = np.abs(v.x) * np.exp(-square / 2) / np.sqrt(2 * np.pi)
    share = np.abs(run(dy=np.ones_like(v.dy))) + slope  # at least the sum of the magnitudes
    return np.abs(v.dy) * (8 + 4 * square) * (share + slope)


def _softplus(v: SimpleNamespace, run: Any) -> Any:
    # rounding w = beta x by u changes its exponential by |w| u
    return (8 + 4 * np.abs(v.beta * v.x)) * np.abs(run())


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


@case(
    "maximum",
    "minimum",
    bound={"maximum": exact, "minimum": exact, "": elementwise},
    rejects=_REFUSED,
)
def _maximum(d: Draw) -> Values:
    a, b = (d.array(shape, distinct=True) for shape in d.pair(0, 3))
    return dict(a=a, b=b, y=Blank(np.broadcast_shapes(a.shape, b.shape)))


@case(
    "where",
    bound={"where": exact, "": elementwise},
    rejects=(
        bad("cond is float32, but must be bool", zeros(2), zeros(2), zeros(2), error=TypeError),
        bad("do not broadcast", zeros(3, dtype="bool"), zeros(2), zeros(2)),
        bad(
            "floats of one dtype, not float32 and float64",
            zeros(2, dtype="bool"), zeros(2), zeros(2, dtype="float64"), error=TypeError,
        ),
    ),
)  # fmt: skip
def _where(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    shape = shapes.broadcast(a, b)
    cond = d.integers(d.pick("cond", shape, a, ()), 0, 2, "bool")
    return dict(cond=cond, a=d.array(a), b=d.array(b), y=Blank(shape))


@case("compare", bound=exact, rejects=(bad("do not broadcast", zeros(2), zeros(3), relation="lt"),))
def _compare(d: Draw) -> Values:
    a, b = d.pair(0, 3)
    relation = d.pick("relation", "lt", "le", "gt", "ge", "eq", "ne")
    y = Blank(shapes.broadcast(a, b), "bool")
    return dict(a=d.array(a), b=d.array(b), y=y, relation=relation)


@case("neg", bound=exact, rejects=_INTEGERS)
@case("silu", bound={"silu_grad": _logistic_grad, "": elementwise}, rejects=_INTEGERS)
@case("exp", "sigmoid", "tanh", bound=elementwise, rejects=_INTEGERS)
def _unary(d: Draw) -> Values:
    shape = d.shape(0, 4)
    return dict(x=d.array(shape), y=Blank(shape))


@case("log", "sqrt", bound=elementwise, rejects=_INTEGERS)
def _positive(d: Draw) -> Values:
    shape = d.shape(0, 4)
    return dict(x=d.array(shape, away=0.5, positive=True), y=Blank(shape))


@case("abs", "relu6", bound=exact, rejects=_INTEGERS)
@case("relu", bound={"relu": exact, "": elementwise}, rejects=_INTEGERS)
def _relu(d: Draw) -> Values:
    shape = d.shape(0, 4)
    return dict(x=d.array(shape, distinct=True), y=Blank(shape))


@case(
    "clip",
    bound=exact,
    static=lambda v: dict(min=v["low"], max=v["high"]),
    rejects=(*_INTEGERS, bad("at least one of min and max", zeros(2), min=None, max=None)),
)
def _clip(d: Draw) -> Values:
    low = d.pick("low", -1.0, 0.5, -math.inf)
    high = d.pick("high", 2.0, 0.0, math.inf)  # 0.0 lies below 0.5
    return _relu(d) | dict(low=low, high=high)


@case("leaky_relu", bound=elementwise, rejects=_INTEGERS)
def _leaky_relu(d: Draw) -> Values:
    return _relu(d) | dict(negative_slope=d.pick("negative_slope", 0.01, 0.0, -1.5))


@case("elu", bound=elementwise, rejects=_INTEGERS)
def _elu(d: Draw) -> Values:
    return _relu(d) | dict(alpha=d.pick("alpha", 1.0, 0.3, -2.0))


@case(
    "gelu",
    bound={"gelu": _gelu, "": _gelu_grad},
    rejects=(*_INTEGERS, bad("unknown approximation 'tan'", zeros(2), approximate="tan")),
)
def _gelus(d: Draw) -> Values:
    return _unary(d) | dict(approximate=d.pick("approximate", "none", "tanh"))


@case(
    "softplus",
    bound=_softplus,
    rejects=(*_INTEGERS, bad("beta is 0, but must be positive", zeros(2), beta=0)),
)
def _softpluses(d: Draw) -> Values:
    # the step at the threshold lies between the numbers of smooth examples
    beta, threshold = d.pick("beta", 1.0, 2.0, 0.5), d.pick("threshold", 20.0, 0.7)
    return _relu(d) | dict(beta=beta, threshold=threshold)
