"""Keras's weights for networks of minidl: the layouts are the same, the names are not."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import nn
from ..nn import Module
from ..tensor import Tensor

# Keras's names of what a layer holds, old ones of Keras 1 among them
_PARTS = {
    "kernel": "weight", "depthwise_kernel": "weight", "gamma": "weight", "embeddings": "weight",
    "bias": "bias", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
# .weights.h5 numbers the layers of a class, and what each holds
_ORDERED = ("weight", "bias", "running_mean", "running_var")
_CLASSES = {
    "conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "depthwise_conv2d": nn.DepthwiseConv2d,
    "dense": nn.Linear, "batch_normalization": nn.BatchNorm2d,
    "layer_normalization": nn.LayerNorm, "embedding": nn.Embedding,
}  # fmt: skip


def from_keras(weights: Mapping[str, Any], model: Module) -> dict[str, np.ndarray]:
    """The weights of the same network in Keras, as model.load_state_dict takes them.

    weights: arrays by their paths in a file, such as "conv1_bn/conv1_bn/gamma:0" or
    "layers/conv2d_1/vars/0", which numbers layers class by class in the order of assignment. A
    layer is known by model.keras_names, where there are some, or by its own path. A convolution of
    one pixel fits a dense layer. ValueError names a path that stands for no layer of model.
    """
    layers = dict(model.named_modules())
    names = {path: path for path in layers} | getattr(model, "keras_names", {}) | _numbered(model)
    found: dict[str, np.ndarray] = {}
    for path, value in weights.items():
        *above, part = path.removesuffix(":0").split("/")
        ordered = bool(above) and above[-1] == "vars"
        layer = next((names[name] for name in reversed(above) if name in names), None)
        if layer is None or (part not in _PARTS and not ordered):
            raise ValueError(f"{path}: no layer of {type(model).__name__} is called so")
        own = _ORDERED[int(part)] if ordered else _PARTS[part]
        array = value.numpy_view() if isinstance(value, Tensor) else np.asarray(value)
        pixel = isinstance(layers[layer], nn.Linear) and array.shape[:-2] == (1, 1)
        found[f"{layer}.{own}"] = array[0, 0] if pixel else array
    return found


def _numbered(model: Module) -> dict[str, str]:
    """The paths of layers by the names that .weights.h5 gives them: dense, dense_1 ..."""
    found = {}
    for name, kind in _CLASSES.items():
        paths = [path for path, layer in model.named_modules() if isinstance(layer, kind)]
        found |= {f"{name}_{i}" if i else name: path for i, path in enumerate(paths)}
    return found
