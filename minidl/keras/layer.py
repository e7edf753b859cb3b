"""Layer: a Module that makes its weights when it learns the shape of its input."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import check, nn, train
from ..io.keras_config import snake, unique
from ..io.keras_network import fill
from ..nn import Module, init
from ..nn import functional as F
from ..nn.module import evaluating
from ..nn.recurrent import orthogonal_
from ..tensor import Tensor
from .symbols import KerasTensor, Node, Shape, flat, mapped, shape_of

ACTIVATIONS: dict[str, Any] = {
    "linear": lambda x: x, "relu": F.relu, "softmax": F.softmax, "log_softmax": F.log_softmax,
    "elu": F.elu, "gelu": F.gelu, "relu6": F.relu6, "sigmoid": F.sigmoid, "silu": F.silu,
    "softplus": F.softplus, "swish": F.silu, "tanh": F.tanh,
}  # fmt: skip
INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "glorot_uniform": init.xavier_uniform_, "orthogonal": orthogonal_,
    "he_uniform": lambda w: init.kaiming_uniform_(w, nonlinearity="relu"),
    "he_normal": lambda w: init.kaiming_normal_(w, nonlinearity="relu"),  # not cut at 2 deviations
    "random_normal": lambda w: init.normal_(w, 0.0, 0.05),
    "random_uniform": lambda w: init.uniform_(w, -0.05, 0.05),
    "uniform": lambda w: init.uniform_(w, -0.05, 0.05),
    "zeros": init.zeros_, "ones": init.ones_,
}  # fmt: skip
NAMES: dict[str, int] = {}  # of layers so far, and how many
LENGTHS = 96, 200  # tried where any length will do: what leaves a network may depend on it


class Layer(Module):
    """What all layers share: a name, lazy weights, `trainable`, symbolic calls.

    A layer of yours defines call(x), and build(input_shape) where it has weights: attributes that
    are nn.Parameter, layers of minidl.nn or of minidl.keras.
    """

    training = False  # as in Keras, a call outside of fit is inference
    built = fuses = False
    ends_in = ""  # "softmax" or "sigmoid", where call(x, logits=True) leaves it out
    _nodes: list[Node]

    def __init__(self, *, name: str | None = None, trainable: bool = True, input_shape: Any = None):
        self._nodes, self._trainable = [], bool(trainable)
        self.name = name or unique(snake(type(self).__name__), NAMES)
        self.given_shape = None if input_shape is None else tuple(input_shape)

    def build(self, shape: Any) -> None:
        """Make the weights for an input of this shape (None, ...)."""

    def call(self, x: Any) -> Any:
        """What the layer computes."""
        raise NotImplementedError(f"{type(self).__name__} does not define call(self, x)")

    # --- calls

    def __call__(self, *inputs: Any, training: bool | None = None, **options: Any) -> Any:
        """The layer's output: symbolic for symbolic input, else computed."""
        x = inputs[0] if len(inputs) == 1 else list(inputs)
        options |= {} if training is None else {"training": training}
        if any(isinstance(leaf, KerasTensor) for leaf in flat(x)):
            return Node(self, x, options, self.compute_output_shape(shape_of(x)), "float32").output
        x = mapped(x, as_tensor)
        self.grow(shape_of(x))
        return super().__call__(x, **options)

    def forward(self, x: Any, training: bool | None = None, **options: Any) -> Any:
        """call, in training or inference where one of them is asked for."""
        if training is None:
            return self.call(x, **options)
        modes = [(module, module.training) for module in self.modules()]
        self.train(bool(training))
        try:
            return self.call(x, **options)
        finally:
            for module, mode in modes:
                module.training = mode

    def grow(self, shape: Any) -> None:
        """Make the weights, where that was not done before."""
        if not self.built:
            self.build(shape)
            self.built = True
            if not self._trainable:
                self.trainable = False  # weights that were made just now, too

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The shape of what leaves it: of what it makes of no samples, and with them no work."""
        try:
            self.grow(input_shape)
            few, many = (self._shape_for(input_shape, length) for length in LENGTHS)
        except (ValueError, TypeError) as error:
            problem = str(error).replace("(0,", "(None,")
            raise type(error)(f"{self.name} ({type(self).__name__}): {problem}") from None
        return (None, *(n if n == m else None for n, m in zip(few[1:], many[1:])))

    def _shape_for(self, input_shape: Any, length: int) -> tuple[int, ...]:
        where = train._device_of(self)

        def empty(shape: Shape) -> Tensor:
            known = [length if n is None else n for n in shape[1:]]
            return Tensor(np.zeros((0, *known), np.float32), device=where)

        several = isinstance(input_shape, list)
        with evaluating(self):
            y = self.call(list(map(empty, input_shape)) if several else empty(input_shape))
        if not isinstance(y, Tensor):
            raise TypeError("only what has one output can be a layer of a network")
        return y.shape

    # --- weights

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights of it and all within. False freezes them."""
        return self._trainable

    @trainable.setter
    def trainable(self, wanted: bool) -> None:
        for module in self.modules():
            vars(module)["_trainable"] = bool(wanted)
            if isinstance(module, nn.BatchNorm2d):
                module.frozen = not wanted  # as in Keras, it does inference then
        self.requires_grad_(bool(wanted))

    weights: Any = property(
        lambda self: [weight for _, weight in self._tensors(True, "all")],
        doc="All weights, layer by layer: those that gradients change, then running statistics.",
    )
    trainable_weights: Any = property(
        lambda self: [w for w in self.weights if w.requires_grad],
        doc="Those that training changes.",
    )
    non_trainable_weights: Any = property(
        lambda self: [w for w in self.weights if not w.requires_grad], doc="Those it leaves alone."
    )

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, in Keras's order."""
        return [w.numpy_view().copy() for w in self.weights]

    def set_weights(self, weights: Any) -> None:
        """Overwrite all weights with arrays, in the order of get_weights."""
        fill(self, [(self.name, self.weights, list(weights))])

    def count_params(self) -> int:
        """How many numbers the weights are."""
        return sum(w.size for w in self.weights)

    # --- where it stands

    def _first(self) -> Node:
        if not self._nodes:
            raise RuntimeError(
                f"{self.name} has no input and output yet: begin the network with an Input, or "
                "give the first layer an input_shape"
            )
        return self._nodes[0]

    output: Any = property(lambda self: self._first().output, doc="What its first call returned.")
    input: Any = property(lambda self: self._first().inputs, doc="What its first call was given.")
    input_shape: Any = property(lambda self: shape_of(self.input), doc="The shape of input.")
    output_shape: Any = property(lambda self: shape_of(self.output), doc="The shape of output.")


