"""Losses on classes with weights, rows to be left out, smoothed labels, and soft targets."""

from .. import check
from ..op import op
from .loss import scale_of

_NONE = -(2**63)  # the label to leave out where there is none: no class has it


def _rows(k, name, x, label, weight, ignore_index, reduction):
    """What the losses on labels have in common: checks, space for the loss and its divisor."""
    check.rank(name, "x", x, 2, "a batch (N, C)")
    _class_weights(name, x, weight)
    check.labels(name, label, x.shape[1], x, ignore_index)
    scale_of(reduction, len(x))
    y = k.empty((len(x),) if reduction == "none" else (), x.dtype)
    ignore = _NONE if ignore_index is None else int(ignore_index)
    return y, k.empty((), x.dtype), ignore, reduction == "mean"


def _class_weights(name, x, weight):
    if weight is not None and weight.shape != x.shape[1:]:
        check.fail(name, "weight needs one number per class", x=x, weight=weight)


def _smoothing(name, label_smoothing):
    if not 0 <= label_smoothing <= 1:
        check.fail(name, f"label_smoothing is {label_smoothing}, but must lie in [0, 1]")


@op(integer=("label",))
def nll_loss(k, x, label, weight=None, *, ignore_index=None, reduction="mean"):
    """-weight[label] x[label] of log-probabilities x (N, C).

    Rows whose label is ignore_index are 0. The mean divides by the weights of the other rows; it is
    NaN where there are none.
    """
    y, total, ignore, mean = _rows(k, "nll_loss", x, label, weight, ignore_index, reduction)
    k.nll_loss(x, label, weight, y, total, ignore, mean)

    def grad_x(dy, dx, add):
        return k.nll_loss_grad(dy, label, weight, total, dx, ignore, add)

    return y, (grad_x, None, None)


@op(integer=("label",))
def cross_entropy_weighted(
    k, x, label, weight=None, *, ignore_index=None, label_smoothing=0.0, reduction="mean"
):
    """cross_entropy with class weights, rows to leave out and smoothed labels.

    Rows whose label is ignore_index are 0. The mean divides by the weights of the other rows; it is
    NaN where there are none.
    """
    name = "cross_entropy_weighted"
    y, total, ignore, mean = _rows(k, name, x, label, weight, ignore_index, reduction)
    _smoothing(name, label_smoothing)
    smoothing = float(label_smoothing)
    lse = k.empty((len(x),), x.dtype)
    k.cross_entropy_weighted(x, label, weight, y, lse, total, ignore, smoothing, mean)

    def grad_x(dy, dx, add):
        return k.cross_entropy_weighted_grad(
            dy, x, label, weight, lse, total, dx, ignore, smoothing, add
        )

    return y, (grad_x, None, None)


@op
def cross_entropy_soft(k, x, target, weight=None, *, label_smoothing=0.0, reduction="mean"):
    """-sum of weight target log softmax(x) for probabilities (N, C); the mean is over N."""
    name = "cross_entropy_soft"
    check.rank(name, "x", x, 2, "a batch of logits (N, C)")
    if target.shape != x.shape:
        check.fail(name, "target needs the shape of x", x=x, target=target)
    _class_weights(name, x, weight)
    _smoothing(name, label_smoothing)
    smoothing, scale = float(label_smoothing), scale_of(reduction, len(x))
    y = k.empty((len(x),) if reduction == "none" else (), x.dtype)
    lse = k.empty((len(x),), x.dtype)
    k.cross_entropy_soft(x, target, weight, y, lse, smoothing, scale)

    def grad_x(dy, dx, add):
        return k.cross_entropy_soft_grad_x(dy, x, target, weight, lse, dx, smoothing, scale, add)

    def grad_target(dy, dtarget, add):
        return k.cross_entropy_soft_grad_target(dy, x, weight, lse, dtarget, smoothing, scale, add)

    return y, (grad_x, grad_target, None)
