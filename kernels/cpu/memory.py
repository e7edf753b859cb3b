"""The one form of array that compiled kernels see, so that each has one signature per dtype."""

import math

import numpy as np

from ..reference.elementwise import quiet, store
from ..reference.memory import scratch
from ..roles import Array

ZERO = np.float32(0)  # a plain 0 beside float32 would make Numba compute in float64


def rare(*arrays: Array | None) -> bool:
    """Whether the definition serves these arrays: float64, mixed dtypes, or no elements."""
    return any(x is not None and (x.dtype != np.float32 or not x.size) for x in arrays)


def canonical(x: Array) -> Array:
    """x in C order, aligned and writeable (each is a type to Numba): itself or a copy."""
    return x if x.flags.carray else np.array(x, order="C")


def space(nth: int, shape: tuple[int, ...], dtype=np.float32) -> Array:
    """Working space of a launcher: nth is a number of its own for each that it holds at once."""
    return scratch((1,) * nth + (math.prod(shape),), dtype).reshape(shape)


def target(out: Array, add: bool = False, nth: int = 0) -> Array:
    """Where a kernel writes: out, or working space where `settle` has to finish."""
    return out if out.flags.carray and not add else space(nth, out.shape, out.dtype)


@quiet
def settle(value: Array, out: Array, add: bool = False) -> Array:
    """Bring what stands in `target` to out; adding is a pass of its own, so it is exact."""
    return out if value is out else store(value, out, add)
