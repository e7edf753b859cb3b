"""The layers. Images are (N, H, W, C), weights (in, out), filters (height, width, in, out)."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import check
from ..kernels import shapes
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module, Parameter


def _new(*shape: int) -> Parameter:
    return Parameter(np.empty(shape, np.float32))


def _count(layer: str, **sizes: Any) -> None:
    """TypeError or ValueError unless every size is a positive whole number."""
    for name, n in sizes.items():
        if isinstance(n, bool) or not isinstance(n, int | np.integer):
            raise TypeError(f"{layer}: {name} is {n!r}, but must be a whole number")
        if n < 1:
            raise ValueError(f"{layer}: {name} is {n}, but must be at least 1")


def _pair(layer: str, name: str, value: Any) -> tuple[int, int]:
    try:
        pair = shapes.pair(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{layer}: {name} is {value!r}, but must be a whole number or a pair (height, width)"
        ) from None
    _count(layer, **{name: pair[0]})
    _count(layer, **{name: pair[1]})
    return pair


def _groups(layer: str, in_channels: Any, out_channels: Any, groups: Any) -> None:
    """Whole numbers, and channels and filters that divide into groups."""
    sizes = dict(in_channels=in_channels, out_channels=out_channels)
    _count(layer, **sizes, groups=groups)
    for name, n in sizes.items():
        if n % groups:
            raise ValueError(f"{layer}: {name} is {n}, which does not divide into {groups} groups")


class Sequential(Module):
    """Modules one after the other: given in order, or as a dict from names to modules."""

    def __init__(self, *modules: Any):
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else None
        for name, module in named.items() if named else enumerate(modules):
            self._add(str(name), module)

    def _add(self, name: str, module: Any) -> None:
        if not isinstance(module, Module):
            what = getattr(module, "__name__", type(module).__name__)
            hint = f"it is a class: write {what}()" if isinstance(module, type) else ""
            hint = "unpack it: Sequential(*layers)" if isinstance(module, list | tuple) else hint
            raise TypeError(
                f"Sequential: {name} is {what}, not a Module" + (f"; {hint}" if hint else "")
            )
        setattr(self, name, module)

    def _names(self) -> list[str]:
        return [name for name, value in vars(self).items() if isinstance(value, Module)]

    def forward(self, x: Any) -> Any:
        """x through all modules in order. A layer that can does the ReLU behind it as well."""
        for module, relu in self._calls():
            x = module(x, relu=True) if relu else module(x)
        return x

    def _calls(self) -> list[tuple[Module, bool]]:
        """The modules to call, and whether the ReLU behind one is done there, bit for bit.

        It is where the class of a layer has `fuses_relu`: its forward takes relu=True.
        """
        calls: list[tuple[Module, bool]] = []
        for module in self:
            before = calls[-1][0] if calls and type(module) is ReLU else None
            plain = all("forward" not in vars(m) for m in (module, before) if m)  # of the class
            if before and "fuses_relu" in vars(type(before)) and plain:
                calls[-1] = before, True
            else:
                calls.append((module, False))
        return calls

    def __iter__(self) -> Iterator[Module]:
        return (value for value in vars(self).values() if isinstance(value, Module))

    def __len__(self) -> int:
        return len(self._names())

    def __getitem__(self, index: Any) -> Any:
        """A module, or for a slice a Sequential of the same modules, counted anew from 0."""
        if isinstance(index, slice):
            return Sequential(*list(self)[index])
        return list(self)[index]

    def __setitem__(self, index: int, module: Module) -> None:
        self._add(self._names()[index], module)

    def append(self, module: Module) -> "Sequential":
        """Add a module at the end."""
        self._add(str(len(self)), module)
        return self


class Linear(Module):
    """x (..., in_features) times weight (in, out), plus bias -> (..., out_features)."""

    fuses_relu = True  # see Sequential; not inherited, for a subclass may have its own forward

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        _count("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = _new(in_features, out_features)
        self.bias = _new(out_features) if bias else None
        _reset(self)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """x (..., in_features) -> (..., out_features); relu: what is below 0 becomes 0."""
        return F.linear(x, self.weight, self.bias, relu=relu)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """in_features products and as many sums for each output, one less without a bias."""
        return y.size * (2 * self.in_features - (self.bias is None))

    def extra_repr(self) -> str:
        """As in PyTorch."""
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


class Conv2d(Module):
    """Filters (height, width, in / groups, out) slid over images x (N, H, W, in): (N, OH, OW, out).

    padding: a number, a pair, ((top, bottom), (left, right)), "valid" or "same". dilation: a window
    reads every so manyth pixel. groups: each sees its share of the channels.
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
        _groups("Conv2d", in_channels, out_channels, groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = _pair("Conv2d", "kernel_size", kernel_size)
        self.stride = _pair("Conv2d", "stride", stride)
        self.dilation = _pair("Conv2d", "dilation", dilation)
        self.padding = padding
        self.weight = _new(*self.kernel_size, in_channels // groups, out_channels)
        self.bias = _new(out_channels) if bias else None
        _reset(self)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """x (N, H, W, in_channels) -> (N, OH, OW, out_channels); relu: as in Linear."""
        how = self.stride, self.padding, self.dilation, self.groups
        return F.conv2d(x, self.weight, self.bias, *how, relu=relu)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """As of a Linear from each window to the outputs there, padding counted in."""
        window = math.prod(self.weight.shape[:-1])
        return y.size * (2 * window - (self.bias is None))

    def extra_repr(self) -> str:
        """As in PyTorch."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}" + f", padding={self.padding}" * (self.padding != 0)
        text += f", dilation={self.dilation}" * (max(self.dilation) > 1)
        text += f", groups={self.groups}" * (self.groups > 1)
        return text + ", bias=False" * (self.bias is None)


def _reset(layer: Any) -> None:
    """PyTorch's initial values: weight and bias from U(-1, 1) / sqrt(fan_in)."""
    init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    if layer.bias is not None:
        bound = 1 / math.sqrt(init.fans(layer.weight.shape)[0])
        init.uniform_(layer.bias, -bound, bound)


class MaxPool2d(Module):
    """The maximum of each window of x (N, H, W, C) -> (N, OH, OW, C); stride: kernel_size."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        self.kernel_size = _pair("MaxPool2d", "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _pair("MaxPool2d", "stride", stride)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, C)."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """A comparison for every element of a window but the first."""
        return y.size * (math.prod(self.kernel_size) - 1)

    def extra_repr(self) -> str:
        """As in PyTorch, but for what minidl has not."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.relu(x)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """One comparison each."""
        return y.size


class Dropout(Module):
    """In training, zero each element with probability p and scale the rest by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            check.fail("Dropout", f"the probability p is {p}, but must lie in [0, 1]")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape; in evaluation x itself."""
        return F.dropout(x, self.p, self.training)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """None in evaluation."""
        return 0

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"p={self.p}"


class Flatten(Module):
    """The axes from start_dim to end_dim made one: images (N, H, W, C) -> rows (N, H*W*C)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """x (N, ...) -> (N, features)."""
        return F.flatten(x, self.start_dim, self.end_dim)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """None: it is a view."""
        return 0

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
