"""Steps of one length, in the direction of a sign."""

from collections.abc import Iterable
from itertools import chain
from typing import Any, ClassVar

from .flat import Flat
from .optimizer import Adam, Shapes


class Lion(Adam):
    """Steps of lr each, by the sign of a mean of gradients (Chen et al. 2023, Algorithm 2).

    betas: how much of the mean counts for the sign, and is kept. weight_decay is decoupled, as
    AdamW's. Where AdamW takes lr and weight_decay, Lion takes about a third to a tenth of the one
    and 3 to 10 times the other; it keeps half as much state.
    """

    in_arrays: ClassVar[Shapes] = {"lr": (1,), "betas": (2, 2)}
    state_names = ("m",)
    counts_steps = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        super(Adam, self).__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)

    def numbers(self, group: dict) -> dict[str, tuple[float, ...]]:
        """The betas as lion_step_ wants them."""
        rows = ((beta, 1 - beta) for beta in group["betas"])
        return {"lr": (group["lr"],), "betas": tuple(chain(*rows))}

    def update(self, flat: Flat, first: int, stop: int, group: dict) -> None:
        """One call of lion_step_."""
        at, (lr, betas) = flat.span(first, stop), (flat.numbers[n] for n in ("lr", "betas"))
        changed = flat.data[at], flat.state("m")[at]
        flat.device.kernels.lion_step_(flat.grad[at], lr, betas, *changed, group["weight_decay"])
