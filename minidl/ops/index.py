"""Elements by their places: gather, embedding, pad. Loaded when the first of them is asked for."""

from operator import index as whole

from .. import check
from ..kernels import shapes
from ..op import op


@op(integer=("index",))
def gather(k, x, index, *, axis):
    """y[..., j, ...] = x[..., index[..., j, ...], ...] along an axis, as in PyTorch.

    x (..., M, ...), index (..., J, ...) -> (..., J, ...). Along the other axes index may be shorter
    than x, whose rest is left out. A negative number counts from the end; what is picked twice gets
    both gradients.
    """
    (axis,) = check.axes("gather", (axis,), x)
    if index.ndim != x.ndim:
        check.fail("gather", f"index needs {x.ndim} axes, as x has", x=x, index=index)
    for a, n in enumerate(index.shape):
        if n > x.shape[a] and a != axis:
            check.fail("gather", f"index is longer than x along axis {a}", x=x, index=index)
    check.within("gather", "index", index, -x.shape[axis], x.shape[axis], x=x, index=index)
    part = tuple(slice(None if a == axis else n) for a, n in enumerate(index.shape))
    full = x[part].shape == x.shape
    y = k.gather(x[part], index, k.empty(index.shape, x.dtype), axis)

    def grad_x(dy, dx, add):
        if full:
            return k.gather_grad(dy, index, dx, axis, add)
        if not add:
            k.fill(dx, 0)
        k.gather_grad(dy, index, dx[part], axis, True)
        return dx

    return y, (grad_x,)


@op(integer=("index",))
def embedding(k, index, w, *, padding_idx=None):
    """w[index]: for each number its row of w, as in PyTorch.

    index (...), w (M, D) -> (..., D). The row padding_idx gets no gradient; it may count from the
    end, while an index may not.
    """
    check.rank("embedding", "w", w, 2, "a table (rows, columns)")
    check.within("embedding", "index", index, 0, len(w), index=index, w=w)
    if padding_idx is not None and not -len(w) <= padding_idx < len(w):
        check.fail("embedding", f"padding_idx {padding_idx} is no row of w", w=w)
    y = k.take(w, index, k.empty((*index.shape, w.shape[1]), w.dtype))

    def grad_w(dy, dw, add):
        if padding_idx is None:
            return k.take_grad(dy, index, dw, add)
        row = dw[padding_idx]
        before = k.fill(k.empty(row.shape, row.dtype), 0)
        if add:
            k.copy(row, before, False)
        k.take_grad(dy, index, dw, add)
        k.copy(before, row, False)
        return dw

    return y, (None, grad_w)


@op
def pad(k, x, *, widths, mode="constant", value=0.0):
    """x with more elements before and after those along each axis.

    widths: a pair (before, after) for each axis, as numpy.pad takes them: images (N, H, W, C) need
    ((0, 0), (top, bottom), (left, right), (0, 0)). mode: "constant", they are value; "edge", the
    nearest of x; "reflect", x mirrored at its first and last element, which are not repeated.
    """
    widths, value = _pairs(widths, x), float(value)
    if mode not in ("constant", "edge", "reflect"):
        check.fail("pad", f"unknown mode {mode!r}; known: constant, edge, reflect", x=x)
    for axis, (n, most) in enumerate(zip(x.shape, map(max, widths), strict=True)):
        if most and n < {"constant": 0, "edge": 1, "reflect": most + 1}[mode]:
            problem = f"axis {axis} is too short for {most} more in mode {mode!r}"
            check.fail("pad", problem, "reflect needs an axis longer than what is added", x=x)
    y = k.pad(x, k.empty(shapes.pad(x.shape, widths), x.dtype), widths, mode, value)

    def grad_x(dy, dx, add):
        return k.pad_grad(dy, dx, widths, mode, add)

    return y, (grad_x,)


def _pairs(widths, x):
    """widths as a tuple of pairs of whole numbers from 0 on, one for each axis of x."""
    hint = "this is numpy.pad's form; PyTorch's flat one counts from the last axis, the channels"
    try:
        pairs = tuple((whole(before), whole(after)) for before, after in widths)
    except (TypeError, ValueError):
        check.fail("pad", f"widths are pairs (before, after), not {widths}", hint, x=x)
    if len(pairs) != x.ndim:
        check.fail("pad", f"{len(pairs)} pairs of widths, but x has {x.ndim} axes", hint, x=x)
    least = min((n for pair in pairs for n in pair), default=0)
    if least < 0:
        check.fail("pad", f"widths are at least 0, not {least}", "cut x by a slice", x=x)
    return pairs
