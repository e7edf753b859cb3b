"""Learning rates that change from step to step, by PyTorch's formulas. One for each optimizer.

Each value follows from the number of steps alone, so that resuming cannot change it; but
ReduceLROnPlateau goes by what is measured.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from .. import check
from .optimizer import Optimizer


class Schedule:
    """Sets the optimizer's learning rates at once, and anew after each step()."""

    def __init__(self, optimizer: Optimizer, base_lrs: Sequence[float] | None = None):
        self.optimizer, self.given = _checked(self, optimizer), base_lrs
        self._start(0, base_lrs or [group["lr"] for group in optimizer.param_groups])

    def _start(self, last_epoch: int, base_lrs: Sequence[float]) -> None:
        groups = len(self.optimizer.param_groups)
        if len(base_lrs) != groups:
            raise ValueError(
                f"{type(self).__name__}: {len(base_lrs)} learning rates for {groups} groups"
            )
        self.last_epoch, self.base_lrs = last_epoch, list(base_lrs)
        self._set()

    def lr(self, base: float, step: int) -> float:
        """The learning rate after some steps, where it was base before the first."""
        raise NotImplementedError(f"{type(self).__name__} does not define lr")

    def step(self) -> None:
        """Go on to the next learning rate: call it after optimizer.step()."""
        self.last_epoch += 1
        self._set()

    def _set(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.lr(base, self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All numbers that it needs to go on."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict of a schedule made with the same arguments."""
        self._start(state["last_epoch"], state["base_lrs"])


class StepLR(Schedule):
    """base * gamma ** (step // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        if step_size < 1:
            raise ValueError(f"StepLR: step_size is {step_size}, but must be at least 1")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        """Falls by gamma every step_size steps."""
        return base * self.gamma ** (step // self.step_size)


class CosineAnnealingLR(Schedule):
    """From base down to eta_min in T_max steps, along half a cosine (Loshchilov, Hutter 2017)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR: T_max is {T_max}, but must be at least 1")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        """After T_max steps it rises again, as in PyTorch."""
        return _cosine(base, self.eta_min, step / self.T_max)


class LinearLR(Schedule):
    """From base * start_factor to base * end_factor in total_iters steps: a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                f"LinearLR: start_factor {start_factor} must lie in (0, 1] and end_factor "
                f"{end_factor} in [0, 1]"
            )
        if total_iters < 1:
            raise ValueError(f"LinearLR: total_iters is {total_iters}, but must be at least 1")
        self.ends, self.total_iters = (start_factor, end_factor), total_iters
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        """Stays where it is after total_iters steps."""
        return base * _linear(*self.ends, min(step / self.total_iters, 1.0))


class SequentialLR(Schedule):
    """One schedule after the other, each counting from 0 when its turn comes.

    schedulers: made in this order, all for the optimizer. milestones: the steps at which the second
    and every further one begins. A warm-up over 5 steps, then a cosine over 95:

        SequentialLR(optimizer, [LinearLR(optimizer), CosineAnnealingLR(optimizer, 95)], [5])
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[Schedule], milestones: Sequence[int]
    ):
        steps = [0, *milestones]
        if len(steps) != len(schedulers) or steps != sorted(set(steps)):
            raise ValueError(
                f"SequentialLR: milestones are {list(milestones)}, but must be the rising steps at "
                f"which all but the first of {len(schedulers)} schedules begin"
            )
        for i, schedule in enumerate(schedulers):
            if not isinstance(schedule, Schedule) or schedule.optimizer is not optimizer:
                kind = type(schedule).__name__
                raise ValueError(
                    f"SequentialLR: schedule {i}, a {kind}, does not go by the steps of this "
                    "optimizer"
                )
        self.schedulers, self.starts = list(schedulers), steps
        super().__init__(optimizer, schedulers[0].base_lrs)

    def _set(self) -> None:
        turn = bisect_right(self.starts, self.last_epoch) - 1
        now = self.schedulers[turn]
        now._start(self.last_epoch - self.starts[turn], now.given or self.base_lrs)


class OneCycleLR(Schedule):
    """Up from max_lr / div_factor to max_lr, then down far below the start (Smith 2018).

    total_steps, or epochs * steps_per_epoch, counts optimizer steps, pct_start the part of them
    that goes up. cycle_momentum: the momentum (Adam: the first beta) goes the other way, from
    max_momentum to base_momentum and back. three_phase: down in the mirror image of the way up,
    then on to the end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ):
        if total_steps is None:
            total_steps = (epochs or 0) * (steps_per_epoch or 0)
        if total_steps < 1:
            raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch, above 0")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start is {pct_start}, but must lie in [0, 1]")
        check.known("anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.total_steps, self.cycle_momentum = total_steps, cycle_momentum
        self.anneal = _cosine if anneal_strategy == "cos" else _linear
        # (last step of the phase, lr there as a fraction of max_lr, momentum there)
        start, high, up = 1 / div_factor, max_momentum, pct_start * total_steps - 1
        self.phases = [(0.0, start, high), (up, 1.0, base_momentum)]
        if three_phase:
            self.phases.append((2 * up, start, high))
        self.phases.append((total_steps - 1, start / final_div_factor, high))
        groups = getattr(optimizer, "param_groups", ())
        peaks = max_lr if isinstance(max_lr, Sequence) else [max_lr for _ in groups]
        super().__init__(optimizer, peaks)

    def _now(self, step: int) -> tuple[float, float]:
        """(fraction of max_lr, momentum) at a step."""
        if step > self.total_steps:
            raise ValueError(
                f"OneCycleLR: step {step} of {self.total_steps}; give the number of all steps, "
                "batches times epochs, as total_steps"
            )
        end = next(
            (i for i, p in enumerate(self.phases) if i and step <= p[0]), len(self.phases) - 1
        )
        (begin, *a), (last, *b) = self.phases[end - 1], self.phases[end]
        part = (step - begin) / (last - begin) if last != begin else 1.0
        fraction, momentum = (self.anneal(x, y, part) for x, y in zip(a, b, strict=True))
        return fraction, momentum

    def lr(self, base: float, step: int) -> float:
        """base is max_lr."""
        return base * self._now(step)[0]

    def _set(self) -> None:
        super()._set()
        momentum = self._now(self.last_epoch)[1]
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


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
        self.optimizer, self.monitor = _checked(self, optimizer), monitor
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
        return {name: getattr(self, name) for name in _PLATEAU}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict of one made with the same arguments."""
        for name in _PLATEAU:
            setattr(self, name, state[name])


_PLATEAU = "best", "num_bad_epochs", "cooldown_counter"


def _checked(schedule: Any, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"{type(schedule).__name__}: optimizer is a {type(optimizer).__name__}; "
            "make the optimizer first, and give it here"
        )
    return optimizer


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _linear(start: float, end: float, part: float) -> float:
    return start + (end - start) * part
