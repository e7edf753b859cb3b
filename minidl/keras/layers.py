"""The layers, under Keras's names and with Keras's arguments. Images are (N, H, W, C).

Each takes name, trainable and input_shape as well.
"""

from typing import Any

import numpy as np

from .. import nn, ops
from ..kernels import shapes
from ..later import unknown
from ..nn import functional as F
from ..tensor import Tensor
from .layer import Input, InputLayer, Layer, layer

G, Z = "glorot_uniform", "zeros"


def _channels(shape: Any) -> int:
    if len(shape) != 4:
        hint = "; is a Flatten before it? Flatten comes after the convolutions" * (len(shape) == 2)
        problem = f"the input is {shape}, but a batch of images (N, H, W, C) has 4 axes{hint}"
        raise ValueError(problem)
    return shape[3]


@layer()
def Dense(
    shape, units, activation=None, use_bias=True, kernel_initializer=G, bias_initializer=Z
):  # fmt: skip
    """x (..., inputs) times kernel (inputs, units), plus bias -> (..., units)."""
    if shape[-1] is None:
        raise ValueError(f"the last axis of its input must be known, but it is {shape}")
    return nn.Linear(shape[-1], units, use_bias)


@layer()
def Conv2D(
    shape, filters, kernel_size, strides=(1, 1), padding="valid", data_format=None,
    dilation_rate=(1, 1), groups=1, activation=None, use_bias=True,
    kernel_initializer=G, bias_initializer=Z,
):  # fmt: skip
    """Filters slid over images: (N, H, W, C) -> (N, OH, OW, filters)."""
    how = strides, padding, dilation_rate, groups, use_bias
    return nn.Conv2d(_channels(shape), filters, kernel_size, *how)


@layer()
def DepthwiseConv2D(
    shape, kernel_size, strides=(1, 1), padding="valid", depth_multiplier=1, data_format=None,
    dilation_rate=(1, 1), activation=None, use_bias=True,
    depthwise_initializer=G, bias_initializer=Z,
):  # fmt: skip
    """Filters of its own slid over each channel: (N, H, W, C) -> (N, OH, OW, C multiplier)."""
    how = strides, padding, dilation_rate, depth_multiplier, use_bias
    return nn.DepthwiseConv2d(_channels(shape), kernel_size, *how)


@layer()
def SeparableConv2D(
    shape, filters, kernel_size, strides=(1, 1), padding="valid", data_format=None,
    dilation_rate=(1, 1), depth_multiplier=1, activation=None, use_bias=True,
    depthwise_initializer=G, pointwise_initializer=G, bias_initializer=Z,
):  # fmt: skip
    """A depthwise convolution, then a 1 x 1 convolution: (N, H, W, C) -> (N, OH, OW, filters)."""
    how = strides, padding, dilation_rate, depth_multiplier, False
    depthwise = nn.DepthwiseConv2d(_channels(shape), kernel_size, *how)
    pointwise = nn.Conv2d(shape[3] * depth_multiplier, filters, 1, bias=use_bias)
    return nn.Sequential({"depthwise": depthwise, "pointwise": pointwise})


@layer()
def MaxPooling2D(shape, pool_size=(2, 2), strides=None, padding="valid", data_format=None):
    """The maximum of each window of images; strides: pool_size."""
    return nn.MaxPool2d(pool_size, strides, padding)


@layer()
def AveragePooling2D(shape, pool_size=(2, 2), strides=None, padding="valid", data_format=None):
    """The mean of each window of images, padding left out; strides: pool_size."""
    return nn.AvgPool2d(pool_size, strides, padding, count_include_pad=False)


@layer()
def GlobalAveragePooling2D(shape, data_format=None, keepdims=False):
    """The mean of each channel over the whole image: (N, H, W, C) -> (N, C)."""
    return nn.GlobalAvgPool2d(keepdims)


@layer()
def Flatten(shape, data_format=None):
    """All axes but the batch's made one: (N, H, W, C) -> (N, H W C)."""
    return nn.Flatten()


@layer()
def Dropout(shape, rate):
    """In training, zero each element with probability rate and scale the rest by 1 / (1 - rate)."""
    return nn.Dropout(rate)


@layer()
def Activation(shape, activation):
    """A function of each element, or a softmax of each row: by name, or a function."""
    return nn.Sequential()


@layer(activation="softmax")
def Softmax(shape):
    """exp x / sum of exp x along the last axis."""
    return nn.Sequential()


