"""Fashion-MNIST."""

import numpy as np

from ...data import fashion_mnist

Arrays = tuple[np.ndarray, np.ndarray]


def load_data() -> tuple[Arrays, Arrays]:
    """(60000, 28, 28) and (10000, 28, 28) bytes, pictures of clothes."""
    train, test = (fashion_mnist(split) for split in ("train", "test"))
    return (train.images[..., 0], train.labels), (test.images[..., 0], test.labels)
