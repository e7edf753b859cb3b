"""Depthwise convolution of images (N, H, W, C). Loaded when it is asked for."""

import math
from typing import Any

from .. import ops
from ..tensor import Tensor
from . import init
from .layers import _count, _new, _pair
from .module import Module


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    *,
    relu: bool = False,
) -> Tensor:
    """Each channel of input (N, H, W, C) with filters of its own, weight (KH, KW, C, M)."""
    return ops.depthwise_conv2d(
        input, weight, bias, stride=stride, padding=padding, dilation=dilation, relu=relu
    )


class DepthwiseConv2d(Module):
    """Filters of its own slid over each channel: x (N, H, W, C) -> (N, OH, OW, C * multiplier).

    PyTorch's Conv2d with groups=in_channels, Keras's DepthwiseConv2D. weight (height, width, C,
    depth_multiplier). padding: a number, a pair, ((top, bottom), (left, right)), "valid" or "same".
    """

    fuses_relu = True

    def __init__(
        self,
        in_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        depth_multiplier: int = 1,
        bias: bool = True,
    ):
        _count("DepthwiseConv2d", in_channels=in_channels, depth_multiplier=depth_multiplier)
        self.in_channels, self.depth_multiplier = in_channels, depth_multiplier
        self.kernel_size = _pair("DepthwiseConv2d", "kernel_size", kernel_size)
        self.stride = _pair("DepthwiseConv2d", "stride", stride)
        self.dilation = _pair("DepthwiseConv2d", "dilation", dilation)
        self.padding = padding
        # PyTorch's initial values; a window of one channel feeds each output
        bound = 1 / math.sqrt(math.prod(self.kernel_size))
        self.weight = _new(*self.kernel_size, in_channels, depth_multiplier)
        init.uniform_(self.weight, -bound, bound)
        self.bias = _new(in_channels * depth_multiplier) if bias else None
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """x (N, H, W, in_channels) -> (N, OH, OW, in_channels * depth_multiplier)."""
        static = self.stride, self.padding, self.dilation
        return depthwise_conv2d(x, self.weight, self.bias, *static, relu=relu)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """A product and a sum for each cell of a window, padding counted in."""
        return y.size * (2 * math.prod(self.kernel_size) - (self.bias is None))

    def extra_repr(self) -> str:
        """As in PyTorch."""
        text = f"{self.in_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.padding}" * (self.padding != 0)
        text += f", dilation={self.dilation}" * (self.dilation != (1, 1))
        text += f", depth_multiplier={self.depth_multiplier}" * (self.depth_multiplier != 1)
        return text + ", bias=False" * (self.bias is None)
