"""A small network for CIFAR-10: images (N, 32, 32, 3)."""

from .. import nn
from .registry import model


@model
def cifar10_cnn(classes: int = 10) -> nn.Module:
    """Two convolutions and two dense layers for 32 x 32 colour images; 167,562 parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 6 * 64, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )
