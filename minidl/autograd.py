"""The tape: one Node per recorded op, and the backward pass that walks it.

Iterative throughout: a chain of a million ops neither overflows the stack nor leaks.
"""

import threading
from collections.abc import Callable
from typing import Any

Array = Any


class _Mode(threading.local):
    recording = True


mode = _Mode()


class no_grad:
    """Within `with no_grad():` (or a function decorated `@no_grad()`) nothing is recorded."""

    def __enter__(self) -> None:
        self._outer = mode.recording
        mode.recording = False

    def __exit__(self, *error: object) -> None:
        mode.recording = self._outer

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def quiet(*args: Any, **kwargs: Any) -> Any:
            with no_grad():
                return function(*args, **kwargs)

        quiet.__doc__, quiet.__name__ = function.__doc__, function.__name__
        return quiet


class Node:
    """One recorded op: where its inputs came from, and how a gradient goes back to them.

    A leaf (a tensor that the user asked gradients for) has no inputs; it keeps the gradient.
    """

    __slots__ = (
        "name",  # of the op, for error messages
        "inputs",  # a Node per input, None where no gradient is wanted
        "grads",  # a function per input, or one for all; None once freed
        "versions",  # (version cell, its value then, id of the array) per input and output
        "like",  # (shape, dtype, memory order) of the output, and so of its gradient
        "device",  # where the output is
        "leaf",
        "keep",  # store the gradient in `grad`: always for a leaf, else by retain_grad()
        "grad",
        "home",  # a leaf's place in an optimizer's flat gradient buffer
        "rows",  # of a table, gradients of the rows that were looked up: see rows.py
        "hooks",
        "__weakref__",
    )

    def __init__(
        self, name: str, inputs: tuple, grads: Any, like: tuple, device: Any, leaf: bool = False
    ):
        self.name, self.inputs, self.grads, self.like = name, inputs, grads, like
        self.device = device
        self.leaf = self.keep = leaf
        self.versions: tuple = ()
        self.grad: Array | None = None
        self.home: Array | None = None
        self.rows: list[tuple[Array, Array]] | None = None
        self.hooks: dict[int, Callable[[Array], Array]] | None = None

    def saved(self) -> dict[str, Array]:
        """The arrays that the gradient functions hold on to, by the name the op gave them."""
        functions = [self.grads] if callable(self.grads) else self.grads or ()
        return {
            name: cell.cell_contents
            for f in functions
            if f is not None
            for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
            if hasattr(cell.cell_contents, "dtype")
        }


def backward(root: Node, dy: Array, retain_graph: bool = False) -> None:
    """Send dy, the gradient of root's output, to every leaf that root depends on."""
    uses = _uses(root)
    sums = {root: (dy, False)}  # node -> (gradient so far, may we write into it?)
    ready = [root]
    while ready:
        node = ready.pop()
        dy, ours = sums.pop(node)
        if node.hooks:
            for hook in tuple(node.hooks.values()):
                dy, ours = hook(dy), False
        if node.keep:
            _accumulate(node, dy, ours)
        if node.leaf:
            continue
        if node.grads is None:
            raise RuntimeError(
                f"backward: the graph of {node.name!r} was freed by an earlier backward; "
                "pass retain_graph=True to that one"
            )
        if any(cell[0] != seen for cell, seen, _ in node.versions):
            _complain_if_saved(node)
        _send(node, dy, sums)
        for source in node.inputs:
            if source is not None:
                uses[source] -= 1
                if not uses[source]:
                    ready.append(source)
        if not retain_graph:
            node.grads, node.inputs, node.versions = None, (), ()


def _uses(root: Node) -> dict[Node, int]:
    """How many gradients each node under root waits for."""
    uses, stack = {root: 0}, [root]
    while stack:
        for source in stack.pop().inputs:
            if source is not None:
                if source in uses:
                    uses[source] += 1
                else:
                    uses[source] = 1
                    stack.append(source)
    return uses


def _send(node: Node, dy: Array, sums: dict) -> None:
    """Add node's contribution to the gradient of each of its inputs."""
    if callable(node.grads):
        _send_jointly(node, dy, sums)
        return
    for source, grad in zip(node.inputs, node.grads, strict=True):
        if source is not None:
            out, add = _destination(source, sums)
            got = grad(dy, out, add)
            sums[source] = got, got is out


def _send_jointly(node: Node, dy: Array, sums: dict) -> None:
    """The same for gradients that share work: one function fills them all."""
    places: list = []
    for i, source in enumerate(node.inputs):
        if source is None:
            places.append((None, False))
        elif source in node.inputs[:i]:  # given twice: the second share gets room of its own
            places.append((source.device.kernels.empty(*source.like), False))
        else:
            places.append(_destination(source, sums))
    outs, adds = zip(*places, strict=True)
    node.grads(dy, outs, adds)
    for i, source in enumerate(node.inputs):
        if source is not None and source in node.inputs[:i]:
            source.device.kernels.copy(outs[i], sums[source][0], True)
        elif source is not None:
            sums[source] = outs[i], True


def _destination(source: Node, sums: dict) -> tuple[Array, bool]:
    """Where the next gradient for source goes, and whether it is added to what is there."""
    held = sums.get(source)
    if held is None:
        if source.leaf and source.grad is not None and not source.hooks:
            return source.grad, True
        return _room(source), False
    total, ours = held
    return (total if ours else source.device.kernels.copy(total, _room(source), False)), True


def _room(node: Node) -> Array:
    if node.home is not None and node.grad is None:
        return node.home
    return node.device.kernels.empty(*node.like)


def _accumulate(node: Node, dy: Array, ours: bool) -> None:
    if node.grad is None:
        fits = ours and (node.home is None or dy is node.home)
        node.grad = dy if fits else node.device.kernels.copy(dy, _room(node), False)
    elif dy is not node.grad:
        node.device.kernels.copy(dy, node.grad, True)


def _complain_if_saved(node: Node) -> None:
    """RuntimeError if a gradient function reads an array that was changed in place."""
    saved = node.saved()
    held = {id(a): name for name, a in saved.items()}
    held |= {id(a.base): name for name, a in saved.items() if a.base is not None}
    for cell, seen, array in node.versions:
        if cell[0] != seen and array in held:
            raise RuntimeError(
                f"backward: {held[array]!r}, which {node.name} keeps for its gradient, was changed "
                "in place since; change a copy, or call backward before the change"
            )
