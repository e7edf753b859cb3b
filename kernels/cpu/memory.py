"""The one form of array that compiled kernels see, so that each has one signature per dtype."""

import numpy as np

from ..reference.elementwise import store
from ..reference.memory import scratch
from ..roles import Array


def canonical(x: Array) -> Array:
    """x in C order, aligned and writeable (each is a type to Numba): itself or a copy."""
    return x if x.flags.carray else np.array(x, order="C")


def target(out: Array, add: bool = False) -> Array:
    """Where a kernel writes: out, or working space of its shape where `settle` has to finish."""
    return out if out.flags.carray and not add else scratch(out.shape, out.dtype)


def settle(value: Array, out: Array, add: bool = False) -> Array:
    """Bring what stands in `target` to out; adding is a pass of its own, so it is exact."""
    return out if value is out else store(value, out, add)
