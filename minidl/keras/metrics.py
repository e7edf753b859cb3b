"""Metrics by Keras's names: what fit and evaluate measure beside the loss, a mean over samples."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import check
from ..metrics import accuracy, top_k_accuracy


class MeanMetric:
    """The mean over all samples of a function of (y_true, y_pred), arrays."""

    def __init__(
        self, function: Callable[[np.ndarray, np.ndarray], Any], name: str, **options: Any
    ):
        self.function, self.name, self.options = function, name, options

    def get_config(self) -> dict[str, Any]:
        """What builds the same one again."""
        return {"name": self.name, **self.options}

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        """Of one batch."""
        return float(np.mean(self.function(np.asarray(y_true), np.asarray(y_pred))))


def _same(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (y_true.reshape(y_pred.shape) if y_true.size == y_pred.size else y_true), y_pred


def _mse(y_true: np.ndarray, y_pred: np.ndarray) -> Any:
    y_true, y_pred = _same(y_true, y_pred)
    return np.square(y_true - y_pred)


def _mae(y_true: np.ndarray, y_pred: np.ndarray) -> Any:
    y_true, y_pred = _same(y_true, y_pred)
    return np.abs(y_true - y_pred)


def _rows(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (N, C), and the number of the right class of each."""
    y_pred = y_pred.reshape(-1, y_pred.shape[-1])
    if y_true.size == len(y_pred):
        return y_pred, y_true.reshape(-1).astype(np.int64)
    return y_pred, y_true.reshape(y_pred.shape).argmax(1)


class BinaryAccuracy(MeanMetric):
    """How often y_pred is on the side of the threshold that y_true says."""

    def __init__(self, name: str = "binary_accuracy", threshold: float = 0.5):
        def right(y_true: np.ndarray, y_pred: np.ndarray) -> Any:
            y_true, y_pred = _same(y_true, y_pred)
            return (y_pred > threshold) == (y_true > 0.5)

        super().__init__(right, name, threshold=threshold)


class CategoricalAccuracy(MeanMetric):
    """How often the largest entry of a row is the right one; y_true is one-hot."""

    def __init__(self, name: str = "categorical_accuracy"):
        super().__init__(lambda y_true, y_pred: accuracy(*_rows(y_true, y_pred)), name)


class SparseCategoricalAccuracy(MeanMetric):
    """How often the largest entry of a row is the right one; y_true is the class's number."""

    def __init__(self, name: str = "sparse_categorical_accuracy"):
        super().__init__(lambda y_true, y_pred: accuracy(*_rows(y_true, y_pred)), name)


class TopKCategoricalAccuracy(MeanMetric):
    """How often the right class is among the k largest entries; y_true is one-hot."""

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy"):
        top = top_k_accuracy(k)
        super().__init__(lambda y_true, y_pred: top(*_rows(y_true, y_pred)), name, k=k)


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """How often the right class is among the k largest entries; y_true is its number."""

    def __init__(self, k: int = 5, name: str = "sparse_top_k_categorical_accuracy"):
        super().__init__(k, name)


class MeanSquaredError(MeanMetric):
    """(y_true - y_pred)**2."""

    def __init__(self, name: str = "mean_squared_error"):
        super().__init__(_mse, name)


class MeanAbsoluteError(MeanMetric):
    """|y_true - y_pred|."""

    def __init__(self, name: str = "mean_absolute_error"):
        super().__init__(_mae, name)


class Accuracy(MeanMetric):
    """The accuracy that fits: binary for a single output, else of classes."""

    def __init__(self, name: str = "accuracy"):
        binary, classes = BinaryAccuracy(), SparseCategoricalAccuracy()

        def right(y_true: np.ndarray, y_pred: np.ndarray) -> Any:
            single = y_pred.ndim < 2 or y_pred.shape[-1] == 1
            return (binary if single else classes)(y_true, y_pred)

        super().__init__(right, name)


_NAMES: dict[str, type] = {
    "accuracy": Accuracy,
    "acc": Accuracy,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
}

_NAMES |= {kind.__name__: kind for kind in set(_NAMES.values())}


def get(given: Any) -> MeanMetric:
    """A metric by name (which is what history calls it), or as it is given, or of a function."""
    if isinstance(given, str):
        check.known("metric", given, _NAMES)
        return _NAMES[given]() if given[0].isupper() else _NAMES[given](name=given)
    if isinstance(given, type) and issubclass(given, MeanMetric):
        return given()  # type: ignore[call-arg]
    if isinstance(given, MeanMetric):
        return given
    if not callable(given):
        raise TypeError(f"metrics: names, metrics or functions (y_true, y_pred), not {given!r}")
    return MeanMetric(given, getattr(given, "__name__", "metric"))
