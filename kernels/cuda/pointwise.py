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


def _of_five(scalar: Callable[..., Any], numbers: int) -> Any:
    """A device function of three elements and two numbers; the scalar function takes fewer."""
    inner = device(scalar)
    arrays = scalar.__code__.co_argcount - numbers
    return device(
        {
            (1, 0): lambda a, b, c, s, t: inner(a),
            (2, 0): lambda a, b, c, s, t: inner(a, b),
            (3, 0): lambda a, b, c, s, t: inner(a, b, c),
            (1, 1): lambda a, b, c, s, t: inner(a, s),
            (2, 1): lambda a, b, c, s, t: inner(a, b, s),
            (1, 2): lambda a, b, c, s, t: inner(a, s, t),
            (2, 2): lambda a, b, c, s, t: inner(a, b, s, t),
        }[arrays, numbers]
    )


def _on_dense(scalar: Any) -> Callable[..., None]:
    def kernel(a, b, c, y, add, s, t):
        """A thread computes four neighbours, by 128-bit loads; the last one may have fewer."""
        i = cuda.grid(1) * VECTOR
        if i + VECTOR <= y.size:
            a0, a1, a2, a3 = ld4(a, i)
            b0, b1, b2, b3 = ld4(b, i)  # not compiled into a load where scalar takes no b
            c0, c1, c2, c3 = ld4(c, i)
            y0, y1 = scalar(a0, b0, c0, s, t), scalar(a1, b1, c1, s, t)
            y2, y3 = scalar(a2, b2, c2, s, t), scalar(a3, b3, c3, s, t)
            if add:
                t0, t1, t2, t3 = ld4(y, i)
                y0, y1, y2, y3 = plus(t0, y0), plus(t1, y1), plus(t2, y2), plus(t3, y3)
            st4(y, i, y0, y1, y2, y3)
        else:
            for k in range(i, y.size):
                value = scalar(a[k], b[k], c[k], s, t)
                y[k] = plus(y[k], value) if add else value

    return kernel


def _on_strided(scalar: Any) -> Callable[..., None]:
    def kernel(a, b, c, y, add, s, t):
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
                        value = scalar(a[h, i, j, k], b[h, i, j, k], c[h, i, j, k], s, t)
                        value = y.dtype.type(value)
                        y[h, i, j, k] = plus(y[h, i, j, k], value) if add else value
                    j += rows
                i += planes

    return kernel


class Pointwise:
    """A scalar function's kernels: `elu = Pointwise(scalars.elu, 1)`, `elu((x,), y, False, 1.0)`.

    Arrays broadcast to the shape of y; the result is stored in y, or added to what is there.
    numbers: how many numbers the function takes after the elements; they reach it in the dtype of
    the floats. floats: y is of the dtype of the inputs, so that dense arrays of floats have a
    kernel.
    """

    def __init__(self, scalar: Callable[..., Any], numbers: int = 0, floats: bool = True) -> None:
        inner, name = _of_five(scalar, numbers), scalar.__name__
        self.takes = name, scalar.__code__.co_argcount - numbers, numbers
        self.dense = jit(_on_dense(inner), name=name) if floats else None
        self.strided = jit(_on_strided(inner), name=f"{name}_strided", mixed=True)

    def __call__(
        self, inputs: Sequence[Array], y: Array, add: bool = False, *numbers: float
    ) -> Array:
        if (len(inputs), len(numbers)) != self.takes[1:]:
            name, elements, count = self.takes
            raise TypeError(
                f"{name} takes {elements} arrays and {count} numbers, not {len(inputs)} and "
                f"{len(numbers)}: Pointwise(scalar, numbers), then kernel(inputs, y, add, *numbers)"
            )
        s, t = (*numbers, 0.0, 0.0)[:2]
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
            self.dense[blocks(y.size, THREADS * VECTOR), THREADS](
                *_three(flat), flat[-1], add, s, t
            )
            return y
        for views in planes(shape, arrays, strides):
            grid, block = cover(*views[-1].shape[:0:-1])
            self.strided[grid, block](*_three(views), views[-1], add, s, t)
        return y


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
