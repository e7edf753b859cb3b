"""Losses under PyTorch's names: functions and modules."""

from typing import Any

from .. import check, ops
from ..tensor import Tensor
from . import functional
from .functional import watched
from .module import Module

REDUCTIONS = "mean", "sum", "none"


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """What functional.cross_entropy does where it is given more than logits and class numbers."""
    if target.dtype.kind == "f" and target.ndim == 2:
        if ignore_index is not None:
            check.fail("cross_entropy", "targets that are probabilities have no ignore_index")
        return ops.cross_entropy_soft(
            input, target, weight, label_smoothing=label_smoothing, reduction=reduction
        )
    return ops.cross_entropy_weighted(
        input, target, weight,
        ignore_index=ignore_index, label_smoothing=label_smoothing, reduction=reduction,
    )  # fmt: skip


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-input[target] of log-probabilities (N, C) and class numbers (N,): see ops.nll_loss."""
    watched("nll_loss", input)
    return ops.nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(input - target)**2."""
    watched("mse_loss", input)
    return ops.mse_loss(input, target, reduction=reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|input - target|."""
    watched("l1_loss", input)
    return ops.l1_loss(input, target, reduction=reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """Squares of differences up to delta, straight lines beyond: see ops.huber_loss."""
    watched("huber_loss", input)
    return ops.huber_loss(input, target, delta=delta, reduction=reduction)


def smooth_l1_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """huber_loss divided by its delta, which is beta."""
    watched("smooth_l1_loss", input)
    return ops.smooth_l1_loss(input, target, beta=beta, reduction=reduction)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-(target log input + (1 - target) log(1 - input)) of probabilities."""
    watched("binary_cross_entropy", input)
    if weight is None:
        return ops.binary_cross_entropy(input, target, reduction=reduction)
    return _reduced(ops.binary_cross_entropy(input, target, reduction="none") * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of sigmoid input; pos_weight multiplies the loss where target is 1."""
    watched("binary_cross_entropy_with_logits", input)
    loss = ops.binary_cross_entropy_with_logits
    if weight is None:
        return loss(input, target, pos_weight, reduction=reduction)
    return _reduced(loss(input, target, pos_weight, reduction="none") * weight, reduction)


def kl_div(
    input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """target (log target - input) of log-probabilities; "batchmean" is the divergence itself."""
    return ops.kl_div(input, target, log_target=log_target, reduction=reduction)


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    check.known("reduction", reduction, REDUCTIONS)
    return loss if reduction == "none" else getattr(loss, reduction)()


class _Loss(Module):
    """A loss with a reduction: "mean", "sum" or "none"."""

    reductions: tuple[str, ...] = REDUCTIONS
    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, reduction: str = "mean"):
        check.known("reduction", reduction, self.reductions)
        self.reduction = reduction

    def _weights(self, **weights: Any) -> None:
        """Weights that move to the device with the module, and are not trained."""
        for name, weight in weights.items():
            if weight is not None and not isinstance(weight, Tensor):
                weight = Tensor(weight)
            self.register_buffer(name, weight)


class MSELoss(_Loss):
    """(input - target)**2."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return mse_loss(input, target, self.reduction)


class L1Loss(_Loss):
    """|input - target|."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return l1_loss(input, target, self.reduction)


class HuberLoss(_Loss):
    """Squares of differences up to delta, straight lines beyond."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return huber_loss(input, target, self.reduction, self.delta)


class SmoothL1Loss(_Loss):
    """HuberLoss divided by its delta, which is beta."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return smooth_l1_loss(input, target, self.reduction, self.beta)


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities; of logits, BCEWithLogitsLoss is exact and faster."""

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean"):
        super().__init__(reduction)
        self._weights(weight=weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return binary_cross_entropy(input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of logits: no sigmoid before it."""

    def __init__(
        self,
        weight: Tensor | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ):
        super().__init__(reduction)
        self._weights(weight=weight, pos_weight=pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return binary_cross_entropy_with_logits(
            input, target, self.weight, self.reduction, self.pos_weight
        )


class KLDivLoss(_Loss):
    """The divergence of input, log-probabilities, from target; "batchmean" is what books define."""

    reductions = (*REDUCTIONS, "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False):
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return kl_div(input, target, self.reduction, self.log_target)


class CrossEntropyLoss(_Loss):
    """-log softmax(input)[target] of logits (N, C) and class numbers (N,), or probabilities (N, C).

    It takes logits: no softmax before it. reduction: "mean", "sum" or "none".
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        super().__init__(reduction)
        self._weights(weight=weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input (N, C), target (N,) integers or (N, C) -> (), or (N,) for "none"."""
        return functional.cross_entropy(
            input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )


class NLLLoss(_Loss):
    """-input[target] of log-probabilities (N, C) and class numbers (N,)."""

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ):
        super().__init__(reduction)
        self._weights(weight=weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input (N, C), target (N,) integers -> (), or (N,) for "none"."""
        return nll_loss(input, target, self.weight, self.ignore_index, self.reduction)
