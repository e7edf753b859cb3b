"""Average pooling of images (N, H, W, C). Loaded when it is asked for."""

from .. import check
from ..kernels import shapes
from ..op import op


@op
def avg_pool2d(k, x, *, size, stride=None, padding=0, count_padding=True):
    """The mean of each window of x.

    x (N, H, W, C) -> (N, OH, OW, C). stride defaults to size. count_padding: the padding's zeros
    count as cells; else a window at the edge is the mean of those inside the image.
    """
    stride = size if stride is None else stride
    size, stride, pad = check.windows("avg_pool2d", x, size, stride, padding)
    if any(p >= n for sides, n in zip(pad, size, strict=True) for p in sides):
        check.fail("avg_pool2d", f"padding {pad} must be smaller than the window {size}", x=x)
    y = k.empty_image(shapes.pool2d(x.shape, size, stride, pad), x.dtype)
    k.avg_pool2d(x, y, size, stride, pad, count_padding)

    def grad_x(dy, dx, add):
        return k.avg_pool2d_grad(dy, dx, size, stride, pad, count_padding, add)

    return y, (grad_x,)
