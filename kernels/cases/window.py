"""Cases of convolution and pooling."""

import numpy as np

from .. import shapes
from .bounds import exact, products
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _conv2d_specials(v: Values) -> list[str]:
    # Outside of an image a kernel may multiply zeros, or nothing; inf in the other factor would
    # show which. w meets what is outside of x in y, and what is outside of dy in dx; dy in dw.
    inside = not np.any(v["pad"])
    whole = inside and v["y"].shape[:3] == v["x"].shape[:3]  # windows of one pixel, one for each
    return ["x", "b"] + ["dy"] * inside + ["w"] * whole


@case(
    "conv2d",
    grads=("sum_rows",),
    blas=True,
    specials=_conv2d_specials,
    rejects=(
        bad("x has 3 channels, but w expects 4 (x (8, 9, 9, 3), w (3, 3, 4, 16)); images are (N,",
            zeros(8, 9, 9, 3), zeros(3, 3, 4, 16)),
        bad("add a batch axis", zeros(9, 9, 3), zeros(3, 3, 3, 8)),
        bad("b needs one number per filter, 8", zeros(1, 9, 9, 3), zeros(3, 3, 3, 8), zeros(3)),
        bad("the window (3, 3) is larger than the padded image (2, 2)",
            zeros(1, 2, 2, 3), zeros(3, 3, 3, 8)),
        bad("must be at least 1", zeros(1, 9, 9, 3), zeros(3, 3, 3, 8), stride=0),
        bad("padding is at least 0", zeros(1, 9, 9, 3), zeros(3, 3, 3, 8), padding=-1),
        bad("the window (3, 3), which spans (9, 3), is larger than the padded image (8, 8)",
            zeros(1, 8, 8, 3), zeros(3, 3, 3, 8), dilation=(4, 1)),
        bad("dilation (0, 0) must be at least 1", zeros(1, 9, 9, 3), zeros(3, 3, 3, 8), dilation=0),
        bad("x has 6 channels, but w expects 2 in each of 2 groups (x (1, 9, 9, 6), w (3, 3, 2, 8",
            zeros(1, 9, 9, 6), zeros(3, 3, 2, 8), groups=2),
        bad("w has 8 filters, which do not divide into 3 groups",
            zeros(1, 9, 9, 6), zeros(3, 3, 2, 8), groups=3),
        bad("groups is 0, but must be", zeros(1, 9, 9, 6), zeros(3, 3, 6, 8), groups=0),
    ),
)  # fmt: skip
def _conv2d(d: Draw) -> Values:
    size, stride, pad = d.window(pool=False)
    dilation = d.pick("dilation", (1, 1), (1, 1), (2, 2), (1, 3), (2, 1))
    groups = d.pick("groups", 1, 1, 2, 3)
    channels, filters = (d.size(1, 4, 35 // groups) for _ in "cf")  # of a group
    x = d.image(shapes.extent(size, dilation), pad, channels * groups)
    w = d.array((*size, channels, filters * groups))
    b = d.pick("b", None, True) and d.array(w.shape[3:])
    n, oh, ow, f = shapes.conv2d(x.shape, w.shape, stride, pad, dilation)
    less, fewer = (d.pick("cropped", 0, 0, 0, 1) for _ in range(2))
    y = Blank((n, max(1, oh - less), max(1, ow - fewer), f))
    relu = d.mode != "smooth" and d.pick("relu", False, True)  # no kinks where it is smooth
    how = dict(stride=stride, pad=pad, dilation=dilation, groups=groups)
    return dict(x=x, w=w, b=b, y=y, relu=relu) | how


@case(
    "max_pool2d",
    bound={"max_pool2d": exact, "": products},
    rejects=(
        bad("must be smaller than the window (2, 2)", zeros(1, 4, 4, 3), size=2, padding=2),
        bad("x has 2 dimensions", zeros(4, 4), size=2),
    ),
)
def _max_pool2d(d: Draw) -> Values:
    size, stride, pad = d.window(pool=True)
    x = d.image(size, pad, d.size(1, 4, 35), distinct=True)
    shape = shapes.pool2d(x.shape, size, stride, pad)
    y, arg = Blank(shape), Blank(shape, "int32")
    return dict(x=x, y=y, arg=arg, size=size, stride=stride, pad=pad)
