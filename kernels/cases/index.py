"""Cases of elements picked along an axis, rows that are put back, and paddings."""

import numpy as np

from .. import shapes
from .bounds import exact, products
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _numbers(*rows: list[int]) -> np.ndarray:
    return np.array(rows)


@case(
    "gather",
    bound={"gather": exact, "": products},
    rejects=(
        bad(
            "index 3 is out of range [-3, 3) (x (2, 3), index (1, 2))",
            zeros(2, 3), _numbers([0, 3]), axis=1, error=IndexError,
        ),
        bad("index -4 is out of range", zeros(2, 3), _numbers([0, -4]), axis=1, error=IndexError),
        bad("index needs 2 axes, as x has", zeros(2, 3), np.array([0]), axis=1),
        bad("is longer than x along axis 0", zeros(1, 3), _numbers([0], [0]), axis=1),
        bad("axis 2 is out of range", zeros(2, 3), _numbers([0]), axis=2),
        bad("index is float32, but must be integers", zeros(2), zeros(2), axis=0, error=TypeError),
    ),
)  # fmt: skip
def _gather(d: Draw) -> Values:
    shape = d.shape(1, 4)
    axis = d.pick("axis", *range(len(shape)))
    if shape[axis] and d.source.integer(0, 2) == 2:  # lines that are long, but not many
        shape = (*(min(n, 4) for n in shape[:axis]), 100, *(min(n, 4) for n in shape[axis + 1 :]))
    length = d.size(1, 5, 40)
    x = d.array((*shape[:axis], length, *shape[axis + 1 :]))
    return dict(x=x, index=d.integers(shape, -length, length), y=Blank(shape), axis=axis)


def _picked(d: Draw) -> np.ndarray:
    """Numbers of rows, some of them several times."""
    return d.integers((d.size(0, 9, 1000),), d.pick("", 0, -2), d.pick("", 9, 1, 200))


@case("distinct", bound=exact)
def _distinct(d: Draw) -> Values:
    index = _picked(d)
    blank = Blank(index.shape, "int64")
    return dict(index=index, rows=blank, place=blank, skip=d.pick("skip", -1, 0, 3))


@case("put_", bound=exact)
def _put(d: Draw) -> Values:
    rows = np.unique(_picked(d))  # no row is put twice
    rows = np.where((rows < 0) | (d.integers(rows.shape, 0, 4) == 3), -1, rows)
    shape = d.shape(0, 2)[1:]
    most = int(rows.max(initial=-1)) + d.pick("", 1, 3)
    return dict(x=d.array((len(rows), *shape)), rows=rows, y=d.array((most, *shape)))


@case(
    "pad",
    bound={"pad": exact, "": products},
    rejects=(
        bad("1 pairs of widths, but x has 2 axes", zeros(2, 3), widths=((1, 1),)),
        bad("pairs (before, after), not (1, 1)", zeros(2, 3), widths=(1, 1)),
        bad("pairs (before, after), not ((0.5, 1),)", zeros(3), widths=((0.5, 1),)),
        bad("at least 0, not -1", zeros(2, 3), widths=((0, 0), (0, -1))),
        bad("unknown mode 'wrap'", zeros(2), widths=((0, 1),), mode="wrap"),
        bad("axis 0 is too short for 3 more", zeros(3), widths=((3, 0),), mode="reflect"),
        bad("axis 0 is too short for 1 more", zeros(0, 2), widths=((0, 1), (0, 0)), mode="edge"),
    ),
)
def _pad(d: Draw) -> Values:
    mode = d.pick("mode", "constant", "edge", "constant", "reflect")
    value = d.pick("value", 0.0, -1.5, 0.1)
    shape = d.shape(0, 4)
    most = [n - 1 if mode == "reflect" else 4 * (n > 0 or mode == "constant") for n in shape]
    widths = tuple(
        tuple(min(d.pick("widths", 0, 0, 1, 2, 4), max(m, 0)) for _ in "ba") for m in most
    )
    y = Blank(shapes.pad(shape, widths))
    return dict(x=d.array(shape), y=y, widths=widths, mode=mode, value=value)
