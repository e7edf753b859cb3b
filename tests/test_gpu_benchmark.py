"""The GPU benchmark, as far as it goes without a GPU: its arithmetic, arguments and tables."""

import json
import math
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    pytest.skip("the CUDA emulator runs on Linux x86-64 only", allow_module_level=True)
from benchmarks import bounds
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import agreement, kernels, measure, processes, steps
from benchmarks.networks import RECIPES
from minidl import backend
from minidl.kernels.cases import CASES, DEFINITION
from minidl.kernels.cuda import _numba
from minidl.kernels.roles import roles

pytestmark = pytest.mark.emulator
ROOT = Path(__file__).parents[1]
TINY = kernels.Sizes(batch=2, side=4, channels=3, matrix=5, rows=6)


def host(kernel):
    """A kernel's arguments in NumPy, small."""

    def floats(shape):
        return np.full(shape, 0.5, np.float32)

    return kernels.arguments(kernel, TINY, floats, kernels.host_integers, np.array)


@pytest.mark.parametrize("kernel", DEFINITION)
def test_arguments_fit_the_definition(kernel):
    args = host(kernel)
    assert [*args] == [*roles(DEFINITION[kernel])]
    with np.errstate(all="ignore"):
        DEFINITION[kernel](*args.values())


def test_units_in_the_last_place():
    one = np.ones(3, np.float32)
    assert measure.ulps(one, one) == 0
    assert measure.ulps(one, np.nextafter(one, np.float32(2))) == 1
    assert measure.ulps(np.array([0.0, 1]), np.array([-0.0, 1])) == 0
    tiny = np.nextafter(np.float32(0), np.float32(1))
    assert measure.ulps(np.array([tiny]), np.array([-tiny])) == 2
    assert measure.ulps(np.array([-1.0]), np.array([1.0])) == 2 * (1023 << 52)
    nan = np.array([np.nan, 1.0])
    assert measure.ulps(nan, nan) == 0
    assert measure.ulps(nan, np.array([1.0, 1.0])) == math.inf
    assert measure.ulps(np.array([1, 2]), np.array([1, 2])) == 0
    assert measure.ulps(np.array([1, 2]), np.array([1, 3])) == math.inf
    assert measure.ulps(np.zeros(0), np.zeros(0)) == 0


def test_bytes_and_operations():
    x, flat = np.zeros((2, 3), "f4"), np.zeros(6, "f4")
    assert bounds.traffic("relu", {"x": x, "y": x}) == 48
    args = host("sgd_step_") | {"dp": flat, "p": flat, "v": flat}
    args |= {"lr": np.zeros(1, "f4"), "momentum": np.zeros(1, "f4")}
    assert bounds.traffic("sgd_step_", args) == 24 + 4 + 4 + 2 * 48  # p and v both ways
    a, b, y = np.zeros((2, 3), "f4"), np.zeros((3, 5), "f4"), np.zeros((2, 5), "f4")
    assert bounds.operations("matmul", {"a": a, "b": b, "y": y}) == 2 * 2 * 3 * 5
    assert bounds.operations("conv2d", host("conv2d")) == 2 * (2 * 4 * 4 * 3) * (3 * 3 * 3)
    assert bounds.operations("conv2d_grad_w", host("conv2d_grad_w")) == 2 * 96 * 27
    assert bounds.operations("relu", {"x": x, "y": x}) == 0


def test_the_bound_is_the_slower_of_moving_and_computing():
    args = {n: np.zeros((100, 100), "f4") for n in "aby"}
    assert bounds.bound("matmul", args, bandwidth=120e3, rate=1e12) == pytest.approx(1000)
    assert bounds.bound("matmul", args, bandwidth=1e12, rate=2e6) == pytest.approx(1000)


def test_milliseconds_of_one_call():
    rounds = []

    def elapsed(run, n):
        rounds.append(n)
        return 0.5 * n

    assert measure.milliseconds(lambda: None, elapsed) == 0.5
    assert rounds == [2, 1] + [10] * measure.ROUNDS  # 5 ms a round


def test_a_row_for_every_kernel(monkeypatch):
    monkeypatch.setattr(kernels, "Sizes", lambda: TINY)
    monkeypatch.setattr(kernels, "torch_ops", dict)
    monkeypatch.setattr(measure, "ours", lambda run, n: n * (run() is not None))
    with _numba.recording() as launches:
        rows = list(kernels.table(1e9, 1e9, time.monotonic() + 600))
    assert [row for row in rows if "error" in row] == []
    limits, *rows = rows
    assert (limits["GB/s"], limits["teraflops"]) == (1, 1e-3)
    assert [row["kernel"] for row in rows] == [*DEFINITION]
    assert all(row["ms"] == 1 and row["of_bound"] == row["bound_ms"] for row in rows)
    assert len(launches) > len(rows)
    late = list(kernels.table(1e9, 1e9, time.monotonic() - 1))
    assert len(late) == 2 and "out of time" in late[1]["kernel"]


def test_a_row_for_every_step_of_the_ladder(monkeypatch):
    monkeypatch.setattr(kernels, "_product", lambda choice, tf32, *_: 1.0 if tf32 else 2.0)
    monkeypatch.setattr(measure, "ours", lambda run, n: 4.0 * n)
    rows = list(kernels.ladder_table((8,), time.monotonic() + 600))
    found = {row["step"]: row["of_cublas"] for row in rows}
    assert found["minidl"] == found["minidl TF32"] == 1
    assert found["naive"] == 0.5 and found["tensor_cores"] == 0.25
    assert rows[0]["teraflops"] == pytest.approx(2 * 8**3 / 2e-3 / 1e12)


