"""Metrics by Keras's names: what fit and evaluate measure beside the loss, a mean over samples."""

from typing import Any, ClassVar

import numpy as np

from .. import check
from ..metrics import accuracy, top_k_accuracy


class Metric:
    """The mean over all samples of what `of` says of a batch: (y_true, y_pred), arrays."""

    name: str
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str | None = None, **options: Any):
        for key in options:
            check.known(f"option of {type(self).__name__}", key, self.defaults)
        self.name, self.options = name or self.name, {**self.defaults, **options}

    def of(self, y_true: np.ndarray, y_pred: np.ndarray) -> Any:
        """A number for the batch, or for each sample."""
        raise NotImplementedError(f"{type(self).__name__} does not define of(y_true, y_pred)")

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        """Of one batch."""
        y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
        if y_true.size == y_pred.size:
            y_true = y_true.reshape(y_pred.shape)
        return float(np.mean(self.of(y_true, y_pred)))

    def get_config(self) -> dict[str, Any]:
        """What builds the same one again."""
        return {"name": self.name, **self.options}


def _rows(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (N, C), and the number of the right class of each."""
    y_pred = y_pred.reshape(-1, y_pred.shape[-1])
    if y_true.size == len(y_pred):
        return y_pred, y_true.reshape(-1).astype(np.int64)
    return y_pred, y_true.reshape(y_pred.shape).argmax(1)


class BinaryAccuracy(Metric):
    """How often y_pred is on the side of the threshold that y_true says."""

    name, defaults = "binary_accuracy", {"threshold": 0.5}

    def of(self, y_true: np.ndarray, y_pred: np.ndarray) -> Any:
        """Of each number."""
        return (y_pred > self.options["threshold"]) == (y_true > 0.5)


class CategoricalAccuracy(Metric):
    """How often the largest entry of a row is the right one; y_true is one-hot, or numbers."""

    name = "categorical_accuracy"

    def of(self, y_true: np.ndarray, y_pred: np.ndarray) -> Any:
        """Of the rows."""
        return accuracy(*_rows(y_true, y_pred))


class SparseCategoricalAccuracy(CategoricalAccuracy):
    """How often the largest entry of a row is the right one; y_true is the class's number."""

    name = "sparse_categorical_accuracy"


class Accuracy(CategoricalAccuracy):
    """The accuracy that fits: binary for a single output, else of classes."""

    name = "accuracy"

    def of(self, y_true: np.ndarray, y_pred: np.ndarray) -> Any:
        """Of the numbers, or of the rows."""
        single = y_pred.ndim < 2 or y_pred.shape[-1] == 1
        return (y_pred > 0.5) == (y_true > 0.5) if single else super().of(y_true, y_pred)


class TopKCategoricalAccuracy(Metric):
    """How often the right class is among the k largest entries; y_true is one-hot, or numbers."""

    name, defaults = "top_k_categorical_accuracy", {"k": 5}

    def of(self, y_true: np.ndarray, y_pred: np.ndarray) -> Any:
        """Of the rows."""
        return top_k_accuracy(self.options["k"])(*_rows(y_true, y_pred))


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """How often the right class is among the k largest entries; y_true is its number."""

    name = "sparse_top_k_categorical_accuracy"


class MeanSquaredError(Metric):
    """(y_true - y_pred)**2."""

    name = "mean_squared_error"

    def of(self, y_true: np.ndarray, y_pred: np.ndarray) -> Any:
        """Of each number."""
        return np.square(y_true - y_pred)


class MeanAbsoluteError(Metric):
    """|y_true - y_pred|."""

    name = "mean_absolute_error"

    def of(self, y_true: np.ndarray, y_pred: np.ndarray) -> Any:
        """Of each number."""
        return np.abs(y_true - y_pred)


class _Function(Metric):
    def __init__(self, function: Any):
        self.name, self.options = getattr(function, "__name__", "metric"), {"of": function}
        self.of = function  # type: ignore[method-assign]


_KINDS = (
    Accuracy, BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy,
    TopKCategoricalAccuracy, SparseTopKCategoricalAccuracy, MeanSquaredError, MeanAbsoluteError,
)  # fmt: skip
KINDS: dict[str, Any] = {kind.name: kind for kind in _KINDS}
KINDS |= {"acc": Accuracy, "mse": MeanSquaredError, "mae": MeanAbsoluteError}


def get(given: Any) -> Metric:
    """A metric by name (which is what history calls it), or as it is given, or of a function."""
    if isinstance(given, str):
        check.known("metric", given, KINDS)
        return KINDS[given](name=given)
    if not callable(given):
        raise TypeError(f"metrics: names, metrics or functions (y_true, y_pred), not {given!r}")
    return given if isinstance(given, Metric) else _Function(given)
