"""Data sets as Keras hands them out: load_data() -> (x_train, y_train), (x_test, y_test), bytes.

The files are those of minidl.data: $MINIDL_DATA, or what `minidl data fetch` brought; digits, a
part of MNIST, comes with minidl. Grey images are (N, 28, 28), CIFAR-10's labels (N, 1).
"""

import numpy as np

from .. import data

Arrays = tuple[np.ndarray, np.ndarray]


class _Set:
    def __init__(self, name: str):
        self.name = name

    def load_data(self) -> tuple[Arrays, Arrays]:
        """All images and labels, for training and for testing."""
        found = [getattr(data, self.name)(split) for split in ("train", "test")]
        if self.name == "cifar10":
            return tuple((s.images, s.labels[:, None]) for s in found)  # type: ignore[return-value]
        return tuple((s.images[..., 0], s.labels) for s in found)  # type: ignore[return-value]


cifar10, digits, fashion_mnist, mnist = map(_Set, ("cifar10", "digits", "fashion_mnist", "mnist"))
