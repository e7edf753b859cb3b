"""The CPU benchmarks, as far as it goes without their opponents: their arithmetic and processes."""

import json
import math
import os
import sys

import numpy as np
import pytest

import minidl
from benchmarks import bounds, data, overhead, report, train_step, turns
from benchmarks.networks import CASES, describe, flat, operations, step_operations
from benchmarks.workers import task
from minidl import models, nn
from minidl.kernels import reference
from minidl.kernels.roles import roles

REFERENCE = os.environ.get("MINIDL_CPU") == "reference"


@pytest.mark.parametrize(
    ("name", "parameters", "gflop"),
    [
        ("A64", 101_770, 64 * 2 * (2 * 784 * 128 + 3 * 128 * 10) / 1e9),
        ("B128", 167_562, 2.904),
        ("C128", 104_202, 5.674),
        ("D32", 15_245_130, 60.12),
        ("D32bn", 15_249_354, 60.12),
        ("E32", 823_722, 2.31),
        ("F128", 272_474, 31.23),
    ],
)
def test_the_networks(name, parameters, gflop):
    case = CASES[name]
    model = case.model()
    assert sum(p.size for p in model.parameters()) == parameters
    layers = describe(model, case.image)
    assert layers[-1]["shape"] == (10,)
    assert step_operations(layers) * case.batch / 1e9 == pytest.approx(gflop, rel=1e-3)


def test_operations_of_layers():
    model = nn.Sequential(
        nn.Conv2d(3, 4, (2, 1), stride=2, padding=((0, 2), (0, 0)), dilation=(2, 1)),
        models.BasicBlock(4, 4),
        nn.Flatten(),
        nn.Linear(48, 2),
    )
    first, block, flatten, _ = layers = describe(model, (5, 8, 3))
    assert first["shape"] == block["shape"] == flatten["of"] == (3, 4, 4)
    expected = [2 * 48 * 2 * 3, 2 * 48 * 36, 2 * 48 * 36, 2 * 48 * 2]
    assert operations(layers) == sum(expected)
    assert step_operations(layers) == 3 * sum(expected) - expected[0]


@pytest.mark.parametrize("name", ["D32bn", "E32", "F128"])
def test_shapes_are_those_that_the_network_makes(name):
    model = CASES[name].model()
    x = minidl.Tensor(np.zeros((2, 32, 32, 3), np.float32))
    for module, layer in zip(flat(model), describe(model, (32, 32, 3)), strict=True):
        x = module(x)
        assert x.shape == (2, *layer["shape"])


def test_a_layer_that_no_other_framework_is_told_of():
    with pytest.raises(TypeError, match="no description of Tanh"):
        describe(nn.Sequential(nn.Tanh()), (4,))


def test_a_task_comes_back_from_its_file(tmp_path):
    given = {"layers": [{"w": np.arange(3.0), "b": None, "of": (1, 2)}], "lr": 0.5, "name": "x"}
    task.save(tmp_path / "task.npz", given)
    found = task.load(tmp_path / "task.npz")
    assert found["layers"][0].pop("w").tolist() == [0, 1, 2]
    assert found == {"layers": [{"b": None, "of": [1, 2]}], "lr": 0.5, "name": "x"}


def test_dropout_is_left_out_at_every_depth():
    drop, relu = {"kind": "Dropout"}, {"kind": "ReLU", "shape": [2, 2]}
    block = {"kind": "Residual", "body": [relu, drop], "shortcut": []}
    expected = {"kind": "Residual", "body": [relu], "shortcut": []}
    assert task.without_dropout([drop, relu, block]) == [relu, expected]
    assert block["body"] == [relu, drop]


def test_medians_and_ratios():
    times = [
        {"eager": [1, 2, 3], "torch": [8], "torch_cl": [3], "keras": [4], "torch_fused": [1]},
        {"eager": [4], "torch": [16], "torch_cl": [6], "keras": [7], "torch_fused": [2]},
        {"eager": [1], "torch": [4], "torch_cl": [3], "keras": [2], "torch_fused": [1]},
    ]
    row = train_step.compare(times, "eager", [n for n in times[0] if n != "eager"])
    assert row["opponents"] == {"torch": 8, "torch_cl": 3, "keras": 4, "torch_fused": 1}
    assert (row["best"], row["ratio_to_best"]) == ("torch_cl", 1.5)  # of 1.5, 1.5 and 3
    assert row["ratio_to_torch"] == row["ratio_to_alike"] == 1.5
    assert row["ratio_to_fused_adam"] == 0.5
    assert row["ratio_to_bf16"] is None
    for each in times:
        each["captured"] = each["eager"]
    assert train_step.compare(times, "captured", ["torch", "keras"])["ratio_to_alike"] == 2
    assert train_step.compare(times, "captured", [])["ratio_to_best"] is None


