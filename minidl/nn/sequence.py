"""Layers on sequences (N, L, ...): convolution, and a layer step by step. Loaded when asked for."""

import math
from typing import Any

from .. import check, ops
from ..kernels import shapes
from ..tensor import Tensor
from .layers import _count, _groups, _new, _reset
from .module import Module


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    relu: bool = False,
) -> Tensor:
    """Convolution of input (N, L, C) with weight (K, C / groups, F): see ops.conv1d."""
    how = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    return ops.conv1d(input, weight, bias, **how, relu=relu)


class Conv1d(Module):
    """Filters (length, in / groups, out) slid along sequences x (N, L, in) -> (N, OL, out).

    padding: a number, (before, after), "valid" or "same". dilation and groups: as of Conv2d.
    """

    fuses_relu = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        _groups("Conv1d", in_channels, out_channels, groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = _single("kernel_size", kernel_size)
        self.stride = _single("stride", stride)
        self.dilation = _single("dilation", dilation)
        self.padding = padding
        self.weight = _new(self.kernel_size, in_channels // groups, out_channels)
        self.bias = _new(out_channels) if bias else None
        _reset(self)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """x (N, L, in_channels) -> (N, OL, out_channels); relu: as in Linear."""
        how = self.stride, self.padding, self.dilation, self.groups
        return conv1d(x, self.weight, self.bias, *how, relu=relu)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """As of a Linear from each window to the outputs there, padding counted in."""
        window = math.prod(self.weight.shape[:-1])
        return y.size * (2 * window - (self.bias is None))

    def extra_repr(self) -> str:
        """As in PyTorch, with plain numbers."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}" + f", padding={self.padding}" * (self.padding != 0)
        text += f", dilation={self.dilation}" * (self.dilation > 1)
        text += f", groups={self.groups}" * (self.groups > 1)
        return text + ", bias=False" * (self.bias is None)


class TimeDistributed(Module):
    """A layer at every step of sequences by itself: x (N, T, ...) -> (N, T, ...).

    All steps are one batch of N T, so it costs what the layer costs. The same weights serve them.
    """

    def __init__(self, layer: Module, **options: Any):
        if not isinstance(layer, Module) or options:
            what = getattr(layer, "__name__", type(layer).__name__)
            given = "".join(f", {name}={value!r}" for name, value in options.items())
            raise TypeError(
                f"TimeDistributed({what}{given}): it takes a layer, and nothing else, as in "
                "TimeDistributed(nn.Linear(40, 10)), and is then called with data (N, T, ...); "
                "minidl.data.audio.log_mel(x, sample_rate=44100) makes such data of sound"
            )
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, ...), of which the layer sees (N T, ...) -> (N, T, ...)."""
        if x.ndim < 3:
            check.fail("TimeDistributed", "x has no steps: sequences are (N, T, ...)", x=x)
        y = self.layer(ops.reshape(x, shape=(x.shape[0] * x.shape[1], *x.shape[2:])))
        return ops.reshape(y, shape=(*x.shape[:2], *y.shape[1:]))


def _single(name: str, value: Any) -> int:
    try:
        number = shapes.single(value)
    except (TypeError, ValueError):
        number = value  # which _count refuses by name
    _count("Conv1d", **{name: number})
    return number
