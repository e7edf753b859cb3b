"""What fit, evaluate and predict are given, as batches."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data import DataLoader, Scale
from ..tensor import Tensor


class Batches:
    """Batches (x, y) or (x, y, weights), x a tuple where the network has several inputs.

    Of arrays: in a new order each epoch if shuffle. Of a DataLoader, or what else can be iterated
    over: its batches, of which an epoch takes `steps`.
    """

    def __init__(
        self, who: str, x: Any, y: Any = None, weights: Any = None, *,
        batch_size: int | None = None, shuffle: bool = False,
        class_weight: dict[int, float] | None = None, steps: int | None = None, labels: bool = True,
    ):  # fmt: skip
        self.who, self.class_weight, self.steps, self.labels = who, class_weight, steps, labels
        self.several = isinstance(x, list | tuple) and all(map(_is_array, x))
        self.source: Any = x
        if self.several or _is_array(x):
            columns = [*(_numbers(a) for a in (x if self.several else [x]))]
            self.inputs = len(columns)
            if labels and y is None:
                raise TypeError(f"{who}(x, y): the labels y are missing")
            given = [y, *([] if weights is None else [weights])] if labels else []
            columns += [_numbers(a) for a in given]
            lengths = {len(a) for a in columns}
            if len(lengths) > 1:
                shapes = ", ".join(str(a.shape) for a in columns)
                raise ValueError(f"{who}: x and y need one length, but the shapes are {shapes}")
            self.first = [a[:1] for a in columns]
            images = columns[0].dtype == np.uint8 and columns[0].ndim == 4
            self.source = DataLoader(
                tuple(columns), batch_size or 32, shuffle,
                transform=Scale(1.0) if images else None,  # bytes stay from 0 to 255, as in Keras
            )  # fmt: skip
            return
        if y is not None or weights is not None or batch_size is not None:
            raise ValueError(f"{who}: y, weights and batch_size go with arrays; x brings batches")
        if not hasattr(x, "__iter__"):
            raise TypeError(f"{who}: arrays or batches are needed, not a {type(x).__name__}")
        self.inputs = 0  # a batch is (x, y) already
        self.endless = iter(x) if isinstance(x, Iterator) else None
        start = next(iter(x) if self.endless is None else self.endless, None)
        if start is None:
            raise ValueError(f"{who}: the data set is empty: there was no batch")
        if self.endless is not None:
            self.endless = itertools.chain([start], self.endless)
        self.first = list(start) if isinstance(start, tuple | list) else [start]

    @property
    def example(self) -> Any:
        """x of a first batch, to build a network on."""
        if not self.inputs:
            return self.first[0]
        return self.first[: self.inputs] if self.several else self.first[0]

    def __len__(self) -> int:
        """How many batches an epoch has; 0 where nobody knows."""
        if self.steps is not None:
            return self.steps
        return len(self.source) if hasattr(self.source, "__len__") else 0

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.source) if self.inputs or self.endless is None else self.endless
        return (self._batch(batch) for batch in itertools.islice(batches, self.steps))

    def _batch(self, batch: Any) -> Any:
        parts = list(batch) if isinstance(batch, tuple | list) else [batch]
        n = self.inputs or 1
        x: Any = tuple(parts[:n]) if self.several else parts[0]
        if not self.labels:
            return x
        if len(parts) not in (n + 1, n + 2):
            raise TypeError(f"{self.who}: batches are (x, y) or (x, y, weights), got {len(parts)}")
        y, weights = parts[n], parts[n + 1] if len(parts) == n + 2 else None
        if self.class_weight is not None:
            weights = self._of_classes(y, weights)
        return (x, y) if weights is None else (x, y, weights)

    def _of_classes(self, y: Any, weights: Any) -> np.ndarray:
        """The weight of each sample by its class, times its own."""
        labels = y.numpy_view() if isinstance(y, Tensor) else np.asarray(y)
        if labels.ndim > 1:
            labels = labels.argmax(-1) if labels.shape[-1] > 1 else labels[..., 0]
        wanted = self.class_weight or {}
        found = np.array([wanted.get(int(label), 1.0) for label in labels.ravel()], np.float32)
        own = weights.numpy_view() if isinstance(weights, Tensor) else weights
        return found if own is None else found * np.asarray(own, np.float32)


def _is_array(a: Any) -> bool:
    return isinstance(a, np.ndarray | Tensor)


def _numbers(a: Any) -> np.ndarray:
    """An array of numbers; wide floats become float32, as do all that Keras would convert."""
    array = a.numpy_view() if isinstance(a, Tensor) else np.asarray(a)
    if array.dtype == object:
        raise TypeError("arrays of numbers are needed; lists of different lengths must be padded")
    if array.dtype.kind == "u" and not (array.dtype == np.uint8 and array.ndim == 4):
        return array.astype(np.int64)
    if array.dtype.kind in "iu" and array.ndim == 4 and array.dtype != np.uint8:
        return array.astype(np.float32)
    return array.astype(np.float32, copy=False) if array.dtype.kind in "fb" else array


def split(fraction: float, *arrays: Any) -> tuple[list, list]:
    """Each array, or list of arrays, cut in two: the last part of it is for validation."""
    if not 0 < fraction < 1:
        raise ValueError(f"fit: validation_split is {fraction}, but must lie between 0 and 1")
    first = arrays[0][0] if isinstance(arrays[0], list | tuple) else arrays[0]
    if not _is_array(first):
        raise ValueError("fit: validation_split goes with arrays; give validation_data")
    at = int(len(first) * (1 - fraction))

    def cut(a: Any, part: slice) -> Any:
        if a is None:
            return None
        return [b[part] for b in a] if isinstance(a, list | tuple) else a[part]

    return [cut(a, slice(at)) for a in arrays], [cut(a, slice(at, None)) for a in arrays]
