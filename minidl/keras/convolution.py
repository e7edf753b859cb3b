"""Convolution and pooling of images (N, H, W, C)."""

from typing import Any

from .. import check, ops
from ..kernels import shapes
from ..nn import functional as F
from ..tensor import Tensor
from .dense import Activated
from .layer import Layer, pair, whole
from .symbols import Shape

IMAGES = 4, "a batch of images (N, H, W, C)"


class Windows(Layer):
    """A layer that looks at windows of images."""

    needs_rank = IMAGES

    def windows(
        self, size: Any, strides: Any, padding: str, dilation: Any = 1, data_format: Any = None
    ) -> None:
        """Note where they lie, after seeing that there are such."""
        name = type(self).__name__
        check.known("padding", str(padding).lower(), ("valid", "same"))
        if data_format not in (None, "channels_last"):
            raise ValueError(f"{name}: images are (N, H, W, C): data_format='channels_last'")
        self.size = pair(name, "the window", size)
        self.strides = pair(name, "strides", strides)
        self.dilation = pair(name, "dilation_rate", dilation)
        self.padding = padding.lower()

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(N, OH, OW, channels)."""
        span, lengths = shapes.extent(self.size, self.dilation), []
        for n, window, step in zip(input_shape[1:3], span, self.strides, strict=True):
            same = self.padding == "same"
            lengths.append(n if n is None else -(-n // step) if same else (n - window) // step + 1)
            if n is not None and lengths[-1] < 1:
                raise ValueError(
                    f"{self.name} ({type(self).__name__}): the window {span} is larger than its "
                    f"input {input_shape}; padding='same', or fewer pools before it"
                )
        return (input_shape[0], *lengths, self.channels(input_shape[3]))

    def channels(self, before: int) -> int:
        """How many leave it."""
        return before


class Conv2D(Activated, Windows):
    """Filters slid over images: (N, H, W, C) -> (N, OH, OW, filters)."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **options: Any,
    ):
        super().__init__(**options)
        whole("Conv2D", filters=filters, groups=groups)
        self.filters, self.groups, self.use_bias = filters, groups, use_bias
        self.windows(kernel_size, strides, padding, dilation_rate, data_format)
        self.activate_with(activation)
        self.initializers = kernel_initializer, bias_initializer

    bias: Tensor | None = None

    def build(self, shape: Any) -> None:
        """kernel and bias."""
        if shape[3] % self.groups or self.filters % self.groups:
            raise ValueError(
                f"{self.name} (Conv2D): {shape[3]} channels and {self.filters} filters do not "
                f"divide into {self.groups} groups"
            )
        filters = *self.size, shape[3] // self.groups, self.filters
        self.add_weight(filters, self.initializers[0], name="kernel")
        if self.use_bias:
            self.add_weight((self.filters,), self.initializers[1], name="bias")

    kernel: Tensor

    def call(self, x: Tensor, relu: bool = False, logits: bool = False) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, filters)."""
        relu = relu or self.activation is F.relu
        how = self.strides, self.padding, self.dilation, self.groups
        y = F.conv2d(x, self.kernel, self.bias, *how, relu=relu)
        return y if relu or logits else self.activation(y)

    def channels(self, before: int) -> int:
        """One for each filter."""
        return self.filters


class DepthwiseConv2D(Activated, Windows):
    """Filters of its own slid over each channel: (N, H, W, C) -> (N, OH, OW, C multiplier)."""

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **options: Any,
    ):
        super().__init__(**options)
        whole("DepthwiseConv2D", depth_multiplier=depth_multiplier)
        self.depth_multiplier, self.use_bias = depth_multiplier, use_bias
        self.windows(kernel_size, strides, padding, dilation_rate, data_format)
        self.activate_with(activation)
        self.initializers = depthwise_initializer, bias_initializer

    kernel: Tensor
    bias: Tensor | None = None

    def build(self, shape: Any) -> None:
        """kernel and bias."""
        filters = *self.size, shape[3], self.depth_multiplier
        self.add_weight(filters, self.initializers[0], name="kernel")
        if self.use_bias:
            self.add_weight((self.channels(shape[3]),), self.initializers[1], name="bias")

    def call(self, x: Tensor, relu: bool = False, logits: bool = False) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, C depth_multiplier)."""
        relu = relu or self.activation is F.relu
        how = self.strides, self.padding, self.dilation
        y = F.depthwise_conv2d(x, self.kernel, self.bias, *how, relu=relu)
        return y if relu or logits else self.activation(y)

    def channels(self, before: int) -> int:
        """So many for each of the input's."""
        return before * self.depth_multiplier


