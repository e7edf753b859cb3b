"""Optimizers by Keras's names, arguments and defaults; made before there are weights to change."""

import math
from typing import Any

from .. import optim
from .kinds import Kind, chosen, kind


class Optimizer(Kind):
    """How to change weights, with Keras's keywords. Its learning_rate can be read and set."""

    inner: optim.Optimizer | None = None
    _of: tuple[int, ...] = ()

    def of(self, parameters: Any) -> optim.Optimizer:
        """The optimizer of these parameters: always the same for the same ones."""
        parameters = list(parameters)
        if self.inner is None or self._of != tuple(map(id, parameters)):
            options = {**self.options, "learning_rate": self.learning_rate}
            self.inner = self.function(parameters, **options)
            self._of = tuple(map(id, parameters))
        return self.inner

    @property
    def learning_rate(self) -> float:
        """The learning rate now."""
        inner = self.inner
        return self.options["learning_rate"] if inner is None else inner.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.options["learning_rate"] = float(rate)
        for group in [] if self.inner is None else self.inner.param_groups:
            group["lr"] = float(rate)

    def get_config(self) -> dict[str, Any]:
        """What builds the same one again."""
        return super().get_config() | {"learning_rate": self.learning_rate}


class _Adam(optim.Adam):
    """Adam in Keras's form: eps is added to the root of v as it is, before any correction.

    The corrections of both means are then one factor of the learning rate, as in the last line of
    section 2 of Kingma and Ba 2015, and the same for all parameters.
    """

    def numbers(self, group: dict) -> dict[str, tuple[float, ...]]:
        """The corrected rate; and no corrections in adam_step_, as if its log beta were -inf."""
        (first, second), none = group["betas"], -math.inf
        place = next(i for i, other in enumerate(self.param_groups) if other is group)
        t = 1 + max(int(flat.device.numpy(flat.t).max()) for flat in self._flats[place])
        rate = group["lr"] * math.sqrt(1 - second**t) / (1 - first**t)
        return {"lr": (rate,), "betas": (first, 1 - first, none, second, 1 - second, none)}


def _form(form: Any, **names: str) -> Any:
    """A function that makes an optimizer of minidl.optim of Keras's options, which names rename."""

    def make(params: Any, **options: Any) -> optim.Optimizer:
        if "beta_1" in options:
            options["betas"] = options.pop("beta_1"), options.pop("beta_2")
        names.setdefault("learning_rate", "lr")
        return form(params, **{names.get(key, key): value for key, value in options.items()})

    make.__doc__ = form.__doc__
    return make


def _adagrad(params: Any, initial_accumulator_value: float, epsilon: float, **options: Any) -> Any:
    """optim.Adagrad with epsilon under the root, as if the sum of squares began there."""
    first = initial_accumulator_value + epsilon
    return optim.Adagrad(params, initial_accumulator_value=first, eps=0.0, **options)


EPSILON = 1e-7
_BETAS = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": EPSILON}
SGD = kind(
    Optimizer, "SGD", _form(optim.SGD), learning_rate=0.01, momentum=0.0, nesterov=False
)  # fmt: skip
Adam = kind(Optimizer, "Adam", _form(_Adam, epsilon="eps"), learning_rate=1e-3, **_BETAS)
AdamW = kind(  # epsilon as in optim.AdamW, after the corrections
    Optimizer, "AdamW", _form(optim.AdamW, epsilon="eps"),
    learning_rate=1e-3, weight_decay=0.004, **_BETAS,
)  # fmt: skip
RMSprop = kind(  # epsilon is added to the root, not under it
    Optimizer, "RMSprop", _form(optim.RMSprop, rho="alpha", epsilon="eps"),
    learning_rate=1e-3, rho=0.9, momentum=0.0, epsilon=EPSILON, centered=False,
)  # fmt: skip
Adagrad = kind(
    Optimizer, "Adagrad", _form(_adagrad),
    learning_rate=1e-3, initial_accumulator_value=0.1, epsilon=EPSILON,
)  # fmt: skip
KINDS: dict[str, Any] = {k.__name__.lower(): k for k in Optimizer.__subclasses__()}


def get(given: Any) -> Optimizer:
    """An optimizer by name, or as it is given."""
    if callable(given) or getattr(given, "param_groups", None):
        raise TypeError(f"optimizer: a name or one of minidl.keras.optimizers, not {given!r}")
    return chosen("optimizer", given, KINDS, Optimizer)
