"""Layer normalisation. Loaded when it is asked for."""

from typing import Any

import numpy as np

from ..tensor import Tensor
from . import functional as F
from . import init
from .layers import _count, _new
from .module import Module


class LayerNorm(Module):
    """Each row, over its last axes, brought to mean 0 and variance 1, then scaled and shifted.

    x (..., *normalized_shape). The same in training and evaluation. Ba, Kiros and Hinton 2016.
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ):
        whole = isinstance(normalized_shape, int | np.integer)
        shape = (normalized_shape,) if whole else tuple(normalized_shape)
        for n in shape:
            _count("LayerNorm", normalized_shape=n)
        self.normalized_shape, self.eps = shape, eps
        self.weight = init.ones_(_new(*shape)) if elementwise_affine else None
        self.bias = init.zeros_(_new(*shape)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., *normalized_shape) -> the same shape."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """Two sums, a difference, a square, and one scale and one shift each."""
        return 8 * y.size

    def extra_repr(self) -> str:
        """As in PyTorch."""
        affine = self.weight is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"
