"""Initial values of weights, written into a tensor that is returned.

Weights are (in, out), filters (height, width, in, out). Numbers are drawn on the CPU, so that a
seed gives the same network on every device.
"""

import math

from .. import check
from ..autograd import no_grad
from ..random import default_generator
from ..tensor import Tensor


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many inputs one output depends on, and how many outputs one input reaches."""
    if len(shape) < 2:
        raise ValueError(f"a weight has at least 2 axes (in, out), not the shape {shape}")
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def calculate_gain(nonlinearity: str, param: float = 0.01) -> float:
    """By how much to widen a weight so that the nonlinearity after it keeps the variance at 1."""
    gains = {
        "linear": 1.0,
        "conv2d": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + param**2)),
        "selu": 0.75,
    }
    check.known("nonlinearity", nonlinearity, gains)
    return gains[nonlinearity]


@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Numbers spread evenly over [a, b)."""
    return tensor.copy_(default_generator().uniform(tensor.shape, a, b, tensor.dtype))


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normally distributed numbers."""
    return tensor.copy_(default_generator().normal(tensor.shape, tensor.dtype) * std + mean)


@no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """One number everywhere."""
    return tensor.copy_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


def _kaiming(shape: tuple[int, ...], a: float, mode: str, nonlinearity: str) -> float:
    """Standard deviation gain / sqrt(fan)."""
    check.known("mode", mode, ("fan_in", "fan_out"))
    fan = fans(shape)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Evenly spread, variance gain**2 / fan (He et al. 2015). a: negative slope of a leaky ReLU."""
    bound = math.sqrt(3) * _kaiming(tensor.shape, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Normally distributed, variance gain**2 / fan (He et al. 2015)."""
    return normal_(tensor, 0.0, _kaiming(tensor.shape, a, mode, nonlinearity))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Evenly spread, variance gain**2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor.shape)))
    return uniform_(tensor, -bound, bound)
