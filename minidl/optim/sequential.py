"""A warm-up, and schedules one after the other."""

from bisect import bisect_right
from collections.abc import Sequence

from .lr_scheduler import Schedule, linear
from .optimizer import Optimizer


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
        return base * linear(*self.ends, min(step / self.total_iters, 1.0))


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
