"""Which classes a model mistakes for which: the confusion matrix, and a report of each class."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import check

_SUMMED = {"true": 1, "pred": 0, "all": None}  # the axis along which shares add up to 1


def confusion_matrix(
    output: np.ndarray, target: np.ndarray, normalize: str | None = None
) -> np.ndarray:
    """(C, C): how many rows of class i, by target (N,), have their largest entry of output at j.

    output (N, C), as `predict` returns it for a whole set. normalize: as shares of each class
    ("true"), of each answer ("pred") or of all ("all"); 0 where there were none.
    """
    if normalize is not None:
        check.known("normalize", normalize, _SUMMED)
    classes = output.shape[1]
    target = np.asarray(target)
    if target.shape != output.shape[:1] or not ((target >= 0) & (target < classes)).all():
        check.fail(
            "confusion_matrix", f"target must name one of {classes} classes for each row",
            output=output, target=target,
        )  # fmt: skip
    flat = np.bincount(target * classes + output.argmax(1), minlength=classes * classes)
    counts = flat.reshape(classes, classes)
    if normalize is None:
        return counts
    return counts / np.maximum(counts.sum(axis=_SUMMED[normalize], keepdims=True), 1)


class Scores(NamedTuple):
    """Of one class, or a mean of classes.

    precision: the share of the answers "it is this class" that are right. recall: the share of its
    samples that were found. f1: their harmonic mean. support: how many samples it has. What has no
    answers, or no samples, scores 0.
    """

    precision: float
    recall: float
    f1: float
    support: int


class Report(dict[str, Scores]):
    """Scores by the name of a class, "macro avg" and "weighted avg" at the end; print() it.

    accuracy: the share of all samples that are right. matrix: the confusion matrix, counts.
    """

    def __init__(self, scores: Mapping[str, Scores], accuracy: float, matrix: np.ndarray):
        super().__init__(scores)
        self.accuracy, self.matrix = accuracy, matrix

    def __str__(self) -> str:
        wide = max(len("weighted avg"), *map(len, self))
        lines = [" " * wide + "".join(f"{name:>11}" for name in Scores._fields), ""]
        for name, (*shares, support) in self.items():
            lines.append(
                f"{name:>{wide}}" + "".join(f"{s:11.4f}" for s in shares) + f"{support:11}"
            )
        total = int(self.matrix.sum())
        lines.insert(-2, f"\n{'accuracy':>{wide}}{self.accuracy:33.4f}{total:11}")
        return "\n".join(lines)


def report(output: np.ndarray, target: np.ndarray, classes: Sequence[str] = ()) -> Report:
    """Precision, recall and F1 of each class, their means, and the accuracy.

    output (N, C), as `predict` returns it for a whole set, target (N,) class numbers, classes: the
    names of all C. Definitions as in scikit-learn's classification_report.
    """
    counts = confusion_matrix(output, target)
    names = list(classes) or [str(i) for i in range(len(counts))]
    if len(names) != len(counts):
        check.fail("report", f"{len(names)} names of classes, but output has {len(counts)} classes")
    right, said, support = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    precision, recall = right / np.maximum(said, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(said + support, 1)
    rows = np.stack([precision, recall, f1], axis=1)
    total = int(support.sum())
    scores = {n: _scores(row, count) for n, row, count in zip(names, rows, support)}
    scores["macro avg"] = _scores(rows.mean(axis=0), total)
    scores["weighted avg"] = _scores(support @ rows / max(total, 1), total)
    return Report(scores, float(right.sum() / max(total, 1)), counts)


def _scores(row: np.ndarray, support: Any) -> Scores:
    precision, recall, f1 = row.tolist()
    return Scores(precision, recall, f1, int(support))
