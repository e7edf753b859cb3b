"""Layers, under PyTorch's names. Images are (N, H, W, C), weights (in, out)."""

import difflib
from importlib import import_module
from typing import Any

from . import functional, init
from .layers import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from .module import Module, Parameter

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "BatchNorm2d", "Conv2d", "CrossEntropyLoss", "Dropout", "ELU",
    "Flatten", "GELU", "HuberLoss", "KLDivLoss", "L1Loss", "LayerNorm", "LeakyReLU", "Linear",
    "MSELoss", "MaxPool2d", "Module", "NLLLoss", "Parameter", "ReLU", "ReLU6", "Sequential",
    "SiLU", "Sigmoid", "SmoothL1Loss", "Softmax", "Softplus", "Tanh", "functional", "init",
]  # fmt: skip

# Imported when first used: name and file.
_LATER = dict.fromkeys(
    ("ELU", "GELU", "LeakyReLU", "ReLU6", "Sigmoid", "SiLU", "Softmax", "Softplus", "Tanh"),
    "activation",
) | {"LayerNorm": "layer_norm"} | dict.fromkeys(
    (
        "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "KLDivLoss", "L1Loss",
        "MSELoss", "NLLLoss", "SmoothL1Loss",
    ),
    "losses",
)  # fmt: skip
# Names of other frameworks that no spelling check would find.
_ELSEWHERE = {
    "Dense": "Linear",
    "Model": "Module",
    "ModuleList": "Sequential",
    "MaxPooling2D": "MaxPool2d",
    "MaxPooling2d": "MaxPool2d",
    "BatchNormalization": "BatchNorm2d",
    "LayerNormalization": "LayerNorm",
    "BatchNorm1d": "BatchNorm2d, which takes (N, C) too",
    "BinaryCrossentropy": "BCEWithLogitsLoss, which takes logits",
    "CategoricalCrossentropy": "CrossEntropyLoss, which takes probabilities as targets, too",
    "MeanSquaredError": "MSELoss",
    "MeanAbsoluteError": "L1Loss",
    "SparseCategoricalCrossentropy": "CrossEntropyLoss",
    "LogSoftmax": "functional.log_softmax",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    folded = {known.lower(): known for known in __all__}
    near = difflib.get_close_matches(name.lower(), folded, 1, 0.7)
    guess = _ELSEWHERE.get(name) or (folded[near[0]] if near else "")
    hint = f"; did you mean nn.{guess}?" if guess else f"; it has {', '.join(__all__)}"
    raise AttributeError(f"minidl.nn has no {name!r}{hint}", name=name)
