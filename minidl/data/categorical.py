"""Class numbers as rows of zeros and a one. Loaded when it is asked for."""

from typing import Any

import numpy as np


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Class numbers (...) as rows with a 1 at the class's place: (..., num_classes) float32.

    TypeError for what are no whole numbers (images, for instance), ValueError for numbers that are
    out of range.
    """
    labels = np.asarray(x)
    labels = labels[..., 0] if labels.ndim > 1 and labels.shape[-1] == 1 else labels
    whole = labels.dtype.kind in "iufb" and not (labels % 1).any()
    if not whole or labels.ndim > 2:
        raise TypeError(
            f"to_categorical: whole numbers of classes (N,) are needed, got {labels.dtype} "
            f"{np.shape(x)}; it is for labels, not for images or sound"
        )
    labels = labels.astype(np.int64)
    classes = num_classes or (int(labels.max()) + 1 if labels.size else 0)
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        span = f"labels from {labels.min()} to {labels.max()}"
        raise ValueError(f"to_categorical: {span}, but num_classes is {classes}")
    return np.eye(classes, dtype=np.float32)[labels]
