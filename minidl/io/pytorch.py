"""PyTorch's weights, brought to minidl's layouts and back: channels go last, rows are inputs.

    state = from_torch(load_tensors("resnet18.safetensors"), model)
    model.load_state_dict(state)

minidl.load does it for files that PyTorch wrote. Names are the same in both, as far as networks are
built alike; those of minidl.models have torchvision's.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..nn import Module
from ..tensor import Tensor

_CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.DepthwiseConv2d
_ALIKE = nn.BatchNorm2d, nn.Embedding, nn.LayerNorm  # their weights lie as PyTorch's


class Layout(NamedTuple):
    """How PyTorch has a weight: its shape there, cut into axes, and their order here."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    order: tuple[int, ...]


def from_torch(state: Mapping[str, Any], model: Module) -> dict[str, np.ndarray]:
    """The state_dict of the same network in PyTorch, as model.load_state_dict takes it.

    Filters (F, C, H, W) become (H, W, C, F), depthwise ones (C * M, 1, H, W) become (H, W, C, M),
    and dense weights (out, in) become (in, out). Of the first dense layer behind convolutions, in
    the order of assignment, the rows are put from (C, H, W) into (H, W, C), if it has more of them
    than there are channels: there an image was flattened. num_batches_tracked is left out. A bias
    in front of a batch norm, where model has none, is taken off the running mean, to the same
    effect. What does not fit stays as it is, for load_state_dict to name it. TypeError for layers
    whose layout in PyTorch is not known here.
    """
    found = {
        name: value.numpy_view() if isinstance(value, Tensor) else np.asarray(value)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    _fold_biases(found, model)
    for name, layout in _layouts(model):
        if name in found and found[name].shape == layout.shape:
            turned = found[name].reshape(layout.axes).transpose(layout.order)
            found[name] = turned.reshape(_shape_here(layout))
    for name, own in (*model.named_parameters(), *model.named_buffers()):
        if name in found and found[name].dtype.kind == own.dtype.kind == "f":
            found[name] = found[name].astype(own.dtype, copy=False)
    return found


def to_torch(model: Module) -> dict[str, np.ndarray]:
    """The state_dict that the same network in PyTorch takes: from_torch the other way.

    Written by minidl.io.save_tensors it is a file for safetensors.torch.load_file.
    """
    state = model.state_dict()
    for name, layout in _layouts(model):
        turned = state[name].reshape([layout.axes[i] for i in layout.order])
        state[name] = turned.transpose(np.argsort(layout.order)).reshape(layout.shape)
    return state


def _layouts(model: Module) -> Iterator[tuple[str, Layout]]:
    """Each weight that lies differently, by its path."""
    channels = 0  # of the images that the layers so far make; 0: none, or flattened already
    for path, layer in model.named_modules():
        name = f"{path}.weight" if path else "weight"
        if isinstance(layer, nn.Linear):
            yield name, _dense(layer, channels)
            channels = 0
        elif isinstance(layer, _CONVOLUTIONS):
            layout, channels = _filters(layer)
            yield name, layout
        elif not isinstance(layer, _ALIKE):
            for own, parameter in layer.named_parameters(recurse=False):
                if parameter.ndim > 1:
                    what = f"{path}.{own}".lstrip(".")
                    kind = type(layer).__name__
                    raise TypeError(f"{what}: how PyTorch lays out a {kind} is not known")


def _dense(layer: nn.Linear, channels: int) -> Layout:
    rows, columns = layer.weight.shape
    if channels and rows > channels and rows % channels == 0:
        return Layout((columns, rows), (columns, channels, rows // channels), (2, 1, 0))
    return Layout((columns, rows), (columns, rows), (1, 0))


def _filters(layer: Any) -> tuple[Layout, int]:
    """How PyTorch has the filters of a convolution, and how many channels come out of it."""
    *window, c, f = layer.weight.shape
    if isinstance(layer, nn.DepthwiseConv2d):
        return Layout((c * f, 1, *window), (c, f, *window), (2, 3, 0, 1)), c * f
    order = (*range(2, 2 + len(window)), 1, 0)
    return Layout((f, c, *window), (f, c, *window), order), f


def _shape_here(layout: Layout) -> tuple[int, ...]:
    axes = [layout.axes[i] for i in layout.order]
    return (axes[0] * axes[1], axes[2]) if len(layout.shape) == 2 and len(axes) == 3 else (*axes,)


def _fold_biases(found: dict[str, np.ndarray], model: Module) -> None:
    """Take a bias that model has not off the running mean of the batch norm behind it."""
    layers = [(path, layer) for path, layer in model.named_modules() if not [*layer.children()]]
    for (path, layer), (behind, norm) in pairwise(layers):
        bias, mean = f"{path}.bias", f"{behind}.running_mean"
        lost = getattr(layer, "bias", 0) is None and isinstance(norm, nn.BatchNorm2d)
        if lost and bias in found and mean in found:
            found[mean] = found[mean] - found.pop(bias)
