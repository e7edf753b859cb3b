"""Gradients of the rows of a table that were looked up. Loaded when a table is to have them.

A leaf's `rows` is a list of pairs (rows (n,), gradients (n, D)), one for each time that backward
came by: numbers of rows, each once, and -1 where there is none. So what a step does with a table
costs what the rows in use cost, however many there are.
"""

from collections.abc import Callable
from typing import Any

from .autograd import Array, Node


def lookup(table: Node, index: Array, padding: int | None) -> Callable[[Array], Array]:
    """A hook of the result of a lookup: it notes at the table the gradient of the rows index (...).

    The row padding gets none.
    """
    k = table.device.kernels
    rows, place = _distinct(k, index.reshape(-1), -1 if padding is None else padding)

    def arrived(dy: Array) -> Array:
        sums = _sums(k, place, dy.reshape(len(place), dy.shape[-1]))
        table.rows = [*(table.rows or ()), (rows, sums)]
        return dy

    return arrived


def gathered(table: Node) -> tuple[Array, Array]:
    """All that table.rows has, as one pair; it has no other then."""
    pairs = table.rows or []
    if len(pairs) > 1:
        k = table.device.kernels
        index, dy = (_joined(k, parts) for parts in zip(*pairs, strict=True))
        rows, place = _distinct(k, index, -1)
        table.rows = pairs = [(rows, _sums(k, place, dy))]
    return pairs[0]


def put_into(table: Node, grad: Array) -> Array:
    """Add the gradients of rows to that of the whole table (M, D)."""
    k, (rows, dy) = table.device.kernels, gathered(table)
    held = k.take(grad, rows, k.empty(dy.shape, dy.dtype))
    return k.put_(k.copy(dy, held, True), rows, grad)


def whole(table: Node) -> Array:
    """The gradient of the whole table (M, D), in memory of its own."""
    k = table.device.kernels
    grad = k.empty(*table.like[:2])
    if table.grad is None:
        k.fill(grad, 0)
    else:
        k.copy(table.grad, grad, False)
    return put_into(table, grad)


def _distinct(k: Any, index: Array, skip: int) -> tuple[Array, Array]:
    rows, place = (k.empty(index.shape, "int64") for _ in range(2))
    return k.distinct(index, rows, place, skip)


def _sums(k: Any, place: Array, dy: Array) -> Array:
    """For each of the distinct rows the sum of its gradients dy (n, D), 0 where there is none."""
    sums = k.empty((len(dy) + 1, dy.shape[1]), dy.dtype)
    return k.take_grad(dy, place, sums, False)[:-1]  # what is left out went to the last


def _joined(k: Any, parts: tuple[Array, ...]) -> Array:
    """Arrays one behind the other."""
    out, first = k.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype), 0
    for part in parts:
        k.copy(part, out[first : first + len(part)], False)
        first += len(part)
    return out
