"""The definition of every kernel, in plain NumPy, for any float dtype.

It is also the CPU's own version of each kernel that `cpu/` does not write better. Families that few
networks need are loaded when the first of their kernels is asked for.
"""

import importlib
from typing import Any

from ..roles import kernels_of
from . import augment, elementwise, linear, loss, move, norm, optim, random, reduce, window
from .memory import contiguous, empty, empty_image, empty_like, memory_order, scratch  # noqa: F401

_families = augment, elementwise, linear, loss, move, norm, optim, random, reduce, window
globals().update(kernels_of(*_families))

_LATER = "distance", "likelihood"


def complete() -> None:
    """Load what is not loaded yet."""
    later = (importlib.import_module(f".{family}", __name__) for family in _LATER)
    globals().update(kernels_of(*later))


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and name not in _LATER:
        complete()
        if name in globals():
            return globals()[name]
    raise AttributeError(f"there is no kernel {name!r} in {__name__}")
