"""Losses by Keras's names: loss(y_true, y_pred), a mean over the batch.

Where a network ends in the softmax or sigmoid that a loss wants, training leaves that out and takes
the loss of the logits, which is exact for numbers of any size.
"""

from typing import Any

import numpy as np

from .. import check, ops
from ..nn import functional as F
from ..tensor import Tensor
from .symbols import snake

EPSILON = 1e-7  # what Keras keeps probabilities away from 0 and 1


class Loss:
    """A loss of each sample, and their mean over the batch, weighted where weights are given.

    A subclass of yours defines call(y_true, y_pred) -> a loss for each sample, or a number.
    """

    wants = ""  # what the network ends in if logits are to be taken: "softmax" or "sigmoid"
    from_logits = False

    def __init__(self, name: str | None = None):
        self.name = name

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        raise NotImplementedError(f"{type(self).__name__} does not define call(y_true, y_pred)")

    def get_config(self) -> dict[str, Any]:
        """What builds the same one again."""
        return dict(vars(self))

    def of_logits(self, y_true: Tensor, logits: Tensor) -> Tensor:
        """The same, of what goes into the softmax or sigmoid."""
        raise NotImplementedError(f"{type(self).__name__} does not define of_logits")

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, logits: bool = False
    ) -> Tensor:
        """The mean over the samples. logits: y_pred is what goes into the last activation."""
        y_true, y_pred = _tensor(y_true), _tensor(y_pred)
        measured = self.of_logits if logits or self.from_logits else self.call
        each = measured(y_true, y_pred)
        if sample_weight is None:
            return each if not each.ndim else ops.mean(each)
        weight = _tensor(sample_weight)
        if weight.ndim == each.ndim + 1 and weight.shape[-1] == 1:
            weight = ops.reshape(weight, shape=weight.shape[:-1])
        if each.shape[: weight.ndim] != weight.shape:
            raise ValueError(
                f"{type(self).__name__}: weights of shape {weight.shape} for losses {each.shape}"
            )
        weight = ops.reshape(weight, shape=(*weight.shape, *(1,) * (each.ndim - weight.ndim)))
        return ops.mean(each * weight)


def _tensor(a: Any) -> Tensor:
    if isinstance(a, Tensor):
        return a
    a = np.asarray(a)
    return Tensor(a.astype(np.float32) if a.dtype.kind in "fb" else a.astype(np.int64))


def _float(a: Tensor) -> Tensor:
    return a if a.dtype == "float32" else a.astype("float32")


def _alike(loss: str, y_true: Tensor, y_pred: Tensor, hint: str = "") -> Tensor:
    """y_true as floats, in the shape of y_pred; ValueError where it has another one."""
    if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
        y_true = ops.reshape(y_true, shape=(*y_true.shape, 1))
    if y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        y_true = ops.reshape(y_true, shape=y_true.shape[:-1])
    if y_true.shape != y_pred.shape:
        problem = f"{loss}: y_true {y_true.shape} needs the shape of the output {y_pred.shape}"
        raise ValueError(f"{problem}{hint or flatten_hint(y_true, y_pred)}")
    return _float(y_true)


def flatten_hint(y_true: Tensor, y_pred: Tensor) -> str:
    """What is missing in a network whose output still has the axes of an image."""
    images = y_pred.ndim > 2 and y_true.ndim < y_pred.ndim
    return "; is a Flatten() missing before the Dense layers?" * images


def _rows(each: Tensor) -> Tensor:
    """The mean of each row: a loss for each sample."""
    return ops.mean(each, axis=-1) if each.ndim > 1 else each


class MeanSquaredError(Loss):
    """(y_true - y_pred)**2."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(N, ..., D) -> (N, ...)."""
        y_true = _alike("mean_squared_error", y_true, y_pred)
        return _rows(F.mse_loss(y_pred, y_true, reduction="none"))


class MeanAbsoluteError(Loss):
    """|y_true - y_pred|."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(N, ..., D) -> (N, ...)."""
        y_true = _alike("mean_absolute_error", y_true, y_pred)
        return _rows(F.l1_loss(y_pred, y_true, reduction="none"))


