"""Steps over a running root mean square."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .flat import Flat
from .optimizer import Optimizer, Shapes


class RMSprop(Optimizer):
    """Steps along the gradient over its root mean square, of which alpha is kept (Hinton 2012).

    centered: over its standard deviation. momentum: how much of a step goes on in the next.
    """

    in_arrays: ClassVar[Shapes] = {"lr": (1,), "momentum": (1,)}
    state_names = ("v", "m", "b")
    optional_states = ("m", "b")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ):
        options = {"alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, lr=lr, **options, momentum=momentum, centered=centered)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """A mean keeps at most all of what it was."""
        super().check_options(options)
        if options["alpha"] > 1:
            raise ValueError(f"RMSprop: alpha is {options['alpha']}, but must be at most 1")

    def update(self, flat: Flat, first: int, stop: int, group: dict) -> None:
        """One call of rmsprop_step_."""
        k, at, p = flat.device.kernels, flat.span(first, stop), flat.data
        v = flat.state("v")[at]
        m = flat.state("m")[at] if group["centered"] else None
        b = flat.state("b")[at] if group["momentum"] else None
        rates = flat.numbers["lr"], flat.numbers["momentum"]
        rest = group["alpha"], group["eps"], group["weight_decay"]
        k.rmsprop_step_(flat.grad[at], *rates, p[at], v, m, b, *rest)
