"""find_lr: how large a learning rate may be, from one short run (Smith 2017, the LR range test)."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .nn import Module
from .train import LOSSES, Loss, _chosen, _device_of, _moved, _optimizer

KEPT = 0.9  # of the mean loss, from batch to batch
HOPELESS = 4.0  # times the best mean loss: the run ends


class LRCurve(NamedTuple):
    """The loss over a rising learning rate.

    lrs, losses: per batch, the losses as running means. suggestion: where the loss falls fastest
    over log lr. A learning rate near lrs[argmin of losses] is too large already.
    """

    lrs: list[float]
    losses: list[float]
    suggestion: float

    def plot(self) -> Any:
        """Draw the curve with the suggestion: a Matplotlib figure."""
        from . import plot

        return plot.learning_rates(self.lrs, self.losses, self.suggestion)


def find_lr(
    model: Module,
    train: Iterable[Any],
    *,
    optimizer: Any = "sgd",
    loss: str | Loss = "cross_entropy",
    start: float = 1e-5,
    end: float = 10.0,
    steps: int = 100,
) -> LRCurve:
    """Train on batches (x, y) with learning rates from start to end, in equal factors.

    It ends early where the loss is lost. Then the model, its modes, and the optimizer unless it was
    given by name, are as they were, after an error too. batches are used again from the beginning
    where there are fewer than steps. ValueError for no batches, or rates that do not rise.
    """
    rates = _rates(start, end, steps)
    measured, stepper = _chosen("loss", loss, LOSSES), _optimizer(optimizer, model, None)
    before, options = model.state_dict(), stepper.state_dict()
    modes = [(module, module.training) for module in model.modules()]
    try:
        lrs, losses = _run(model.train(), train, rates, measured, stepper)
    finally:
        model.load_state_dict(before)
        stepper.zero_grad()
        stepper.load_state_dict(options)
        for module, training in modes:
            module.training = training
    steepest = int(np.argmin(np.gradient(losses, np.log(lrs)))) if len(lrs) > 2 else 0
    return LRCurve(lrs, losses, lrs[steepest])


def _run(
    model: Module, train: Iterable[Any], rates: list[float], measured: Loss, stepper: Any
) -> tuple[list[float], list[float]]:
    """The learning rates until the loss is lost, and the running means of it."""
    lrs: list[float] = []
    losses: list[float] = []
    mean, best, where = 0.0, math.inf, _device_of(model)
    for i, (rate, (x, y)) in enumerate(zip(rates, _again(train))):
        for group in stepper.param_groups:
            group["lr"] = rate
        stepper.zero_grad()
        value = measured(model(_moved(x, where)), _moved(y, where))
        value.backward()
        stepper.step()
        mean = KEPT * mean + (1 - KEPT) * value.item()
        smooth = mean / (1 - KEPT ** (i + 1))  # as Adam's means: it began with 0
        best = min(best, smooth)
        if not smooth <= HOPELESS * best:
            break
        lrs.append(rate)
        losses.append(smooth)
    return lrs, losses


def _rates(start: float, end: float, steps: int) -> list[float]:
    if not 0 < start < end or steps < 10:
        raise ValueError(
            f"find_lr: start {start} and end {end} must rise from above 0, and steps {steps} be at "
            "least 10"
        )
    return np.geomspace(start, end, steps).tolist()


def _again(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, over and over."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("find_lr: the data set is empty: there was no batch")
