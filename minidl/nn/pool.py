"""Average pooling of images (N, H, W, C). Loaded when it is asked for."""

import math
from typing import Any

from .. import check, ops
from ..tensor import Tensor
from .layers import _pair
from .module import Module


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of input (N, H, W, C).

    count_include_pad: as in PyTorch the zeros of the padding count. In Keras they do not.
    """
    return ops.avg_pool2d(
        input, size=kernel_size, stride=stride, padding=padding, count_padding=count_include_pad
    )


def global_avg_pool2d(input: Tensor, keepdim: bool = False) -> Tensor:
    """The mean of each channel of input (N, H, W, C) over the whole image -> (N, C).

    keepdim: (N, 1, 1, C), as PyTorch's adaptive_avg_pool2d(input, 1) has it.
    """
    check.rank("global_avg_pool2d", "x", input, 4, "a batch of images (N, H, W, C)")
    return ops.mean(input, axis=(1, 2), keepdims=keepdim)


class AvgPool2d(Module):
    """The mean of each window of x (N, H, W, C) -> (N, OH, OW, C); stride: kernel_size."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        count_include_pad: bool = True,
    ):
        self.kernel_size = _pair("AvgPool2d", "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _pair("AvgPool2d", "stride", stride)
        self.padding, self.count_include_pad = padding, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, C)."""
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """Sums of a window's elements, and a quotient."""
        return y.size * math.prod(self.kernel_size)

    def extra_repr(self) -> str:
        """As in PyTorch, and whether padding counts."""
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return text + f", count_include_pad={self.count_include_pad}"


class GlobalAvgPool2d(Module):
    """The mean of each channel over the whole image: x (N, H, W, C) -> (N, C).

    keepdim: (N, 1, 1, C), as PyTorch's AdaptiveAvgPool2d(1).
    """

    def __init__(self, keepdim: bool = False):
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, C)."""
        return global_avg_pool2d(x, self.keepdim)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """A sum for each element, counting the quotient."""
        return x.size

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"keepdim={self.keepdim}"
