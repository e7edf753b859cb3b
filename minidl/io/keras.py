"""Keras's weights for networks of minidl: the layouts are the same, the names are not."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .. import nn
from ..nn import Module
from ..tensor import Tensor

# what Keras calls the parts of a layer; where it numbers them, they stand in the order of _PARTS
_NAMES = {
    "kernel": "weight", "depthwise_kernel": "weight", "gamma": "weight", "embeddings": "weight",
    "bias": "bias", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
_PARTS = "weight", "bias", "running_mean", "running_var"
_KINDS = {
    "batch_normalization": nn.BatchNorm2d, "conv1d": nn.Conv1d, "conv2d": nn.Conv2d,
    "dense": nn.Linear, "depthwise_conv2d": nn.DepthwiseConv2d, "embedding": nn.Embedding,
    "layer_normalization": nn.LayerNorm,
}  # fmt: skip


def from_keras(weights: Mapping[str, Any], model: Module) -> dict[str, np.ndarray]:
    """The weights of the same network in Keras, as model.load_state_dict takes them.

    weights: arrays by their paths in a file, as in "conv1_bn/conv1_bn/gamma:0", "conv1_bn/0" or
    "layers/conv2d_1/vars/0". A layer is known by model.keras_names, where there are such; by its
    own path; or by a name that Keras gave it, "conv2d_7", where the lowest number of a kind is the
    first layer of that kind, in the order of assignment. A convolution of one pixel fits a dense
    layer. ValueError for a path that stands for no layer of model.
    """
    layers = dict(model.named_modules())
    paths = {path: path.removesuffix(":0").split("/") for path in weights}
    words = {word for parts in paths.values() for word in parts[:-1]}
    names = _by_kind(words, layers) | {path: path for path in layers}
    names |= getattr(model, "keras_names", {})
    found: dict[str, np.ndarray] = {}
    for path, value in weights.items():
        *above, part = paths[path]
        layer = next((names[word] for word in reversed(above) if word in names), None)
        own = _PARTS[int(part)] if part in ("0", "1", "2", "3") else _NAMES.get(part)
        if layer is None or own is None:
            raise ValueError(f"{path}: no layer of {type(model).__name__} is called so")
        array = value.numpy_view() if isinstance(value, Tensor) else np.asarray(value)
        pixel = isinstance(layers[layer], nn.Linear) and array.shape[:-2] == (1, 1)
        found[f"{layer}.{own}"] = array[0, 0] if pixel else array
    return found


def _by_kind(words: Iterable[str], layers: Mapping[str, Module]) -> dict[str, str]:
    """The paths of layers by the names that Keras gives them: dense, dense_1 ..."""
    found: dict[str, str] = {}
    for name, kind in _KINDS.items():
        called = [word for word in words if re.fullmatch(rf"{name}(_\d+)?", word)]
        called.sort(key=lambda word: int(word[len(name) + 1 :] or 0))
        found |= zip(called, (path for path, layer in layers.items() if isinstance(layer, kind)))
    return found
