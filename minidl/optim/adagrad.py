"""Steps over the root of all squares so far."""

from collections.abc import Iterable
from typing import Any

from .flat import Flat
from .optimizer import Optimizer


class Adagrad(Optimizer):
    """Steps along the gradient over the root of the sum of all its squares (Duchi et al. 2011).

    lr_decay: step t, of each parameter, has the rate lr / (1 + (t - 1) lr_decay). The sum starts
    from initial_accumulator_value.
    """

    state_names = ("v",)
    counts_steps = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ):
        options = {"lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        options["initial_accumulator_value"] = initial_accumulator_value
        super().__init__(params, lr=lr, **options)

    def update(self, flat: Flat, first: int, stop: int, group: dict) -> None:
        """One call of adagrad_step_."""
        k, at, t = flat.device.kernels, flat.span(first, stop), flat.t[first:stop]
        k.count_(t)
        names = "initial_accumulator_value", "lr_decay", "eps", "weight_decay"
        rest = (group[name] for name in names)
        p, v = flat.data[at], flat.state("v")[at]
        k.adagrad_step_(flat.grad[at], flat.numbers["lr"], t[:1], p, v, *rest)
