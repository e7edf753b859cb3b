"""How good a model's outputs are: functions of two arrays, what it said and what is right."""

from collections.abc import Callable

import numpy as np

from . import check

Metric = Callable[[np.ndarray, np.ndarray], float]


def _classes(target: np.ndarray) -> np.ndarray:
    """Class numbers (N,) as they are; of probabilities (N, C) the largest."""
    target = np.asarray(target)
    return target.argmax(1) if target.ndim == 2 else target


def accuracy(output: np.ndarray, target: np.ndarray) -> float:
    """The fraction of rows of output (N, C) whose largest entry stands at target (N,).

    Where target is probabilities (N, C), as MixUp makes them, at its largest. One logit (N, 1) says
    yes above 0, and target (N,) or (N, 1) above 1/2.
    """
    if output.shape[1:] == (1,):
        return float(((output > 0) == (np.asarray(target).reshape(output.shape) > 0.5)).mean())
    return float((output.argmax(1) == _classes(target)).mean())


def top_k_accuracy(k: int) -> Metric:
    """A metric: the fraction of rows whose entry at target is among the k largest.

    Of equal entries the first counts as larger, and NaN as infinity: top_k_accuracy(1) is
    accuracy. Its name, in a history, is top_<k>_accuracy.
    """
    if k < 1:
        raise ValueError(f"top_k_accuracy: k is {k}, but must be at least 1")

    def top_k(output: np.ndarray, target: np.ndarray) -> float:
        score = np.where(np.isnan(output), np.inf, output)
        place = _classes(target)[:, None]
        own = np.take_along_axis(score, place, 1)
        ahead = (score > own) | ((score == own) & (np.arange(score.shape[1]) < place))
        return float((ahead.sum(1) < k).mean())

    top_k.__name__ = f"top_{k}_accuracy"
    return top_k


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
