"""Layers, under PyTorch's names. Images are (N, H, W, C), weights (in, out)."""

import difflib
from typing import Any

from ..later import later
from . import functional, init
from .layers import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from .module import Module, Parameter

_load, _later = later(
    __name__,
    activation="ELU GELU LeakyReLU ReLU6 SiLU Sigmoid Softmax Softplus Tanh",
    depthwise="DepthwiseConv2d",
    embedding="Embedding",
    losses="BCELoss BCEWithLogitsLoss CrossEntropyLoss HuberLoss KLDivLoss L1Loss MSELoss NLLLoss "
    "SmoothL1Loss",
    norm="BatchNorm1d BatchNorm2d LayerNorm",
    padding="ZeroPad2d",
    pool="AvgPool2d GlobalAvgPool2d",
    residual="Residual",
    sequence="Conv1d",
)
__all__ = [
    "Conv2d", "Dropout", "Flatten", "Linear", "MaxPool2d", "Module", "Parameter",
    "ReLU", "Sequential", "functional", "init", *_later,
]  # fmt: skip

# Names of other frameworks that no spelling check would find.
_ELSEWHERE = {
    "Dense": "Linear",
    "Model": "Module",
    "ModuleList": "Sequential",
    "MaxPooling2D": "MaxPool2d",
    "MaxPooling2d": "MaxPool2d",
    "BatchNormalization": "BatchNorm2d",
    "LayerNormalization": "LayerNorm",
    "BinaryCrossentropy": "BCEWithLogitsLoss, which takes logits",
    "CategoricalCrossentropy": "CrossEntropyLoss, which takes probabilities as targets, too",
    "MeanSquaredError": "MSELoss",
    "MeanAbsoluteError": "L1Loss",
    "SparseCategoricalCrossentropy": "CrossEntropyLoss",
    "AdaptiveAvgPool2d": "GlobalAvgPool2d, which is AdaptiveAvgPool2d(1)",
    "GlobalAveragePooling2D": "GlobalAvgPool2d",
    "Add": "Residual",
    "AveragePooling2D": "AvgPool2d, with count_include_pad=False as in Keras",
    "LogSoftmax": "functional.log_softmax",
}


def __getattr__(name: str) -> Any:
    if name in _later:
        return _load(name)
    folded = {known.lower(): known for known in __all__}
    near = difflib.get_close_matches(name.lower(), folded, 1, 0.7)
    guess = _ELSEWHERE.get(name) or (folded[near[0]] if near else "")
    hint = f"; did you mean nn.{guess}?" if guess else f"; it has {', '.join(sorted(__all__))}"
    raise AttributeError(f"minidl.nn has no {name!r}{hint}", name=name)
