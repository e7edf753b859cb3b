"""A layer of fewer parameters: two thin ones in its place."""

import math
from typing import Any

import numpy as np

from .. import check, nn
from ..autograd import no_grad


def low_rank(layer: nn.Module, rank: int) -> nn.Sequential:
    """Two layers that together compute about what a Linear or Conv2d does, through `rank` numbers.

    The first has rank outputs and no bias; the second, of one pixel for images, makes the outputs.
    Of all pairs these weights are nearest to the old ones (Eckart and Young 1936): the distance is
    the root of the sum of squares of the singular values from rank on. (in + out) * rank parameters
    instead of in * out, where in counts a window's pixels. What it returns takes the layer's place:
    `model.fc = low_rank(model.fc, 16)`; make the optimizer after it.
    """
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise TypeError(f"low_rank: for a Linear or a Conv2d, not a {type(layer).__name__}")
    weight = layer.weight.numpy_view()
    window, outputs = weight.shape[:-1], weight.shape[-1]
    inputs = math.prod(window)
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        check.fail("low_rank", f"the convolution has {layer.groups} groups")
    if not 1 <= rank <= min(inputs, outputs):
        problem = f"rank is {rank}, but must be from 1 to {min(inputs, outputs)}"
        check.fail("low_rank", problem, weight=layer.weight.data)
    u, s, v = np.linalg.svd(weight.reshape(inputs, outputs), full_matrices=False)
    first, second = _pair(layer, inputs, rank, outputs)
    result = nn.Sequential(first, second)
    result.astype(weight.dtype).to(layer.weight.device).train(layer.training)
    root = np.sqrt(s[:rank])
    with no_grad():
        first.weight.copy_((u[:, :rank] * root).reshape(*window, rank))
        second.weight.copy_((root[:, None] * v[:rank]).reshape(second.weight.shape))
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return result


def _pair(layer: Any, inputs: int, rank: int, outputs: int) -> tuple[Any, Any]:
    """New layers in place of one, with any weights."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias)
    how = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    thin = nn.Conv2d(layer.in_channels, rank, *how, bias=False)
    return thin, nn.Conv2d(rank, outputs, 1, bias=bias)
