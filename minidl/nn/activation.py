"""Activations, as functions and as layers; relu and `ReLU` are in functional.py and layers.py.

Loaded when the first of them is asked for.
"""

from .. import check, ops
from ..ops import sigmoid, tanh
from ..tensor import Tensor
from . import functional as F
from .module import Module


def relu6(input: Tensor) -> Tensor:
    """min(max(input, 0), 6)."""
    return ops.relu6(input)


def silu(input: Tensor) -> Tensor:
    """input times sigmoid(input)."""
    return ops.silu(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """input where it is positive, else negative_slope times input."""
    return ops.leaky_relu(input, negative_slope=negative_slope)


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """input where it is positive, else alpha (exp(input) - 1)."""
    return ops.elu(input, alpha=alpha)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input times the share of a normal distribution below it; approximate: "none" or "tanh"."""
    return ops.gelu(input, approximate=approximate)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta input)) / beta, and input where beta input is above the threshold."""
    return ops.softplus(input, beta=beta, threshold=threshold)


class ReLU6(Module):
    """min(max(x, 0), 6)."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return relu6(x)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """Two comparisons each."""
        return 2 * y.size


class LeakyReLU(Module):
    """x where it is positive, else negative_slope x."""

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where it is positive, else alpha (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return elu(x, self.alpha)

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
        return gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return silu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return tanh(x)


class Softplus(Module):
    """log(1 + exp(beta x)) / beta, and x where beta x is above the threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """exp x / sum of exp x along dim. Losses take logits: no Softmax before them."""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.softmax(x, self.dim)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """A difference, exp, a sum, a quotient and a comparison each."""
        return 5 * y.size

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"dim={self.dim}"
