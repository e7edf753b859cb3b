"""Layers without filters: joined, reshaped, dropped, normalised and scaled tensors."""

from typing import Any

from .. import ops
from ..autograd import no_grad
from ..kernels import shapes
from ..nn import functional as F
from ..tensor import Tensor
from .layer import Layer, whole
from .symbols import Shape


class Add(Layer):
    """The sum of a list of tensors, which broadcast."""

    def build(self, shape: Any) -> None:
        """No weights; but it takes a list."""
        _several(self, shape)

    def call(self, x: list[Tensor]) -> Tensor:
        """[(N, ...), (N, ...) ...] -> (N, ...)."""
        first, *others = x
        for other in others:
            first = first + other
        return first

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The same, or what broadcasting makes of them."""
        if len(set(input_shape)) == 1:
            return input_shape[0]
        known = [[n or 1 for n in shape] for shape in input_shape]
        try:
            return (None, *shapes.broadcast(*map(tuple, known))[1:])
        except ValueError:
            raise ValueError(f"{self.name} (Add): {input_shape} do not add up") from None


class Concatenate(Layer):
    """Tensors one behind the other along an axis."""

    def __init__(self, axis: int = -1, **options: Any):
        super().__init__(**options)
        self.axis = axis

    def build(self, shape: Any) -> None:
        """No weights; but it takes a list."""
        _several(self, shape)
        axis = self.axis % len(shape[0])
        rests = {(*s[:axis], *s[axis + 1 :]) for s in shape}
        if len(rests) > 1:
            raise ValueError(
                f"{self.name} (Concatenate): {shape} differ in more than axis {self.axis}"
            )

    def call(self, x: list[Tensor]) -> Tensor:
        """[(..., N1, ...), (..., N2, ...) ...] -> (..., N1 + N2 ..., ...)."""
        return ops.concat(x, self.axis)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """Lengths along the axis added up."""
        axis, first = self.axis % len(input_shape[0]), list(input_shape[0])
        lengths = [shape[axis] for shape in input_shape]
        first[axis] = None if None in lengths else sum(lengths)
        return tuple(first)


def _several(layer: Layer, shape: Any) -> None:
    if not isinstance(shape, list) or len(shape) < 2:
        raise ValueError(f"{layer.name} ({type(layer).__name__}): takes a list of tensors")


def add(inputs: Any, **options: Any) -> Any:
    """Add, called on a list."""
    return Add(**options)(inputs)


def concatenate(inputs: Any, axis: int = -1, **options: Any) -> Any:
    """Concatenate, called on a list."""
    return Concatenate(axis, **options)(inputs)


class Flatten(Layer):
    """All axes but the batch's made one: (N, H, W, C) -> (N, H W C)."""

    def call(self, x: Tensor) -> Tensor:
        """x (N, ...) -> (N, features)."""
        return F.flatten(x, 1) if x.ndim > 1 else ops.reshape(x, shape=(len(x), 1))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(N, features)."""
        rest = input_shape[1:]
        return (input_shape[0], None if None in rest else shapes.count(rest))


class Reshape(Layer):
    """The same numbers in another shape; one length may be -1."""

    def __init__(self, target_shape: Any, **options: Any):
        super().__init__(**options)
        self.target_shape = tuple(target_shape)

    def call(self, x: Tensor) -> Tensor:
        """x (N, ...) -> (N, *target_shape)."""
        return ops.reshape(x, shape=(len(x), *self.target_shape))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(N, *target_shape)."""
        if None in input_shape[1:]:
            return (input_shape[0], *(None if n == -1 else n for n in self.target_shape))
        try:
            return (input_shape[0], *shapes.reshape(input_shape[1:], self.target_shape))
        except ValueError as error:
            raise ValueError(f"{self.name} (Reshape): {error}") from None


class Dropout(Layer):
    """In training, zero each element with probability rate and scale the rest by 1 / (1 - rate)."""

    def __init__(self, rate: float, **options: Any):
        super().__init__(**options)
        if not 0 <= rate <= 1:
            raise ValueError(f"Dropout: rate is {rate}, but must lie in [0, 1]")
        self.rate = rate

    def call(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return F.dropout(x, self.rate, self.training)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The same."""
        return input_shape


class BatchNormalization(Layer):
    """Each channel brought to mean 0 and variance 1, then scaled by gamma and shifted by beta.

    In training with the batch's own statistics, of which the running ones keep `momentum` each
    step; in inference, and where it is frozen, with the running ones.
    """

    fuses = True

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        **options: Any,
    ):
        super().__init__(**options)
        if not 0 <= momentum <= 1:
            raise ValueError(f"BatchNormalization: momentum {momentum} must lie in [0, 1]")
        self.axis, self.momentum, self.epsilon = axis, momentum, epsilon
        self.center, self.scale = center, scale

    gamma: Tensor | None = None
    beta: Tensor | None = None
    moving_mean: Tensor
    moving_variance: Tensor

    def build(self, shape: Any) -> None:
        """gamma, beta, moving_mean and moving_variance."""
        if self.axis not in (-1, len(shape) - 1):
            raise ValueError(f"{self.name} (BatchNormalization): the channels are the last axis")
        whole(self.name, channels=shape[-1])
        for name, wanted, value in (("gamma", self.scale, "ones"), ("beta", self.center, "zeros")):
            if wanted:
                self.add_weight(shape[-1:], value, name=name)
        self.add_weight(shape[-1:], "zeros", False, "moving_mean")
        self.add_weight(shape[-1:], "ones", False, "moving_variance")

    def call(self, x: Tensor, relu: bool = False) -> Tensor:
        """x (..., C) -> (..., C)."""
        batch = self.training and self.trainable
        mean, variance = self.moving_mean, self.moving_variance
        with no_grad():
            before = variance * 1.0 if batch else variance
        y = F.batch_norm(
            x, mean, variance, self.gamma, self.beta, batch, 1 - self.momentum, self.epsilon,
            relu=relu,
        )  # fmt: skip
        if batch:
            self._biased(before, x.size // x.shape[-1])
        return y

    @no_grad()
    def _biased(self, before: Tensor, rows: int) -> None:
        """Let moving_variance follow the batch's own variance, where PyTorch's is the unbiased."""
        now, share = self.moving_variance, (rows - 1) / rows
        wanted = now * share + before * (self.momentum * (1 - share))
        now.device.kernels.copy(wanted.data, now.data, False)
        now.changed()

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The same."""
        return input_shape


class Rescaling(Layer):
    """x times scale, plus offset."""

    def __init__(self, scale: float, offset: float = 0.0, **options: Any):
        super().__init__(**options)
        self.scale, self.offset = scale, offset

    def call(self, x: Tensor) -> Tensor:
        """x -> the same shape."""
        return x * self.scale + self.offset

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The same."""
        return input_shape
