"""Cases of convolution and pooling."""

import numpy as np

from .. import shapes
from .bounds import exact, products
from .case import case
from .draw import Blank, Draw, Values


def _conv2d_specials(v: Values) -> list[str]:
    # A kernel may skip the padding, or multiply its zeros: which, inf in w or dy would show.
    return ["x", "b"] if np.any(v["pad"]) else ["x", "w", "b", "dy"]


@case("conv2d", grads=("sum_rows",), specials=_conv2d_specials)
def _conv2d(d: Draw) -> Values:
    size, stride, pad = d.window(pool=False)
    channels, filters = d.size(1, 4, 35), d.size(1, 4, 35)
    x = d.image(size, pad, channels)
    w = d.array((*size, channels, filters))
    b = d.pick("b", None, True) and d.array((filters,))
    y = Blank(shapes.conv2d(x.shape, w.shape, stride, pad))
    return dict(x=x, w=w, b=b, y=y, stride=stride, pad=pad)


@case("max_pool2d", bound={"max_pool2d": exact, "": products})
def _max_pool2d(d: Draw) -> Values:
    size, stride, pad = d.window(pool=True)
    x = d.image(size, pad, d.size(1, 4, 35), distinct=True)
    y = shapes.pool2d(x.shape, size, stride, pad)
    y, arg = Blank(y), Blank(y, "int32")
    return dict(x=x, y=y, arg=arg, size=size, stride=stride, pad=pad)
