"""Layer: a Module that makes its weights when it learns the shape of its input."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import check
from ..nn import Module
from ..nn import functional as F
from ..tensor import Tensor
from . import initial
from .symbols import KerasTensor, Node, Shape, mapped, shape_of, symbolic, unique

ACTIVATIONS: dict[str, Any] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "softmax": F.softmax,
    "log_softmax": F.log_softmax,
    **{
        name: lambda x, name=name: getattr(F, name)(x)
        for name in ("elu", "gelu", "relu6", "sigmoid", "silu", "softplus", "tanh")
    },
    "swish": lambda x: F.silu(x),
}


def activation_of(given: Any) -> Any:
    """The function of a name, of None (linear), or the function that was given."""
    if given is None or isinstance(given, str):
        check.known("activation", given or "linear", ACTIVATIONS)
        return ACTIVATIONS[given or "linear"]
    return given


class Layer(Module):
    """What all layers share: a name, lazy weights, `trainable`, symbolic calls.

    A layer of yours defines build(input_shape), which makes weights by add_weight, and call(x).
    """

    training = False  # as in Keras, a call outside of fit is inference
    built = False
    ends_in = ""  # "softmax" or "sigmoid", where call(x, logits=True) leaves it out
    fuses = False  # whether call(x, relu=True) does the ReLU behind it as well
    needs_rank: tuple[int, str] | None = None

    def __new__(cls, *args: Any, **named: Any) -> "Layer":
        """Remember the arguments: a file holds them, to build the layer again."""
        layer = super().__new__(cls)
        vars(layer).update(_arguments=(args, named), _nodes=[])
        return layer

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        input_shape: Any = None,
        dtype: Any = None,
    ):
        if dtype not in (None, "float32"):
            raise ValueError(f"{type(self).__name__}: minidl.keras trains in float32, not {dtype}")
        self.name = name or unique(type(self).__name__)
        self.given_shape = None if input_shape is None else tuple(input_shape)
        self._trainable = bool(trainable)

    _nodes: list[Node]
    _arguments: tuple[tuple, dict]

    # --- what a layer defines

    def build(self, shape: Any) -> None:
        """Make the weights for an input of this shape (None, ...)."""

    def call(self, x: Any) -> Any:
        """What the layer computes."""
        raise NotImplementedError(f"{type(self).__name__} does not define call(self, x)")

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The shape of what leaves it; found by a try, where a layer does not say."""
        shapes = mapped_shapes(input_shape)
        tried = mapped(shapes, lambda s: Tensor(np.zeros([n or 1 for n in s.lengths], np.float32)))
        return (None, *self(tried).shape[1:])

    # --- calls

    def __call__(self, *inputs: Any, training: bool | None = None, **options: Any) -> Any:
        """The layer's output: symbolic for symbolic input, else computed."""
        x = inputs[0] if len(inputs) == 1 else list(inputs)
        if symbolic(x):
            if training is not None:
                options["training"] = training
            return self._symbolic_call(x, options)
        x = mapped(x, _tensor)
        if not self.built:
            self._built(shape_of(x))
        with self._mode(training):
            return super().__call__(x, **options)

    def forward(self, x: Any, **options: Any) -> Any:
        """call."""
        return self.call(x, **options)

    def _symbolic_call(self, x: Any, options: dict[str, Any]) -> KerasTensor:
        shape = shape_of(x)
        self._built(shape)
        node = Node(self, x, options)
        node.output = KerasTensor(self.compute_output_shape(shape), "float32", node)
        self._nodes.append(node)
        return node.output

    def _built(self, shape: Any) -> None:
        if not self.built:
            if self.needs_rank and len(shape) != self.needs_rank[0]:
                flat = "; is a Flatten before it? Flatten comes after the convolutions"
                raise ValueError(
                    f"{self.name} ({type(self).__name__}): the input has the shape {shape}, but "
                    f"{self.needs_rank[1]} has {self.needs_rank[0]} axes{flat * (len(shape) == 2)}"
                )
            self.build(shape)
            self.built = True
            if not self._trainable:
                self.requires_grad_(False)  # of weights that were made just now

    @contextlib.contextmanager
    def _mode(self, training: bool | None) -> Iterator[None]:
        """Within it: training mode on or off, as a call asked for; None: as it is."""
        if training is None:
            yield
            return
        modes = [(module, module.training) for module in self.modules()]
        self.train(bool(training))
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode

    # --- weights

    def add_weight(
        self,
        shape: Any = (),
        initializer: Any = "glorot_uniform",
        trainable: bool = True,
        name: str = "weight",
    ) -> Tensor:
        """A new weight, which the layer holds under this name."""
        made = initial.weight(tuple(shape), initializer)
        if not trainable:
            self.register_buffer(name, Tensor(made.detach().data))
        else:
            setattr(self, name, made)
        return getattr(self, name)

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights of it and all within. False freezes them."""
        return self._trainable

    @trainable.setter
    def trainable(self, wanted: bool) -> None:
        for module in self.modules():
            if isinstance(module, Layer):
                module._trainable = bool(wanted)
        self.requires_grad_(bool(wanted))

    @property
    def weights(self) -> list[Tensor]:
        """All weights, layer by layer: those that gradients change, then running statistics."""
        return [tensor for _, tensor in self._tensors(True, "all")]

    @property
    def trainable_weights(self) -> list[Tensor]:
        """The weights that training changes now."""
        return [p for p in self.parameters() if p.requires_grad]

    @property
    def non_trainable_weights(self) -> list[Tensor]:
        """The others: frozen ones, and running statistics."""
        return [w for w in self.weights if not w.requires_grad]

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, in Keras's order."""
        return [w.numpy_view().copy() for w in self.weights]

    def set_weights(self, weights: Any) -> None:
        """Overwrite all weights with arrays, in the order of get_weights."""
        mine = self.weights
        shapes = [tuple(w.shape) for w in mine], [np.shape(w) for w in weights]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"set_weights: {self.name} has weights of shapes {shapes[0]}, got {shapes[1]}"
            )
        for own, new in zip(mine, weights, strict=True):
            initial._copied(own, np.asarray(new, np.float32))

    def count_params(self) -> int:
        """How many numbers the weights are."""
        return sum(w.size for w in self.weights)

    # --- where it stands

    @property
    def output(self) -> KerasTensor:
        """What its first call returned: to cut a network there, Model(inputs, layer.output)."""
        return self._first().output

    @property
    def input(self) -> Any:
        """What its first call was given."""
        return self._first().inputs

    @property
    def input_shape(self) -> Any:
        """The shape of what its first call was given."""
        return shape_of(self.input)

    @property
    def output_shape(self) -> Any:
        """The shape of what its first call returned."""
        return shape_of(self.output)

    def _first(self) -> Node:
        if not self._nodes:
            raise AttributeError(
                f"{self.name} has no output yet: it was never called on a symbolic tensor; begin "
                "the network with an Input, or give the first layer an input_shape"
            )
        return self._nodes[0]

    def get_config(self) -> dict[str, Any]:
        """The arguments that build the same layer, its name among them."""
        args, named = self._arguments
        given = inspect.signature(type(self)).bind(*args, **named).arguments
        options = next((given.pop(key) for key in ("options",) if key in given), {})
        return {**given, **options, "name": self.name, "trainable": self._trainable}

    def extra_repr(self) -> str:
        """The name."""
        return f"name={self.name}"


