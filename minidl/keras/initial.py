"""Initial values of weights, by Keras's names."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import check
from ..nn import Parameter, init
from ..random import default_generator
from ..tensor import Tensor

_CUT = 0.8796256610342398  # standard deviation of a normal distribution cut at 2 of its own


def _truncated(tensor: Tensor, std: float) -> Tensor:
    """Normally distributed, cut at 2 standard deviations, after which std is left."""
    draw = default_generator()
    values = draw.normal(tensor.shape).numpy().copy()
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = draw.normal((int(beyond.sum()),)).numpy()
    return init.zeros_(tensor) if tensor.size == 0 else _copied(tensor, values * (std / _CUT))


def _copied(tensor: Tensor, values: np.ndarray) -> Tensor:
    from ..autograd import no_grad

    with no_grad():
        return tensor.copy_(values)


def _glorot_normal(tensor: Tensor) -> Tensor:
    return _truncated(tensor, math.sqrt(2 / sum(init.fans(tensor.shape))))


def _he_normal(tensor: Tensor) -> Tensor:
    return _truncated(tensor, math.sqrt(2 / init.fans(tensor.shape)[0]))


INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "glorot_uniform": init.xavier_uniform_,
    "glorot_normal": _glorot_normal,
    "he_uniform": lambda w: init.kaiming_uniform_(w, nonlinearity="relu"),
    "he_normal": _he_normal,
    "random_normal": lambda w: init.normal_(w, 0.0, 0.05),
    "random_uniform": lambda w: init.uniform_(w, -0.05, 0.05),
    "uniform": lambda w: init.uniform_(w, -0.05, 0.05),
    "zeros": init.zeros_,
    "ones": init.ones_,
}


def weight(shape: tuple[int, ...], initializer: Any) -> Parameter:
    """A new parameter. initializer: a name, or a function of a shape that returns an array."""
    new = Parameter(np.empty(shape, np.float32))
    if callable(initializer):
        _copied(new, np.asarray(initializer(shape), np.float32))
        return new
    check.known("initializer", initializer, INITIALIZERS)
    INITIALIZERS[initializer](new)
    return new
