"""Networks by name: `build("mnist-cnn")` or `mnist_cnn()`."""

from .images import cifar10_cnn, mnist_cnn, mnist_mlp
from .registry import build, model, names

__all__ = ["build", "cifar10_cnn", "mnist_cnn", "mnist_mlp", "model", "names"]
