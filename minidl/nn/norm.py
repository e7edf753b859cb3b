"""Layers that normalise. Loaded when the first of them is asked for."""

from typing import Any, cast

import numpy as np

from .. import check
from ..autograd import no_grad
from ..tensor import Tensor
from . import functional as F
from . import init
from .layers import _count, _new
from .module import Module


class BatchNorm2d(Module):
    """Each channel brought to mean 0 and variance 1, then scaled by weight and shifted by bias.

    x (N, H, W, C), or any (..., C). In training with the batch's own statistics, towards which
    the running ones move by momentum; in evaluation with the running ones. Ioffe and Szegedy 2015.
    unbiased: the running variance follows, as in PyTorch, that of all there is, estimated from the
    batch; otherwise, as in Keras, the batch's own.
    """

    fuses_relu = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        unbiased: bool = True,
    ):
        name = type(self).__name__
        _count(name, num_features=num_features)
        if momentum is None or not 0 <= momentum <= 1:
            raise ValueError(f"{name}: momentum is {momentum}, but must lie in [0, 1]")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.unbiased = unbiased
        self.weight = init.ones_(_new(num_features)) if affine else None
        self.bias = init.zeros_(_new(num_features)) if affine else None
        tracked = track_running_stats
        zeros, ones = np.zeros(num_features, np.float32), np.ones(num_features, np.float32)
        self.register_buffer("running_mean", Tensor(zeros) if tracked else None)
        self.register_buffer("running_var", Tensor(ones) if tracked else None)

    running_mean: Tensor | None
    running_var: Tensor | None

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """x (..., C) -> (..., C); relu: as in Linear."""
        mean, var = self.running_mean, self.running_var
        batch = self.training or mean is None
        biased = batch and var is not None and not self.unbiased
        with no_grad():
            before = var * 1.0 if biased else None  # type: ignore[operator]
        y = F.batch_norm(
            x, mean, var, self.weight, self.bias, batch, self.momentum, self.eps, relu=relu
        )
        if before is not None:
            self._bias_variance(before, x.size // x.shape[-1])
        return y

    @no_grad()
    def _bias_variance(self, before: Tensor, rows: int) -> None:
        """Make the last step of the running variance what it is with the batch's own."""
        now, share = cast(Tensor, self.running_var), (rows - 1) / rows
        wanted = now * share + before * ((1 - self.momentum) * (1 - share))
        now.device.kernels.copy(wanted.data, now.data, False)
        now.changed()

    def flops(self, x: Tensor, y: Tensor) -> int:
        """One scale and one shift each, into which all else can be folded."""
        return 2 * y.size

    def extra_repr(self) -> str:
        """As in PyTorch."""
        affine, tracked = self.weight is not None, self.running_mean is not None
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={affine}, "
            f"track_running_stats={tracked}"
        )


class BatchNorm1d(BatchNorm2d):
    """BatchNorm2d of rows x (N, C), or of sequences (N, L, C)."""

    fuses_relu = True  # not inherited: see Sequential

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """x (N, C) or (N, L, C) -> the same shape; relu: as in Linear."""
        if x.ndim not in (2, 3):
            hint = "images (N, H, W, C) are BatchNorm2d's"
            check.fail("BatchNorm1d", "rows (N, C) or sequences (N, L, C) are needed", hint, x=x)
        return super().forward(x, relu)


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
