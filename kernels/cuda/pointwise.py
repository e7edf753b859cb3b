"""A scalar function applied to every element: one skeleton for dense arrays, one for any others."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..roles import Array
from ._numba import blocks, cuda, device, jit
from .intrinsics import aligned, ld4, plus, st4
from .layout import THREADS, broadcast_strides, collapse, cover
from .memory import as_strided

# Elements of a thread: one 128-bit load of float32, two of float64. Whether all four are there is
# asked once for all arrays, not for each one as in vector.py: that took more registers here.
VECTOR = 4


def _of_three(scalar: Callable[..., Any]) -> Any:
    """A device function of three numbers, of which the scalar function takes the first ones."""
    inner = device(scalar)
    count = scalar.__code__.co_argcount
    if count == 1:
        return device(lambda a, b, c: inner(a))
    return device(lambda a, b, c: inner(a, b)) if count == 2 else inner


def _on_dense(scalar: Any) -> Callable[..., None]:
    def kernel(a, b, c, y, add):
        """A thread computes four neighbours, by 128-bit loads; the last one may have fewer."""
        i = cuda.grid(1) * VECTOR
        if i + VECTOR <= y.size:
            a0, a1, a2, a3 = ld4(a, i)
            b0, b1, b2, b3 = ld4(b, i)  # not compiled into a load where scalar takes no b
            c0, c1, c2, c3 = ld4(c, i)
            y0, y1 = scalar(a0, b0, c0), scalar(a1, b1, c1)
            y2, y3 = scalar(a2, b2, c2), scalar(a3, b3, c3)
            if add:
                t0, t1, t2, t3 = ld4(y, i)
                y0, y1, y2, y3 = plus(t0, y0), plus(t1, y1), plus(t2, y2), plus(t3, y3)
            st4(y, i, y0, y1, y2, y3)
        else:
            for k in range(i, y.size):
                value = scalar(a[k], b[k], c[k])
                y[k] = plus(y[k], value) if add else value

    return kernel


def _on_strided(scalar: Any) -> Callable[..., None]:
    def kernel(a, b, c, y, add):
        """A thread computes one element of each y[h]; neighbours follow y's innermost axis.

        A grid has three axes, so one is left to a loop; and one block more than 65535 along an
        axis would not start, so there threads go on in steps of the grid's size.
        """
        k, row, i = cuda.grid(3)
        _, rows, planes = cuda.gridsize(3)
        if k < y.shape[3]:
            while i < y.shape[1]:
                j = row
                while j < y.shape[2]:
                    for h in range(y.shape[0]):
                        value = y.dtype.type(scalar(a[h, i, j, k], b[h, i, j, k], c[h, i, j, k]))
                        y[h, i, j, k] = plus(y[h, i, j, k], value) if add else value
                    j += rows
                i += planes

    return kernel


class Pointwise:
    """The kernels of a scalar function: `relu = Pointwise(_relu)`, `relu((x,), y)`.

    Arrays broadcast to the shape of y; the result is stored in y, or added to what is there.
    floats: y is of the dtype of the inputs, so that dense arrays of floats have a kernel.
    """

    def __init__(self, scalar: Callable[..., Any], name: str = "", floats: bool = True) -> None:
        name = name or scalar.__name__.lstrip("_")
        inner = _of_three(scalar)
        self.dense = jit(_named(name, _on_dense(inner))) if floats else None
        self.strided = jit(_named(f"{name}_strided", _on_strided(inner)), mixed=True)

    def __call__(self, inputs: Sequence[Array], y: Array, add: bool = False) -> Array:
        arrays = *inputs, y
        shape = y.shape
        if all(x.flags.c_contiguous and x.shape == shape for x in arrays):  # the usual case, fast
            flat = [x.reshape(-1) for x in arrays]
            shape, strides = flat[-1].shape, [x.strides for x in flat]
        else:
            shape, strides = collapse(shape, *(broadcast_strides(x, shape) for x in arrays))
            dense = len(shape) == 1 and all(s == (x.itemsize,) for x, s in zip(arrays, strides))
            flat = [as_strided(x, shape, s) for x, s in zip(arrays, strides)] if dense else []
        if flat and self.dense and _floats(arrays) and aligned(*flat):
            self.dense[blocks(y.size, THREADS * VECTOR), THREADS](*_three(flat), flat[-1], add)
            return y
        for views in planes(shape, arrays, strides):
            grid, block = cover(*views[-1].shape[:0:-1])
            self.strided[grid, block](*_three(views), views[-1], add)
        return y


def _named(name: str, function: Callable[..., None]) -> Callable[..., None]:
    function.__name__ = function.__qualname__ = name
    return function


def _three(arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Three inputs for a kernel; it does not read those that its scalar function does not take."""
    inputs = arrays[:-1]
    return (*inputs, *[inputs[0]] * (3 - len(inputs)))


def _floats(arrays: Sequence[Array]) -> bool:
    dtype = arrays[0].dtype
    return dtype.kind == "f" and all(x.dtype == dtype for x in arrays)


def planes(
    shape: Sequence[int], arrays: Sequence[Array], strides: Sequence[Sequence[int]], j: int = -2
) -> Iterator[list[Array]]:
    """Views (h, i, j, k) of arrays that together visit all elements, one launch each.

    k is the last axis and j the one that is named, counted from the end. Of the others the longest
    is i, for the grid, and the next is h, for a loop in each thread; only what is left takes more
    than one launch. So (2, 9, 3, 4, 5) becomes two launches over h, i, j, k = 3, 9, 4, 5.
    """
    shape = (1,) * (4 - len(shape)) + tuple(shape)
    others = [a for a in range(-len(shape), -1) if a != j]
    order = *sorted(others, key=lambda a: shape[a]), j, -1
    lengths, views = tuple(shape[a] for a in order), []
    for x, step in zip(arrays, strides):
        step = (0,) * (len(shape) - len(step)) + tuple(step)
        views.append(as_strided(x, lengths, tuple(step[a] for a in order)))
    for outer in itertools.product(*map(range, lengths[:-4])):
        yield [x[outer] for x in views]
