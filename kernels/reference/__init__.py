"""The definition of every kernel, in plain NumPy, for any float dtype.

It is also the CPU's own version of each kernel that `cpu/` does not write better.
"""

from typing import TYPE_CHECKING, Any

from ..roles import kernels_of
from . import (
    augment,
    depthwise,
    distance,
    elementwise,
    index,
    likelihood,
    linear,
    loss,
    move,
    norm,
    optim,
    pool,
    random,
    reduce,
    window,
)
from .memory import contiguous, empty, empty_image, empty_like, memory_order, scratch  # noqa: F401

_families = (
    augment, depthwise, distance, elementwise, index, likelihood, linear, loss, move, norm, optim,
    pool, random, reduce, window,
)  # fmt: skip
globals().update(kernels_of(*_families))

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
