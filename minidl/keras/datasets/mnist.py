"""MNIST."""

import numpy as np

from ...data import mnist

Arrays = tuple[np.ndarray, np.ndarray]


def load_data() -> tuple[Arrays, Arrays]:
    """(60000, 28, 28) and (10000, 28, 28) bytes, handwritten digits."""
    train, test = (mnist(split) for split in ("train", "test"))
    return (train.images[..., 0], train.labels), (test.images[..., 0], test.labels)
