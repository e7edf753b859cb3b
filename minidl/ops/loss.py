"""Softmax and losses."""

from .. import check
from ..op import op


@op
def log_softmax(k, x, *, axis=-1):
    """log(exp x / sum of exp x) along an axis."""
    (axis,) = check.axes("log_softmax", int(axis), x)
    y = k.empty_like(x)
    k.log_softmax(x.swapaxes(axis, -1), y.swapaxes(axis, -1))

    def grad_x(dy, dx, add):
        k.log_softmax_grad(*(a.swapaxes(axis, -1) for a in (dy, y, dx)), add)
        return dx

    return y, (grad_x,)


def scale_of(reduction, count):
    """What losses are multiplied by before they are added up, or not. The mean of none is NaN."""
    check.known("reduction", reduction, ("mean", "sum", "none"))
    return 1.0 if reduction != "mean" else 1 / count if count else float("nan")


@op
def softmax(k, x, *, axis=-1):
    """exp x / sum of exp x along an axis; all NaN where a number is inf, or all are -inf."""
    (axis,) = check.axes("softmax", int(axis), x)
    y = k.empty_like(x)
    k.softmax(x.swapaxes(axis, -1), y.swapaxes(axis, -1))

    def grad_x(dy, dx, add):
        k.softmax_grad(*(a.swapaxes(axis, -1) for a in (dy, y, dx)), add)
        return dx

    return y, (grad_x,)


@op(integer=("label",))
def cross_entropy(k, x, label, *, reduction="mean"):
    """-log softmax(x)[label]: softmax and negative log likelihood in one.

    x (N, C) logits, label (N,) integers in [0, C) -> () for reduction "mean" or "sum", (N,) for
    "none". The mean of no rows is NaN.
    """
    hint = "put a Flatten before the first Linear" if x.ndim == 4 else ""
    check.rank("cross_entropy", "x", x, 2, "a batch of logits (N, C)", hint)
    check.labels("cross_entropy", label, x.shape[1], x)
    rows, scale = len(x), scale_of(reduction, len(x))
    y = k.empty((rows,) if reduction == "none" else (), x.dtype)
    lse = k.empty((rows,), x.dtype)
    k.cross_entropy(x, label, y, lse, scale)

    def grad_x(dy, dx, add):
        return k.cross_entropy_grad(dy, x, label, lse, dx, scale, add)

    return y, (grad_x, None)
