"""Networks before there are data: symbolic tensors, and the calls of layers that made them."""

from collections.abc import Iterator
from typing import Any

Shape = tuple[int | None, ...]


class KerasTensor:
    """A tensor that is yet to be computed: a shape, None where any length will do, and a dtype."""

    def __init__(self, shape: Shape, dtype: str, node: "Node"):
        self.shape, self.dtype, self.node = tuple(shape), dtype, node
        self.name, self.ndim = node.layer.name, len(shape)

    def __repr__(self) -> str:
        return f"<KerasTensor shape={self.shape}, dtype={self.dtype}, name={self.name}>"

    def __getattr__(self, name: str) -> Any:
        kind = "".join(part.capitalize() for part in name.split("_"))
        raise AttributeError(
            f"{self!r} has no {name!r}; what is computed is written as a layer, as in "
            f"layers.{kind}()(x)"
        )

    def __call__(self, *inputs: Any) -> Any:
        raise TypeError(
            f"{self!r} is a tensor, not a layer: call the layer, layers[i](x), or cut the network "
            "there, Model(base.input, base.layers[i].output)"
        )


class Node:
    """One call of a layer: what it was given, and the symbolic tensor that came out."""

    def __init__(self, layer: Any, inputs: Any, options: dict[str, Any], shape: Shape, dtype: str):
        self.layer, self.inputs, self.options = layer, inputs, options
        self.output = KerasTensor(shape, dtype, self)
        layer._nodes.append(self)

    def parents(self) -> list[KerasTensor]:
        """The symbolic tensors that it was given."""
        return list(flat(self.inputs))


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


def shape_of(nest: Any) -> Any:
    """The shapes of what a layer is given, each with any length of the batch."""
    return mapped(nest, lambda x: (None, *x.shape[1:]))


def graph(inputs: list[KerasTensor], outputs: list[KerasTensor]) -> list[Node]:
    """The calls that lead from inputs to outputs, in Keras's order, which its files rely on.

    That is by their depth, the longest way to an output; of one depth by layers in the order in
    which a walk back from the outputs meets them.
    """
    met: dict[Any, int] = {}
    done: dict[Node, None] = {}  # a call after all that it needs
    ends = {id(x) for x in inputs}
    waiting = [(x, False) for x in reversed(outputs)]
    while waiting:
        x, whole = waiting.pop()
        node = x.node
        if node in done:
            continue
        met.setdefault(node.layer, len(met))
        parents = [] if id(x) in ends else node.parents()
        if whole:
            done[node] = None
        elif not parents and id(x) not in ends:
            raise ValueError(
                f"Model: the outputs depend on the Input {x.name!r} {x.shape}, which is not among "
                "the inputs"
            )
        else:
            waiting += [(x, True), *((parent, False) for parent in reversed(parents))]
    depth: dict[Any, int] = {}  # of calls and of layers, one after the other
    for node in reversed(done):
        depth[node] = depth[node.layer] = max(depth.get(node, 0), depth.get(node.layer, 0))
        for parent in [] if id(node.output) in ends else node.parents():
            depth[parent.node] = max(depth[node] + 1, depth.get(parent.node, 0))
    done |= {x.node: None for x in inputs}
    return sorted(done, key=lambda n: (-depth.get(n, 0), met.get(n.layer, -1)))
