"""Searches: seeded, written down trial by trial, resumed where they stopped."""

import json
import math

import numpy as np
import pytest

import minidl
from minidl import tune

SPACE = {"x": tune.uniform(-1, 2), "lr": tune.log_uniform(1e-4, 1e-1), "n": tune.integers(1, 3),
         "kind": ["a", "b"]}  # fmt: skip


def bowl(x, lr, n, kind):
    return (x - 1) ** 2 + math.log10(lr / 1e-2) ** 2 + n + (kind == "b")


def test_a_grid_is_every_combination_in_order():
    seen = []
    space = {"a": [1, 2], "b": (10.0, 20.0, 30.0)}
    found = tune.grid_search(lambda a, b: seen.append((a, b)) or a * b, space, mode="max")
    assert seen == [(1, 10.0), (1, 20.0), (1, 30.0), (2, 10.0), (2, 20.0), (2, 30.0)]
    assert found.best.params == {"a": 2, "b": 30.0} and found.best.value == 60
    assert [t.value for t in found.ranked] == sorted([a * b for a, b in seen], reverse=True)


def test_random_draws_fill_their_ranges_and_follow_the_seed():
    found = tune.random_search(bowl, SPACE, 400, seed=7)
    drawn = {name: [t.params[name] for t in found.trials] for name in SPACE}
    assert -1 <= min(drawn["x"]) < -0.9 and 1.9 < max(drawn["x"]) <= 2
    assert abs(np.mean(drawn["x"]) - 0.5) < 0.15
    logs = np.log10(drawn["lr"])
    assert -4 <= logs.min() < -3.9 and -1.1 < logs.max() <= -1 and abs(logs.mean() + 2.5) < 0.15
    assert set(drawn["n"]) == {1, 2, 3} and set(drawn["kind"]) == {"a", "b"}
    assert min(map(drawn["n"].count, (1, 2, 3))) > 90 and drawn["kind"].count("a") > 150
    assert found.best.value == min(t.value for t in found.trials)
    again = tune.random_search(bowl, SPACE, 5, seed=7)
    assert [t.params for t in again.trials] == [t.params for t in found.trials[:5]]
    other = tune.random_search(bowl, SPACE, 5, seed=8)
    assert [t.params for t in other.trials] != [t.params for t in again.trials]


def test_each_trial_begins_with_the_same_random_numbers():
    drawn = tune.random_search(lambda x: minidl.rand(1).item(), {"x": [0, 1]}, 3, seed=2).trials
    assert len({t.value for t in drawn}) == 1
    minidl.manual_seed(2)
    assert drawn[0].value == minidl.rand(1).item()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("torn", ["", '{"number": 3, "par'])
def test_a_search_goes_on_where_it_stopped(tmp_path, torn):
    path, calls = tmp_path / "runs" / "search.jsonl", []

    def function(stop, **params):
        if len(calls) == stop:
            raise Stopped
        calls.append(params)
        return bowl(**params)

    with pytest.raises(Stopped):
        tune.random_search(lambda **p: function(3, **p), SPACE, 6, path=path)
    with path.open("a") as file:
        file.write(torn)
    found = tune.random_search(lambda **p: function(99, **p), SPACE, 6, path=path)
    plain = tune.random_search(bowl, SPACE, 6)
    assert [t.params for t in found.trials] == [t.params for t in plain.trials] == calls
    assert [t.value for t in found.trials] == [t.value for t in plain.trials]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("number") for line in lines] == [None, 0, 1, 2, 3, 4, 5]
    more = tune.random_search(lambda **p: function(99, **p), SPACE, 8, path=path)
    assert len(calls) == 8 and len(more.trials) == 8
    fewer = tune.random_search(lambda **p: function(0, **p), SPACE, 2, path=path)
    assert fewer.trials == found.trials[:2]


def test_a_loss_that_is_not_finite_ranks_last(tmp_path):
    def function(x):
        if x == 1:
            raise FloatingPointError("the loss is nan")
        return [math.inf, 0, 3.0, math.nan][x]

    path = tmp_path / "t.jsonl"
    for _ in range(2):  # the second time all is read from the file
        found = tune.grid_search(function, {"x": [0, 1, 2, 3]}, path=path)
        assert [t.params["x"] for t in found.ranked] == [2, 0, 1, 3]
        assert found.trials[1].error == "FloatingPointError: the loss is nan"
    json.loads(path.read_text().splitlines()[1])  # inf too is proper JSON
    with pytest.raises(RuntimeError, match=r"no trial has a value; .*the loss is nan"):
        _ = tune.grid_search(function, {"x": [1]}).best


def test_a_file_of_another_search_is_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    tune.grid_search(lambda x: x, {"x": [1, 2]}, path=path)
    for space, options in (({"x": [1, 3]}, {}), ({"x": [1, 2]}, {"mode": "max"}),
                           ({"x": [1, 2]}, {"seed": 1})):  # fmt: skip
        with pytest.raises(ValueError, match="holds another search"):
            tune.grid_search(lambda x: x, space, path=path, **options)
    path.write_text("hello\n")
    with pytest.raises(ValueError, match="is not the log of a search"):
        tune.grid_search(lambda x: x, {"x": [1, 2]}, path=path)
    assert path.read_text() == "hello\n"


@pytest.mark.parametrize(
    "space, error, message",
    [
        ({}, ValueError, "the space is empty"),
        ({"x": "adam"}, TypeError, "x is 'adam'; give a list"),
        ({"x": []}, TypeError, r"x is \[\]"),
        ({"x": 3}, TypeError, "x is 3; give a list"),
        ({"x": tune.uniform(2, 1)}, ValueError, "low < high"),
        ({"x": tune.log_uniform(0, 1)}, ValueError, "above 0 for logs"),
        ({"x": [print]}, TypeError, "values are numbers, texts"),
    ],
)
def test_spaces_that_mean_nothing_are_refused(space, error, message):
    with pytest.raises(error, match=message):
        tune.random_search(lambda x: x, space, 2)


def test_arguments_that_mean_nothing_are_refused():
    with pytest.raises(TypeError, match="no end of values; give a list"):
        tune.grid_search(lambda x: x, {"x": tune.uniform(0, 1)})
    with pytest.raises(ValueError, match="did you mean 'max'"):
        tune.grid_search(lambda x: x, {"x": [1]}, mode="maximum")
    with pytest.raises(ValueError, match="trials is 0"):
        tune.random_search(lambda x: x, {"x": [1]}, 0)
    with pytest.raises(ValueError, match="seed is -1"):
        tune.random_search(lambda x: x, {"x": [1]}, 1, seed=-1)


def test_a_search_prints_as_a_table():
    found = tune.grid_search(
        lambda lr, kind: lr * len(kind), {"lr": [0.5, 2.0], "kind": ["a", "bc"]}
    )
    lines = str(found).splitlines()
    assert lines[0].split() == ["trial", "value", "seconds", "lr", "kind"]
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2", "3"]
    assert lines[2].split()[1::2] == ["1", "0.5"] and lines[-1].split()[-1] == "bc"
