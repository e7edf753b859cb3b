"""Metrics by Keras's names: what fit and evaluate measure beside the loss, a mean over samples."""

from typing import Any

import numpy as np

from ..io.keras_config import snake
from ..metrics import accuracy, top_k_accuracy
from .kinds import Kind, chosen, kind

Arrays = np.ndarray


class Metric(Kind):
    """The mean over all samples of a function (y_true, y_pred) of a batch's arrays."""

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        """Of one batch."""
        y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
        if y_true.size == y_pred.size:
            y_true = y_true.reshape(y_pred.shape)
        return float(np.mean(self.function(y_true, y_pred, **self.options)))


def _rows(y_true: Arrays, y_pred: Arrays) -> tuple[Arrays, Arrays]:
    """Outputs (N, C), and the number of the right class of each."""
    y_pred = y_pred.reshape(-1, y_pred.shape[-1])
    if y_true.size == len(y_pred):
        return y_pred, y_true.reshape(-1).astype(np.int64)
    return y_pred, y_true.reshape(y_pred.shape).argmax(1)


def binary_accuracy(y_true: Arrays, y_pred: Arrays, threshold: float = 0.5) -> Any:
    """How often y_pred is on the side of the threshold that y_true says."""
    return (y_pred > threshold) == (y_true > 0.5)


def categorical_accuracy(y_true: Arrays, y_pred: Arrays) -> Any:
    """How often the largest entry of a row is the right one; y_true is one-hot, or numbers."""
    return accuracy(*_rows(y_true, y_pred))


def _fitting(y_true: Arrays, y_pred: Arrays) -> Any:
    """The accuracy that fits: binary for a single output, else of classes."""
    single = y_pred.ndim < 2 or y_pred.shape[-1] == 1
    return (binary_accuracy if single else categorical_accuracy)(y_true, y_pred)


def _top(y_true: Arrays, y_pred: Arrays, k: int = 5) -> Any:
    """How often the right class is among the k largest entries; y_true is one-hot, or numbers."""
    return top_k_accuracy(k)(*_rows(y_true, y_pred))


def _squared(y_true: Arrays, y_pred: Arrays) -> Any:
    """(y_true - y_pred)**2."""
    return np.square(y_true - y_pred)


Accuracy = kind(Metric, "Accuracy", _fitting)
BinaryAccuracy = kind(Metric, "BinaryAccuracy", binary_accuracy, threshold=0.5)
CategoricalAccuracy = kind(Metric, "CategoricalAccuracy", categorical_accuracy)
SparseCategoricalAccuracy = kind(Metric, "SparseCategoricalAccuracy", categorical_accuracy)
TopKCategoricalAccuracy = kind(Metric, "TopKCategoricalAccuracy", _top, k=5)
SparseTopKCategoricalAccuracy = kind(Metric, "SparseTopKCategoricalAccuracy", _top, k=5)
MeanSquaredError = kind(Metric, "MeanSquaredError", _squared)
MeanAbsoluteError = kind(
    Metric, "MeanAbsoluteError", lambda y_true, y_pred: np.abs(y_true - y_pred)
)
KINDS: dict[str, Any] = {snake(k.__name__): k for k in Metric.__subclasses__()}
KINDS |= {"acc": Accuracy, "mse": MeanSquaredError, "mae": MeanAbsoluteError}


def get(given: Any) -> Metric:
    """A metric by name (which is what history calls it), or as it is given, or of a function."""
    return chosen("metric", given, KINDS, Metric)
