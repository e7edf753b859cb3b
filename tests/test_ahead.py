"""Compiling: helpers that compile ahead, what follows by name, claims, and processes that die."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minidl.kernels import ahead, disk, reference
from minidl.kernels.roles import roles

STEP = """
import os, signal, sys
import numpy as np
from minidl.kernels import ahead, cpu, disk
{before}
x, w = np.ones((4, 9, 9, 8), np.float32), np.ones((3, 3, 8, 16), np.float32)
how = (1, 1), ((0, 0), (0, 0)), (1, 1), 1
y = cpu.conv2d(x, w, np.ones(16, np.float32), np.empty((4, 7, 7, 16), np.float32), *how, True)
spell = ahead._spell
helpers = [helper.process.pid for helper in spell.helpers or ()] if spell else []
{after}
dx = cpu.conv2d_grad_x(y, w, np.empty_like(x), *how, False)
dw = cpu.conv2d_grad_w(y, x, np.empty_like(w), *how, False)
print(float(y.sum()), float(dx.sum()), float(dw.sum()), len(helpers), *helpers)
"""
RESULT = ["228928.0", "16482816.0", "16482816.0"]  # each y is 73
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and locks of POSIX")


def step(folder, before="", after="", **environment):
    """A process that compiles a convolution and its gradients: its result, and its helpers."""
    environment = {"MINIDL_CACHE": str(folder), "MINIDL_COMPILERS": "3"} | environment
    done = subprocess.run(
        [sys.executable, "-c", STEP.format(before=before, after=after)],
        env=os.environ | environment, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    *result, count = done.stdout.split()[:4]
    return result, [int(pid) for pid in done.stdout.split()[4:]], int(count), done.stderr


def gone(pid):
    """Whether a process is not there any more, within some seconds."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


# --- what follows


GRADIENTS = [
    (name, gradient)
    for name in vars(reference)
    for gradient in vars(reference)
    if gradient.startswith(f"{name}_grad")
]


def test_there_are_gradients_to_follow():
    assert len(GRADIENTS) > 60
    assert ("conv2d", "conv2d_grad_w") in GRADIENTS


@pytest.mark.parametrize("name, gradient", GRADIENTS)
def test_every_gradient_follows_from_its_op_by_names(name, gradient):
    given = {p: np.ones((2, 3), "f") for p in roles(getattr(reference, name))}
    kernel = getattr(reference, gradient)
    assert len(ahead.arguments_of(kernel, given)) == len(roles(kernel))


def test_what_lacks_an_argument_does_not_follow():
    assert ahead.arguments_of(reference.relu_grad, {"p": np.ones(3)}) == []


def test_arguments_keep_shape_dtype_and_memory_order():
    images = np.ones((5, 4, 2, 3), np.float32).transpose(3, 1, 0, 2)
    for value in (images, np.float32(3) * np.ones(()), np.zeros((0, 3), np.int32), 0.5, None):
        made = ahead._made(json.loads(json.dumps(ahead._described(value))))
        if isinstance(value, np.ndarray):
            assert (made.shape, made.dtype) == (value.shape, value.dtype)
            assert made.strides == value.strides and not made.any()
        else:
            assert made == value
    assert ahead._made(json.loads("[[1, 2], [0, 1]]")) == ((1, 2), (0, 1))


# --- helpers


@pytest.mark.numba
@POSIX
def test_helpers_compile_gradients_and_go_with_the_process(tmp_path):
    wait = "import time\nwhile not list(disk.home().rglob('*_transposed-*.code')): time.sleep(0.02)"
    result, helpers, count, _ = step(tmp_path, after=wait)  # that has not asked for one yet
    assert result == RESULT and count == len(helpers) == 2
    assert all(map(gone, helpers))


@pytest.mark.numba
@POSIX
@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
def test_helpers_that_die_or_stop_cost_time_alone(tmp_path, signal):
    after = f"disk.PATIENCE = 0.2\nfor pid in helpers: os.kill(pid, signal.{signal})"
    result, helpers, _, _ = step(tmp_path, after=after)
    assert result == RESULT and helpers and all(map(gone, helpers))


@pytest.mark.parametrize(
    "name, value", [("frozen", True), ("executable", ""), ("executable", "no")]
)
def test_no_helpers_where_no_interpreter_can_be_started(monkeypatch, name, value):
    monkeypatch.setattr(sys, name, value, raising=False)
    assert ahead.started(2) == []


