"""Adam for large batches: each parameter moves in proportion to its own length."""

from collections.abc import Iterable
from typing import Any, ClassVar

from .flat import Flat
from .optimizer import Adam, Shapes


class LAMB(Adam):
    """Steps of lr times a parameter's length, along Adam's direction (You et al., ICLR 2020).

    A parameter here is a whole tensor: its direction, with weight_decay p added, is scaled to the
    length of p. Where either is 0, it is left as it is. phi is the identity, as in the paper's
    experiments.
    """

    in_arrays: ClassVar[Shapes] = {"lr": (1,), "betas": (2, 3), "weight_decay": (1,), "down": (1,)}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)

    def numbers(self, group: dict) -> dict[str, tuple[float, ...]]:
        """Adam's, and what turns its step from 0 into its direction: a learning rate of -1."""
        return {
            **super().numbers(group), "weight_decay": (group["weight_decay"],), "down": (-1.0,),
        }  # fmt: skip

    def update(self, flat: Flat, first: int, stop: int, group: dict) -> None:
        """One call of adam_step_ for the directions, then three for each parameter's length."""
        if type(flat) is not Flat:
            raise RuntimeError(
                "LAMB: a step is scaled to the length of the whole table, so it cannot go without "
                "the gradients of rows that nobody looked up; leave out sparse=True, or use Adam"
            )
        k, at, t = flat.device.kernels, flat.span(first, stop), flat.t[first:stop]
        k.count_(t)
        p, numbers, dtype = flat.data[at], flat.numbers, flat.dtype
        u = k.fill(k.empty(p.shape, dtype), 0)
        betas, means = numbers["betas"], (flat.state("m")[at], flat.state("v")[at])
        k.adam_step_(
            flat.grad[at], numbers["down"], betas, t[:1], u, *means, group["eps"], 0.0, False
        )
        k.copy(k.mul(p, numbers["weight_decay"], k.empty(p.shape, dtype)), u, True)
        weights, steps = k.empty((), dtype), k.empty((), dtype)
        for i in range(first, stop):
            start = flat.bounds[i] - flat.bounds[first]
            part = slice(start, start + flat.parameters[i].size)
            k.sum_squares(p[part], weights, False)
            k.sum_squares(u[part], steps, False)
            k.trust_step_(u[part], numbers["lr"], weights, steps, p[part])