def test_losses_that_differ_are_not_timed():
    train_step.agree(None, [1.0, 2.0, 3.0])
    train_step.agree([1.0, 2.0, 3.0], [1.000009, 2.001, 3.05])
    for wrong in ([1.00002, 2, 3], [1, 2.01, 3], [1, 2, 3.1], [math.nan, 2, 3]):
        with pytest.raises(turns.Failed, match="are not PyTorch's"):
            train_step.agree([1.0, 2.0, 3.0], wrong)


class Scripted:
    """A worker whose answers are known beforehand."""

    def __init__(self, *shares):
        self.shares = iter(shares)

    def ask(self, do, seconds):
        share = next(self.shares)
        return {"ms": [share], "others": share}


@pytest.mark.parametrize(
    ("shares", "kept"),
    [
        ((0.5, 0, 0), [0, 0]),
        ((0.5, 0.4, 0.3, 0.2, 0.6, 0.7), [0.2, 0.3]),
        ((0, 0.1), [0, 0.1]),
        ((None, None), [None, None]),
    ],
)
def test_rounds_that_others_disturbed_are_run_again(monkeypatch, shares, kept):
    monkeypatch.setattr(turns, "SETTLE", 0)
    found = turns.rounds({"eager": Scripted(*shares)}, 2, 0.1, quiet=0.1)
    assert [r.others for r in found] == kept


def test_a_worker_that_ends_says_why(monkeypatch, tmp_path):
    worker = turns.Worker(sys.executable, "in_nothing", "", [0])
    try:
        with pytest.raises(turns.Failed, match=r"benchmarks\.workers\.in_nothing is not installed"):
            worker.ask("steps", seconds=0)
        worker.process.kill()
        worker.process.wait()
        with pytest.raises(turns.Failed, match="ended with status"):
            worker.ask("steps", seconds=0)
    finally:
        worker.close()


def test_every_opponent_is_in_the_row_or_missing(monkeypatch, tmp_path, capsys):
    file = tmp_path / "rows.json"
    line = "--threads 1 --cases A64 --rounds 1 --seconds 0 --quiet -1 --opponents torch,keras,jax"
    for name in ("torch", "keras", "jax"):  # installed or not
        line += f" --{name}-python {tmp_path / 'python'}"
    train_step.main([*line.split(), "--json", str(file)])
    written = json.loads(file.read_text())
    eager, captured = written["rows"]
    assert eager["case"] == "A64" and eager["threads"] == 1 and eager["mode"] == "eager"
    assert eager["ms"] > 0 and eager["opponents"] == {} and eager["ratio_to_best"] is None
    assert eager["gflops"] / eager["sgemm_gflops"] == pytest.approx(eager["of_sgemm"])
    assert eager["disturbed"] == (eager["others"] is not None)  # it can not be below 0
    assert captured["mode"] == "captured" and (captured.keys() & {"ms", "error"})
    why = dict.fromkeys(train_step.OPPONENTS, "left out by --opponents")
    why |= dict.fromkeys(("torch_fused", "torch_cl_fused"), "not for this case")
    why |= dict.fromkeys(("torch", "keras", "jax"), "its interpreter does not start")
    assert eager["missing"] == why
    assert {"python", "numpy", "minidl"} <= written["versions"].keys() and written["cpu"]
    assert "torch is missing: " in capsys.readouterr().out


def test_where_the_time_goes(capsys):
    train_step.main(["--threads", "1", "--cases", "A64", "--profile"])
    out = capsys.readouterr().out
    assert "linear_grad_w" in out and "(Python: engine, layers, loop)" in out


def test_what_is_unknown_is_named(capsys):
    with pytest.raises(SystemExit):
        train_step.main(["--cases", "B12"])
    assert "no cases B12; known: A64, A256" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        overhead.main(["--parts", "op"])
    assert "no part op; known: ops, start" in capsys.readouterr().err


def test_overhead_has_a_row_for_each_thing(monkeypatch):
    monkeypatch.setattr(overhead, "REPEATS", 1)
    monkeypatch.setattr(overhead, "long_chain", lambda n: n)
    rows = {row["what"]: row for row in overhead.ops()}
    assert rows["minidl forward"]["us_per_op"] > rows["numpy forward"]["us_per_op"] > 0
    assert rows["chain of 1,000"]["us_per_op"] == 1000
    monkeypatch.setattr(overhead, "took", lambda code, **environment: len(environment))
    rows = {row["what"]: row["s"] for row in overhead.start()}
    assert rows["import minidl"] == 0 and rows["first step, cold"] == 1
    assert rows["first step, cold, one process"] == 2 and rows["first step, warm"] == 1


