"""Convolution and pooling of images (N, H, W, C)."""

from .. import check
from ..kernels import shapes
from ..op import op


@op
def conv2d(k, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, relu=False):
    """Slide each filter of w over x and sum the products.

    x (N, H, W, C), w (KH, KW, C / groups, F), b (F,) or None -> (N, OH, OW, F)

    stride, dilation: a number or (height, width); a window reads every dilation-th pixel. padding:
    zeros to add on each side, as a number, a pair, ((top, bottom), (left, right)), "valid" or
    "same". groups: the first F / groups filters see the first C / groups channels, and so on.
    relu: what is below 0 becomes 0, at no further pass.
    """
    check.rank("conv2d", "w", w, 4, "a set of filters (KH, KW, C / groups, F)")
    _, stride, pad = check.windows("conv2d", x, w.shape[:2], stride, padding, dilation)
    check.filters("conv2d", x, w, b, groups, "images are (N, H, W, C)")
    how = stride, pad, shapes.pair(dilation), groups
    y = k.empty_image(shapes.conv2d(x.shape, w.shape, *how[:3]), x.dtype)
    k.conv2d(x, w, b, y, *how, relu)

    def grad_x(dy, dx, add):
        return k.conv2d_grad_x(dy, w, dx, *how, add)

    def grad_w(dy, dw, add):
        return k.conv2d_grad_w(dy, x, dw, *how, add)

    def grad_b(dy, db, add):
        return k.sum_rows(dy, db, add)

    def grad(dy, outs, adds):
        dz = k.relu_grad(dy, y, k.empty_like(y), False)
        if outs[0] is not None:
            grad_x(dz, outs[0], adds[0])
        if outs[1] is not None:
            grad_w(dz, outs[1], adds[1])
        if outs[2:] and outs[2] is not None:
            grad_b(dz, outs[2], adds[2])

    return y, grad if relu else (grad_x, grad_w, grad_b)


@op
def max_pool2d(k, x, *, size, stride=None, padding=0):
    """The maximum of each window of x; the first of equal ones gets the gradient.

    x (N, H, W, C) -> (N, OH, OW, C). stride defaults to size; padding never wins.
    """
    stride = size if stride is None else stride
    size, stride, pad = check.windows("max_pool2d", x, size, stride, padding)
    if any(p >= n for sides, n in zip(pad, size, strict=True) for p in sides):
        check.fail("max_pool2d", f"padding {pad} must be smaller than the window {size}", x=x)
    shape = shapes.pool2d(x.shape, size, stride, pad)
    y, arg = k.empty_image(shape, x.dtype), k.empty_image(shape, "int32")
    k.max_pool2d(x, y, arg, size, stride, pad)

    def grad_x(dy, dx, add):
        return k.max_pool2d_grad(dy, arg, dx, size, stride, pad, add)

    return y, (grad_x,)
