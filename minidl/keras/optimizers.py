"""Optimizers by Keras's names, arguments and defaults; made before there are weights to change."""

import math
from typing import Any

from .. import check, optim

EPSILON = 1e-7


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


class Optimizer:
    """How to change weights. Its learning_rate can be read and set at any time.

    global_clipnorm: scales all gradients together where their norm is larger.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ):
        if not isinstance(learning_rate, int | float) or not learning_rate >= 0:
            raise ValueError(
                f"{type(self).__name__}: learning_rate is {learning_rate!r}, but must be a number "
                "from 0 on; schedules are callbacks: LearningRateScheduler, ReduceLROnPlateau"
            )
        self.rate, self.global_clipnorm = float(learning_rate), global_clipnorm
        self.name = name or type(self).__name__.lower()
        self.inner: optim.Optimizer | None = None

    def make(self, parameters: Any) -> optim.Optimizer:
        """The optimizer of minidl.optim that it stands for."""
        raise NotImplementedError(f"{type(self).__name__} does not define make")

    def of(self, parameters: Any) -> optim.Optimizer:
        """The optimizer of these parameters: always the same for the same ones."""
        parameters = list(parameters)
        if self.inner is not None:
            mine = [p for group in self.inner.param_groups for p in group["params"]]
            if list(map(id, mine)) == list(map(id, parameters)):
                return self.inner
        self.rate = self.learning_rate
        self.inner = self.make(parameters)
        return self.inner

    @property
    def learning_rate(self) -> float:
        """The learning rate now."""
        return self.rate if self.inner is None else self.inner.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.rate = float(rate)
        for group in [] if self.inner is None else self.inner.param_groups:
            group["lr"] = self.rate

    def get_config(self) -> dict[str, Any]:
        """What builds the same one again."""
        config = {key: v for key, v in vars(self).items() if key not in ("inner", "rate")}
        return {"learning_rate": self.learning_rate, **config}


class SGD(Optimizer):
    """Steps along the gradient, with a momentum or without."""

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.momentum, self.nesterov = momentum, nesterov

    def make(self, parameters: Any) -> optim.Optimizer:
        """optim.SGD."""
        return optim.SGD(parameters, self.rate, self.momentum, nesterov=self.nesterov)


class Adam(Optimizer):
    """Adam, in Keras's form: see _Adam."""

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = EPSILON,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def make(self, parameters: Any) -> optim.Optimizer:
        """Keras's form of optim.Adam."""
        return _Adam(parameters, self.rate, (self.beta_1, self.beta_2), self.epsilon)


class AdamW(Adam):
    """Adam with decoupled weight decay; epsilon as in optim.AdamW, after the corrections."""

    def __init__(
        self,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = EPSILON,
        **options: Any,
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **options)
        self.weight_decay = weight_decay

    def make(self, parameters: Any) -> optim.Optimizer:
        """optim.AdamW."""
        betas = self.beta_1, self.beta_2
        return optim.AdamW(parameters, self.rate, betas, self.epsilon, self.weight_decay)


class RMSprop(Optimizer):
    """Steps over a running root mean square; epsilon is added to the root, not under it."""

    def __init__(
        self,
        learning_rate: float = 1e-3,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = EPSILON,
        centered: bool = False,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered

    def make(self, parameters: Any) -> optim.Optimizer:
        """optim.RMSprop."""
        return optim.RMSprop(
            parameters, self.rate, self.rho, self.epsilon,
            momentum=self.momentum, centered=self.centered,
        )  # fmt: skip


class Adagrad(Optimizer):
    """Steps over the root of all squares so far."""

    def __init__(
        self,
        learning_rate: float = 1e-3,
        initial_accumulator_value: float = 0.1,
        epsilon: float = EPSILON,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon

    def make(self, parameters: Any) -> optim.Optimizer:
        """optim.Adagrad; epsilon is under the root, as if the sum began there."""
        first = self.initial_accumulator_value + self.epsilon
        return optim.Adagrad(parameters, self.rate, initial_accumulator_value=first, eps=0.0)


KINDS: dict[str, type[Optimizer]] = {k.__name__: k for k in (SGD, Adam, AdamW, RMSprop, Adagrad)}
_NAMES = {name.lower(): kind for name, kind in KINDS.items()}


def get(given: Any) -> Optimizer:
    """An optimizer by name, or as it is given."""
    if isinstance(given, str):
        if given.lower() not in _NAMES:
            check.known("optimizer", given, _NAMES)
        return _NAMES[given.lower()]()
    if isinstance(given, type) and issubclass(given, Optimizer):
        return given()
    if not isinstance(given, Optimizer):
        plain = isinstance(given, optim.Optimizer)
        hint = "; those of minidl.optim go with minidl.train.fit" * plain
        raise TypeError(f"optimizer: a name or one of minidl.keras.optimizers, not {given!r}{hint}")
    return given