class _Lengths:
    """A shape as one leaf of a nest."""

    def __init__(self, lengths: tuple):
        self.lengths = lengths


def mapped_shapes(shape: Any) -> Any:
    """A nest of shapes with every shape made one leaf."""
    if isinstance(shape, tuple) and all(n is None or isinstance(n, int) for n in shape):
        return _Lengths(shape)
    return [mapped_shapes(part) for part in shape]


def _tensor(x: Any) -> Any:
    """Arrays as tensors; Python's and NumPy's wide floats become float32."""
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    return Tensor(array.astype(np.float32) if array.dtype.kind in "fub" else array)


def whole(layer: str, **sizes: Any) -> None:
    """TypeError or ValueError unless every size is a whole number from 1 on."""
    for name, n in sizes.items():
        if isinstance(n, bool) or not isinstance(n, int | np.integer):
            raise TypeError(f"{layer}: {name} is {n!r}, but must be a whole number")
        if n < 1:
            raise ValueError(f"{layer}: {name} is {n}, but must be at least 1")


def pair(layer: str, name: str, value: Any) -> tuple[int, int]:
    """A whole number, or a pair (height, width), as a pair."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2:
        raise TypeError(f"{layer}: {name} is {value!r}, but must be a number or a pair")
    for n in both:
        whole(layer, **{name: n})
    return int(both[0]), int(both[1])


class InputLayer(Layer):
    """Where data enter a network."""

    def __init__(self, shape: Any, dtype: str = "float32", name: str | None = None):
        super().__init__(name=name)
        self.shape, self.dtype = (None, *shape), dtype
        node = Node(self, [], {})
        node.output = KerasTensor(self.shape, dtype, node)
        self._nodes.append(node)
        self.built = True

    def call(self, x: Any) -> Any:
        """x itself."""
        return x

    def get_config(self) -> dict[str, Any]:
        """Shape without the batch's axis, dtype and name."""
        return {"shape": self.shape[1:], "dtype": self.dtype, "name": self.name}


def Input(shape: Any = None, dtype: str = "float32", name: str | None = None) -> KerasTensor:
    """Where data of this shape, without the axis of the batch, enter a network."""
    if not isinstance(shape, tuple | list):
        raise TypeError(f"Input: shape is {shape!r}, but must be a tuple such as (28, 28, 1)")
    return InputLayer(tuple(shape), dtype or "float32", name or unique("InputLayer")).output
