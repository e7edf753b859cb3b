"""The one form of array that compiled kernels see, so that each has one signature per dtype."""

import numpy as np

from ..reference.elementwise import store
from ..reference.memory import scratch
from ..roles import Array

ZERO = np.float32(0)  # a plain 0 beside float32 would make Numba compute in float64


def rare(*arrays: Array | None) -> bool:
    """Whether the definition serves these arrays: float64, mixed dtypes, or no elements."""
    return any(x is not None and (x.dtype != np.float32 or not x.size) for x in arrays)


def canonical(x: Array) -> Array:
    """x in C order, aligned and writeable (each is a type to Numba): itself or a copy."""
    return x if x.flags.carray else np.array(x, order="C")


def target(out: Array, add: bool = False, nth: int = 0) -> Array:
    """Where a kernel writes: out, or working space of its shape where `settle` has to finish.

    nth: a number of its own for each output of one shape and dtype, or they get the same space.
    """
    if out.flags.carray and not add:
        return out
    return scratch((1,) * nth + out.shape, out.dtype).reshape(out.shape)


def settle(value: Array, out: Array, add: bool = False) -> Array:
    """Bring what stands in `target` to out; adding is a pass of its own, so it is exact."""
    return out if value is out else store(value, out, add)
