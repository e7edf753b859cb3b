"""Normalisation."""

from .. import check
from ..op import op


@op
def batch_norm(
    k, x, w=None, b=None, running_mean=None, running_var=None, *, training, momentum=0.1, eps=1e-5
):
    """Give each channel of x mean 0 and variance 1, then scale by w and shift by b.

    x (..., C), the others (C,) or None -> (..., C). training: with the batch's own statistics,
    towards which the running ones move by `momentum`; otherwise with the running ones.
    """
    channels = x.shape[-1:]
    given = {"w": w, "b": b, "running_mean": running_mean, "running_var": running_var}
    for name, a in given.items():
        if a is not None and a.shape != channels:
            check.fail("batch_norm", f"{name} needs one number per channel", x=x, **{name: a})
    if not training:
        if running_mean is None or running_var is None:
            check.fail("batch_norm", "evaluation needs the running statistics", x=x)
        y = k.batch_norm_eval(x, w, b, running_mean, running_var, k.empty_like(x), eps)

        def grad_eval(dy, outs, adds):
            return k.batch_norm_eval_grad(
                dy, x, w, running_mean, running_var, *outs[:3], eps, adds[:3]
            )

        return y, grad_eval
    rows = x.size // channels[0] if x.size else 0
    if rows < 2:
        check.fail("batch_norm", "training needs more than one value per channel", x=x)
    mean, var = k.empty(channels, x.dtype), k.empty(channels, x.dtype)
    y = k.empty_like(x)
    k.batch_norm(x, w, b, y, mean, var, eps)
    if running_mean is not None:
        k.batch_norm_track_(mean, var, running_mean, running_var, momentum, rows)

    def grad(dy, outs, adds):
        return k.batch_norm_grad(dy, x, w, mean, var, *outs[:3], eps, adds[:3])

    return y, grad
