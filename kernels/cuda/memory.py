"""Where arrays come from: the GPU (CuPy's pool), or NumPy where the emulator runs the kernels."""

import numpy as np
from numpy.typing import DTypeLike

from ..roles import Array
from ._numba import EMULATED


def empty(shape: tuple[int, ...], dtype: DTypeLike, order: tuple[int, ...] | None = None) -> Array:
    """An array of a shape, unset. order: its axes from outermost in memory to innermost."""
    if order is None:
        return _new(shape, dtype)
    outward = _new(tuple(shape[a] for a in order), dtype)
    return outward.transpose(tuple(int(a) for a in np.argsort(order)))


def empty_like(x: Array) -> Array:
    """An array of x's shape, dtype and memory order, unset."""
    if x.flags.c_contiguous:
        return empty(x.shape, x.dtype)
    order = tuple(sorted(range(x.ndim), key=lambda a: -abs(x.strides[a])))
    return empty(x.shape, x.dtype, order)


def empty_image(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A batch of images (N, H, W, C), unset: channels innermost is what coalesced loads want."""
    return empty(shape, dtype)


def scratch(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Working space that is valid until the kernel returns."""
    return _new(shape, dtype)


def _new(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    if not EMULATED:
        import cupy

        return cupy.empty(shape, dtype)
    y = np.empty(shape, dtype)
    if y.dtype.kind == "f":  # whoever reads what nobody wrote shall see it
        y.fill(np.nan)
    return y
