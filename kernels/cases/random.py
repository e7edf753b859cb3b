"""Cases of random numbers and dropout."""

import numpy as np

from .bounds import exact, few
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


@case("reserve_", bound=exact)
def _reserve(d: Draw) -> Values:
    return dict(state=d.key(), key=Blank((2,), "uint64"), n=d.source.integer(0, 9))


@case("uniform", bound=lambda v, run: 4 * (abs(v.low) + abs(v.high - v.low)) + 0 * run())
def _uniform(d: Draw) -> Values:
    low, high = d.pick("low", 0.0, -0.3), d.pick("high", 1.0, 0.7)
    return dict(key=d.key(), y=Blank(d.shape(0, 4)), low=low, high=high)


# y = r cos t with r <= sqrt(-2 log 2**-32) < 6.7 and t < 2 pi: off by eps (r + r t)
@case("normal", bound=lambda v, run: 4 * 6.7 * (1 + 2 * np.pi) + 0 * run())
def _normal(d: Draw) -> Values:
    return dict(key=d.key(), y=Blank(d.shape(0, 4)))


@case(
    "dropout",
    bound=few,
    rejects=(bad("p is 1.5, but must lie in [0, 1]", zeros(3), zeros(2, dtype="uint64"), p=1.5),),
)
def _dropout(d: Draw) -> Values:
    shape = d.shape(0, 4)
    p = d.pick("p", 0.5, 0.0, 0.1, 1.0)
    return dict(x=d.array(shape), key=d.key(), y=Blank(shape), p=p)
