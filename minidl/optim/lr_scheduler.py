"""Learning rates that change from step to step, by PyTorch's formulas. One for each optimizer.

Each value follows from the number of steps alone, so that resuming cannot change it; but
ReduceLROnPlateau goes by what is measured.
"""

import math
from collections.abc import Sequence
from typing import Any

from .. import check
from ..backend import every_step
from ..later import later
from .optimizer import Optimizer

# PyTorch has these here
__getattr__, _ = later(
    __name__,
    sequential="LinearLR SequentialLR",
    plateau="ReduceLROnPlateau",
    decay="CosineAnnealingWarmRestarts ExponentialLR LambdaLR MultiStepLR PolynomialLR",
)


class Schedule:
    """Sets the optimizer's learning rates at once, and anew after each step()."""

    def __init__(self, optimizer: Optimizer, base_lrs: Sequence[float] | None = None):
        self.optimizer, self.given = checked(self, optimizer), base_lrs
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
        every_step(self._advance)

    def _advance(self) -> None:
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
        return cosine(base, self.eta_min, step / self.T_max)


class OneCycleLR(Schedule):
    """Up from max_lr / div_factor to max_lr, then down far below the start (Smith 2018).

    total_steps, or epochs * steps_per_epoch, counts optimizer steps, pct_start the part of them
    that goes up. cycle_momentum: the momentum (Adam: the first beta) goes the other way, from
    max_momentum to base_momentum and back. three_phase: down in the mirror image of the way up,
    then on to the end.
    """

    by_batch = True  # how `fit` steps it

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
        self.anneal = cosine if anneal_strategy == "cos" else linear
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


def checked(schedule: Any, optimizer: Any) -> Optimizer:
    """The optimizer, if it is one."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"{type(schedule).__name__}: optimizer is a {type(optimizer).__name__}; "
            "make the optimizer first, and give it here"
        )
    return optimizer


def cosine(start: float, end: float, part: float) -> float:
    """A part of the way from start to end, along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def linear(start: float, end: float, part: float) -> float:
    """A part of the way from start to end."""
    return start + (end - start) * part
