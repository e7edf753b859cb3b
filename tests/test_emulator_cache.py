"""Emulated kernels on disk: loaded without compiling, compiled anew when anything changed."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    pytest.skip("the CUDA emulator runs on Linux x86-64 only", allow_module_level=True)
from minidl.kernels.cuda._numba import cuda, device, jit
from minidl.kernels.cuda.emulator import machine, workers

pytestmark = pytest.mark.emulator

FACTOR = 3


@cuda.jit(device=True)
def more(v):
    return v + np.float32(1)


@device
def inlined(v):
    return v * np.float32(2)


@jit
def scale(x, y):
    s = cuda.shared.array(32, x.dtype)
    i = cuda.threadIdx.x
    s[i] = inlined(more(x[i]) * np.float32(FACTOR))
    cuda.syncthreads()
    y[i] = s[31 - i]


X = np.arange(32, dtype=np.float32)


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """Names of the kernels that were compiled, with a cache of our own."""
    names, build = [], machine.build

    def noted(kernel, kinds, tool):
        names.append(kernel.__name__)
        return build(kernel, kinds, tool)

    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "build", noted)
    return names


def result(kernel, x=X):
    """What a kernel computes, as the next process would see it: with nothing in memory."""
    y = np.zeros_like(x)
    workers._codes.clear()
    workers._known.clear()
    kernel[1, 32](x, y)
    return y


def test_what_was_compiled_once_is_loaded(builds):
    expected = (X[::-1] + 1) * 3 * 2
    for _ in range(2):
        np.testing.assert_array_equal(result(scale), expected)
    assert builds == ["scale"]
    result(jit(scale.function))  # the same function, decorated again
    assert builds == ["scale"]


def test_other_types_are_compiled_for_themselves(builds):
    result(scale)
    result(scale, X.astype(np.int32))
    assert builds == ["scale", "scale"]


def test_a_changed_constant_is_compiled_anew(builds, monkeypatch):
    first = result(scale)
    monkeypatch.setitem(globals(), "FACTOR", 6)
    np.testing.assert_array_equal(result(jit(scale.function)), 2 * first)
    assert builds == ["scale", "scale"]


@pytest.mark.parametrize("name, decorator", [("more", cuda.jit(device=True)), ("inlined", device)])
def test_a_changed_device_function_is_compiled_anew(builds, monkeypatch, name, decorator):
    result(scale)

    def other(v):
        return v - np.float32(1)

    monkeypatch.setitem(globals(), name, decorator(other))
    expected = {"more": (X - 1) * 6, "inlined": (X + 1) * 3 - 1}[name]
    np.testing.assert_array_equal(result(jit(scale.function)), expected[::-1])
    assert builds == ["scale", "scale"]


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_a_damaged_file_is_compiled_anew(builds, tmp_path, harm):
    first = result(scale)
    (path,) = tmp_path.rglob("*.x86")
    data = path.read_bytes()
    flipped = data[:500] + bytes([data[500] ^ 1]) + data[501:]
    path.write_bytes({"cut": data[:-100], "flip": flipped, "empty": b""}[harm])
    np.testing.assert_array_equal(result(scale), first)
    assert builds == ["scale", "scale"]
    assert path.read_bytes() == data  # and mended


PROGRAM = """
import time
import numpy as np
import minidl.kernels.cuda as k
from minidl.kernels.cuda import _numba
from minidl.kernels.cuda.emulator import machine

calls = []
def note(name, function):
    return lambda *args: calls.append(name) or function(*args)
machine.compile_ir = note("compile_ir", machine.compile_ir)
machine._compile = note("scheduler", machine._compile)
x, y = np.arange(4000, dtype=np.float32).reshape(100, 40), np.zeros(40, np.float32)
start = time.perf_counter()
k.sum_rows(x, y, False)
print(f"{1e3 * (time.perf_counter() - start):.0f} ms")
assert np.array_equal(y, x.sum(0))
print(*calls)
"""


def test_a_second_process_compiles_nothing(tmp_path):
    environment = os.environ | {"MINIDL_CACHE": str(tmp_path), "MINIDL_CUDA": "emulate"}
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=Path(__file__).parents[1],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    print("cold and warm:", said[0][0], said[1][0])
    assert {"compile_ir", "scheduler"} <= set(said[0][1].split())
    assert said[1][1] == ""
