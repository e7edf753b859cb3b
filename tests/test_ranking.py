"""recall@k and NDCG@k against their definitions, written as loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import metrics


def best_first(scores):
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def recall(scores, wanted, k):
    found = [sum(w[i] and s[i] > -math.inf for i in best_first(s)[:k]) / sum(w)
             for s, w in zip(scores, wanted, strict=True) if any(w)]  # fmt: skip
    return sum(found) / len(found)


def ndcg(scores, wanted, k):
    found = []
    for s, w in zip(scores, wanted, strict=True):
        if any(w):
            gains = [1 / math.log2(j + 2) for j in range(len(s))]
            got = sum(g for g, i in zip(gains, best_first(s)[:k]) if w[i] and s[i] > -math.inf)
            found.append(got / sum(gains[: min(k, sum(w))]))
    return sum(found) / len(found)


@given(st.integers(1, 9), st.integers(1, 8), st.integers(1, 12), st.integers(0, 10**6))
def test_they_are_what_the_definition_says(rows, columns, k, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (rows, columns)).astype(float)  # with ties
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    wanted = rng.random((rows, columns)) < 0.4
    wanted[0, 0] = True
    for metric, definition in ((metrics.recall_at_k, recall), (metrics.ndcg_at_k, ndcg)):
        assert metric(k)(scores, wanted) == pytest.approx(
            definition(scores.tolist(), wanted.tolist(), k), abs=1e-12
        )


def test_by_hand():
    scores = np.array([[0.9, 0.1, 0.8, 0.7], [1, 2, 3, 4]])
    wanted = np.array([[False, False, True, True], [False, False, False, False]])
    assert metrics.recall_at_k(1)(scores, wanted) == 0
    assert metrics.recall_at_k(2)(scores, wanted) == 0.5
    assert metrics.recall_at_k(99)(scores, wanted) == 1
    half = 1 / math.log2(3)
    assert metrics.ndcg_at_k(2)(scores, wanted) == pytest.approx(half / (1 + half))
    assert metrics.ndcg_at_k(3)(scores, wanted) == pytest.approx((half + 0.5) / (1 + half))
    assert metrics.recall_at_k(5).__name__ == "recall_at_5"
    assert metrics.ndcg_at_k(5).__name__ == "ndcg_at_5"


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="k is 0, but must be at least 1"):
        metrics.recall_at_k(0)
    with pytest.raises(ValueError, match=r"scores \(N, M\) and as many True or False"):
        metrics.ndcg_at_k(2)(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="no row wants anything"):
        metrics.ndcg_at_k(2)(np.zeros((2, 3)), np.zeros((2, 3), bool))
