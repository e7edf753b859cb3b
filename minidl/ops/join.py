"""Tensors joined to one, and one cut into several. Loaded when the first of them is asked for."""

import itertools

from .. import check
from ..kernels import shapes
from ..op import op
from ..tensor import Tensor
from .shape import getitem


def _axis(name, axis, rank, x):
    """The axis counted from the front, of rank many."""
    try:
        return shapes.axes((axis,), rank)[0]
    except (ValueError, TypeError) as error:
        check.fail(name, str(error), x=x)


def _of_a_list(op):
    """The op as PyTorch calls it: with a list of tensors, and an axis that is also named dim."""
    name = op.__name__

    def call(tensors, axis=0, *, dim=None):
        if isinstance(tensors, Tensor) or not hasattr(tensors, "__iter__"):
            raise TypeError(f"{name}: takes a list of tensors, not a {type(tensors).__name__}")
        tensors = list(tensors)
        if not tensors:
            check.fail(name, "the list is empty", "give at least one tensor")
        if any(t is None for t in tensors):
            raise TypeError(f"{name}: None is no tensor; leave it out of the list")
        return op(*tensors, axis=axis if dim is None else dim)

    call.__doc__, call.__name__ = op.__doc__, name
    call.raw = op.raw  # type: ignore[attr-defined]
    return call


def _same(name, xs, shapes):
    """TypeError or ValueError where two of the tensors differ in dtype or in these shapes."""
    for i, x in enumerate(xs):
        if x.dtype != xs[0].dtype:
            raise TypeError(
                f"{name}: tensor {i} is {x.dtype}, but tensor 0 is {xs[0].dtype}; nothing is "
                "promoted silently, convert one with .astype(...)"
            )
        if shapes[i] != shapes[0]:
            check.fail(name, f"tensor {i} is {x.shape}, which does not fit {xs[0].shape}")


def _laid(k, xs, y, keys):
    """y with each of xs copied to its place; the gradients are views of those places of dy."""
    for x, key in zip(xs, keys, strict=True):
        k.copy(x, y[key], False)
    return y, tuple(_part_of_dy(k, key) for key in keys)


def _part_of_dy(k, key):
    def grad(dy, dx, add):
        view = dy[key]
        return k.copy(view, dx, add) if add else view

    return grad


@_of_a_list
@op(any_dtype=True)
def concat(k, *xs, axis):
    """Tensors one behind the other along an axis, which may be of another length in each of them.

    (..., N1, ...), (..., N2, ...) ... -> (..., N1 + N2 + ..., ...); of any one dtype. axis is also
    called dim.
    """
    x = xs[0]
    axis = _axis("concat", axis, x.ndim, x)
    _same("concat", xs, [(a.ndim, a.shape[:axis], a.shape[axis + 1 :]) for a in xs])
    lengths = [a.shape[axis] for a in xs]
    ends = itertools.accumulate(lengths)
    lead = (slice(None),) * axis
    keys = [(*lead, slice(end - n, end)) for n, end in zip(lengths, ends, strict=True)]
    shape = (*x.shape[:axis], sum(lengths), *x.shape[axis + 1 :])
    return _laid(k, xs, k.empty(shape, x.dtype, k.memory_order(x)), keys)


@_of_a_list
@op(any_dtype=True)
def stack(k, *xs, axis):
    """Tensors of one shape along a new axis.

    n tensors (A, B, ...) -> (n, A, B, ...) for axis 0, (A, n, B, ...) for axis 1 ...; of any one
    dtype. axis is also called dim.
    """
    x = xs[0]
    axis = _axis("stack", axis, x.ndim + 1, x)
    _same("stack", xs, [a.shape for a in xs])
    y = k.empty((*x.shape[:axis], len(xs), *x.shape[axis:]), x.dtype)
    return _laid(k, xs, y, [(slice(None),) * axis + (i, ...) for i in range(len(xs))])


cat = concat


def split(x, split_size_or_sections, axis=0, *, dim=None):
    """x cut along an axis into views, as PyTorch does it.

    split_size_or_sections: the length of each piece, of which the last may be shorter; or a list of
    the lengths, which add up to that of x. axis is also called dim.
    """
    axis = _axis("split", axis if dim is None else dim, x.ndim, x)
    length, sizes = x.shape[axis], split_size_or_sections
    if isinstance(sizes, int):
        if sizes < 1:
            check.fail("split", f"the pieces are {sizes} long, but must be at least 1", x=x)
        sizes = [min(sizes, length - i) for i in range(0, max(length, 1), sizes)]
    if min(sizes, default=0) < 0 or sum(sizes) != length:
        problem = f"pieces of {[*sizes]} are not the {length} elements along axis {axis}"
        check.fail("split", problem, "give the length of each, not where they end", x=x)
    ends = itertools.accumulate(sizes)
    lead = (slice(None),) * axis
    return tuple(
        getitem(x, key=(*lead, slice(end - n, end))) for n, end in zip(sizes, ends, strict=True)
    )


def chunk(x, chunks, axis=0, *, dim=None):
    """x cut along an axis into at most so many views of equal length, but for the last.

    As in PyTorch: the length is rounded up, so that 4 pieces of 5 elements are 2, 2 and 1. axis is
    also called dim.
    """
    if chunks < 1:
        check.fail("chunk", f"{chunks} pieces are asked for, but there is at least 1", x=x)
    axis = _axis("chunk", axis if dim is None else dim, x.ndim, x)
    return split(x, max(-(-x.shape[axis] // chunks), 1), axis)
