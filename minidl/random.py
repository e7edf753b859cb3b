"""Where random numbers come from: a seed and a counter, so that the same ones come again.

Every generator is an array (seed, offset) that the kernels read and move on; nothing else is
random in minidl. `manual_seed` sets the one that layers and initialisers share.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .backend import Device, device
from .tensor import Tensor


class Generator:
    """A stream of random numbers: state is a uint64 Tensor (seed, offset)."""

    def __init__(self, seed: int = 0, *, device: "str | Device" = "cpu"):
        self.state = Tensor(np.zeros(2, np.uint64), device=device)
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> "Generator":
        """Start again at the first number of a seed, any integer of 64 bits."""
        self.state.copy_(np.array([seed % 2**64, 0], np.uint64))
        return self

    def get_state(self) -> tuple[int, int]:
        """(seed, offset): all there is to know."""
        seed, offset = self.state.tolist()
        return seed, offset

    def set_state(self, state: tuple[int, int]) -> None:
        """Go on from a state that get_state returned."""
        self.state.copy_(np.array(state, np.uint64))

    def __repr__(self) -> str:
        seed, offset = self.get_state()
        return f"Generator(seed={seed}, offset={offset})"

    def _draw(self, shape: tuple[int, ...], dtype: Any, draw: str, *numbers: float) -> Tensor:
        k = self.state.device.kernels
        y = k.empty(shape, dtype)
        key = k.empty((2,), "uint64")
        k.reserve_(self.state.data, key, y.size)
        return Tensor(getattr(k, draw)(key, y, *numbers), device=self.state.device)

    def uniform(
        self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, dtype: Any = "float32"
    ) -> Tensor:
        """Numbers spread evenly over [low, high)."""
        return self._draw(shape, dtype, "uniform", low, high)

    def normal(self, shape: tuple[int, ...], dtype: Any = "float32") -> Tensor:
        """Numbers of mean 0 and variance 1, normally distributed."""
        return self._draw(shape, dtype, "normal")


_default: dict[Device, Generator] = {}
_seed = 0
_waiting: dict[str, tuple[int, int]] = {}  # states of devices that were not used yet


def default_generator(where: "str | Device" = "cpu") -> Generator:
    """The generator of a device that is used where none is named; its first seed is 0."""
    where = device(where)
    if where not in _default:
        _default[where] = Generator(_seed, device=where)
        if where.name in _waiting:
            _default[where].set_state(_waiting.pop(where.name))
    return _default[where]


def manual_seed(seed: int) -> None:
    """Make every random number that follows depend on this seed alone, on every device."""
    global _seed
    _seed = seed
    _waiting.clear()
    for generator in _default.values():
        generator.manual_seed(seed)


def get_states() -> dict[str, tuple[int, int]]:
    """The state of every device's generator, by the device's name: for a checkpoint."""
    default_generator()
    return _waiting | {where.name: g.get_state() for where, g in _default.items()}


def set_states(states: Mapping[str, tuple[int, int]]) -> None:
    """Go on from states that get_states returned, also where one of the devices is not there."""
    _waiting.update(states)
    for where, generator in _default.items():
        if where.name in _waiting:
            generator.set_state(_waiting.pop(where.name))


def rand(
    *shape: int,
    requires_grad: bool = False,
    dtype: Any = "float32",
    device: "str | Device" = "cpu",
) -> Tensor:
    """A tensor of random numbers in [0, 1)."""
    y = default_generator(device).uniform(shape, dtype=dtype)
    return y.requires_grad_(requires_grad)


def randn(
    *shape: int,
    requires_grad: bool = False,
    dtype: Any = "float32",
    device: "str | Device" = "cpu",
) -> Tensor:
    """A tensor of random numbers of the standard normal distribution."""
    y = default_generator(device).normal(shape, dtype=dtype)
    return y.requires_grad_(requires_grad)
