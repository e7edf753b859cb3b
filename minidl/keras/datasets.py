"""Data sets as Keras hands them out: load_data() -> (x_train, y_train), (x_test, y_test), bytes.

The files are those of minidl.data: $MINIDL_DATA, or what `minidl data fetch` brought; digits, a
part of MNIST, comes with minidl. Grey images are (N, 28, 28), CIFAR-10's labels (N, 1).
"""

from typing import Any

from .. import data


class Pair(tuple):
    """Images and labels, which programs take apart: (x, y)."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"this is a pair (x, y), which has no {name!r}; load_data() gives both pairs in one "
            "call: (x_train, y_train), (x_test, y_test) = mnist.load_data()"
        )


class _Set:
    def __init__(self, name: str):
        self.name = name

    def load_data(self) -> tuple[Pair, Pair]:
        """All images and labels, for training and for testing."""
        return self._pair("train"), self._pair("test")

    def _pair(self, split: str) -> Pair:
        found = getattr(data, self.name)(split)
        if self.name == "cifar10":
            return Pair((found.images, found.labels[:, None]))
        return Pair((found.images[..., 0], found.labels))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"datasets.{self.name} has no {name!r}; write "
            f"(x_train, y_train), (x_test, y_test) = datasets.{self.name}.load_data()"
        )


cifar10, digits, fashion_mnist, mnist = map(_Set, ("cifar10", "digits", "fashion_mnist", "mnist"))
