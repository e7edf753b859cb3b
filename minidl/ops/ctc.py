"""Connectionist temporal classification. Loaded when it is asked for."""

from .. import check
from ..backend import every_step
from ..op import op


@op(integer=("target", "input_length", "target_length"))
def ctc_loss(
    k, x, target, input_length, target_length, *,
    blank=0, zero_infinity=False, reduction="mean",
):  # fmt: skip
    """-log of the probability of each target, however its labels are spread over the steps.

    x (T, N, C) log-probabilities, target (N, S) labels, input_length and target_length (N,): how
    many steps and labels count -> (), or (N,) for "none"

    Class `blank` says nothing; two equal labels need one between them. A target that no path
    spells (more labels, and pairs of equal ones, than steps) costs inf, and its gradient is NaN;
    both are 0 with zero_infinity. "mean" divides each loss by its number of labels, at least 1, and
    averages them. Graves et al., "Connectionist Temporal Classification", 2006.
    """
    _checked(x, target, input_length, target_length, blank, reduction)
    n, mean = x.shape[1], reduction == "mean"
    alpha = k.empty((n, x.shape[0], 2 * target.shape[1] + 1), x.dtype)
    y, nll = k.empty((n,) if reduction == "none" else (), x.dtype), k.empty((n,), x.dtype)
    given, how = (x, target, input_length, target_length), (int(blank), bool(zero_infinity), mean)
    k.ctc_loss(*given, y, nll, alpha, *how)

    def grad_x(dy, dx, add):
        return k.ctc_loss_grad(dy, *given, nll, alpha, dx, *how, add)

    return y, (grad_x, None, None, None)


def _checked(x, target, input_length, target_length, blank, reduction):
    check.known("reduction", reduction, ("mean", "sum", "none"))
    check.rank("ctc_loss", "x", x, 3, "a batch of log-probabilities (T, N, C)")
    steps, n, classes = x.shape
    each = f"for each of {n} sequences"
    if target.ndim != 2 or len(target) != n:
        hint = "x is (T, N, C)"
        check.fail("ctc_loss", f"target needs a row of labels {each}", hint, x=x, target=target)
    for name, length in (("input_length", input_length), ("target_length", target_length)):
        if length.shape != (n,):
            wrong = f"{name} needs one number {each}, not {length.shape}"
            check.fail("ctc_loss", wrong, "x is (T, N, C)", x=x)
    if not steps:
        check.fail("ctc_loss", "x has no steps", x=x)
    if not 0 <= blank < classes:
        check.fail("ctc_loss", f"blank {blank} is out of range for {classes} classes", x=x)
    check.within("ctc_loss", "input_length", input_length, 0, steps + 1, x=x)
    check.within("ctc_loss", "target_length", target_length, 0, target.shape[1] + 1, target=target)
    if target.device == "cpu" and target.size:
        every_step(_labels, target, target_length, classes, int(blank))


def _labels(target, target_length, classes, blank):
    """The labels that count are classes, and none is the blank."""
    for row, length in zip(target.tolist(), target_length.tolist(), strict=True):
        for label in row[:length]:
            if not 0 <= label < classes:
                wrong = f"target {label} is out of range [0, {classes})"
                check.fail("ctc_loss", wrong, error=IndexError, target=target)
            if label == blank:
                hint = "leave it out: it stands between labels by itself"
                check.fail("ctc_loss", f"a target holds the blank, {blank}", hint, target=target)
