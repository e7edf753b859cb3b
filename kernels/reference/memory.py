"""Where arrays come from: outputs by `empty`, working space by `scratch`."""

import threading

import numpy as np

from ..roles import Array


class _Arena(threading.local):
    """What scratch has ready in each thread, by shape and dtype."""

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


def scratch(shape: tuple[int, ...], dtype) -> Array:
    """Working space that is valid until the kernel returns, kept by the thread for the next one.

    Two calls of one kernel get the same memory when shape and dtype agree: ask once per shape.
    """
    key = shape, np.dtype(dtype).char
    held = _arena.held
    if key not in held:
        if len(held) > 64 and held is _arena.own:  # shapes that are gone for good must not pile up
            held.clear()
        held[key] = np.empty(shape, dtype)
    return held[key]


def use_arena(held: dict | None) -> dict | None:
    """Let this thread's scratch live in held, a captured program's; None: in its own again.

    Returns what was used before, in the same terms.
    """
    before = _arena.held
    _arena.held = _arena.own if held is None else held
    return None if before is _arena.own else before
