"""Depthwise convolution of images (N, H, W, C). Loaded when it is asked for."""

from .. import check
from ..kernels import shapes
from ..op import op


@op
def depthwise_conv2d(k, x, w, b=None, *, stride=1, padding=0, dilation=1, relu=False):
    """Slide filters of its own over each channel of x: M of them, which make M channels of y.

    x (N, H, W, C), w (KH, KW, C, M), b (C*M,) or None -> (N, OH, OW, C*M), channel c*M + m.

    stride: a number or (height, width). padding: as of conv2d. dilation: how far apart the cells
    of a filter lie, a number or (height, width). relu: what is below 0 becomes 0, at no further
    pass.
    """
    check.rank("depthwise_conv2d", "w", w, 4, "a set of filters (KH, KW, C, M)")
    size, stride, pad = check.windows("depthwise_conv2d", x, w.shape[:2], stride, padding, dilation)
    dilation = shapes.pair(dilation)
    if x.shape[3] != w.shape[2]:
        problem = f"x has {x.shape[3]} channels, but w expects {w.shape[2]}"
        check.fail("depthwise_conv2d", problem, "w is (KH, KW, C, M)", x=x, w=w)
    channels = w.shape[2] * w.shape[3]
    if b is not None and b.shape != (channels,):
        problem = f"b needs one number per channel of y, {channels}"
        check.fail("depthwise_conv2d", problem, w=w, b=b)
    out = shapes.conv2d(x.shape, (*size, 1, channels), stride, pad, dilation)
    y = k.empty_image(out, x.dtype)
    k.depthwise_conv2d(x, w, b, y, stride, pad, dilation, relu)

    def grad(dy, outs, adds):
        dz = k.relu_grad(dy, y, k.empty_like(y), False) if relu else dy
        if outs[0] is not None:
            k.depthwise_conv2d_grad_x(dz, w, outs[0], stride, pad, dilation, adds[0])
        if outs[1] is not None:
            k.depthwise_conv2d_grad_w(dz, x, outs[1], stride, pad, dilation, adds[1])
        if outs[2:] and outs[2] is not None:
            k.sum_rows(dz, outs[2], adds[2])

    return y, grad
