"""The handwritten digits that come with minidl."""

import numpy as np

from ...data import digits

Arrays = tuple[np.ndarray, np.ndarray]


def load_data() -> tuple[Arrays, Arrays]:
    """(10000, 28, 28) and (2000, 28, 28) bytes, a part of MNIST."""
    train, test = (digits(split) for split in ("train", "test"))
    return (train.images[..., 0], train.labels), (test.images[..., 0], test.labels)
