"""S0's recommender: what examples/movielens.py is made of, and what it reaches on real ratings."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import data, nn

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def movielens():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("movielens", ROOT / "examples" / "movielens.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ratings(table, kept):
    users, items = np.nonzero(kept)
    stars = table[users, items].astype(np.float32)
    return data.Ratings(users, items, stars, 0 * users, np.arange(table.shape[1]), len(table), ())


def test_row_10_a_matrix_of_low_rank_is_recovered(movielens):
    """Half of the entries of a rank-2 matrix (and biases) give the other half."""
    rng = np.random.default_rng(0)
    p, q = rng.normal(0, 0.4, (40, 2)), rng.normal(0, 0.4, (30, 2))
    table = 2.5 + rng.normal(0, 0.3, (40, 1)) + rng.normal(0, 0.3, 30) + p @ q.T
    assert table.min() > 0.5 and table.max() < 5
    seen = rng.random(table.shape) < 0.5
    minidl.manual_seed(0)
    settings = {"rank": 2, "decay": 0.0, "decay_bias": 0.0, "lr": 0.05, "epochs": 60}
    predict = movielens.learn_stars(ratings(table, seen), **settings)
    hidden = ratings(table, ~seen)
    assert movielens.rmse(predict(hidden), hidden.ratings) < 1e-3 * hidden.ratings.std()


def test_row_10_scores_and_their_price(movielens):
    minidl.manual_seed(1)
    model = movielens.Factors(4, 5, rank=3, decay=0.5, decay_bias=0.25)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    users, items = np.array([0, 3, 3]), np.array([4, 4, 0])
    score, price = (t.detach() for t in model(minidl.tensor(users), minidl.tensor(items)))
    p, q, b, c = (
        table.weight.detach().numpy()
        for table in (model.user, model.item, model.user_bias, model.item_bias)
    )
    wanted = [p[u] @ q[i] + b[u, 0] + c[i, 0] for u, i in zip(users, items, strict=True)]
    np.testing.assert_allclose(score.numpy(), wanted, rtol=1e-5)
    each = [
        0.5 * ((p[u] ** 2).sum() + (q[i] ** 2).sum()) + 0.25 * (b[u, 0] ** 2 + c[i, 0] ** 2)
        for u, i in zip(users, items, strict=True)
    ]
    assert price.item() == pytest.approx(np.mean(each), rel=1e-5)
    shown = movielens.scores(model)
    assert shown[3, 4] - shown[3, 0] == pytest.approx(score.numpy()[1] - score.numpy()[2], rel=1e-4)
    other = movielens.NeuMF(4, 5, rank=3, decay=0.0, decay_bias=0.0)
    value, _ = other(minidl.tensor(users), minidl.tensor(items))
    value.sum().backward()
    assert value.shape == (3,) and all(p.grad is not None for p in other.parameters())


def test_row_10_bpr_is_what_the_paper_says(movielens):
    better, worse = np.array([2.0, -1.0, 0.0]), np.array([1.0, 1.0, 0.0])
    found = movielens.bpr(minidl.tensor(better), minidl.tensor(worse))
    wanted = np.mean([-math.log(1 / (1 + math.exp(-(a - b)))) for a, b in zip(better, worse)])
    assert found.item() == pytest.approx(wanted, rel=1e-12)


def test_row_10_bpr_learns_what_each_group_likes(movielens):
    """Two groups of people, each with films of its own: what they have not rated is told apart."""
    rng = np.random.default_rng(0)
    stars = np.where((np.arange(40)[:, None] < 20) == (np.arange(30) < 15), 5.0, 1.0)
    seen = rng.random(stars.shape) < 0.5
    minidl.manual_seed(0)
    settings = {"rank": 4, "decay": 0.01, "decay_bias": 0.0, "lr": 0.05, "epochs": 20}
    model = movielens.learn_lists(ratings(stars, seen), seed=0, **settings)
    score = movielens.scores(model)
    score[seen] = -np.inf
    found = minidl.metrics.ndcg_at_k(3)(score, (stars == 5.0) & ~seen)
    assert found > 0.95


def test_row_10_folds_hold_every_rating_once(movielens):
    whole = ratings(np.full((7, 9), 3.0), np.ones((7, 9), bool))
    found = movielens.folds(whole, 5, seed=3)
    cells = [set(zip(t.users.tolist(), t.items.tolist())) for _, t in found]
    assert len(found) == 5 and sum(map(len, cells)) == 63 == len(set.union(*cells))
    for (train, test), mine in zip(found, cells, strict=True):
        assert len(train) + len(test) == 63
        assert not mine & set(zip(train.users.tolist(), train.items.tolist()))


@pytest.mark.download
@pytest.mark.parametrize("name", ["factors", "neumf"])
def test_row_10_stars_of_real_ratings(movielens, name):
    """The first of the five folds; all of them: python examples/movielens.py."""
    train, test = movielens.folds(data.movielens(), 5, seed=0)[0]
    kind, settings = movielens.MODELS[name]
    minidl.manual_seed(0)
    guess = movielens.learn_stars(train, kind, **settings)(test)
    assert movielens.rmse(guess, test.ratings) < 0.875


@pytest.mark.download
def test_row_10_the_example_runs(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "movielens.py"), "--quick", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["stars"]["mean"] < 0.95
    lists = found["lists"]
    assert lists["BPR"]["ndcg_at_10"] > 0.05  # by chance it is a tenth of that
    assert lists["most popular"]["recall_at_10"] > 0.05
