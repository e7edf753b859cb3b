"""Dense layers, activations, tables of vectors, and a layer applied along time."""

from typing import Any

from .. import ops
from ..nn import functional as F
from ..tensor import Tensor
from .layer import Layer, activation_of, whole
from .symbols import Shape


class Activated(Layer):
    """A layer that ends in an activation, which may be done with it in one, or left to the loss."""

    def activate_with(self, activation: Any) -> None:
        """Note what it ends in."""
        self.activation = activation_of(activation)
        self.ends_in = activation if activation in ("softmax", "sigmoid") else ""
        self.fuses = activation in (None, "linear")


class Dense(Activated):
    """x (..., inputs) times kernel (inputs, units), plus bias -> (..., units)."""

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **options: Any,
    ):
        super().__init__(**options)
        whole("Dense", units=units)
        self.units, self.use_bias = units, use_bias
        self.activate_with(activation)
        self.initializers = kernel_initializer, bias_initializer

    kernel: Tensor
    bias: Tensor | None = None

    def build(self, shape: Any) -> None:
        """kernel and bias."""
        self.add_weight((_known(self, shape), self.units), self.initializers[0], name="kernel")
        if self.use_bias:
            self.add_weight((self.units,), self.initializers[1], name="bias")

    def call(self, x: Tensor, relu: bool = False, logits: bool = False) -> Tensor:
        """x (..., inputs) -> (..., units)."""
        relu = relu or self.activation is F.relu
        y = F.linear(x, self.kernel, self.bias, relu=relu)
        return y if relu or logits else self.activation(y)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(..., units)."""
        return (*input_shape[:-1], self.units)


def _known(layer: Layer, shape: Any) -> int:
    if shape[-1] is None or len(shape) < 2:
        raise ValueError(
            f"{layer.name} ({type(layer).__name__}): the last axis of its input must be known, but "
            f"the shape is {shape}"
        )
    return shape[-1]


class Activation(Activated):
    """A function of each element, or a softmax of each row: by name, or a function."""

    def __init__(self, activation: Any, **options: Any):
        super().__init__(**options)
        self.activate_with(activation)

    def call(self, x: Tensor, logits: bool = False) -> Tensor:
        """x -> the same shape."""
        return x if logits else self.activation(x)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The same."""
        return input_shape


class Softmax(Activation):
    """exp x / sum of exp x along the last axis."""

    def __init__(self, **options: Any):
        super().__init__("softmax", **options)


class ReLU(Activation):
    """max(x, 0); negative_slope times x below 0; at most max_value, which may be None or 6."""

    def __init__(self, max_value: float | None = None, negative_slope: float = 0.0, **options: Any):
        if max_value not in (None, 6) or (max_value and negative_slope):
            raise ValueError(
                f"ReLU: max_value is {max_value} and negative_slope {negative_slope}, but minidl "
                "has max_value 6 (without a slope) or None"
            )
        super().__init__("relu6" if max_value else "relu", **options)
        if negative_slope:
            self.activation = lambda x: F.leaky_relu(x, negative_slope)


class LeakyReLU(ReLU):
    """x where it is positive, else negative_slope x."""

    def __init__(self, negative_slope: float = 0.3, **options: Any):
        super().__init__(None, negative_slope, **options)


class Embedding(Layer):
    """A vector that is learned for each of input_dim numbers: (...) -> (..., output_dim)."""

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        **options: Any,
    ):
        super().__init__(**options)
        whole("Embedding", input_dim=input_dim, output_dim=output_dim)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.initializer = embeddings_initializer

    def build(self, shape: Any) -> None:
        """The table."""
        size = self.input_dim, self.output_dim
        self.embeddings = self.add_weight(size, self.initializer, name="embeddings")

    def call(self, x: Tensor) -> Tensor:
        """Whole numbers x (...) -> (..., output_dim)."""
        x = x if x.dtype == "int64" else x.astype("int64")
        return F.embedding(x, self.embeddings)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(..., output_dim)."""
        return (*input_shape, self.output_dim)


class TimeDistributed(Layer):
    """A layer applied to every step of a sequence: (N, T, ...) -> (N, T, ...)."""

    def __init__(self, layer: Layer, **options: Any):
        super().__init__(**options)
        if not isinstance(layer, Layer):
            raise TypeError(
                f"TimeDistributed: takes a layer, such as TimeDistributed(Dense(32)), not a "
                f"{type(layer).__name__}; data go into fit"
            )
        self.layer, self.ends_in = layer, layer.ends_in

    def build(self, shape: Any) -> None:
        """The layer's weights, for a single step."""
        if len(shape) < 3:
            raise ValueError(f"TimeDistributed: input (N, T, ...) is needed, not {shape}")
        self.layer._built((None, *shape[2:]))

    def call(self, x: Tensor, **options: Any) -> Tensor:
        """All steps of all sequences as one batch."""
        n, t = x.shape[:2]
        y = self.layer.forward(ops.reshape(x, shape=(n * t, *x.shape[2:])), **options)
        return ops.reshape(y, shape=(n, t, *y.shape[1:]))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(N, T, ...)."""
        one = self.layer.compute_output_shape((None, *input_shape[2:]))
        return (*input_shape[:2], *one[1:])
