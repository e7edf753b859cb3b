"""Cases of depthwise convolution."""

import numpy as np

from .. import shapes
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _specials(v: Values) -> list[str]:
    # as conv2d's: outside of an image a kernel may multiply zeros, or nothing
    inside = not np.any(v["pad"])
    whole = inside and v["y"].shape[:3] == v["x"].shape[:3]
    return ["x", "b"] + ["dy"] * inside + ["w"] * whole


@case(
    "depthwise_conv2d",
    grads=("sum_rows",),
    specials=_specials,
    rejects=(
        bad("x has 3 channels, but w expects 4 (x (8, 9, 9, 3), w (3, 3, 4, 1)); w is (KH, KW, C,",
            zeros(8, 9, 9, 3), zeros(3, 3, 4, 1)),
        bad("add a batch axis", zeros(9, 9, 3), zeros(3, 3, 3, 1)),
        bad("b needs one number per channel of y, 6",
            zeros(1, 9, 9, 3), zeros(3, 3, 3, 2), zeros(3)),
        bad("the window (3, 3), which spans (5, 5), is larger than the padded image (4, 4)",
            zeros(1, 4, 4, 3), zeros(3, 3, 3, 1), dilation=2),
        bad("dilation (0, 0) must be at least 1",
            zeros(1, 9, 9, 3), zeros(3, 3, 3, 1), dilation=0),
    ),
)  # fmt: skip
def _depthwise_conv2d(d: Draw) -> Values:
    size, stride, pad = d.window(pool=False)
    dilation = d.pick("dilation", (1, 1), (2, 1), (1, 3))
    reach = shapes.extent(size, dilation)
    channels, multiplier = d.size(1, 4, 35), d.pick("multiplier", 1, 1, 2, 3)
    x = d.image(reach, pad, channels)
    w = d.array((*size, channels, multiplier))
    b = d.pick("b", None, True) and d.array((channels * multiplier,))
    y = Blank((*shapes.pool2d(x.shape, reach, stride, pad)[:3], channels * multiplier))
    relu = d.mode != "smooth" and d.pick("relu", False, True)  # no kinks where it is smooth
    return dict(x=x, w=w, b=b, y=y, stride=stride, pad=pad, dilation=dilation, relu=relu)
