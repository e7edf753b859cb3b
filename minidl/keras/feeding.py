"""What fit, evaluate and predict are given, as batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data import DataLoader, Scale
from ..tensor import Tensor
from .symbols import mapped


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
        arrays = bool(given) and all(isinstance(a, np.ndarray | Tensor) for a in given)
        self.inputs, self.source = len(given) if arrays else 1, x
        if arrays:
            if labels and y is None:
                raise TypeError(f"{who}(x, y): the labels y are missing")
            given += [a for a in (y, weights) if a is not None]
            self.source = _loader(who, [_numbers(a) for a in given], batch_size or 32, shuffle)
        again = hasattr(x, "__iter__") and not isinstance(x, Iterator)
        first = next(iter(self.source), None) if again else x
        parts = list(first) if isinstance(first, tuple | list) else [first]
        strange = first is not None and not all(hasattr(a, "shape") for a in parts)
        if strange or (not arrays and (not again or y is not None or batch_size)):
            raise TypeError(
                f"{who}: arrays x and y are needed, or batches (x, y) in a DataLoader or a list, "
                f"to go through again, without y and batch_size; x is a {type(x).__name__}"
            )
        if first is None:
            raise ValueError(f"{who}: the data set is empty: there was no batch")
        self.example: Any = self._x(parts)

    @classmethod
    def held_out(cls, data: Any, batch_size: int | None) -> "Batches | None":
        """Of validation_data: (x, y), (x, y, weights), or batches."""
        if data is None:
            return None
        if isinstance(data, tuple | list) and len(data) in (2, 3):
            return cls("validation_data", *data, batch_size=batch_size)
        return cls("validation_data", data)

    def __len__(self) -> int:
        """How many batches an epoch has; 0 where nobody knows."""
        return len(self.source) if hasattr(self.source, "__len__") else 0

    def __iter__(self) -> Iterator[Any]:
        return map(self._batch, self.source)

    def _x(self, parts: list[Any]) -> Any:
        return parts[: self.inputs] if self.inputs > 1 else parts[0]

    def _batch(self, batch: Any) -> Any:
        parts, n = list(batch) if isinstance(batch, tuple | list) else [batch], self.inputs
        if not self.labels:
            return self._x(parts)
        if len(parts) not in (n + 1, n + 2):
            raise TypeError(f"{self.who}: batches are (x, y) or (x, y, weights), got {len(parts)}")
        if self.class_weight is not None:
            parts[n + 1 :] = [self._of_classes(*map(as_array, parts[n:]))]
        return (self._x(parts), *parts[n:])

    def _of_classes(self, y: np.ndarray, own: Any = 1.0) -> np.ndarray:
        """The weight of each sample by its class, times its own."""
        labels = (y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y).ravel()
        wanted = [(self.class_weight or {}).get(int(label), 1.0) for label in labels]
        return np.array(wanted, np.float32) * np.asarray(own, np.float32)


def _loader(who: str, columns: list[np.ndarray], batch_size: int, shuffle: bool) -> DataLoader:
    if len({len(a) for a in columns}) > 1:
        shapes = ", ".join(str(a.shape) for a in columns)
        raise ValueError(f"{who}: x and y need one length, but the shapes are {shapes}")
    # images of bytes stay from 0 to 255, as in Keras
    scale = Scale(1.0) if columns[0].dtype == np.uint8 and columns[0].ndim == 4 else None
    return DataLoader(tuple(columns), batch_size, shuffle, transform=scale)


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

    def cut(part: slice) -> list[Any]:
        return [mapped(a, lambda leaf: None if leaf is None else leaf[part]) for a in arrays]

    return cut(slice(at)), cut(slice(at, None))
