"""Normalisation."""

from .. import check
from ..op import op


@op
def batch_norm(
    k,
    x,
    w=None,
    b=None,
    running_mean=None,
    running_var=None,
    *,
    training,
    momentum=0.1,
    eps=1e-5,
    relu=False,
):
    """Give each channel of x mean 0 and variance 1, then scale by w and shift by b.

    x (..., C), the others (C,) or None -> (..., C). training: with the batch's own statistics,
    towards which the running ones move by `momentum`; otherwise with the running ones. relu: what
    is below 0 becomes 0, at no further pass.
    """
    channels = x.shape[-1:]
    given = {"w": w, "b": b, "running_mean": running_mean, "running_var": running_var}
    for name, a in given.items():
        if a is not None and a.shape != channels:
            check.fail("batch_norm", f"{name} needs one number per channel", x=x, **{name: a})
    if training:
        rows = x.size // channels[0] if x.size else 0
        if rows < 2:
            check.fail("batch_norm", "training needs more than one value per channel", x=x)
        mean, var = k.empty(channels, x.dtype), k.empty(channels, x.dtype)
        y = k.batch_norm(x, w, b, k.empty_like(x), mean, var, eps, relu)[0]
        if running_mean is not None:
            k.batch_norm_track_(mean, var, running_mean, running_var, momentum, rows)
        gradient = k.batch_norm_grad
    else:
        mean, var = running_mean, running_var
        if mean is None or var is None:
            check.fail("batch_norm", "evaluation needs the running statistics", x=x)
        y = k.batch_norm_eval(x, w, b, mean, var, k.empty_like(x), eps, relu)
        gradient = k.batch_norm_eval_grad
    rectified = y if relu else None  # the one reason to keep y

    def grad(dy, outs, adds):
        if rectified is not None:
            dy = k.relu_grad(dy, rectified, k.empty_like(rectified), False)
        return gradient(dy, x, w, mean, var, *outs[:3], eps, adds[:3])

    return y, grad
