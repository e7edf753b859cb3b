"""Losses that want a margin (hinge, triplet, contrastive), and the focal loss: made of other ops.

Names, arguments and slopes at the corners as in PyTorch, where it has them.
"""

import functools
from typing import Any

import numpy as np

from .. import check, ops
from ..tensor import Tensor
from . import functional as F
from .functional import watched
from .losses import _Loss, _reduced


def hinge_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, squared: bool = False,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, margin - target input) of scores, with targets -1 and 1: a support vector machine's.

    squared: its square. Of one shape, or reduced. Cortes and Vapnik 1995.
    """
    watched("hinge_loss", input)
    _alike("hinge_loss", input, target=target)
    short = (margin - target * input).clip(min=0)
    return _reduced(short * short if squared else short, reduction)


def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The sum over the other classes j of max(0, margin - input[target] + input[j])**p / C.

    input (N, C) scores, target (N,) class numbers, p 1 or 2, weight (C,) by target -> () or (N,).
    The hinge loss of several classes: Crammer and Singer 2001, in PyTorch's form.
    """
    watched("multi_margin_loss", input)
    check.known("p", str(p), ("1", "2"))
    if input.ndim != 2:
        check.fail("multi_margin_loss", "input must be scores (N, C)", input=input)
    classes = input.shape[1]
    check.labels("multi_margin_loss", target.data, classes, input.data)
    place = target.reshape(-1, 1)
    short = F.relu(input - ops.gather(input, place, axis=1) + margin)
    others = ops.compare(place, _numbers(classes, input.device), relation="ne")
    short = ops.where(others, short * short if p == 2 else short, 0.0)
    rows = short.sum(axis=1) / classes
    return _reduced(rows if weight is None else rows * weight[target], reduction)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Distances: input where target is 1, max(0, margin - input) where it is -1."""
    watched("hinge_embedding_loss", input)
    _alike("hinge_embedding_loss", input, target=target)
    near = (margin - input).clip(min=0)
    return _reduced(ops.where(target > 0, input, near), reduction)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - target (input1 - input2)): target 1 wants the first larger, -1 the second."""
    watched("margin_ranking_loss", input1)
    _alike("margin_ranking_loss", input1, input2=input2, target=target)
    return _reduced((margin - target * (input1 - input2)).clip(min=0), reduction)


def pairwise_distance(x1: Tensor, x2: Tensor, eps: float = 1e-6) -> Tensor:
    """The length of x1 - x2 + eps along the last axis: (..., D) -> (...)."""
    _alike("pairwise_distance", x1, x2=x2)
    difference = x1 - x2 + eps
    return (difference * difference).sum(axis=-1).sqrt()


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, eps: float = 1e-6,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) with Euclidean distances.

    (N, D) each -> () or (N,). swap: of the negative's distances to anchor and positive the smaller
    one counts. Schroff et al. 2015 (without squares, as in PyTorch); swap: Balntas et al. 2016.
    """
    watched("triplet_margin_loss", anchor)
    _alike("triplet_margin_loss", anchor, positive=positive, negative=negative)
    near, far = (pairwise_distance(anchor, x, eps) for x in (positive, negative))
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, eps))
    return _reduced((near - far + margin).clip(min=0), reduction)


def contrastive_loss(
    x1: Tensor, x2: Tensor, target: Tensor, margin: float = 1.0, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """d**2 / 2 of pairs whose target is 1 (alike), max(0, margin - d)**2 / 2 where it is 0.

    x1, x2 (N, D), target (N,) floats, d their distance -> () or (N,). Hadsell, Chopra and LeCun
    2006, whose Y is 1 - target.
    """
    watched("contrastive_loss", x1)
    d = pairwise_distance(x1, x2, eps)
    _alike("contrastive_loss", d, target=target)
    far = (margin - d).clip(min=0)
    return _reduced(0.5 * (target * d * d + (1.0 - target) * far * far), reduction)


def sigmoid_focal_loss(
    input: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0,
    reduction: str = "none",
) -> Tensor:  # fmt: skip
    """Binary cross-entropy of logits times (1 - p)**gamma, p the probability of what is right.

    So what is sure already hardly counts. alpha weighs targets of 1, 1 - alpha those of 0; below 0
    it weighs none. Of one shape, or reduced. Lin et al. 2017, arguments as in torchvision.
    """
    watched("binary_cross_entropy_with_logits", input)
    entropy = ops.binary_cross_entropy_with_logits(input, target, reduction="none")
    if gamma:
        wrong = input.sigmoid() * (1.0 - target) + (-input).sigmoid() * target
        entropy = entropy * (wrong * wrong if gamma == 2 else wrong**gamma)
    if alpha >= 0:
        entropy = entropy * (alpha * target + (1.0 - alpha) * (1.0 - target))
    return _reduced(entropy, reduction)


def _alike(op: str, input: Tensor, **others: Tensor) -> None:
    for name, other in others.items():
        if other.shape != input.shape:
            shapes = {"input": input, name: other}
            check.fail(op, f"{name} needs the shape of the first input", "", ValueError, **shapes)


@functools.cache
def _numbers(classes: int, device: Any) -> Tensor:
    """0 to classes - 1, made once: a captured step keeps it."""
    return Tensor(np.arange(classes), device=device)


class HingeLoss(_Loss):
    """max(0, margin - target input), or its square, of scores with targets -1 and 1."""

    def __init__(self, margin: float = 1.0, squared: bool = False, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin, self.squared = margin, squared

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return hinge_loss(input, target, self.margin, self.squared, self.reduction)


class MultiMarginLoss(_Loss):
    """The hinge loss of several classes: see functional.multi_margin_loss."""

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
        reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(reduction)
        self._weights(weight=weight)
        self.p, self.margin = p, margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input (N, C), target (N,) integers -> (), or (N,) for "none"."""
        return multi_margin_loss(input, target, self.p, self.margin, self.weight, self.reduction)


class HingeEmbeddingLoss(_Loss):
    """Distances: input where target is 1, max(0, margin - input) where it is -1."""

    def __init__(self, margin: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return hinge_embedding_loss(input, target, self.margin, self.reduction)


class MarginRankingLoss(_Loss):
    """max(0, margin - target (input1 - input2)): which of two is the larger one."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """All of one shape -> (), or that shape for "none"."""
        return margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class TripletMarginLoss(_Loss):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin): see the function."""

    def __init__(
        self, margin: float = 1.0, eps: float = 1e-6, swap: bool = False, reduction: str = "mean"
    ):
        super().__init__(reduction)
        self.margin, self.eps, self.swap = margin, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """(N, D) each -> (), or (N,) for "none"."""
        rest = self.margin, self.eps, self.swap, self.reduction
        return triplet_margin_loss(anchor, positive, negative, *rest)


class ContrastiveLoss(_Loss):
    """Pairs: those alike near each other, others at least a margin apart."""

    def __init__(self, margin: float = 1.0, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin, self.eps = margin, eps

    def forward(self, x1: Tensor, x2: Tensor, target: Tensor) -> Tensor:
        """x1, x2 (N, D), target (N,): 1 alike, 0 not -> (), or (N,) for "none"."""
        return contrastive_loss(x1, x2, target, self.margin, self.eps, self.reduction)


class SigmoidFocalLoss(_Loss):
    """Binary cross-entropy of logits, of which what is sure already hardly counts."""

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """input and target of one shape -> (), or that shape for "none"."""
        return sigmoid_focal_loss(input, target, self.alpha, self.gamma, self.reduction)
