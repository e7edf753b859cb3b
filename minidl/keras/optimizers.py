"""Optimizers by Keras's names, arguments and defaults; made before there are weights to change."""

import math
from typing import Any

from .. import optim
from .kinds import Kind, chosen, kind

EPSILON = 1e-7


class Optimizer(Kind):
    """How to change weights. Its learning_rate can be read and set at any time.

    Keywords are those of Keras, of which each kind has some; global_clipnorm scales all gradients
    together where their norm is larger.
    """

    inner: optim.Optimizer | None = None
    _of: tuple[int, ...] = ()

    def __init__(self, *args: Any, global_clipnorm: float | None = None, **options: Any):
        super().__init__(*args, **options)
        self.global_clipnorm, rate = global_clipnorm, self.options["learning_rate"]
        if not isinstance(rate, int | float) or not rate >= 0:
            raise ValueError(f"{type(self).__name__}: learning_rate is {rate!r}, no number from 0")

    def of(self, parameters: Any) -> optim.Optimizer:
        """The optimizer of these parameters: always the same for the same ones."""
        parameters = list(parameters)
        if self._of != tuple(map(id, parameters)):
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
        more = {"learning_rate": self.learning_rate, "global_clipnorm": self.global_clipnorm}
        return super().get_config() | more


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


def _sgd(params: Any, learning_rate: float, **options: Any) -> optim.Optimizer:
    """Steps along the gradient, with a momentum or without, nesterov or not."""
    return optim.SGD(params, learning_rate, **options)


def _adam(params: Any, learning_rate: float, beta_1: float, beta_2: float, epsilon: float) -> Any:
    """Adam in Keras's form, with its epsilon (Kingma and Ba 2015, the end of section 2)."""
    return _Adam(params, learning_rate, (beta_1, beta_2), epsilon)


def _adamw(
    params: Any, learning_rate: float, weight_decay: float, beta_1: float, beta_2: float,
    epsilon: float,
) -> optim.Optimizer:  # fmt: skip
    """Adam with decoupled weight_decay; epsilon as in optim.AdamW, after the corrections."""
    return optim.AdamW(params, learning_rate, (beta_1, beta_2), epsilon, weight_decay)


def _rmsprop(
    params: Any, learning_rate: float, rho: float, epsilon: float, **options: Any
) -> optim.Optimizer:
    """Steps over a running root mean square; epsilon is added to the root, not under it."""
    return optim.RMSprop(params, learning_rate, rho, epsilon, **options)


def _adagrad(
    params: Any, learning_rate: float, initial_accumulator_value: float, epsilon: float
) -> optim.Optimizer:
    """Steps over the root of all squares so far; epsilon is under the root, as if they began so."""
    first = initial_accumulator_value + epsilon
    return optim.Adagrad(params, learning_rate, initial_accumulator_value=first, eps=0.0)


_BETAS = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": EPSILON}
SGD = kind(Optimizer, "SGD", _sgd, learning_rate=0.01, momentum=0.0, nesterov=False)
Adam = kind(Optimizer, "Adam", _adam, learning_rate=1e-3, **_BETAS)
AdamW = kind(Optimizer, "AdamW", _adamw, learning_rate=1e-3, weight_decay=0.004, **_BETAS)
RMSprop = kind(
    Optimizer, "RMSprop", _rmsprop,
    learning_rate=1e-3, rho=0.9, momentum=0.0, epsilon=EPSILON, centered=False,
)  # fmt: skip
Adagrad = kind(
    Optimizer, "Adagrad", _adagrad,
    learning_rate=1e-3, initial_accumulator_value=0.1, epsilon=EPSILON,
)  # fmt: skip
KINDS: dict[str, Any] = {k.__name__.lower(): k for k in Optimizer.__subclasses__()}


def get(given: Any) -> Optimizer:
    """An optimizer by name, or as it is given."""
    if callable(given) or getattr(given, "param_groups", None):
        raise TypeError(f"optimizer: a name or one of minidl.keras.optimizers, not {given!r}")
    return chosen("optimizer", given, KINDS, Optimizer)
