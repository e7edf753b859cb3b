"""Data sets in memory: images with labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import device


class Dataset:
    """Images (N, H, W, C) with labels (N,) and the names of the classes.

    `dataset[3]` is one (image, label); `dataset[:100]` or `dataset[array]` is a smaller Dataset.
    transform: what a DataLoader of it does to images, unless it is given a transform itself.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: Sequence[str] = (),
        transform: Any = None,
    ):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 4:
            raise ValueError(f"Dataset: images are (N, H, W, C), got shape {images.shape}")
        if images.dtype not in ("uint8", "float32", "float64"):
            raise TypeError(f"Dataset: images are uint8, float32 or float64, got {images.dtype}")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"Dataset: labels are integers, got {labels.dtype}")
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"Dataset: {len(images)} images, but labels have shape {labels.shape}; one each"
            )
        if classes and labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
            raise ValueError(
                f"Dataset: labels from {labels.min()} to {labels.max()}, but {len(classes)} classes"
            )
        self.images, self.labels, self.classes = images, labels.astype(np.int64), tuple(classes)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        if np.ndim(index) == 0 and not isinstance(index, slice):
            return self.images[index], int(self.labels[index])
        return Dataset(self.images[index], self.labels[index], self.classes, self.transform)

    def __repr__(self) -> str:
        shape, kinds = " x ".join(map(str, self.images.shape)), len(self.classes)
        return f"Dataset({shape} {self.images.dtype}, {kinds} classes)"


def shuffled(n: int, seed: int, offset: int) -> np.ndarray:
    """Return the numbers 0 to n - 1 in a random order: a stable sort by Philox numbers.

    The same for a seed and an offset everywhere.
    """
    k = device("cpu").kernels
    key = np.array([seed, offset], np.uint64)
    return np.argsort(k.uniform(key, np.empty(n, np.float32), 0.0, 1.0), kind="stable")
