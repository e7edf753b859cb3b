"""Where random numbers come from: a seed and a counter, so that the same ones come again.

Every generator is an array (seed, offset) that the kernels read and move on; nothing else is
random in minidl. `manual_seed` sets the one that layers and initialisers share.
"""

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


def default_generator(where: "str | Device" = "cpu") -> Generator:
    """The generator of a device that is used where none is named; its first seed is 0."""
    where = device(where)
    if where not in _default:
        _default[where] = Generator(_seed, device=where)
    return _default[where]


_seed = 0


def manual_seed(seed: int) -> None:
    """Make every random number that follows depend on this seed alone, on every device."""
    global _seed
    _seed = seed
    for generator in _default.values():
        generator.manual_seed(seed)


def rand(*shape: int, requires_grad: bool = False, dtype: Any = "float32") -> Tensor:
    """A tensor of random numbers in [0, 1)."""
    return default_generator().uniform(shape, dtype=dtype).requires_grad_(requires_grad)


def randn(*shape: int, requires_grad: bool = False, dtype: Any = "float32") -> Tensor:
    """A tensor of random numbers of the standard normal distribution."""
    return default_generator().normal(shape, dtype=dtype).requires_grad_(requires_grad)