def layer(activation: str = "linear") -> Callable[..., Any]:
    """Make a kind of layer of a function: from an input's shape and Keras's arguments to a module.

    activation: what it ends in where no argument says so.
    """

    def make_kind(make: Callable[..., Any]) -> Any:
        _, *given = inspect.signature(make).parameters.values()
        rest = inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)
        kind: Any = type(make.__name__, (Made,), {"__doc__": make.__doc__})
        kind.__module__, kind.make, kind.end = make.__module__, staticmethod(make), activation
        kind.__signature__ = inspect.Signature([*given, rest])
        return kind

    return make_kind


class Made(Layer):
    """A layer whose module, or function of tensors, another function makes; then an activation."""

    make: Callable[..., Any]
    end: str
    given: dict[str, Any]

    def __init__(self, *args: Any, **named: Any):
        kind = type(self)
        try:
            bound = inspect.signature(kind).bind(*args, **named)
            bound.apply_defaults()
            given = vars(self)["given"] = bound.arguments
            options = given.pop("options")
            if not isinstance(given.get("layer", self), Layer):
                what = type(given["layer"]).__name__
                raise TypeError(
                    f"takes a layer, as in {kind.__name__}(Dense(32)), not a {what}; data go to fit"
                )
            super().__init__(**options)
        except TypeError as error:
            raise TypeError(f"{kind.__name__}: {error}") from None
        check.known("padding", given.get("padding", "same"), ("valid", "same"))
        if given.get("data_format") not in (None, "channels_last"):
            raise ValueError(f"{kind.__name__}: images are (N, H, W, C), channels_last")
        for name in (name for name in given if name.endswith("_initializer")):
            check.known("initializer", given[name], INITIALIZERS)
        end = given.get("activation") or self.end
        if isinstance(end, str):
            check.known("activation", end, ACTIVATIONS)
            self.ends_in = end if end in ("softmax", "sigmoid") else ""
        self.activation, self.linear = ACTIVATIONS.get(end, end), end == "linear"

    def build(self, shape: Any) -> None:
        """The module, with Keras's initial values."""
        self.inner = self.make(shape, **self.given)
        self.fuses = "fuses_relu" in vars(type(self.inner))
        names = [name for name in self.given if name.endswith("_initializer")]
        for path, weight in self.inner.named_parameters() if names else ():
            head = "bias" if path.endswith("bias") else path.split(".")[0]
            INITIALIZERS[self.given.get(f"{head}_initializer", self.given[names[0]])](weight)

    def call(self, x: Any, logits: bool = False) -> Any:
        """x through the module and, but for logits, the activation."""
        if self.fuses and self.activation is F.relu:
            return self.inner(x, relu=True)
        return self.inner(x) if logits else self.activation(self.inner(x))

    def get_config(self) -> dict[str, Any]:
        """What builds the same one again."""
        return {"name": self.name, "trainable": self._trainable, **self.given}


class InputLayer(Layer):
    """Where data enter a network."""

    def __init__(self, shape: Any, dtype: str = "float32", name: str | None = None):
        super().__init__(name=name)
        self.built = True
        Node(self, [], {}, (None, *shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Shape with the batch's axis, dtype and name, as Keras has them."""
        return {"batch_shape": self.output.shape, "dtype": self.output.dtype, "name": self.name}


def Input(shape: Any = None, dtype: str = "float32", name: str | None = None) -> KerasTensor:
    """Where data of this shape, without the axis of the batch, enter a network."""
    if not isinstance(shape, tuple | list):
        raise TypeError(f"Input: shape is {shape!r}, but must be a tuple such as (28, 28, 1)")
    return InputLayer(shape, dtype, name).output


def as_tensor(x: Any) -> Tensor:
    """Arrays as tensors; all floats, bytes and truths become float32."""
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    return Tensor(array.astype(np.float32) if array.dtype.kind in "fub" else array)
