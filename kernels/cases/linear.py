"""Cases of matrix products."""

from .. import shapes
from .case import bad, case, zeros
from .draw import Blank, Draw, Values

# leading axes of a and b: equal, one matrix for all, both broadcast, none
_STACKS = (
    ((), ()), ((3,), (3,)), ((2, 2), (2, 2)), ((3,), ()), ((), (3,)), ((2, 1), (3,)), ((0,), (1,)),
    ((3,), (1, 1)), ((2, 2), (2,)),
)  # fmt: skip


@case(
    "matmul",
    blas=True,
    rejects=(
        bad("a has 3 columns, but b has 4 rows (a (2, 3), b (4, 5))", zeros(2, 3), zeros(4, 5)),
        bad("b is a number", zeros(2, 3), zeros()),
        bad("the stacks of matrices do not broadcast", zeros(2, 3, 4), zeros(3, 4, 5)),
    ),
)
def _matmul(d: Draw) -> Values:
    m, k, n = d.batch(), d.size(0, 7, 70), d.size(1, 7, 40)
    if d.pick("", False, True):  # kernels may read such rows four numbers at a time
        k, n = k - k % 4, n + -n % 4
    return dict(a=d.array((m, k)), b=d.array((k, n)), y=Blank((m, n)))


@case("bmm", blas=True, op="matmul")
def _bmm(d: Draw) -> Values:
    stack_a, stack_b = d.pick("", *_STACKS)
    v = _matmul(d)
    (m, k), (_, n) = v["a"].shape, v["b"].shape
    y = Blank((*shapes.broadcast(stack_a, stack_b), m, n))
    return dict(a=d.array((*stack_a, m, k)), b=d.array((*stack_b, k, n)), y=y)


@case(
    "linear",
    grads=("sum_rows",),
    blas=True,
    rejects=(
        bad("x does not have w's 4 features (x (2, 5), w (4, 3))", zeros(2, 5), zeros(4, 3)),
        bad("put a Flatten before the first Linear", zeros(2, 4, 4, 1), zeros(16, 3)),
        bad("b needs one number per output", zeros(2, 4), zeros(4, 3), zeros(4)),
    ),
)
def _linear(d: Draw) -> Values:
    r, i, o = d.batch(), d.size(1, 7, 70), d.size(1, 7, 40)
    b = d.pick("b", None, True) and d.array((o,))
    relu = d.mode != "smooth" and d.pick("relu", False, True)  # no kinks where it is smooth
    return dict(x=d.array((r, i)), w=d.array((i, o)), b=b, y=Blank((r, o)), relu=relu)
