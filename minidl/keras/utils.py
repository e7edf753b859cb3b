"""keras.utils, as far as the documents use it."""

from typing import Any

import numpy as np

from .. import random
from .symbols import forget_names

__all__ = ["clear_session", "set_random_seed", "to_categorical"]

clear_session = forget_names


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Class numbers (...) as rows with a 1 at the class's place: (..., num_classes) float32.

    TypeError for what are no whole numbers (images, for instance), ValueError for numbers that are
    out of range.
    """
    labels = np.asarray(x)
    if labels.dtype.kind == "f" and labels.size and not (labels == np.floor(labels)).all():
        raise TypeError(
            f"to_categorical: class numbers are needed, got {labels.dtype} {labels.shape} with "
            "fractions; it is for labels, not for images"
        )
    if labels.dtype.kind not in "iufb":
        raise TypeError(f"to_categorical: class numbers are needed, got {labels.dtype}")
    labels = labels.astype(np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.ndim > 2:
        raise TypeError(
            f"to_categorical: labels (N,) are needed, got {labels.shape}; it is for labels, not "
            "for images"
        )
    classes = num_classes or (int(labels.max()) + 1 if labels.size else 0)
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"to_categorical: labels from {labels.min()} to {labels.max()}, but num_classes is "
            f"{classes}"
        )
    return np.eye(classes, dtype=np.float32)[labels]


def set_random_seed(seed: int) -> None:
    """Make every random number of minidl, and of np.random, follow from this seed."""
    random.manual_seed(seed)
    np.random.seed(seed % 2**32)