@pytest.mark.numba
def test_a_warm_process_starts_none(tmp_path):
    cold = step(tmp_path, MINIDL_COMPILERS="1")
    warm = step(tmp_path, "ahead.NOTICEABLE = 0", MINIDL_QUIET="0")
    assert cold[0] == warm[0] == RESULT
    assert cold[2] == 0 and warm[2:] == (0, "")


@pytest.mark.parametrize("asked", ["0", "two", "-1"])
def test_a_number_of_processes(monkeypatch, asked):
    monkeypatch.setenv("MINIDL_COMPILERS", asked)
    with pytest.raises(RuntimeError, match=f"MINIDL_COMPILERS is a number .* not {asked}"):
        ahead.processes()
    monkeypatch.setenv("MINIDL_COMPILERS", "5")
    assert ahead.processes() == 5


# --- the line


def line(capsys):
    """What is said next, waited for."""
    said, end = "", time.monotonic() + 60
    while not said.endswith("\n") and time.monotonic() < end:
        time.sleep(0.01)
        said += capsys.readouterr().err
    return said


def test_what_takes_long_says_so_while_it_does_and_when_it_is_done(monkeypatch, capsys):
    monkeypatch.setenv("MINIDL_QUIET", "0")
    monkeypatch.setattr(ahead, "_spell", None)  # an earlier test may have begun one
    monkeypatch.setattr(ahead, "NOTICEABLE", 0.2)
    monkeypatch.setattr(ahead, "LULL", 0.05)
    ahead.begun(None)
    assert line(capsys) == "minidl: compiling kernels for this machine, once ...\n"
    ahead.ended(kept=True)
    done = r"minidl: compiled 1 kernel in (\d+\.\d) s, cached for next time\n"
    assert float(re.fullmatch(done, line(capsys))[1]) >= 0.2


def test_what_is_done_at_once_says_nothing(monkeypatch, capsys):
    monkeypatch.setenv("MINIDL_QUIET", "0")
    monkeypatch.setattr(ahead, "_spell", None)
    monkeypatch.setattr(ahead, "LULL", 0.05)
    ahead.begun(None)
    spell = ahead._spell
    ahead.ended(kept=True)
    end = time.monotonic() + 60
    while not spell.over and time.monotonic() < end:
        time.sleep(0.01)
    assert spell.over and capsys.readouterr().err == ""


# --- claims


@POSIX
def test_one_makes_a_file_while_others_wait(tmp_path):
    path, found = tmp_path / "f.code", []
    assert disk.claim(path) is None
    waiting = threading.Thread(target=lambda: found.append(disk.claim(path)))
    waiting.start()
    time.sleep(0.1)
    assert not found
    disk.write(path, b"code")
    disk.release(path)
    waiting.join()
    assert found == [b"code"]
    assert disk.claim(path) == b"code"


@POSIX
def test_nobody_waits_for_long_or_for_the_dead(tmp_path, monkeypatch):
    path = tmp_path / "f.code"
    code = "import pathlib, sys; from minidl.kernels import disk\n"
    code += "disk.claim(pathlib.Path(sys.argv[1])); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(path)]
    holds = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holds:
        holds.stdout.readline()
        monkeypatch.setattr(disk, "PATIENCE", 0.2)
        begin = time.monotonic()
        assert disk.claim(path) is None and time.monotonic() - begin >= 0.2
        holds.kill()
    monkeypatch.setattr(disk, "PATIENCE", 60)
    begin = time.monotonic()
    assert disk.claim(path) is None and time.monotonic() - begin < 30
    disk.release(path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_claimed_can_still_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert disk.claim(tmp_path / "file" / "f.code") is None
    disk.release(tmp_path / "file" / "f.code")


@pytest.mark.slow
@pytest.mark.numba
@POSIX
def test_killed_at_any_moment_the_cache_stays_usable(tmp_path):
    rng = random.Random(0)
    for _ in range(12):
        victims = [
            subprocess.Popen(
                [sys.executable, "-c", STEP.format(before="", after="")],
                env=os.environ | {"MINIDL_CACHE": str(tmp_path), "MINIDL_COMPILERS": "2"},
                stdout=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        time.sleep(rng.uniform(0.5, 3))
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        for path in tmp_path.rglob("*.code"):
            assert disk.read(path), path
    assert step(tmp_path)[0] == RESULT
    assert step(tmp_path, "ahead.NOTICEABLE = 0", MINIDL_QUIET="0")[2:] == (0, "")
