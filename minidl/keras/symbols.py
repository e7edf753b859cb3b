"""Networks before there are data: symbolic tensors, and the layers that made them."""

import re
from collections.abc import Iterator
from itertools import count
from typing import Any

Shape = tuple[int | None, ...]

_serial = count()
_names: dict[str, int] = {}


class Node:
    """One call of a layer: what it was given, and the symbolic tensor that came out."""

    def __init__(self, layer: Any, inputs: Any, options: dict[str, Any]):
        self.layer, self.inputs, self.options = layer, inputs, options
        self.serial = next(_serial)
        self.output: KerasTensor

    def parents(self) -> list["KerasTensor"]:
        """The symbolic tensors that it was given."""
        return list(flat(self.inputs))


class KerasTensor:
    """A tensor that is yet to be computed: a shape, None where any length will do, and a dtype."""

    def __init__(self, shape: Shape, dtype: str, node: Node, name: str = ""):
        self.shape, self.dtype, self.node = tuple(shape), dtype, node
        self.name = name or node.layer.name

    @property
    def ndim(self) -> int:
        """Number of axes, with that of the batch."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<KerasTensor shape={self.shape}, dtype={self.dtype}, name={self.name}>"


def flat(nest: Any) -> Iterator[Any]:
    """The leaves of nested lists and tuples."""
    if isinstance(nest, list | tuple):
        for part in nest:
            yield from flat(part)
    else:
        yield nest


def mapped(nest: Any, function: Any) -> Any:
    """The same nest with every leaf replaced."""
    if isinstance(nest, list | tuple):
        return type(nest)(mapped(part, function) for part in nest)
    return function(nest)


def symbolic(nest: Any) -> bool:
    """Whether there is a symbolic tensor among the leaves."""
    return any(isinstance(leaf, KerasTensor) for leaf in flat(nest))


def shape_of(nest: Any) -> Any:
    """The shapes of what a layer is given, each with any length of the batch."""
    return mapped(nest, lambda x: (None, *x.shape[1:]))


def snake(name: str) -> str:
    """Conv2D as conv2d, GlobalAveragePooling2D as global_average_pooling2d ..."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def unique(kind: str) -> str:
    """A name for a new layer, as Keras makes it: conv2d, conv2d_1, global_average_pooling2d ..."""
    name = snake(kind)
    number = _names.get(name, 0)
    _names[name] = number + 1
    return f"{name}_{number}" if number else name


def forget_names() -> None:
    """Let the next names count from the beginning."""
    _names.clear()


def graph(inputs: list[KerasTensor], outputs: list[KerasTensor]) -> list[Node]:
    """The calls that lead from inputs to outputs, in the order in which they were made."""
    found: dict[int, Node] = {}
    ends = {id(x) for x in inputs}
    waiting = list(outputs)
    while waiting:
        x = waiting.pop()
        node = x.node
        if node.serial in found:
            continue
        found[node.serial] = node
        if id(x) in ends:
            continue
        if not node.parents():
            raise ValueError(
                f"Model: the outputs depend on the Input {x.name!r} {x.shape}, which is not among "
                "the inputs"
            )
        waiting += node.parents()
    for x in inputs:
        found.setdefault(x.node.serial, x.node)
    return [found[serial] for serial in sorted(found)]
