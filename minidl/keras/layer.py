"""Layer: a Module that makes its weights when it learns the shape of its input."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import check, nn
from ..autograd import no_grad
from ..kernels import shapes
from ..nn import Module, Parameter
from ..nn import functional as F
from ..tensor import Tensor
from .initial import INITIALIZERS
from .symbols import KerasTensor, Node, Shape, mapped, shape_of, symbolic, unique

ACTIVATIONS: dict[str, Any] = {
    "linear": lambda x: x, "relu": F.relu, "softmax": F.softmax, "log_softmax": F.log_softmax,
    "elu": F.elu, "gelu": F.gelu, "relu6": F.relu6, "sigmoid": F.sigmoid, "silu": F.silu,
    "softplus": F.softplus, "swish": F.silu, "tanh": F.tanh,
}  # fmt: skip
# What Keras calls the weights that nn calls so.
_WEIGHTS = {
    "kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias", "bias": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


class Layer(Module):
    """What all layers share: a name, lazy weights, `trainable`, symbolic calls.

    A layer of yours defines build(input_shape), which makes weights by add_weight, call(x), and
    compute_output_shape(input_shape) where that is another one.
    """

    training = False  # as in Keras, a call outside of fit is inference
    built = images = fuses = False
    ends_in = ""  # "softmax" or "sigmoid", where call(x, logits=True) leaves it out
    _nodes: list[Node]
    _arguments: tuple[tuple, dict]

    def __new__(cls, *args: Any, **named: Any) -> "Layer":
        """Remember the arguments: a file holds them, to build the layer again."""
        layer = super().__new__(cls)
        vars(layer).update(_arguments=(args, named), _nodes=[])
        return layer

    def __init__(self, *, name: str | None = None, trainable: bool = True, input_shape: Any = None):
        self.name, self._trainable = name or unique(type(self).__name__), bool(trainable)
        self.given_shape = None if input_shape is None else tuple(input_shape)

    def build(self, shape: Any) -> None:
        """Make the weights for an input of this shape (None, ...)."""

    def call(self, x: Any) -> Any:
        """What the layer computes."""
        raise NotImplementedError(f"{type(self).__name__} does not define call(self, x)")

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The shape of what leaves it."""
        return input_shape

    # --- calls

    def __call__(self, *inputs: Any, training: bool | None = None, **options: Any) -> Any:
        """The layer's output: symbolic for symbolic input, else computed."""
        x = inputs[0] if len(inputs) == 1 else list(inputs)
        options |= {} if training is None else {"training": training}
        if symbolic(x):
            shape = shape_of(x)
            self.grow(shape)
            node = Node(self, x, options)
            node.output = KerasTensor(self.compute_output_shape(shape), "float32", node)
            self._nodes.append(node)
            return node.output
        x = mapped(x, _tensor)
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
        if self.built:
            return
        if self.images and len(shape) != 4:
            flat = "; is a Flatten before it? Flatten comes after the convolutions"
            raise ValueError(
                f"{self.name} ({type(self).__name__}): the input has the shape {shape}, but "
                f"a batch of images (N, H, W, C) has 4 axes{flat * (len(shape) == 2)}"
            )
        self.build(shape)
        self.built = True
        if not self._trainable:
            self.trainable = False  # weights that were made just now, too

    # --- weights

    def add_weight(
        self, shape: Any = (), initializer: str = "glorot_uniform", trainable: bool = True,
        name: str = "weight",
    ) -> Tensor:  # fmt: skip
        """A new weight, which the layer holds under this name."""
        check.known("initializer", initializer, INITIALIZERS)
        made = INITIALIZERS[initializer](Parameter(np.empty(shape, np.float32)))
        if trainable:
            setattr(self, name, made)
        else:
            self.register_buffer(name, Tensor(made.detach().data))
        return getattr(self, name)

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights of it and all within. False freezes them."""
        return self._trainable

    @trainable.setter
    def trainable(self, wanted: bool) -> None:
        for module in self.modules():
            vars(module)["_trainable"] = bool(wanted)
        self.requires_grad_(bool(wanted))

    @property
    def weights(self) -> list[Tensor]:
        """All weights, layer by layer: those that gradients change, then running statistics."""
        return [tensor for _, tensor in self._tensors(True, "all")]

    @property
    def trainable_weights(self) -> list[Tensor]:
        """The weights that training changes now."""
        return [w for w in self.weights if w.requires_grad]

    @property
    def non_trainable_weights(self) -> list[Tensor]:
        """The others: frozen ones, and running statistics."""
        return [w for w in self.weights if not w.requires_grad]

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, in Keras's order."""
        return [w.numpy_view().copy() for w in self.weights]

    def set_weights(self, weights: Any) -> None:
        """Overwrite all weights with arrays, in the order of get_weights."""
        wanted, given = ([tuple(np.shape(w)) for w in ws] for ws in (self.get_weights(), weights))
        if wanted != given:
            raise ValueError(f"set_weights: {self.name} has weights {wanted}, got {given}")
        with no_grad():
            for own, new in zip(self.weights, weights, strict=True):
                own.copy_(np.asarray(new, np.float32))

    def count_params(self) -> int:
        """How many numbers the weights are."""
        return sum(w.size for w in self.weights)

    # --- where it stands

    def __getattr__(self, name: str) -> Any:
        """Weights by Keras's names: kernel, gamma, moving_mean ..."""
        inner = vars(self).get("inner")
        if inner is not None and hasattr(inner, _WEIGHTS.get(name, "")):
            return getattr(inner, _WEIGHTS[name])
        hint = "; its weights are not made yet: call it, or build it" * (not self.built)
        raise AttributeError(f"{type(self).__name__} has no {name!r}{hint}", name=name)

    @property
    def output(self) -> Any:
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
            raise RuntimeError(
                f"{self.name} has no input and output yet: begin the network with an Input, or "
                "give the first layer an input_shape"
            )
        return self._nodes[0]

    def get_config(self) -> dict[str, Any]:
        """The arguments that build the same layer, its name among them."""
        args, named = self._arguments
        given = inspect.signature(type(self)).bind(*args, **named).arguments
        given |= given.pop("options", {})
        return {**given, "name": self.name, "trainable": self._trainable}

    def extra_repr(self) -> str:
        """The name."""
        return f"name={self.name}"


