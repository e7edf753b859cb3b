"""The CTC loss against all paths, one by one, and against numbers of PyTorch."""

import itertools
import math

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn, optim
from minidl.nn import functional as F


def spelled(path, blank):
    """What a path says: repetitions dropped first, then blanks."""
    return [c for c, _ in itertools.groupby(path) if c != blank]


def by_all_paths(x, target, blank):
    """-log of the sum over all paths that spell the target, and its slope: x (T, C)."""
    total, through = 0.0, np.zeros(x.shape)
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        if spelled(path, blank) == list(target):
            p = math.exp(sum(x[t, c] for t, c in enumerate(path)))
            total += p
            through[np.arange(len(x)), list(path)] += p
    with np.errstate(all="ignore"):
        return -np.log(total), -through / total


TARGETS = [[], [1], [0], [1, 1], [0, 1], [1, 0, 1], [0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_loss_and_its_gradient_are_those_of_all_paths(steps, blank):
    labels = [[c + (c >= blank) for c in target] for target in TARGETS]
    n, longest = len(labels), 3
    x = np.random.default_rng(steps).normal(size=(6, n, 3))
    target = np.full((n, longest), 99)  # what stands behind a target is not read
    for row, each in zip(target, labels, strict=True):
        row[: len(each)] = each
    wanted = [by_all_paths(x[:steps, i], each, blank) for i, each in enumerate(labels)]
    log_probs = Tensor(x, requires_grad=True)
    lengths = [steps] * n, [len(each) for each in labels]
    loss = F.ctc_loss(log_probs, target, *lengths, blank, "none")
    want = np.array([found for found, _ in wanted])
    np.testing.assert_allclose(loss.detach(), want, rtol=1e-12)
    fits = [len(t) + sum(a == b for a, b in itertools.pairwise(t)) <= steps for t in labels]
    np.testing.assert_array_equal(np.isfinite(want), fits)
    loss = F.ctc_loss(log_probs, target, *lengths, blank, "sum", zero_infinity=True)
    loss.backward()
    assert loss.item() == pytest.approx(want[fits].sum())
    for i, (_, slope) in enumerate(wanted):
        mine = log_probs.grad.numpy()[:, i]
        np.testing.assert_allclose(mine[:steps], slope if fits[i] else 0, atol=1e-12)
        assert not mine[steps:].any()


# PyTorch 2.13: F.ctc_loss(x.log_softmax(-1), ..., zero_infinity=True), and x.grad
X = np.sin(np.arange(60)).reshape(5, 4, 3)
GIVEN = np.array([[1, 1, 2], [2, 1, 0], [0, 0, 0], [1, 1, 1]]), [5, 4, 3, 4], [3, 2, 0, 3]
LOSSES = [4.501319650536188, 1.91678897811285, 6.13814958853937, 0.0]
MEAN, SLOPE = 2.1492459902769645, [0.008960353508825639, -0.04461509943213629, 0.03565474592331065]


def test_pytorch_gives_the_same_numbers():
    x = Tensor(X, requires_grad=True)
    each = nn.CTCLoss(reduction="none", zero_infinity=True)(F.log_softmax(x), *GIVEN)
    np.testing.assert_allclose(each.detach(), LOSSES, rtol=1e-14)
    loss = nn.CTCLoss(zero_infinity=True)(F.log_softmax(x), *GIVEN)
    loss.backward()
    assert loss.item() == pytest.approx(MEAN, rel=1e-14)
    np.testing.assert_allclose(x.grad.numpy()[0, 0], SLOPE, rtol=1e-12)
    assert abs(x.grad.numpy()).sum() == pytest.approx(1.9715450982603335, rel=1e-12)


def test_an_impossible_target_costs_inf_and_has_no_gradient_to_give():
    x = Tensor(X, requires_grad=True)
    loss = F.ctc_loss(F.log_softmax(x), *GIVEN, reduction="sum")
    loss.backward()
    assert loss.item() == math.inf
    wrong = np.isnan(x.grad.numpy()).any(axis=2)
    np.testing.assert_array_equal(wrong[:, 3], [True] * 4 + [False])
    assert not wrong[:, :3].any()


def test_labels_may_stand_one_behind_the_other():
    x, flat = F.log_softmax(Tensor(X)), [1, 1, 2, 2, 1, 1, 1, 1]
    loss = F.ctc_loss(x, flat, *GIVEN[1:], zero_infinity=True)
    assert loss.item() == pytest.approx(MEAN, rel=1e-14)
    with pytest.raises(ValueError, match="7 labels, but target_lengths add up to 8"):
        F.ctc_loss(x, flat[:-1], *GIVEN[1:])


def test_a_captured_step_learns_to_spell():
    minidl.manual_seed(0)
    x, target = minidl.rand(2, 8, 4), minidl.tensor([[1, 2, 2], [3, 1, 0]])
    steps, labels = minidl.tensor([8, 7]), minidl.tensor([3, 2])
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = optim.Adam(model.parameters(), lr=0.02)

    @minidl.capture
    def learn(x, target, steps, labels):
        optimizer.zero_grad()
        log_probs = F.log_softmax(model(x), -1).permute(1, 0, 2)
        loss = F.ctc_loss(log_probs, target, steps, labels)
        loss.backward()
        optimizer.step()
        return loss

    losses = [learn(x, target, steps, labels).item() for _ in range(150)]
    assert learn.program is not None
    assert losses[-1] < 0.1 < 1 < losses[0]
    best = model(x).detach().numpy().argmax(-1)
    assert [spelled(row[:n], 0) for row, n in zip(best.tolist(), (8, 7), strict=True)] == [
        [1, 2, 2],
        [3, 1],
    ]
    with pytest.raises(IndexError, match="input_length 9 is out of range"):
        learn(x, target, minidl.tensor([8, 9]), labels)
