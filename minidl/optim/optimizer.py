"""What all optimizers share: parameter groups, the step over flat buffers, saving and loading."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from .. import check
from ..backend import every_step
from ..tensor import Tensor
from .flat import Flat

Shapes = dict[str, tuple[int, ...]]
NUMBERS = {  # options that are numbers from 0
    "lr", "momentum", "weight_decay", "eps", "alpha", "lr_decay", "initial_accumulator_value",
}  # fmt: skip


class Optimizer:
    """Changes parameters along their gradients.

    params: tensors, or dicts {"params": tensors, option: value ...}, each a group with options of
    its own. The values of all parameters move into flat buffers, one for each group, dtype and
    device: `p.data` becomes a view of it, and backward writes the gradients into another.
    """

    # what every step brings into arrays, of these shapes
    in_arrays: ClassVar[Shapes] = {"lr": (1,)}
    state_names: tuple[str, ...] = ()
    optional_states: tuple[str, ...] = ()  # kept by some options only
    counts_steps = False

    def __init__(self, params: Any, **defaults: Any):
        self.name = type(self).__name__
        self.defaults = defaults
        self.zeroed = True  # whether zero_grad() was called since the last step
        self.param_groups: list[dict[str, Any]] = []
        self._flats: list[list[Flat]] = []  # for each group
        self.after_step: tuple[Callable[[], None], ...] = ()  # what to call when all are changed
        for group in self._groups(params):
            self.add_param_group(group)
        if not any(p.requires_grad for p in self._parameters()):
            raise ValueError(f"{self.name}: none of the parameters requires gradients")

    def _groups(self, params: Any) -> list[dict]:
        if isinstance(params, Tensor) or hasattr(params, "parameters"):
            what = type(params).__name__
            hint = f"[{what.lower()}]" if isinstance(params, Tensor) else "model.parameters()"
            raise TypeError(f"{self.name}: params is a {what}; give {hint}")
        params = list(params)
        if not params:
            raise ValueError(f"{self.name}: there are no parameters to optimize")
        return params if isinstance(params[0], dict) else [{"params": params}]

    def add_param_group(self, group: Any) -> None:
        """Optimize more parameters: {"params": tensors, option: value ...}."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f'{self.name}: a group is a dict with "params", not {group!r}')
        for key in group:
            check.known(f"option of {self.name}", key, (*self.defaults, "params"))
        given = group["params"]
        parameters = [given] if isinstance(given, Tensor) else list(given)
        seen = {id(p) for p in self._parameters()}
        for i, p in enumerate(parameters):
            self._check_parameter(i, p, seen)
            seen.add(id(p))
        options = {**self.defaults, **group, "params": parameters}
        self.check_options(options)
        kinds: dict[tuple, list[Tensor]] = {}
        for p in parameters:
            kinds.setdefault((p.device, p.dtype), []).append(p)
        self.param_groups.append(options)
        self._flats.append([Flat(alike, self.in_arrays) for alike in kinds.values()])

    def _check_parameter(self, i: int, p: Any, seen: set[int]) -> None:
        if not isinstance(p, Tensor):
            raise TypeError(f"{self.name}: parameter {i} is a {type(p).__name__}, not a Tensor")
        if not p.is_leaf:
            raise ValueError(f"{self.name}: parameter {i} {p.shape} is the result of an op")
        if p.dtype.kind != "f":
            raise TypeError(f"{self.name}: parameter {i} is {p.dtype}, but must be a float")
        if id(p) in seen:
            raise ValueError(f"{self.name}: parameter {i} {p.shape} is given twice")

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that make no sense: negative ones."""
        for name, value in options.items():
            if name not in NUMBERS:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise TypeError(f"{self.name}: {name} is {value!r}, but must be a number")
            if not value >= 0:
                raise ValueError(f"{self.name}: {name} is {value}, but must be at least 0")

    def zero_grad(self) -> None:
        """Forget all gradients; nothing is cleared, as the next backward overwrites them."""
        self.zeroed = True
        for p in self._parameters():
            if p.node is not None:
                p.node.grad = p.node.rows = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient; the others keep values and state.

        closure: computes the loss and its gradients first; its result is returned.
        """
        result = None if closure is None else closure()
        if not self.zeroed:
            from .. import mistakes  # those who forget it, and those who do it in another way

            mistakes.unzeroed(self)
        self.zeroed = False
        for group, flats in zip(self.param_groups, self._flats, strict=True):
            for flat in flats:
                every_step(flat.bring, self.numbers, group, *flat.numbers.values())
                for part, first, stop in flat.parts(self.counts_steps):
                    self.update(part, first, stop, group)
                    for p in part.parameters[first:stop]:
                        p.changed()
        for hook in self.after_step:
            hook()
        return result

    def numbers(self, group: dict) -> dict[str, tuple[float, ...]]:
        """What goes into arrays, of a group's options: they may change from step to step."""
        return {name: (group[name],) for name in self.in_arrays}

    def update(self, flat: Flat, first: int, stop: int, group: dict) -> None:
        """Change the parameters from first to before stop: what a kind of optimizer adds."""
        raise NotImplementedError(f"{self.name} does not define update")

    # --- saving and loading

    def places(self) -> Iterator[tuple[Flat, int]]:
        """(flat, index) for each parameter, in the order of the groups."""
        for group, flats in zip(self.param_groups, self._flats, strict=True):
            where = {id(p): (f, i) for f in flats for i, p in enumerate(f.parameters)}
            yield from (where[id(p)] for p in group["params"])

    def state_dict(self) -> dict[str, Any]:
        """Copies of all there is to know, in PyTorch's form: "state" by number, "param_groups"."""
        from .state import dump  # few runs save one

        return dump(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict, bit for bit. Checks everything before it changes anything."""
        from .state import load

        load(self, state)

    def __repr__(self) -> str:
        groups = []
        for group in self.param_groups:
            options = ", ".join(f"{key}={v}" for key, v in group.items() if key != "params")
            tensors = group["params"]
            groups.append(f"{len(tensors)} tensors of {sum(p.size for p in tensors):,}: {options}")
        return f"{self.name}({'; '.join(groups)})"


class SGD(Optimizer):
    """p -= lr v with v = momentum v + dp + weight_decay p (PyTorch's form of Sutskever 2013).

    nesterov: look one step further. momentum 0 keeps no v.
    """

    in_arrays: ClassVar[Shapes] = {"lr": (1,), "momentum": (1,)}
    state_names = ("v",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        options = {"lr": lr, "momentum": momentum}
        super().__init__(params, **options, weight_decay=weight_decay, nesterov=nesterov)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Nesterov's step needs a momentum."""
        super().check_options(options)
        if options["nesterov"] and not options["momentum"]:
            raise ValueError("SGD: nesterov=True needs a momentum above 0")

    def update(self, flat: Flat, first: int, stop: int, group: dict) -> None:
        """One call of sgd_step_."""
        k, at = flat.device.kernels, flat.span(first, stop)
        v = flat.state("v")[at] if group["momentum"] else None
        rest = flat.data[at], v, group["weight_decay"], group["nesterov"]
        k.sgd_step_(flat.grad[at], flat.numbers["lr"], flat.numbers["momentum"], *rest)


class Adam(Optimizer):
    """Steps of size lr, along the mean gradient over its root mean square (Kingma and Ba 2015).

    betas: how much of both means is kept from step to step. weight_decay p is added to the
    gradient. Each parameter counts its own steps.
    """

    in_arrays: ClassVar[Shapes] = {"lr": (1,), "betas": (2, 3)}
    state_names: tuple[str, ...] = ("m", "v")
    counts_steps = True
    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Both betas lie in [0, 1)."""
        super().check_options(options)
        betas = options["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{self.name}: betas are {betas}, but must be two numbers in [0, 1)")

    def numbers(self, group: dict) -> dict[str, tuple[float, ...]]:
        """The betas as adam_step_ wants them."""
        rows = ((beta, 1 - beta, math.log(beta) if beta else -math.inf) for beta in group["betas"])
        return {"lr": (group["lr"],), "betas": tuple(chain(*rows))}

    def update(self, flat: Flat, first: int, stop: int, group: dict) -> None:
        """One call of adam_step_."""
        k, at, t = flat.device.kernels, flat.span(first, stop), flat.t[first:stop]
        k.count_(t)
        lr, betas, state = flat.numbers["lr"], flat.numbers["betas"], flat.state
        rest = group["eps"], group["weight_decay"], self.decoupled
        changed = flat.data[at], state("m")[at], state("v")[at]
        k.adam_step_(flat.grad[at], lr, betas, t[:1], *changed, *rest)