class SeparableConv2D(Activated, Windows):
    """A depthwise convolution, then a 1 x 1 convolution: (N, H, W, C) -> (N, OH, OW, filters)."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **options: Any,
    ):
        super().__init__(**options)
        whole("SeparableConv2D", filters=filters, depth_multiplier=depth_multiplier)
        self.filters, self.depth_multiplier, self.use_bias = filters, depth_multiplier, use_bias
        self.windows(kernel_size, strides, padding, dilation_rate, data_format)
        self.activate_with(activation)
        self.initializers = depthwise_initializer, pointwise_initializer, bias_initializer

    depthwise_kernel: Tensor
    pointwise_kernel: Tensor
    bias: Tensor | None = None

    def build(self, shape: Any) -> None:
        """depthwise_kernel, pointwise_kernel and bias."""
        depth = *self.size, shape[3], self.depth_multiplier
        point = 1, 1, shape[3] * self.depth_multiplier, self.filters
        self.add_weight(depth, self.initializers[0], name="depthwise_kernel")
        self.add_weight(point, self.initializers[1], name="pointwise_kernel")
        if self.use_bias:
            self.add_weight((self.filters,), self.initializers[2], name="bias")

    def call(self, x: Tensor, relu: bool = False, logits: bool = False) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, filters)."""
        relu = relu or self.activation is F.relu
        how = self.strides, self.padding, self.dilation
        y = F.depthwise_conv2d(x, self.depthwise_kernel, None, *how)
        y = F.conv2d(y, self.pointwise_kernel, self.bias, relu=relu)
        return y if relu or logits else self.activation(y)

    def channels(self, before: int) -> int:
        """One for each filter."""
        return self.filters


class MaxPooling2D(Windows):
    """The maximum of each window of images; strides: pool_size."""

    def __init__(
        self,
        pool_size: Any = (2, 2),
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        strides = pool_size if strides is None else strides
        self.windows(pool_size, strides, padding, data_format=data_format)

    def call(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, C)."""
        return F.max_pool2d(x, self.size, self.strides, self.padding)


class AveragePooling2D(MaxPooling2D):
    """The mean of each window of images, padding left out; strides: pool_size."""

    def call(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, C)."""
        return F.avg_pool2d(x, self.size, self.strides, self.padding, count_include_pad=False)


class GlobalAveragePooling2D(Layer):
    """The mean of each channel over the whole image: (N, H, W, C) -> (N, C)."""

    needs_rank = IMAGES

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **options: Any):
        super().__init__(**options)
        if data_format not in (None, "channels_last"):
            raise ValueError(f"{type(self).__name__}: images are (N, H, W, C)")
        self.keepdims = keepdims

    def call(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, C)."""
        return F.global_avg_pool2d(x, self.keepdims)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(N, C)."""
        n, c = input_shape[0], input_shape[3]
        return (n, 1, 1, c) if self.keepdims else (n, c)


class GlobalMaxPooling2D(GlobalAveragePooling2D):
    """The maximum of each channel over the whole image: (N, H, W, C) -> (N, C)."""

    def call(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, C)."""
        return ops.max(x, axis=(1, 2), keepdims=self.keepdims)
