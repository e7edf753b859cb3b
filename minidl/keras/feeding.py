"""What fit, evaluate and predict are given, as batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data import DataLoader, Scale
from ..tensor import Tensor


class Batches:
    """Batches (x, y) or (x, y, weights), x a tuple where the network has several inputs.

    Of arrays: in a new order each epoch if shuffle. Of a DataLoader, or what else can be iterated
    over again and again: its batches.
    """

    def __init__(
        self, who: str, x: Any, y: Any = None, weights: Any = None, *,
        batch_size: int | None = None, shuffle: bool = False,
        class_weight: dict[int, float] | None = None, labels: bool = True,
    ):  # fmt: skip
        self.who, self.class_weight, self.labels = who, class_weight, labels
        given = list(x) if isinstance(x, list | tuple) else [x]
        self.several, self.inputs, self.source = len(given) > 1, len(given), x
        if not all(isinstance(a, np.ndarray | Tensor) for a in given):
            self._check_batches(y, weights, batch_size)
            return
        if labels and y is None:
            raise TypeError(f"{who}(x, y): the labels y are missing")
        given += [a for a in (y, weights) if a is not None]
        columns = [_numbers(a) for a in given]
        if len({len(a) for a in columns}) > 1:
            shapes = ", ".join(str(a.shape) for a in columns)
            raise ValueError(f"{who}: x and y need one length, but the shapes are {shapes}")
        bytes_ = columns[0].dtype == np.uint8 and columns[0].ndim == 4
        scale = Scale(1.0) if bytes_ else None  # bytes stay from 0 to 255, as in Keras
        self.source = DataLoader(tuple(columns), batch_size or 32, shuffle, transform=scale)
        first = [a[:1] for a in columns[: self.inputs]]
        self.example: Any = first if self.several else first[0]

    def _check_batches(self, y: Any, weights: Any, batch_size: Any) -> None:
        """x is batches: of what they hold the first tells how many inputs there are."""
        if not hasattr(self.source, "__iter__") or isinstance(self.source, Iterator):
            kind = type(self.source).__name__
            hint = "; a list of batches, or a DataLoader, can be used for every epoch"
            raise TypeError(f"{self.who}: arrays or batches are needed, not a {kind}{hint}")
        if y is not None or weights is not None or batch_size is not None:
            raise ValueError(f"{self.who}: y, weights and batch_size go with arrays, not batches")
        first = next(iter(self.source), None)
        if first is None:
            raise ValueError(f"{self.who}: the data set is empty: there was no batch")
        self.example = first[0] if isinstance(first, tuple | list) else first
        self.several, self.inputs = False, 1  # x of a batch may be a tuple

    def __len__(self) -> int:
        """How many batches an epoch has; 0 where nobody knows."""
        return len(self.source) if hasattr(self.source, "__len__") else 0

    def __iter__(self) -> Iterator[Any]:
        return map(self._batch, self.source)

    def _batch(self, batch: Any) -> Any:
        parts, n = list(batch) if isinstance(batch, tuple | list) else [batch], self.inputs
        x: Any = tuple(parts[:n]) if self.several else parts[0]
        if not self.labels:
            return x
        if len(parts) not in (n + 1, n + 2):
            raise TypeError(f"{self.who}: batches are (x, y) or (x, y, weights), got {len(parts)}")
        if self.class_weight is not None:
            parts[n + 1 :] = [self._of_classes(*map(as_array, parts[n:]))]
        return (x, *parts[n:])

    def _of_classes(self, y: np.ndarray, own: Any = 1.0) -> np.ndarray:
        """The weight of each sample by its class, times its own."""
        one_hot = y.ndim > 1 and y.shape[-1] > 1
        labels, wanted = (y.argmax(-1) if one_hot else y).ravel(), self.class_weight or {}
        of_class = np.array([wanted.get(int(label), 1.0) for label in labels], np.float32)
        return of_class * np.asarray(own, np.float32)


def as_array(a: Any) -> np.ndarray:
    """An array, whatever holds the numbers."""
    return a.numpy_view() if isinstance(a, Tensor) else np.asarray(a)


def _numbers(a: Any) -> np.ndarray:
    """An array of numbers; wide floats become float32, as do all that Keras would convert."""
    array = as_array(a)
    if array.dtype == object:
        raise TypeError("arrays of numbers are needed; lists of different lengths must be padded")
    if array.dtype.kind in "fb" or (array.ndim == 4 and array.dtype != np.uint8):
        return array.astype(np.float32, copy=False)
    return array if array.ndim == 4 else array.astype(np.int64)


def split(fraction: float, *arrays: Any) -> tuple[list, list]:
    """Each array, or list of arrays, cut in two: the last part of it is for validation."""
    first = arrays[0][0] if isinstance(arrays[0], list | tuple) else arrays[0]
    if not 0 < fraction < 1 or not isinstance(first, np.ndarray | Tensor):
        raise ValueError(
            f"fit: validation_split is {fraction}, but must lie between 0 and 1, and goes with "
            "arrays; beside batches give validation_data"
        )
    at = int(len(first) * (1 - fraction))

    def cut(a: Any, part: slice) -> Any:
        if isinstance(a, list | tuple) and hasattr(a[0], "shape"):
            return [b[part] for b in a]
        return None if a is None else a[part]

    return [cut(a, slice(at)) for a in arrays], [cut(a, slice(at, None)) for a in arrays]