class Huber(Loss):
    """Squares of differences up to delta, straight lines beyond."""

    def __init__(self, delta: float = 1.0, name: str | None = None):
        super().__init__(name)
        self.delta = delta

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(N, ..., D) -> (N, ...)."""
        y_true = _alike("huber", y_true, y_pred)
        return _rows(F.huber_loss(y_pred, y_true, reduction="none", delta=self.delta))


class _Crossentropy(Loss):
    def __init__(self, from_logits: bool = False, name: str | None = None):
        super().__init__(name)
        self.from_logits = from_logits

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Of probabilities, which are kept away from 0 and 1."""
        if self.wants == "softmax":
            y_pred = y_pred / ops.sum(y_pred, axis=-1, keepdims=True)
            return self.of_logits(y_true, ops.log(ops.clip(y_pred, min=EPSILON, max=1 - EPSILON)))
        y_pred = ops.clip(y_pred, min=EPSILON, max=1 - EPSILON)
        return self.of_logits(y_true, ops.log(y_pred / (1.0 - y_pred)))


class SparseCategoricalCrossentropy(_Crossentropy):
    """-log of the probability of the right class, which y_true (N,) names."""

    wants = "softmax"

    def of_logits(self, y_true: Tensor, logits: Tensor) -> Tensor:
        """y_true (N, ...) whole numbers, logits (N, ..., C) -> (N, ...)."""
        if y_true.ndim == logits.ndim and y_true.shape[-1] == 1:
            y_true = ops.reshape(y_true, shape=y_true.shape[:-1])
        if y_true.shape != logits.shape[:-1]:
            one_hot = y_true.shape == logits.shape
            hint = "; it is one-hot: use categorical_crossentropy, or y.argmax(1)" * one_hot
            raise ValueError(
                "sparse_categorical_crossentropy: y_true needs the number of a class for each row, "
                f"but is {y_true.shape} beside an output {logits.shape}"
                + (hint or flatten_hint(y_true, logits))
            )
        label = y_true if y_true.dtype == "int64" else y_true.astype("int64")
        if logits.ndim == 2:
            return F.cross_entropy(logits, label, reduction="none")
        rows = ops.reshape(logits, shape=(-1, logits.shape[-1]))
        each = F.cross_entropy(rows, ops.reshape(label, shape=(-1,)), reduction="none")
        return ops.reshape(each, shape=y_true.shape)


class CategoricalCrossentropy(_Crossentropy):
    """-sum of y_true log y_pred, where y_true is one-hot or probabilities."""

    wants = "softmax"

    def __init__(
        self, from_logits: bool = False, label_smoothing: float = 0.0, name: str | None = None
    ):
        super().__init__(from_logits, name)
        self.label_smoothing = label_smoothing

    def of_logits(self, y_true: Tensor, logits: Tensor) -> Tensor:
        """y_true and logits (N, ..., C) -> (N, ...)."""
        sparse = y_true.shape in (logits.shape[:-1], (*logits.shape[:-1], 1))
        hint = "; class numbers go with sparse_categorical_crossentropy, or to_categorical(y)"
        y_true = _alike("categorical_crossentropy", y_true, logits, hint * sparse)
        rows = (-1, logits.shape[-1])
        each = F.cross_entropy(
            ops.reshape(logits, shape=rows), ops.reshape(y_true, shape=rows),
            reduction="none", label_smoothing=self.label_smoothing,
        )  # fmt: skip
        return ops.reshape(each, shape=logits.shape[:-1])


class BinaryCrossentropy(_Crossentropy):
    """-(y_true log y_pred + (1 - y_true) log(1 - y_pred))."""

    wants = "sigmoid"

    def of_logits(self, y_true: Tensor, logits: Tensor) -> Tensor:
        """(N, ..., D) -> (N, ...)."""
        y_true = _alike("binary_crossentropy", y_true, logits)
        return _rows(F.binary_cross_entropy_with_logits(logits, y_true, reduction="none"))


class _Function(Loss):
    def __init__(self, function: Any):
        super().__init__(getattr(function, "__name__", None))
        self.call = function  # type: ignore[method-assign]


_KINDS = (
    MeanSquaredError, MeanAbsoluteError, Huber, SparseCategoricalCrossentropy,
    CategoricalCrossentropy, BinaryCrossentropy,
)  # fmt: skip
KINDS: dict[str, Any] = {snake(kind.__name__): kind for kind in _KINDS}
KINDS |= {"mse": MeanSquaredError, "mae": MeanAbsoluteError}


def get(given: Any) -> Loss:
    """A loss by name, or as it is given: a Loss, or a function (y_true, y_pred)."""
    if isinstance(given, str):
        check.known("loss", given, KINDS)
        return KINDS[given]()
    if not callable(given):
        raise TypeError(f"loss: a name, a loss or a function (y_true, y_pred), not {given!r}")
    return given if isinstance(given, Loss) else _Function(given)
