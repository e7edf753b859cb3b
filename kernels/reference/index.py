"""Elements by their places: picked by number, put back, and repeated around the edges."""

import numpy as np

from ..roles import Array, InOut, Out
from .elementwise import quiet, store


def gather(x: Array, index: Array, y: Out, axis: int) -> Array:
    """y[..., j, ...] = x[..., index[..., j, ...], ...] along an axis.

    x and index have the same lengths along the others; a negative number counts from the end.
    """
    y[...] = np.take_along_axis(x, index, axis)
    return y


@quiet
def gather_grad(dy: Array, index: Array, dx: Out, axis: int, add: bool) -> Array:
    """dx[..., index[..., j, ...], ...] += dy[..., j, ...], in the order of j."""
    place = np.arange(dx.size).reshape(dx.shape)
    cells = np.zeros(dx.size, dx.dtype)
    np.add.at(cells, np.take_along_axis(place, index, axis).reshape(-1), dy.reshape(-1))
    return store(cells.reshape(dx.shape), dx, add)


def distinct(index: Array, rows: Out, place: Out, skip: int) -> tuple[Array, Array]:
    """rows: the numbers of index (n,), ascending, -1 where one comes again; place: where each is.

    index[i] = rows[place[i]]. The number skip, and those below 0, which stand behind all others,
    are left out: -1 in rows, and their place is n.
    """
    last = np.iinfo(index.dtype).max
    known = np.where(index < 0, last, index)
    rows[...] = np.sort(known)
    place[...] = np.searchsorted(rows, known)
    place[(index < 0) | (index == skip)] = len(index)
    again = np.flatnonzero(rows[1:] == rows[:-1]) + 1
    rows[(rows == last) | (rows == skip)] = -1
    rows[again] = -1
    return rows, place


def put_(x: Array, rows: Array, y: InOut) -> Array:
    """y[rows[i]] = x[i], but where rows[i] is -1. x (n, ...), rows (n,), y (M, ...)."""
    here = rows >= 0
    y[rows[here]] = x[here]
    return y


def pad(x: Array, y: Out, widths: tuple[tuple[int, int], ...], mode: str, value: float) -> Array:
    """y = x with (before, after) more elements along each axis.

    mode: "constant", they are value; "edge", the nearest of x; "reflect", x mirrored at its first
    and last element, which are not repeated.
    """
    if mode == "constant":
        y[...] = value
        y[_inside(x, widths)] = x
    elif x.ndim:
        y[...] = np.pad(x, widths, "edge" if mode == "edge" else "reflect")
    else:
        y[...] = x
    return y


def pad_grad(
    dy: Array, dx: Out, widths: tuple[tuple[int, int], ...], mode: str, add: bool
) -> Array:
    """dx = sum of dy over the places where pad puts each element."""
    if mode == "constant":
        return store(dy[_inside(dx, widths)], dx, add)
    for axis, (before, _) in enumerate(widths):
        rows = _folded(np.moveaxis(dy, axis, 0), dx.shape[axis], before, mode)
        dy = np.moveaxis(rows, 0, axis)
    return store(dy, dx, add)


def _inside(x: Array, widths: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    """Where in the padded array x lies."""
    return tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths))


@quiet
def _folded(dy: Array, n: int, before: int, mode: str) -> Array:
    """The n rows from `before` on, with what stands around them added to where it was taken."""
    rows, head, tail = dy[before : before + n].copy("K"), dy[:before], dy[before + n :]
    if mode == "edge":
        rows[:1] += head.sum(axis=0)
        rows[-1:] += tail.sum(axis=0)
    else:
        rows[1 : 1 + len(head)] += head[::-1]
        rows[n - 1 - len(tail) : n - 1] += tail[::-1]
    return rows
