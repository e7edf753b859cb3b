"""Losses by Keras's names: loss(y_true, y_pred), a mean over the batch.

Where a network ends in the softmax or sigmoid that a loss wants, training leaves that out and takes
the loss of the logits, which is exact for numbers of any size.
"""

from typing import Any

from .. import ops
from ..io.keras_config import snake
from ..nn import functional as F
from ..tensor import Tensor
from .kinds import Kind, chosen, kind
from .layer import as_tensor

EPSILON = 1e-7  # what Keras keeps probabilities away from 0 and 1


class Loss(Kind):
    """A loss of each sample, and their mean over the batch, weighted where weights are given.

    A subclass of yours defines call(y_true, y_pred) -> a loss for each sample, or a number.
    """

    wants = ""  # what the network ends in if logits are to be taken: "softmax" or "sigmoid"

    @property
    def from_logits(self) -> bool:
        """Whether y_pred is what goes into a softmax or sigmoid."""
        return self.options.get("from_logits", False)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample; of cross-entropies, of logits."""
        options = {key: value for key, value in self.options.items() if key != "from_logits"}
        return self.function(y_true, y_pred, **options)

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, logits: bool = False
    ) -> Tensor:
        """The mean over the samples. logits: y_pred is what goes into the last activation."""
        y_true, y_pred = as_tensor(y_true), as_tensor(y_pred)
        if self.wants and not (logits or self.from_logits):
            y_pred = _logits(y_pred, self.wants)
        each = self.call(y_true, y_pred)
        if sample_weight is None:
            return ops.mean(each) if each.ndim else each
        weight = as_tensor(sample_weight)
        if weight.size != each.size and weight.shape != each.shape[:1]:
            raise ValueError(f"{self.name}: weights {weight.shape} for losses {each.shape}")
        rest = (1,) * (each.ndim - 1) if weight.size != each.size else each.shape[1:]
        return ops.mean(each * ops.reshape(weight, shape=(*each.shape[:1], *rest)))


def _logits(p: Tensor, ending: str) -> Tensor:
    """Logits of probabilities, which are kept away from 0 and 1."""
    if ending == "softmax":
        p = p / ops.sum(p, axis=-1, keepdims=True)
    p = ops.clip(p, min=EPSILON, max=1 - EPSILON)
    return ops.log(p if ending == "softmax" else p / (1.0 - p))


def _alike(loss: str, y_true: Tensor, y_pred: Tensor, hint: str = "") -> Tensor:
    """y_true as floats, in the shape of y_pred; ValueError where it has another one."""
    if y_true.shape in (y_pred.shape[:-1], (*y_pred.shape, 1)) and y_true.size == y_pred.size:
        y_true = ops.reshape(y_true, shape=y_pred.shape)
    if y_true.shape != y_pred.shape:
        problem = f"{loss}: y_true {y_true.shape} needs the shape of the output {y_pred.shape}"
        raise ValueError(problem + (hint or _flatten_hint(y_true, y_pred)))
    return y_true if y_true.dtype == "float32" else y_true.astype("float32")


def _flatten_hint(y_true: Tensor, y_pred: Tensor) -> str:
    """What is missing in a network whose output still has the axes of an image."""
    images = y_pred.ndim > 2 and y_true.ndim < y_pred.ndim
    return "; is a Flatten() missing before the Dense layers?" * images


def _rows(each: Tensor) -> Tensor:
    """The mean of each row: a loss for each sample."""
    return ops.mean(each, axis=-1) if each.ndim > 1 else each


def _regression(name: str, function: Any, **defaults: Any) -> Any:
    """A loss of differences: (N, ..., D) -> (N, ...)."""

    def loss(y_true: Tensor, y_pred: Tensor, **options: Any) -> Tensor:
        target = _alike(snake(name), y_true, y_pred)
        return _rows(function(y_pred, target, reduction="none", **options))

    return kind(Loss, name, loss, **defaults)


def _sparse(y_true: Tensor, logits: Tensor) -> Tensor:
    """-log of the right class's probability: y_true (N, ...), y_pred (N, ..., C) -> (N, ...)."""
    if y_true.shape not in (logits.shape[:-1], (*logits.shape[:-1], 1)):
        one_hot = y_true.shape == logits.shape
        hint = "; it is one-hot: use categorical_crossentropy, or y.argmax(1)" * one_hot
        raise ValueError(
            "sparse_categorical_crossentropy: y_true needs the number of a class for each row, but "
            f"is {y_true.shape} beside an output {logits.shape}"
            + (hint or _flatten_hint(y_true, logits))
        )
    label = ops.reshape(y_true, shape=(-1,))
    label = label if label.dtype == "int64" else label.astype("int64")
    rows = ops.reshape(logits, shape=(-1, logits.shape[-1]))
    return ops.reshape(F.cross_entropy(rows, label, reduction="none"), shape=logits.shape[:-1])


def _dense(y_true: Tensor, logits: Tensor, label_smoothing: float) -> Tensor:
    """-sum of y_true log y_pred, y_true one-hot or probabilities: both (N, ..., C) -> (N, ...)."""
    sparse = y_true.shape in (logits.shape[:-1], (*logits.shape[:-1], 1))
    hint = "; class numbers go with sparse_categorical_crossentropy, or to_categorical(y)" * sparse
    y_true = _alike("categorical_crossentropy", y_true, logits, hint)
    rows, labels = (ops.reshape(a, shape=(-1, logits.shape[-1])) for a in (logits, y_true))
    each = F.cross_entropy(rows, labels, reduction="none", label_smoothing=label_smoothing)
    return ops.reshape(each, shape=logits.shape[:-1])


def _binary(y_true: Tensor, logits: Tensor) -> Tensor:
    """-(y_true log y_pred + (1 - y_true) log(1 - y_pred)): (N, ..., D) -> (N, ...)."""
    target = _alike("binary_crossentropy", y_true, logits)
    return _rows(F.binary_cross_entropy_with_logits(logits, target, reduction="none"))


MeanSquaredError = _regression("MeanSquaredError", F.mse_loss)
MeanAbsoluteError = _regression("MeanAbsoluteError", F.l1_loss)
Huber = _regression("Huber", F.huber_loss, delta=1.0)
SparseCategoricalCrossentropy = kind(
    Loss, "SparseCategoricalCrossentropy", _sparse, from_logits=False
)
CategoricalCrossentropy = kind(
    Loss, "CategoricalCrossentropy", _dense, from_logits=False, label_smoothing=0.0
)
BinaryCrossentropy = kind(Loss, "BinaryCrossentropy", _binary, from_logits=False)
SparseCategoricalCrossentropy.wants = CategoricalCrossentropy.wants = "softmax"
BinaryCrossentropy.wants = "sigmoid"
KINDS: dict[str, Any] = {snake(k.__name__): k for k in Loss.__subclasses__()}
KINDS |= {"mse": MeanSquaredError, "mae": MeanAbsoluteError}


def get(given: Any) -> Loss:
    """A loss by name, or as it is given: a Loss, or a function (y_true, y_pred)."""
    return chosen("loss", given, KINDS, Loss)
