"""The CPU's own versions of kernels: Numba and BLAS, where they clearly beat the definition.

What is not here is served by `reference/`, and so are float64 and rare shapes.
"""

from ..roles import kernels_of
from . import (
    augment,
    depthwise,
    elementwise,
    index,
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
from ._threads import set_threads, threads  # noqa: F401

_families = (
    augment, depthwise, elementwise, index, linear, loss, move, norm, optim, pool, random, reduce,
    window,
)  # fmt: skip
globals().update(kernels_of(*_families))
