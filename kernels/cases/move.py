"""Cases of copies and picked rows."""

from .bounds import exact, few, products
from .case import case
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


@case("take", bound={"take": exact, "": products})
def _take(d: Draw) -> Values:
    rows = d.size(1, 5, 40)
    x = d.array((rows, *d.shape(0, 3)[1:]))
    index = d.integers(d.shape(1, 2), -rows, rows)
    return dict(x=x, index=index, y=Blank(index.shape + x.shape[1:]))
