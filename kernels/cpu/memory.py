"""The one form of array that compiled kernels see, so that each has one signature per dtype."""

import math

import numpy as np

from .. import reference
from ..reference.elementwise import quiet, store
from ..reference.memory import memory_order, scratch
from ..roles import Array
from . import simd

ZERO = np.float32(0)  # a plain 0 beside float32 would make Numba compute in float64
IMAGES = 8  # in a batch, and channels of each, from which `empty_image` puts the batch inside
OUTWARD = 1, 2, 0, 3  # the axes of a batch of images from outermost in memory to innermost
# Bytes of a line of the cache, which a vector should not lie across, and of arrays for which that
# matters: convolutions, which store whole vectors, are 4 to 8 % faster.
_LINE, _ALIGNED = 64, 1 << 14
_FEW = _ALIGNED // 16  # elements that are surely fewer bytes, of whatever dtype


def empty(shape: tuple[int, ...], dtype, order: tuple[int, ...] | None = None) -> Array:
    """An array of a shape, unset, from a line of the cache on. order: as in the definition."""
    if order is None and math.prod(shape) < _FEW:
        return np.empty(shape, dtype)
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < _ALIGNED:
        return reference.memory.empty(shape, dtype, order)
    room = np.empty(size + _LINE, np.uint8)
    first = -room.ctypes.data % _LINE
    flat = room[first : first + size].view(dtype)
    if order is None:
        return flat.reshape(shape)
    return flat.reshape([shape[a] for a in order]).transpose(np.argsort(order))


def empty_like(x: Array) -> Array:
    """An array of x's shape, dtype and memory order, unset."""
    if x.size < _FEW and x.flags.c_contiguous:
        return np.empty(x.shape, x.dtype)
    return empty(x.shape, x.dtype, memory_order(x))


def empty_image(shape: tuple[int, ...], dtype) -> Array:
    """A batch of images (N, H, W, C), unset, in the memory order that convolutions like best.

    That is H, W, N, C; with few images or channels, with float64 and without SIMD it is C order.
    """
    inside = simd.chosen and min(shape[0], shape[3]) >= IMAGES and np.dtype(dtype).itemsize == 4
    return empty(shape, dtype, OUTWARD if inside else None)


def batch_inside(x: Array) -> bool:
    """Whether images lie in the memory order H, W, N, C."""
    return x.ndim == 4 and not x.flags.c_contiguous and x.transpose(OUTWARD).flags.carray


def as_one(x: Array, inside: bool) -> Array:
    """Images as compiled code takes them; those with the batch inside as one of N C channels.

    What a window does to a channel does not depend on other channels, so both are one kernel.
    """
    x = canonical(outward(x, OUTWARD if inside else None))
    return x.reshape(1, *x.shape[:2], -1) if inside else x


def target_as_one(y: Array, inside: bool, add: bool = False) -> tuple[Array, Array, Array]:
    """Where a kernel writes images as `as_one` has them; and what `settle` takes to finish."""
    out = outward(y, OUTWARD if inside else None)
    value = target(out, add)
    return value.reshape(1, *value.shape[:2], -1) if inside else value, value, out


def outward(x: Array, order: tuple[int, ...] | None) -> Array:
    """x with its axes in a memory order, which `memory_order` found: a view."""
    return x if order is None else x.transpose(order)


def channels_last(x: Array) -> tuple[int, ...] | None:
    """x's memory order where the last axis is innermost in it, else C order."""
    order = memory_order(x)
    return order if order is None or order[-1] == x.ndim - 1 else None


def rare(*arrays: Array | None) -> bool:
    """Whether the definition serves these arrays: float64, mixed dtypes, or no elements."""
    return any(x is not None and (x.dtype != np.float32 or not x.size) for x in arrays)


def canonical(x: Array) -> Array:
    """x in C order, aligned and writeable (each is a type to Numba): itself or a copy."""
    return x if x.flags.carray else np.array(x, order="C")


def space(nth: int, shape: tuple[int, ...], dtype=np.float32) -> Array:
    """Working space of a launcher: nth is a number of its own for each that it holds at once.

    Sizes are rounded up, so that the layers of a network share it.
    """
    size = math.prod(shape)
    rounded = 16 + (1 << max(10, (size - 1).bit_length()))
    found = scratch((1,) * nth + (rounded,), dtype).reshape(-1)
    begin = found.__array_interface__["data"][0]
    first = -begin // found.itemsize % 16  # of a line of the cache, or near
    return found[first : first + size].reshape(shape)


def target(out: Array, add: bool = False, nth: int = 0) -> Array:
    """Where a kernel writes: out, or working space where `settle` has to finish."""
    return out if out.flags.carray and not add else space(nth, out.shape, out.dtype)


@quiet
def settle(value: Array, out: Array, add: bool = False) -> Array:
    """Bring what stands in `target` to out; adding is a pass of its own, so it is exact."""
    return out if value is out else store(value, out, add)
