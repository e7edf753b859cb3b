"""Adam with decoupled weight decay."""

from collections.abc import Iterable
from typing import Any

from .optimizer import Adam


class AdamW(Adam):
    """Adam with a weight decay of its own: lr weight_decay p is subtracted from p before the step.

    The gradient and its means know nothing of it (Loshchilov and Hutter 2019).
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)
