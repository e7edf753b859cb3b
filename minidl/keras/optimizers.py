"""Optimizers by Keras's names, arguments and defaults; made before there are weights to change."""

import math
from typing import Any, ClassVar

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

    Keywords are those of Keras, of which each kind has some; global_clipnorm scales all gradients
    together where their norm is larger.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    inner: optim.Optimizer | None = None

    def __init__(self, learning_rate: float | None = None, **options: Any):
        rate = self.defaults["learning_rate"] if learning_rate is None else learning_rate
        if not isinstance(rate, int | float) or not rate >= 0:
            raise ValueError(f"{type(self).__name__}: learning_rate is {rate!r}, no number from 0")
        for name in options:
            check.known(f"option of {type(self).__name__}", name, {**self.defaults, "name": 0})
        given = {**self.defaults, **options, "learning_rate": float(rate)}
        self.name = given.pop("name", type(self).__name__.lower())
        self.global_clipnorm = given.pop("global_clipnorm", None)
        self.options = given

    def make(self, parameters: Any, lr: float, **options: Any) -> optim.Optimizer:
        """The optimizer of minidl.optim that it stands for."""
        raise NotImplementedError(f"{type(self).__name__} does not define make")

    def of(self, parameters: Any) -> optim.Optimizer:
        """The optimizer of these parameters: always the same for the same ones."""
        parameters, mine = list(parameters), []
        if self.inner is not None:
            mine = [p for group in self.inner.param_groups for p in group["params"]]
        if self.inner is None or list(map(id, mine)) != list(map(id, parameters)):
            options = {**self.options, "learning_rate": self.learning_rate}
            self.inner = self.make(parameters, options.pop("learning_rate"), **options)
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
        config = {**self.options, "learning_rate": self.learning_rate, "name": self.name}
        clip = self.global_clipnorm
        return config if clip is None else {**config, "global_clipnorm": clip}


_CLIP = {"global_clipnorm": None}


class SGD(Optimizer):
    """Steps along the gradient, with a momentum or without, nesterov or not."""

    defaults: ClassVar[dict[str, Any]] = {
        "learning_rate": 0.01,
        "momentum": 0.0,
        "nesterov": False,
        **_CLIP,
    }

    def make(self, parameters: Any, lr: float, **options: Any) -> optim.Optimizer:
        """optim.SGD."""
        return optim.SGD(parameters, lr, **options)


class Adam(Optimizer):
    """Adam, in Keras's form: see _Adam."""

    _betas: ClassVar[dict[str, Any]] = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": EPSILON}
    defaults: ClassVar[dict[str, Any]] = {"learning_rate": 1e-3, **_betas, **_CLIP}

    def make(self, parameters: Any, lr: float, **options: Any) -> optim.Optimizer:
        """Keras's form of optim.Adam."""
        betas = options["beta_1"], options["beta_2"]
        return _Adam(parameters, lr, betas, options["epsilon"])


class AdamW(Adam):
    """Adam with decoupled weight_decay; epsilon as in optim.AdamW, after the corrections."""

    defaults: ClassVar[dict[str, Any]] = {**Adam.defaults, "weight_decay": 0.004}

    def make(self, parameters: Any, lr: float, **options: Any) -> optim.Optimizer:
        """optim.AdamW."""
        betas = options["beta_1"], options["beta_2"]
        return optim.AdamW(parameters, lr, betas, options["epsilon"], options["weight_decay"])


class RMSprop(Optimizer):
    """Steps over a running root mean square; epsilon is added to the root, not under it."""

    _more: ClassVar[dict[str, Any]] = {"momentum": 0.0, "epsilon": EPSILON, "centered": False}
    defaults: ClassVar[dict[str, Any]] = {"learning_rate": 1e-3, "rho": 0.9, **_more, **_CLIP}

    def make(self, parameters: Any, lr: float, **options: Any) -> optim.Optimizer:
        """optim.RMSprop."""
        rho, eps = options.pop("rho"), options.pop("epsilon")
        return optim.RMSprop(parameters, lr, rho, eps, **options)


class Adagrad(Optimizer):
    """Steps over the root of all squares so far."""

    _more: ClassVar[dict[str, Any]] = {"initial_accumulator_value": 0.1, "epsilon": EPSILON}
    defaults: ClassVar[dict[str, Any]] = {"learning_rate": 1e-3, **_more, **_CLIP}

    def make(self, parameters: Any, lr: float, **options: Any) -> optim.Optimizer:
        """optim.Adagrad; epsilon is under the root, as if the sum began there."""
        first = options["initial_accumulator_value"] + options["epsilon"]
        return optim.Adagrad(parameters, lr, initial_accumulator_value=first, eps=0.0)


KINDS: dict[str, Any] = {k.__name__.lower(): k for k in (SGD, Adam, AdamW, RMSprop, Adagrad)}


def get(given: Any) -> Optimizer:
    """An optimizer by name, or as it is given."""
    if isinstance(given, str):
        check.known("optimizer", given.lower(), KINDS)
        return KINDS[given.lower()]()
    if not isinstance(given, Optimizer):
        raise TypeError(f"optimizer: a name or one of minidl.keras.optimizers, not {given!r}")
    return given
