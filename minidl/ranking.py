"""How well scores rank what is wanted before the rest: recall and NDCG of the first k."""

import numpy as np

from . import check
from .metrics import Metric


def recall_at_k(k: int) -> Metric:
    """A metric: the share of what is wanted that stands among the k best scores.

    It takes scores (N, M), of which -inf is out of the running, and which of them are wanted, bool
    (N, M); it is the mean over all rows that want something. Of equal scores the first is better.
    """

    def recall(output: np.ndarray, target: np.ndarray) -> float:
        hits, wanted = _hits("recall_at_k", k, output, target)
        return float((hits.sum(1) / wanted).mean())

    return _named(recall, "recall_at", k)


def ndcg_at_k(k: int) -> Metric:
    """A metric: the normalised discounted cumulative gain of the k best scores.

    A wanted one at place j = 1, 2 ... gains 1 / log2(1 + j); the sum is divided by the largest that
    is possible (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002). Arguments as for recall_at_k.
    """

    def ndcg(output: np.ndarray, target: np.ndarray) -> float:
        hits, wanted = _hits("ndcg_at_k", k, output, target)
        gain = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
        best = np.concatenate([[0.0], np.cumsum(gain)])[np.minimum(wanted, hits.shape[1])]
        return float((hits @ gain / best).mean())

    return _named(ndcg, "ndcg_at", k)


def _named(metric: Metric, name: str, k: int) -> Metric:
    if k < 1:
        raise ValueError(f"{name}_k: k is {k}, but must be at least 1")
    metric.__name__ = f"{name}_{k}"
    return metric


def _hits(who: str, k: int, output: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, ...]:
    """For rows that want something: whether their k best are wanted (N, k), and how many are."""
    output, target = np.asarray(output), np.asarray(target)
    if output.shape != target.shape or output.ndim != 2 or target.dtype != bool:
        check.fail(who, "scores (N, M) and as many True or False are needed", output=output,
                   target=target)  # fmt: skip
    some = target.any(1)
    if not some.any():
        raise ValueError(f"{who}: no row wants anything")
    output, target = output[some], target[some]
    k = min(k, output.shape[1])
    first = np.argsort(-output, axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(target & (output > -np.inf), first, 1)
    return hits, target.sum(1)