@layer()
def ReLU(shape, max_value=None, negative_slope=0.0):
    """max(x, 0); negative_slope times x below 0; at most max_value, which may be None or 6."""
    if max_value not in (None, 6) or (max_value and negative_slope):
        raise ValueError(f"max_value is {max_value}, but must be None, or 6 with no slope")
    if max_value:
        return nn.ReLU6()
    return nn.LeakyReLU(negative_slope) if negative_slope else nn.ReLU()


class _Embedding(nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.dtype == "int64" else x.astype("int64"))


@layer()
def Embedding(shape, input_dim, output_dim, embeddings_initializer="uniform"):
    """A vector that is learned for each of input_dim numbers: (...) -> (..., output_dim)."""
    return _Embedding(input_dim, output_dim)


@layer()
def BatchNormalization(shape, axis=-1, momentum=0.99, epsilon=1e-3, center=True, scale=True):
    """Each channel brought to mean 0 and variance 1, then scaled by gamma and shifted by beta.

    In training with the batch's own statistics, of which the running ones keep `momentum` each
    step; in inference, and where it is frozen, with the running ones.
    """
    if axis not in (-1, len(shape) - 1):
        raise ValueError(f"axis is {axis}, but the channels are the last one")
    norm = nn.BatchNorm2d(shape[-1], epsilon, 1 - momentum, unbiased=False)
    norm.weight, norm.bias = norm.weight if scale else None, norm.bias if center else None
    return norm


@layer()
def Reshape(shape, target_shape):
    """The same numbers in another shape; one length may be -1."""
    return lambda x: ops.reshape(x, shape=(len(x), *shapes.reshape(x.shape[1:], target_shape)))


def _list(shape: Any) -> None:
    if not isinstance(shape, list) or len(shape) < 2:
        raise TypeError(f"takes a list of tensors, [x, y], not the shape {shape}")


@layer()
def Add(shape):
    """The sum of a list of tensors, which broadcast: [(N, ...), (N, ...) ...] -> (N, ...)."""
    _list(shape)
    return lambda x: sum(x[1:], start=x[0])


@layer()
def Concatenate(shape, axis=-1):
    """Tensors one behind the other along an axis: [(..., A), (..., B) ...] -> (..., A + B ...)."""
    _list(shape)
    return lambda x: ops.concat(x, axis)


@layer()
def TimeDistributed(shape, layer):
    """A layer applied to every step of a sequence: (N, T, ...) -> (N, T, ...)."""
    layer.grow((None, *shape[2:]))
    return nn.TimeDistributed(layer)


@layer()
def GRU(
    shape, units, use_bias=True, return_sequences=False,
    kernel_initializer=G, recurrent_initializer="orthogonal", bias_initializer=Z,
):  # fmt: skip
    """Gated recurrent units: (N, T, C) -> the last state (N, units), or all (N, T, units)."""
    return _GRU(shape[-1], units, use_bias, return_sequences)


class _GRU(nn.Module):
    """Keras's weights: both biases in one, and the gates in the order update, reset, new."""

    def __init__(self, inputs: int, units: int, bias: bool, sequences: bool):
        self.sequences, wide = sequences, 3 * units
        self.kernel = nn.Parameter(np.empty((inputs, wide), np.float32))
        self.recurrent = nn.Parameter(np.empty((units, wide), np.float32))
        self.bias = nn.Parameter(np.empty((2, wide), np.float32)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        def ordered(w: Tensor) -> Tensor:
            return ops.concat([w.chunk(3, 1)[gate] for gate in (1, 0, 2)], 1)

        kernel, recurrent = ordered(self.kernel), ordered(self.recurrent)
        own, old = (None, None) if self.bias is None else ordered(self.bias)
        states = ops.gru(F.linear(x, kernel, own), None, recurrent, old)
        return states if self.sequences else states[:, -1]


__all__ = [
    "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D",
    "Dense", "DepthwiseConv2D", "Dropout", "Embedding", "Flatten", "GlobalAveragePooling2D",
    "GRU",     "Input", "InputLayer", "Layer", "MaxPooling2D", "ReLU", "Reshape",
    "SeparableConv2D", "Softmax", "TimeDistributed",
]  # fmt: skip
_ELSEWHERE = {
    "BatchNorm2d": "BatchNormalization", "Linear": "Dense", "Module": "Layer",
    "MaxPool2d": "MaxPooling2D", "AvgPool2d": "AveragePooling2D",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    return unknown(__name__, name, __all__, _ELSEWHERE)
