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
    ),
)  # fmt: skip
def _conv2d(d: Draw) -> Values:
    size, stride, pad = d.window(pool=False)
    channels, filters = d.size(1, 4, 35), d.size(1, 4, 35)
    x = d.image(size, pad, channels)
    w = d.array((*size, channels, filters))
    b = d.pick("b", None, True) and d.array((filters,))
    y = Blank(shapes.conv2d(x.shape, w.shape, stride, pad))
    relu = d.mode != "smooth" and d.pick("relu", False, True)  # no kinks where it is smooth
    return dict(x=x, w=w, b=b, y=y, stride=stride, pad=pad, relu=relu)


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