def test_agreement_of_the_emulator_with_itself(monkeypatch):
    some = {name: CASES[name] for name in ("relu", "max", "sum_rows")}
    monkeypatch.setattr(agreement, "CASES", some)
    rows = list(agreement.cases(time.monotonic() + 600, seeds=1))
    assert {row["kernel"] for row in rows} >= {*some, "relu_grad", "max_grad"}
    assert all(row["ulps"] == 0 and not row["error"] and row["calls"] for row in rows)
    (late,) = agreement.cases(time.monotonic() - 1)
    assert "out of time" in late["kernel"]


def test_a_kernel_that_disagrees_is_seen(monkeypatch):
    monkeypatch.setattr(agreement, "CASES", {"relu": CASES["relu"]})
    real, calls = agreement.results, iter(range(1000))

    def wrong(call):
        return {name: y + (next(calls) % 2 and y.size) for name, y in real(call).items()}

    monkeypatch.setattr(agreement, "results", wrong)
    assert any(row["ulps"] > 0 for row in agreement.cases(time.monotonic() + 600, seeds=1))
    monkeypatch.setattr(agreement, "results", lambda call: 1 / 0)
    rows = list(agreement.cases(time.monotonic() + 600, seeds=1))
    assert {row["error"] for row in rows} == {"ZeroDivisionError: division by zero"}


def test_a_training_step_of_ours(monkeypatch):
    monkeypatch.setenv("MINIDL_CUDA", "emulate")
    monkeypatch.setattr(backend, "_CUDA", backend.Cuda("cuda"))
    recipe = RECIPES["S4"]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, *recipe.image), dtype=np.float32)
    step = steps.our_step(recipe, recipe.model().to("cuda"), x, rng.integers(0, 10, 4))
    assert step() > step()


def test_without_a_gpu_it_says_so_in_one_line():
    run = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("benchmarks.gpu needs an NVIDIA GPU: ")


ODD_PART = """
import sys, time
print('{"n": 1}', flush=True)
print("a warning of some library", flush=True)
what = sys.argv[-2]
if what == "fails": raise ValueError("the context is gone")
if what == "hangs":
    print('{"n": 2', end="", flush=True)
    time.sleep(60)
print('{"n": 2}')
"""


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("works", [{"n": 1}, {"n": 2}]),
        ("fails", [{"n": 1}, {"error": "exit status 1: ValueError: the context is gone"}]),
        ("hangs", [{"n": 1}, {"error": "out of time, and ended"}]),
    ],
)
def test_a_part_that_fails_keeps_its_rows(monkeypatch, name, rows):
    def odd(line, seconds):
        return processes.finish([sys.executable, "-c", ODD_PART, *line[-2:]], seconds)

    monkeypatch.setattr(command, "finish", odd)
    monkeypatch.setattr(command, "GRACE", 0)
    assert command.rows_of(name, 3 if name == "hangs" else 60) == rows


def test_what_is_known_is_saved_after_each_part(monkeypatch, tmp_path):
    file = tmp_path / "gpu.json"
    found = []

    def rows_of(name, seconds):
        found.append(json.loads(file.read_text()) if file.exists() else {})
        return [{"kernel": name, "error": "x" * (name == "ladder")}]

    monkeypatch.setattr(command, "environment", lambda: {"gpu": "none"})
    monkeypatch.setattr(command, "rows_of", rows_of)
    assert command.tables(["kernels", "overhead"], str(file)) == 0
    assert command.tables(["ladder", "overhead"], str(file)) == 1
    assert [{*each} for each in found[:2]] == [set(), {"gpu", "seconds", "kernels"}]
    assert json.loads(file.read_text())["ladder"] == [{"kernel": "ladder", "error": "x"}]


def test_an_unknown_part_is_named(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "kernels,laddr"])
    assert "no part laddr; known: agreement, sanitizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "row"),
    [
        ("echo ===== COMPUTE-SANITIZER; exit 0", {"result": "clean"}),
        ("echo ===== x; echo ===== 2 errors; exit 9", {"error": "exit status 9: ===== 2 errors"}),
        ("echo ===== x; sleep 60", {"result": "nothing found in 1 s, not finished"}),
        ("echo no such device >&2; exit 3", {"error": "exit status 3: no such device"}),
    ],
)
def test_what_the_sanitizer_says(monkeypatch, tmp_path, script, row):
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    seconds = 2 if "sleep" in script else 120  # on any machine enough for those that end
    rows = list(agreement.sanitized(time.monotonic() + seconds))
    assert [r["tool"] for r in rows] == ["memcheck", "racecheck"]
    assert row.items() <= rows[0].items()


def test_no_sanitizer(monkeypatch):
    monkeypatch.setattr(agreement.shutil, "which", lambda *_, **__: None)
    assert list(agreement.sanitized(0)) == [
        {"tool": "compute-sanitizer", "result": "not installed"}
    ]


def test_parts_and_their_limits():
    assert max(command.PARTS.values()) + command.GRACE + processes.LAST_WORDS < 8 * 60
    assert [*command.PARTS.values()] == sorted(command.PARTS.values())