def layer(images: bool = False, activation: str | None = None) -> Callable[..., Any]:
    """Make a kind of layer of a function: from an input's shape and Keras's arguments to a module.

    images: it takes images alone. activation: what it ends in where no argument says so.
    """

    def make_kind(make: Callable[..., Module]) -> Any:
        _, *given = inspect.signature(make).parameters.values()
        rest = inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)
        kind: Any = type(make.__name__, (Made,), {"__doc__": make.__doc__, "images": images})
        kind.__module__, kind.make, kind.end = make.__module__, staticmethod(make), activation
        kind.__signature__ = inspect.Signature([*given, rest])
        return kind

    return make_kind


class Made(Layer):
    """A layer whose module a function makes; it ends in an activation."""

    make: Callable[..., Module]
    end: str | None

    def __init__(self, *args: Any, **named: Any):
        kind = type(self)
        try:
            bound = inspect.signature(kind).bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{kind.__name__}: {error}") from None
        bound.apply_defaults()
        super().__init__(**bound.arguments.pop("options"))
        self.given = bound.arguments
        check.known("padding", self.given.get("padding", "same"), ("valid", "same"))
        if self.given.get("data_format") not in (None, "channels_last"):
            raise ValueError(f"{kind.__name__}: images are (N, H, W, C), channels_last")
        end = self.given.get("activation") or self.end or "linear"
        if isinstance(end, str):
            check.known("activation", end, ACTIVATIONS)
            self.ends_in = end if end in ("softmax", "sigmoid") else ""
        self.activation = ACTIVATIONS[end] if isinstance(end, str) else end
        self.linear = end == "linear"

    def build(self, shape: Any) -> None:
        """The module, with Keras's initial values."""
        self.inner = self.make(shape, **self.given)
        self.fuses = self.linear and "fuses_relu" in vars(type(self.inner))
        names = [name for name in self.given if name.endswith("_initializer")]
        for path, weight in self.inner.named_parameters() if names else ():
            head = "bias" if path.endswith("bias") else path.split(".")[0]
            name = self.given.get(f"{head}_initializer", self.given[names[0]])
            check.known("initializer", name, INITIALIZERS)
            INITIALIZERS[name](weight)

    def call(self, x: Any, relu: bool = False, logits: bool = False) -> Any:
        """x through the module, and the activation. relu: one that stands behind this layer."""
        if "fuses_relu" in vars(type(self.inner)) and (relu or self.activation is F.relu):
            return self.inner(x, relu=True)
        return self.inner(x) if logits else self.activation(self.inner(x))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The shape of what leaves it."""
        self.grow(input_shape)
        try:
            return leaving(self.inner, input_shape)
        except ValueError as error:
            raise ValueError(f"{self.name} ({type(self).__name__}): {error}") from None


def leaving(module: Any, shape: Any) -> Shape:
    """The shape of what leaves a module of nn for an input of this shape."""
    if hasattr(module, "leaving"):
        return module.leaving(shape)
    if isinstance(module, nn.Sequential):
        for part in module:
            shape = leaving(part, shape)
    elif isinstance(module, nn.Linear):
        return (*shape[:-1], module.out_features)
    elif isinstance(module, nn.Embedding):
        return (*shape, module.embedding_dim)
    elif isinstance(module, nn.Flatten):
        return (shape[0], None if None in shape[1:] else shapes.count(shape[1:]))
    elif isinstance(module, nn.GlobalAvgPool2d):
        return (shape[0], 1, 1, shape[3]) if module.keepdim else (shape[0], shape[3])
    elif hasattr(module, "kernel_size"):
        return _windows(module, shape)
    return shape


def _windows(module: Any, shape: Any) -> Shape:
    span = shapes.extent(module.kernel_size, getattr(module, "dilation", (1, 1)))
    lengths: list[Any] = []
    for n, wide, step in zip(shape[1:3], span, module.stride, strict=True):
        same = module.padding == "same"
        lengths.append(n if n is None else -(-n // step) if same else (n - wide) // step + 1)
        if n is not None and lengths[-1] < 1:
            raise ValueError(f"the window {span} is larger than its input {shape}")
    channels = shape[3] * getattr(module, "depth_multiplier", 1)
    return (shape[0], *lengths, getattr(module, "out_channels", channels))


class InputLayer(Layer):
    """Where data enter a network."""

    def __init__(self, shape: Any, dtype: str = "float32", name: str | None = None):
        super().__init__(name=name)
        self.shape, self.built = (None, *shape), True
        node = Node(self, [], {})
        node.output = KerasTensor(self.shape, dtype, node)
        self._nodes.append(node)

    def get_config(self) -> dict[str, Any]:
        """Shape without the batch's axis, dtype and name."""
        return {"shape": self.shape[1:], "dtype": self.output.dtype, "name": self.name}


def Input(shape: Any = None, dtype: str = "float32", name: str | None = None) -> KerasTensor:
    """Where data of this shape, without the axis of the batch, enter a network."""
    if not isinstance(shape, tuple | list):
        raise TypeError(f"Input: shape is {shape!r}, but must be a tuple such as (28, 28, 1)")
    return InputLayer(tuple(shape), dtype, name).output


def _tensor(x: Any) -> Any:
    """Arrays as tensors; all floats, bytes and truths become float32."""
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    return Tensor(array.astype(np.float32) if array.dtype.kind in "fub" else array)
