"""Ops that draw random numbers."""

from .. import check
from ..op import op


@op(integer=("state",))
def dropout(k, x, state, *, p):
    """x / (1 - p) with probability 1 - p, else 0; state moves on by x.size numbers.

    state: a generator's (seed, offset), uint64 (2,). Which elements are kept depends on it and on
    their place in x alone.
    """
    if not 0 <= p <= 1:
        check.fail("dropout", f"the probability p is {p}, but must lie in [0, 1]", x=x)
    key = k.empty((2,), "uint64")
    k.reserve_(state, key, x.size)
    y = k.dropout(x, key, k.empty_like(x), p)

    def grad_x(dy, dx, add):
        return k.dropout_grad(dy, key, dx, p, add)

    return y, (grad_x, None)
