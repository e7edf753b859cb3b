"""The layers, under Keras's names and with Keras's arguments. Images are (N, H, W, C)."""

import difflib
from typing import Any

from .convolution import (
    AveragePooling2D,
    Conv2D,
    DepthwiseConv2D,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    MaxPooling2D,
    SeparableConv2D,
)
from .dense import Activation, Dense, Embedding, LeakyReLU, ReLU, Softmax, TimeDistributed
from .layer import Input, InputLayer, Layer
from .merging import (
    Add,
    BatchNormalization,
    Concatenate,
    Dropout,
    Flatten,
    Rescaling,
    Reshape,
    add,
    concatenate,
)

__all__ = [
    "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D",
    "Dense", "DepthwiseConv2D", "Dropout", "Embedding", "Flatten", "GlobalAveragePooling2D",
    "GlobalMaxPooling2D", "Input", "InputLayer", "Layer", "LeakyReLU", "MaxPooling2D", "ReLU",
    "Rescaling", "Reshape", "SeparableConv2D", "Softmax", "TimeDistributed", "add", "concatenate",
]  # fmt: skip

# Keras's shorter names, and names of PyTorch that no spelling check would find.
_SAME = {
    "AvgPool2D": AveragePooling2D,
    "GlobalAvgPool2D": GlobalAveragePooling2D,
    "MaxPool2D": MaxPooling2D,
    "Convolution2D": Conv2D,
    "SeparableConvolution2D": SeparableConv2D,
}
_ELSEWHERE = {
    "BatchNorm2d": "BatchNormalization",
    "Linear": "Dense",
    "MaxPool2d": "MaxPooling2D",
    "AvgPool2d": "AveragePooling2D",
    "Module": "Layer",
}
_RECURRENT = ("GRU", "LSTM", "RNN", "SimpleRNN", "Bidirectional")


def __getattr__(name: str) -> Any:
    if name in _SAME:
        return _SAME[name]
    if name in _RECURRENT:
        raise AttributeError(
            f"minidl.keras.layers has no {name!r}: minidl has no recurrent layers", name=name
        )
    folded = {known.lower(): known for known in __all__}
    near = difflib.get_close_matches(name.lower(), folded, 1, 0.7)
    guess = _ELSEWHERE.get(name) or (folded[near[0]] if near else "")
    hint = f"; did you mean layers.{guess}?" if guess else f"; it has {', '.join(__all__)}"
    raise AttributeError(f"minidl.keras.layers has no {name!r}{hint}", name=name)
