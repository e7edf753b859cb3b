"""Learning rates that go by what is measured."""

import math
from collections.abc import Sequence
from typing import Any

from .. import check
from .lr_scheduler import checked
from .optimizer import Optimizer

STATE = "best", "num_bad_epochs", "cooldown_counter"


class ReduceLROnPlateau:
    """Multiplies the learning rates by factor when a measured number stops to improve.

    After more than `patience` epochs in a row without progress, that is without a value below
    ("max": above) the best so far by more than threshold: "rel", times the best, or "abs".
    cooldown: epochs after a reduction that do not count. A rate that would fall by at most eps
    stays. monitor: what `fit` gives to step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
        monitor: str = "val_loss",
    ):
        self.optimizer, self.monitor = checked(self, optimizer), monitor
        check.known("mode", mode, ("min", "max"))
        check.known("threshold_mode", threshold_mode, ("rel", "abs"))
        if not 0 <= factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor is {factor}, but must lie in [0, 1)")
        groups = optimizer.param_groups
        self.min_lrs = list(min_lr) if isinstance(min_lr, Sequence) else [min_lr for _ in groups]
        if len(self.min_lrs) != len(groups):
            raise ValueError(
                f"ReduceLROnPlateau: {len(self.min_lrs)} min_lr for {len(groups)} groups"
            )
        self.sign, self.relative = (1 if mode == "min" else -1), threshold_mode == "rel"
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.cooldown, self.eps = cooldown, eps
        self.best, self.num_bad_epochs, self.cooldown_counter = self.sign * math.inf, 0, 0

    def step(self, metrics: Any) -> None:
        """Note an epoch's number, and reduce the rates if it is time. NaN is no progress."""
        current, margin = float(metrics), self.sign * self.threshold
        limit = self.best * (1 - margin) if self.relative else self.best - margin
        better = self.sign * current < self.sign * limit
        self.best = current if better else self.best
        self.num_bad_epochs = 0 if better or self.cooldown_counter else self.num_bad_epochs + 1
        self.cooldown_counter = max(self.cooldown_counter - 1, 0)
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.num_bad_epochs, self.cooldown_counter = 0, self.cooldown

    def _reduce(self) -> None:
        for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            lr = max(group["lr"] * self.factor, least)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All that it needs to go on; the rates themselves are in the optimizer's state."""
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict of one made with the same arguments."""
        for name in STATE:
            setattr(self, name, state[name])
