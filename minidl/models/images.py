"""What networks for images share: the shape they are made for, their widths, first filters."""

import math
from collections.abc import Sequence

from .. import check, nn


def sides(network: str, input_shape: Sequence[int], least: int) -> tuple[int, int, int]:
    """The height, width and channels of an image, at least so many pixels high and wide."""
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        check.fail(network, f"input_shape is {shape}, but must be (height, width, channels)")
    if min(shape[:2]) < least:
        hint = "pad or resize the images"
        check.fail(network, f"input_shape is {shape}, but needs {least} pixels a side", hint)
    return shape


def scaled(channels: int, width: float) -> int:
    """So many channels times a width, at least one."""
    return max(1, int(channels * width))


def he_filters(network: nn.Sequential) -> None:
    """Draw all filters from N(0, 2 / fan_in), which keeps the size of activations before relus.

    He et al. 2015, section 2.2. An output of a depthwise filter depends on its window alone.
    Biases begin at 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.DepthwiseConv2d):
            fan = math.prod(layer.weight.shape[: 2 if isinstance(layer, nn.DepthwiseConv2d) else 3])
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / fan))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
