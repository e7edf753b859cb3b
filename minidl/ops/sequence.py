"""Convolution of sequences (N, L, C). Loaded when it is asked for."""

from .. import check
from ..kernels import shapes
from ..op import op
from .window import conv2d


@op
def conv1d(k, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, relu=False):
    """Slide each filter of w along x and sum the products: conv2d on images of one line.

    x (N, L, C), w (K, C / groups, F), b (F,) or None -> (N, OL, F)

    padding: zeros to add at both ends, as a number, (before, after), "valid" or "same". stride,
    dilation, groups and relu: as of conv2d.
    """
    hint = {2: "add a batch axis: x[None]", 4: "images are for conv2d"}.get(x.ndim, "")
    check.rank("conv1d", "x", x, 3, "a batch of sequences (N, L, C)", hint)
    check.rank("conv1d", "w", w, 3, "a set of filters (K, C / groups, F)")
    stride, pad, dilation = _windows(x, w, stride, padding, dilation)
    check.filters("conv1d", x, w, b, groups, "sequences are (N, L, C)")
    how = dict(stride=(1, stride), padding=((0, 0), pad), dilation=(1, dilation), groups=groups)
    y, grads = conv2d.raw(k, x[:, None], w[None], b, **how, relu=relu)

    def grad(dy, outs, adds):
        views = (slice(None), None), (None,), ()  # of x, w and b as conv2d sees them
        outs = [out if out is None else out[view] for out, view in zip(outs, views)]
        if relu:
            grads(dy[:, None], outs, adds)
        else:
            for one, out, add in zip(grads, outs, adds):
                if out is not None:
                    one(dy[:, None], out, add)

    return y[:, 0], grad


def _windows(x, w, stride, padding, dilation):
    """stride, padding and dilation in full, and that a window fits into x."""
    (length, size), given = (x.shape[1], w.shape[0]), (stride, dilation)
    try:
        stride, dilation = map(shapes.single, given)
        for what, n in (("window", size), ("stride", stride), ("dilation", dilation)):
            if n < 1:
                raise ValueError(f"{what} {n} must be at least 1")
        (span,) = shapes.extent((size,), (dilation,))
        pad = shapes.padding1d(padding, length, span, stride)
    except (ValueError, TypeError) as error:
        check.fail("conv1d", str(error), x=x)
    if span > length + sum(pad):
        gaps = f", which spans {span}," if span != size else ""
        problem = f"the window {size}{gaps} is larger than the padded sequence {length + sum(pad)}"
        check.fail("conv1d", problem, x=x)
    return stride, pad, dilation
