"""Where the arrays of a launch lie in memory, and where what is remembered of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..emulator.bounds import extent
from ..guarded import GUARD, Buffer
from .watch import CELL, CELLS, FIXED, FRESH, GAPS, SHARED, SHIFT, START, STOP

KEPT = 1 << 21  # granules whose shadow is kept from launch to launch, in 128 MB at most


class Shadow:
    """What is remembered of granules, in two halves. What an old launch left is passed by."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.cells, self.more = _nothing(0), _nothing(0)

    def of(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Both halves, of so many granules."""
        if size > KEPT:
            return _nothing(size), _nothing(size)
        if size > len(self.cells):
            self.cells, self.more = _nothing(size), _nothing(size)
        return self.cells, self.more


def _nothing(size: int) -> np.ndarray:
    return np.zeros((size, CELL), np.int64)


def lay_out(
    rows: np.ndarray, arrays: list[np.ndarray], least: list[int], written: set[int]
) -> tuple[int, np.ndarray]:
    """Fill in where the cells of memory are, and which is written. Returns how many there are, and
    which lie between the elements of views.

    rows: of `array`. arrays: what the first of them are. least: bytes of the shortest access of
    each; a granule has as many, if they begin at multiples of it. written: their numbers, and -1 if
    there may be others.
    """
    size, views = 0, []
    for group in _groups(rows):
        either = 0
        for i in group:
            either |= least[i] | int(rows[i, START])
        shift = (either & -either).bit_length() - 1
        first, last = rows[group, START].min() >> shift, rows[group, STOP].max() >> shift
        rows[group, CELLS], rows[group, SHIFT] = size - first, shift
        still = -1 not in written and not written & {*group}
        rows[group, FIXED] = still & (rows[group, SHARED] == 0) & (rows[group, FRESH] == 0)
        if rows[group, GAPS].any():
            views.append(group)
        size += int(last - first) + 1
    gaps = np.zeros(size if views else 0, np.bool_)
    for group in views:
        for i in group:
            start, stop, cell, shift = (int(rows[i, c]) for c in (START, STOP, CELLS, SHIFT))
            if rows[i, GAPS]:
                gaps[(start >> shift) + cell : (stop - 1 >> shift) + cell + 1] = True
        for i in group:  # what any array has is no gap
            for granule in _granules(arrays[i], int(rows[i, SHIFT])):
                gaps[granule + rows[i, CELLS]] = False
    return size, gaps


def _groups(rows: np.ndarray) -> Iterator[list[int]]:
    """Numbers of arrays, those together that overlap: they have their cells in common."""
    group: list[int] = []
    end = 0
    for i in np.argsort(rows[:, START], kind="stable"):
        if group and rows[i, START] >= end:
            yield group
            group = []
        group.append(int(i))
        end = max(end, rows[i, STOP])
    if group:
        yield group


def _granules(a: np.ndarray, shift: int) -> Iterator[np.ndarray]:
    """Numbers of the granules of all elements of an array: the first of each, the second ..."""
    found = np.full(a.shape, a.ctypes.data)
    for axis, (n, stride) in enumerate(zip(a.shape, a.strides)):
        found += np.expand_dims(np.arange(n) * stride, [i for i in range(a.ndim) if i != axis])
    for byte in range(0, a.itemsize, 1 << shift):
        yield found + byte >> shift


def owner(a: np.ndarray) -> int:
    """Where the memory begins that an array is a view of: on a GPU a multiple of 256."""
    last: Any = a
    while getattr(a, "base", None) is not None:
        a = a.base  # type: ignore[assignment]
        last = a if isinstance(a, np.ndarray) else last
    start = extent(last)[0]
    return start + -start % GUARD if isinstance(last, Buffer) else start
