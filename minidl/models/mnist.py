"""Two small networks for MNIST: images (N, 28, 28, 1)."""

from collections.abc import Sequence

from .. import nn
from .registry import model


@model
def mnist_mlp(hidden: int = 128, classes: int = 10) -> nn.Module:
    """One hidden layer: 784, 128, 10."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(28 * 28, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


@model
def mnist_cnn(
    channels: Sequence[int] = (32, 64, 128),
    dropout: float = 0.5,
    batch_norm: bool = False,
    classes: int = 10,
) -> nn.Module:
    """Per entry of channels a convolution, 3 x 3 "same", relu, and a pool that halves the image.

    28 x 28 grey images; 104,202 parameters. batch_norm: one between each convolution and its relu.
    """
    layers: list[nn.Module] = []
    size, before = 28, 1
    for after in channels:
        layers.append(nn.Conv2d(before, after, 3, padding="same"))
        layers += [nn.BatchNorm2d(after)] if batch_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        size, before = size // 2, after
    return nn.Sequential(
        *layers,
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(size * size * before, classes),
    )
