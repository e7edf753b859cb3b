"""Normalisation."""

from .. import check
from ..op import op


@op
def batch_norm(
    k, x, w=None, b=None, running_mean=None, running_var=None, r=None,
    *, training, momentum=0.1, eps=1e-5, relu=False,
):  # fmt: skip
    """Give each channel of x mean 0 and variance 1, then scale by w and shift by b.

    x (..., C), the others (C,) or None -> (..., C). training: with the batch's own statistics,
    towards which the running ones move by `momentum`; otherwise with the running ones. In the same
    pass r, a residual like x, is added, and then, with relu, what is below 0 becomes 0.
    """
    channels = x.shape[-1:]
    given = {"w": w, "b": b, "running_mean": running_mean, "running_var": running_var}
    for name, a in given.items():
        if a is not None and a.shape != channels:
            check.fail("batch_norm", f"{name} needs one number per channel", x=x, **{name: a})
    if r is not None and r.shape != x.shape:
        check.fail("batch_norm", "r needs the shape of x", x=x, r=r)
    if training:
        rows = x.size // channels[0] if x.size else 0
        if rows < 2:
            check.fail("batch_norm", "training needs more than one value per channel", x=x)
        mean, var = k.empty(channels, x.dtype), k.empty(channels, x.dtype)
        y = k.batch_norm(x, w, b, r, k.empty_like(x), mean, var, eps, relu)[0]
        if running_mean is not None:
            k.batch_norm_track_(mean, var, running_mean, running_var, momentum, rows)
        gradient = k.batch_norm_grad
    else:
        mean, var = running_mean, running_var
        if mean is None or var is None:
            check.fail("batch_norm", "evaluation needs the running statistics", x=x)
        y = k.batch_norm_eval(x, w, b, r, mean, var, k.empty_like(x), eps, relu)
        gradient = k.batch_norm_eval_grad
    rectified = y if relu else None  # the one reason to keep y

    def grad(dy, outs, adds):
        places, joined = (*outs, *[None] * 5), (*adds, *[False] * 5)  # one for each input given
        places, joined = (*places[:3], places[5]), (*joined[:3], joined[5])
        return gradient(dy, x, w, mean, var, rectified, *places, eps, relu, joined)

    return y, grad


@op
def layer_norm(k, x, w=None, b=None, *, normalized_shape, eps=1e-5):
    """Give each row of x, over its last axes, mean 0 and variance 1; then scale by w, shift by b.

    x (..., *normalized_shape), w, b (*normalized_shape) or None -> like x
    """
    features = tuple(normalized_shape)
    if not features:
        check.fail("layer_norm", "normalized_shape has no axes", x=x)
    if x.shape[-len(features) :] != features:
        check.fail("layer_norm", f"x does not end in normalized_shape {features}", x=x)
    if 0 in features:
        check.fail("layer_norm", "there is no mean of nothing", x=x)
    for name, a in (("w", w), ("b", b)):
        if a is not None and a.shape != features:
            check.fail("layer_norm", f"{name} needs one number per feature", x=x, **{name: a})
    rows = x.shape[: x.ndim - len(features)]
    mean, rstd = k.empty(rows, x.dtype), k.empty(rows, x.dtype)
    y = k.layer_norm(x, w, b, k.empty_like(x), mean, rstd, eps)[0]

    def grad(dy, outs, adds):
        outs, adds = (*outs, None, None)[:3], (*adds, False, False)[:3]
        return k.layer_norm_grad(dy, x, w, mean, rstd, *outs, adds)

    return y, grad
