"""Layers that work on each element; `ReLU` and `Dropout` are in layers.py.

Loaded when the first of them is asked for.
"""

from .. import check
from ..tensor import Tensor
from . import functional as F
from .module import Module


class ReLU6(Module):
    """min(max(x, 0), 6)."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.relu6(x)


class LeakyReLU(Module):
    """x where it is positive, else negative_slope x."""

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where it is positive, else alpha (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"alpha={self.alpha}"


class GELU(Module):
    """x times the share of a normal distribution below x; approximate: "none" or "tanh"."""

    def __init__(self, approximate: str = "none"):
        check.known("approximation of GELU", approximate, ("none", "tanh"))
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.silu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.tanh(x)


class Softplus(Module):
    """log(1 + exp(beta x)) / beta, and x where beta x is above the threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"beta={self.beta}, threshold={self.threshold}"
