"""Losses of numbers against targets of the same shape, one by one."""

from .. import check
from ..backend import every_step
from ..op import op
from .loss import scale_of


def _room(k, name, x, target, reduction):
    """Space for a loss, and what its numbers are scaled by."""
    if target.shape != x.shape:
        hint = "is an axis of 1 missing?" if target.size == x.size else ""
        given = f"(x {x.shape}, target {target.shape})"
        check.fail(name, f"target needs the shape of x{'; ' * bool(hint)}{hint} {given}")
    scale = scale_of(reduction, x.size)
    return k.empty(x.shape if reduction == "none" else (), x.dtype), scale


@op
def mse_loss(k, x, target, *, reduction="mean"):
    """(x - target)**2 of each number, their sum or their mean."""
    y, scale = _room(k, "mse_loss", x, target, reduction)
    k.mse_loss(x, target, y, scale)

    def grad_x(dy, dx, add):
        return k.mse_loss_grad(dy, x, target, dx, scale, add)

    def grad_target(dy, dtarget, add):
        return k.mse_loss_grad(dy, target, x, dtarget, scale, add)

    return y, (grad_x, grad_target)


@op
def l1_loss(k, x, target, *, reduction="mean"):
    """|x - target| of each number, their sum or their mean; its slope is 0 where they are equal."""
    y, scale = _room(k, "l1_loss", x, target, reduction)
    return _l1(k, x, target, y, scale)


def _l1(k, x, target, y, scale):
    k.l1_loss(x, target, y, scale)

    def grad_x(dy, dx, add):
        return k.l1_loss_grad(dy, x, target, dx, scale, add)

    def grad_target(dy, dtarget, add):
        return k.l1_loss_grad(dy, target, x, dtarget, scale, add)

    return y, (grad_x, grad_target)


@op
def huber_loss(k, x, target, *, delta=1.0, reduction="mean"):
    """d**2 / 2 where d = |x - target| is at most delta, delta (d - delta / 2) beyond."""
    if not delta > 0:
        check.fail("huber_loss", f"delta is {delta}, but must be above 0")
    y, scale = _room(k, "huber_loss", x, target, reduction)
    return _huber(k, x, target, y, delta, scale)


def _huber(k, x, target, y, delta, scale):
    k.huber_loss(x, target, y, delta, scale)

    def grad_x(dy, dx, add):
        return k.huber_loss_grad(dy, x, target, dx, delta, scale, add)

    def grad_target(dy, dtarget, add):
        return k.huber_loss_grad(dy, target, x, dtarget, delta, scale, add)

    return y, (grad_x, grad_target)


@op
def smooth_l1_loss(k, x, target, *, beta=1.0, reduction="mean"):
    """huber_loss with delta = beta, divided by beta; l1_loss where beta is 0."""
    if not beta >= 0:
        check.fail("smooth_l1_loss", f"beta is {beta}, but must be at least 0")
    y, scale = _room(k, "smooth_l1_loss", x, target, reduction)
    if beta == 0:
        return _l1(k, x, target, y, scale)
    return _huber(k, x, target, y, beta, scale / beta)


def _probabilities(x):
    """x lies in [0, 1], or is NaN."""
    wrong = x[(x < 0) | (x > 1)]
    if wrong.size:
        hint = "of logits it is binary_cross_entropy_with_logits"
        check.fail("binary_cross_entropy", f"x has {wrong[0]}, which is no probability", hint)


@op
def binary_cross_entropy(k, x, target, *, reduction="mean"):
    """-(target log x + (1 - target) log(1 - x)) of probabilities x; no log is below -100."""
    y, scale = _room(k, "binary_cross_entropy", x, target, reduction)
    if x.device == "cpu":  # on a GPU a look would wait for all that is under way
        every_step(_probabilities, x)
    k.binary_cross_entropy(x, target, y, scale)

    def grad_x(dy, dx, add):
        return k.binary_cross_entropy_grad_x(dy, x, target, dx, scale, add)

    def grad_target(dy, dtarget, add):
        return k.binary_cross_entropy_grad_target(dy, x, dtarget, scale, add)

    return y, (grad_x, grad_target)


def _repeats(name, pos_weight, x):
    """pos_weight broadcasts to x, and does not widen it."""
    lengths = zip(reversed(pos_weight.shape), reversed(x.shape))
    if pos_weight.ndim > x.ndim or any(n not in (1, wide) for n, wide in lengths):
        check.fail(name, "pos_weight does not broadcast to x", x=x, pos_weight=pos_weight)


@op
def binary_cross_entropy_with_logits(k, x, target, pos_weight=None, *, reduction="mean"):
    """binary_cross_entropy of sigmoid x, which is exact for logits of any size.

    pos_weight, which broadcasts to x, multiplies the first of its two terms.
    """
    name = "binary_cross_entropy_with_logits"
    y, scale = _room(k, name, x, target, reduction)
    if pos_weight is not None:
        _repeats(name, pos_weight, x)
    k.binary_cross_entropy_with_logits(x, target, pos_weight, y, scale)

    def grad_x(dy, dx, add):
        return k.binary_cross_entropy_with_logits_grad_x(dy, x, target, pos_weight, dx, scale, add)

    def grad_target(dy, dtarget, add):
        return k.binary_cross_entropy_with_logits_grad_target(
            dy, x, pos_weight, dtarget, scale, add
        )

    return y, (grad_x, grad_target, None)


@op
def kl_div(k, x, target, *, log_target=False, reduction="mean"):
    """p (log p - x) of log-probabilities x; target is p, or log p on log_target.

    reduction "batchmean" divides the sum by the length of the first axis: the divergence itself.
    """
    rows = x.shape[0] if reduction == "batchmean" and x.ndim else 1
    batch = reduction == "batchmean"
    y, scale = _room(k, "kl_div", x, target, "sum" if batch else reduction)
    scale = scale_of("mean", rows) if batch else scale
    k.kl_div(x, target, y, log_target, scale)

    def grad_x(dy, dx, add):
        return k.kl_div_grad_x(dy, target, dx, log_target, scale, add)

    def grad_target(dy, dtarget, add):
        return k.kl_div_grad_target(dy, x, target, dtarget, log_target, scale, add)

    return y, (grad_x, grad_target)
