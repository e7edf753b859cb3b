"""Cases of copies and picked rows."""

import numpy as np

from .bounds import exact, few, products
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


@case("copy", bound=few)
def _copy(d: Draw) -> Values:
    shape = d.shape(0, 4)
    kind = d.pick("x", None, "int64", "float32", "float64")
    x = d.integers(shape, -9, 9) if kind == "int64" else d.array(shape).astype(kind or d.dtype)
    return dict(x=x, y=Blank(shape))


@case("fill", bound=few)
def _fill(d: Draw) -> Values:
    return dict(y=Blank(d.shape(0, 4)), value=d.pick("value", 0.0, -1.5, 0.1))


@case(
    "take",
    bound={"take": exact, "": products},
    rejects=(
        bad(
            "row 5 is out of range [-5, 5) (x (5, 2))",
            zeros(5, 2),
            np.array([0, 5]),
            error=IndexError,
        ),
        bad("index is float32, but must be integers", zeros(5, 2), zeros(1), error=TypeError),
    ),
)
def _take(d: Draw) -> Values:
    rows = d.size(1, 5, 40)
    x = d.array((rows, *d.shape(0, 3)[1:]))
    index = d.integers(d.shape(1, 2), -rows, rows)
    return dict(x=x, index=index, y=Blank(index.shape + x.shape[1:]))
