"""The CTC loss under PyTorch's names. Loaded when it is asked for."""

from typing import Any

import numpy as np

from .. import check, ops
from ..tensor import Tensor
from .losses import _Loss


def ctc_loss(
    log_probs: Tensor,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log of the probability of targets (N, S) by log_probs (T, N, C): see ops.ctc_loss.

    targets may also be all labels one behind the other, (sum of target_lengths,), with lengths that
    are numbers, not on a GPU. The gradient is that of the loss itself; PyTorch's adds
    exp(log_probs), which makes no difference behind a log_softmax.
    """
    target, steps, labels = (
        t if isinstance(t, Tensor) else Tensor(np.asarray(t, np.int64), device=log_probs.device)
        for t in (targets, input_lengths, target_lengths)
    )
    if target.ndim == 1:
        target = _rows(target, labels)
    return ops.ctc_loss(
        log_probs, target, steps, labels,
        blank=blank, zero_infinity=zero_infinity, reduction=reduction,
    )  # fmt: skip


def _rows(target: Tensor, lengths: Tensor) -> Tensor:
    """Labels that stand one behind the other, a row for each sequence."""
    counts, flat = lengths.numpy(), target.numpy()
    if counts.ndim != 1 or counts.sum() != len(flat) or (counts < 0).any():
        problem = f"targets has {len(flat)} labels, but target_lengths add up to {counts.sum()}"
        check.fail("ctc_loss", problem, "or give a row for each sequence: (N, S)")
    rows = np.zeros((len(counts), counts.max(initial=0)), np.int64)
    rows[np.arange(rows.shape[1]) < counts[:, None]] = flat
    return Tensor(rows, device=target.device)


class CTCLoss(_Loss):
    """Connectionist temporal classification: what sequences of labels cost that may come any time.

    It takes log-probabilities: F.log_softmax(y, -1) of a network's output, (T, N, C), which of
    y (N, T, C) is y.permute(1, 0, 2). Class `blank` says nothing. zero_infinity: targets that do
    not fit into their steps cost 0 and have no gradient, where they would cost inf.
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        super().__init__(reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    def forward(
        self, log_probs: Tensor, targets: Any, input_lengths: Any, target_lengths: Any
    ) -> Tensor:
        """log_probs (T, N, C), targets (N, S), lengths (N,) -> (), or (N,) for "none"."""
        lengths = input_lengths, target_lengths
        return ctc_loss(
            log_probs, targets, *lengths, self.blank, self.reduction, self.zero_infinity
        )
