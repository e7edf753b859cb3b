"""Cases of matrix products."""

from .case import case
from .draw import Blank, Draw, Values


@case("matmul")
def _matmul(d: Draw) -> Values:
    m, k, n = d.batch(), d.size(0, 7, 70), d.size(1, 7, 40)
    return dict(a=d.array((m, k)), b=d.array((k, n)), y=Blank((m, n)))


@case("linear", grads=("sum_rows",))
def _linear(d: Draw) -> Values:
    r, i, o = d.batch(), d.size(1, 7, 70), d.size(1, 7, 40)
    b = d.pick("b", None, True) and d.array((o,))
    return dict(x=d.array((r, i)), w=d.array((i, o)), b=b, y=Blank((r, o)))