@pytest.fixture
def kernels(monkeypatch):
    """benchmarks.kernels, with batches of one image."""
    if REFERENCE:
        pytest.skip("the CPU kernels need Numba")
    from benchmarks import kernels

    monkeypatch.setattr(kernels, "BATCH", 1)
    return kernels


def test_every_cpu_kernel_has_a_row_and_a_bound(kernels):
    seen = {}
    for name, call, theirs in kernels.cases():
        kernel, args = call(kernels.Seen())
        assert name.split(",")[0].split(" ")[0] == kernel
        assert [*args] == [*roles(getattr(reference, kernel))]
        assert bounds.bound(kernel, args, 1e9, 1e9) > 0
        assert kernels.torch or theirs == []
        seen[kernel] = call
    assert {*seen} >= {*kernels.compiled()} >= {"conv2d", "adam_step_"}


def test_a_row_of_the_kernels(kernels, monkeypatch):
    monkeypatch.setattr(kernels, "best", lambda runs, rounds: [run() and 4.0 for run in runs])
    a = np.ones((2, 3), np.float32)
    case = "matmul", kernels.calling("matmul", a, a.T, np.ones((2, 2), np.float32)), [lambda: 3.0]
    monkeypatch.setattr(kernels, "PLACES", (kernels.Seen(), kernels.Seen()))
    row = kernels.row(case, bandwidth=64e3, rate=1e12, rounds=1)
    assert row["kernel"] == "matmul" and row["cpu"] == row["torch"] == 4
    assert (row["bound"], row["of bound"], row["torch/cpu"]) == (1, 0.25, 1)


def test_what_kernels_have_to_do():
    x, flat = np.zeros((2, 3), "f4"), np.zeros(6, "f4")
    assert bounds.traffic("relu", {"x": x, "y": x}) == 48
    images = {n: np.zeros((2, 4, 4, 3), "f4") for n in ("x", "dy", "dx", "y")}
    w = {n: np.zeros((3, 3, 3, 5), "f4") for n in ("w", "dw")} | {"b": None}
    assert bounds.operations("conv2d", images | w | {"y": np.zeros((2, 2, 2, 5))}) == 80 * 27
    assert bounds.operations("conv2d_grad_w", images | w) == 2 * 96 * 27
    deep = {n: np.zeros((3, 3, 3, 1), "f4") for n in ("w", "dw")} | {"b": None}
    assert bounds.operations("depthwise_conv2d_grad_w", images | deep) == 2 * 96 * 9
    assert bounds.operations("matmul", {"a": x, "b": x.T, "y": x[:, :2]}) == 2 * 12
    assert bounds.operations("relu", {"x": flat, "y": flat}) == 0
    args = {"a": x, "b": x.T, "y": x[:, :2]}  # 64 bytes, 24 operations
    assert bounds.bound("matmul", args, bandwidth=64e3, rate=1e12) == pytest.approx(1)
    assert bounds.bound("matmul", args, bandwidth=1e12, rate=24) == pytest.approx(1000)


def test_a_table_and_its_json(tmp_path, capsys):
    report.show([{"a": 1.23456, "b": "x"}, {"b": "yy"}], str(tmp_path / "t.json"))
    assert capsys.readouterr().out.splitlines() == ["a      b", "1.235  x", "       yy"]
    report.save(str(tmp_path / "t.json"), [{"a": 1}], {"versions": {"torch": "9"}})
    written = json.loads((tmp_path / "t.json").read_text())
    assert written["versions"]["torch"] == "9" and written["versions"]["numpy"] == np.__version__


@pytest.mark.numba
def test_feeding_a_step_has_a_row_for_each_way(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(data, "STEPS", 1)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *of: None, raising=False)
    monkeypatch.setattr(data, "trained", lambda: lambda x, y: x.numpy().sum())
    threads = minidl.get_num_threads()
    data.main(["--threads", str(threads), "--rounds", "2", "--json", str(tmp_path / "found.json")])
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    ways = {(row["batches"], row["workers"]) for row in rows}
    assert ways == {("one", ""), *((name, n) for name in data.TRANSFORMS for n in (0, 1))}
    assert all(row["cpu"] > 0 for row in rows[1:])
    assert "crop + flip" in capsys.readouterr().out
