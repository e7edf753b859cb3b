"""Where arrays come from: outputs by `empty`, working space by `scratch`."""

import contextlib
import ctypes
import math
import sys
import threading

import numpy as np

from ..roles import Array

_LINE = 64  # bytes of a line of the cache, which a vector should not lie across


class _Arena(threading.local):
    """What scratch has ready in each thread, by number and dtype."""

    def __init__(self) -> None:
        self.own: dict = {}
        self.held = self.own


_arena = _Arena()


def empty(shape: tuple[int, ...], dtype, order: tuple[int, ...] | None = None) -> Array:
    """An array of a shape, unset. order: its axes from outermost in memory to innermost."""
    if order is None:
        return np.empty(shape, dtype)
    outward = np.empty([shape[a] for a in order], dtype)
    return outward.transpose(np.argsort(order))


def empty_like(x: Array) -> Array:
    """An array of x's shape, dtype and memory order, unset."""
    return empty(x.shape, x.dtype, memory_order(x))


def empty_image(shape: tuple[int, ...], dtype) -> Array:
    """A batch of images (N, H, W, C), unset, in the memory order this backend likes best."""
    return np.empty(shape, dtype)


def memory_order(x: Array) -> tuple[int, ...] | None:
    """x's axes from outermost in memory to innermost; None where that is C order."""
    if x.flags.c_contiguous:
        return None
    return tuple(sorted(range(x.ndim), key=lambda a: -abs(x.strides[a])))


def contiguous(x: Array) -> Array:
    """x in C order: itself where it is, else a copy."""
    return np.ascontiguousarray(x) if x.ndim else x


def scratch(shape: tuple[int, ...], dtype, nth: int = 0) -> Array:
    """Working space that is valid until the kernel returns, kept by the thread for the next one.

    It begins at a line of the cache. nth: a number for each array that a kernel holds at once.
    What has one number and dtype shares memory, which grows to the largest that was asked for.
    """
    dtype, held = np.dtype(dtype), _arena.held
    size, key = math.prod(shape) * dtype.itemsize, (nth, dtype.char)
    room = held.get(key)
    if room is None or len(room) < size:
        held[key] = None  # the old one goes first
        room = np.empty(size + _LINE, np.uint8)
        first = -room.ctypes.data % _LINE
        room = held[key] = room[first : first + size]
    return room[:size].view(dtype).reshape(shape)


def release() -> None:
    """Give memory that is free back to the system, and this thread's working space with it.

    The GNU C library keeps what was freed in small pieces, and what is "small" grows up to 32 MB:
    after the first steps of a network that can be all of its activations.
    """
    _arena.own.clear()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def use_arena(held: dict | None) -> dict | None:
    """Let this thread's scratch live in held, a captured program's; None: in its own again.

    Returns what was used before, in the same terms.
    """
    before = _arena.held
    _arena.held = _arena.own if held is None else held
    return None if before is _arena.own else before
