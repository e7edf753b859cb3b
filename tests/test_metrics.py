"""Metrics: top-k accuracy, the confusion matrix and its picture."""

import numpy as np
import pytest

import minidl
from minidl import metrics, nn, plot
from minidl.metrics import accuracy, confusion_matrix, top_k_accuracy
from minidl.train import evaluate

NAN, INF = np.nan, np.inf


def test_top_k_accuracy_counts_targets_among_the_k_largest():
    output = np.array([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [3.0, 2.0, 1.0]])
    target = np.array([2, 0, 1, 2])  # in places 2, 1, 3, 3
    assert [top_k_accuracy(k)(output, target) for k in (1, 2, 3, 9)] == [0.25, 0.5, 1, 1]
    with pytest.raises(ValueError, match="k is 0"):
        top_k_accuracy(0)


def test_of_equal_entries_the_first_is_the_larger():
    same = np.zeros((4, 4))
    assert [top_k_accuracy(k)(same, np.arange(4)) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1]
    odd = np.array([[1, NAN, 2], [INF, 5, 6], [-INF, -INF, -INF], [NAN, NAN, 0]])
    for target in np.ndindex(3, 3, 3, 3):
        assert top_k_accuracy(1)(odd, np.array(target)) == accuracy(odd, np.array(target))


def test_where_targets_are_probabilities_the_largest_counts():
    output = np.array([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1]])
    target = np.array([[0.2, 0.7, 0.1], [0.2, 0.4, 0.4]])
    assert accuracy(output, target) == 0.5
    assert [top_k_accuracy(k)(output, target) for k in (1, 2)] == [0.5, 1]


def test_metrics_go_into_evaluate():
    minidl.manual_seed(0)
    x, y = np.random.default_rng(0).normal(size=(20, 4)).astype("f"), np.arange(20) % 6
    model = nn.Linear(4, 6)
    batches = [(x[:16], y[:16]), (x[16:], y[16:])]
    found = evaluate(model, batches, metrics=["accuracy", "top_5_accuracy", top_k_accuracy(2)])
    assert list(found) == ["loss", "accuracy", "top_5_accuracy", "top_2_accuracy"]
    order = np.argsort(-model(minidl.Tensor(x)).numpy_view(), axis=1)
    for name, k in (("accuracy", 1), ("top_2_accuracy", 2), ("top_5_accuracy", 5)):
        share = np.mean([label in row[:k] for label, row in zip(y, order, strict=True)])
        assert found[name] == pytest.approx(share)


def test_confusion_matrix():
    output = np.eye(3)[[0, 1, 1, 2, 0]]
    target = np.array([0, 1, 0, 1, 0])
    counts = confusion_matrix(output, target)
    assert counts.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert np.issubdtype(counts.dtype, np.integer)
    shares = confusion_matrix(output, target, normalize="true")
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3, 0], [0, 0.5, 0.5], [0, 0, 0]])
    shares = confusion_matrix(output, target, normalize="pred")
    np.testing.assert_allclose(shares, [[1, 0.5, 0], [0, 0.5, 1], [0, 0, 0]])
    shares = confusion_matrix(output, target, normalize="all")
    np.testing.assert_allclose(shares, [[0.4, 0.2, 0], [0, 0.2, 0.2], [0, 0, 0]])
    assert confusion_matrix(np.empty((0, 2)), np.empty(0, int)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    "target, options, words",
    [
        ([0, 3], {}, "must name one of 3 classes"),
        ([-1, 0], {}, "must name one of 3 classes"),
        ([0], {}, r"for each row \(output \(2, 3\), target \(1,\)\)"),
        ([0, 1], {"normalize": "rows"}, "unknown normalize 'rows'"),
    ],
)
def test_bad_input_is_refused(target, options, words):
    with pytest.raises(ValueError, match=words):
        confusion_matrix(np.zeros((2, 3)), np.array(target), **options)


def test_the_picture_of_a_confusion_matrix_has_every_count():
    pytest.importorskip("matplotlib")
    figure = plot.confusion(np.array([[5, 1], [0, 1200]]), ["cat", "dog"], title="animals")
    (axes,) = figure.axes
    assert {t.get_text() for t in axes.texts} == {"5", "1", "1,200"}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat", "dog"]
    assert plot.png(figure)[:4] == b"\x89PNG"
    shares = plot.confusion(np.array([[0.25, 0.75], [1.0, 0.0]])).axes[0]
    assert {t.get_text() for t in shares.texts} == {"0.25", "0.75", "1.00"}


def test_a_report_of_each_class():
    target = np.array([0, 1, 2, 2, 0, 2])
    said = np.eye(4)[[0, 0, 2, 1, 0, 2]]
    found = metrics.report(said, target, ("cat", "dog", "owl", "yak"))
    # scikit-learn 1.7's classification_report(..., labels=[0, 1, 2, 3], zero_division=0)
    rows = {
        "cat": (2 / 3, 1, 0.8, 2), "dog": (0, 0, 0, 1), "owl": (1, 2 / 3, 0.8, 3),
        "yak": (0, 0, 0, 0), "macro avg": (5 / 12, 5 / 12, 0.4, 6),
        "weighted avg": (13 / 18, 2 / 3, 2 / 3, 6),
    }  # fmt: skip
    assert list(found) == list(rows)
    for name, row in rows.items():
        assert found[name] == pytest.approx(row)
    assert found.accuracy == pytest.approx(4 / 6)
    np.testing.assert_array_equal(found.matrix, confusion_matrix(said, target))
    assert str(found) == (
        "              precision     recall         f1    support\n"
        "\n"
        "         cat     0.6667     1.0000     0.8000          2\n"
        "         dog     0.0000     0.0000     0.0000          1\n"
        "         owl     1.0000     0.6667     0.8000          3\n"
        "         yak     0.0000     0.0000     0.0000          0\n"
        "\n"
        "    accuracy                           0.6667          6\n"
        "   macro avg     0.4167     0.4167     0.4000          6\n"
        "weighted avg     0.7222     0.6667     0.6667          6"
    )
    assert list(metrics.report(said, target))[:2] == ["0", "1"]
    with pytest.raises(ValueError, match="3 names of classes, but output has 4 classes"):
        metrics.report(said, target, ("a", "b", "c"))
