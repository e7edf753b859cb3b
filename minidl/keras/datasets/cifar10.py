"""CIFAR-10."""

import numpy as np

from ...data import cifar10

Arrays = tuple[np.ndarray, np.ndarray]


def load_data() -> tuple[Arrays, Arrays]:
    """(50000, 32, 32, 3) and (10000, 32, 32, 3) bytes; labels are (N, 1), as in Keras."""
    train, test = (cifar10(split) for split in ("train", "test"))
    return (train.images, train.labels[:, None]), (test.images, test.labels[:, None])
