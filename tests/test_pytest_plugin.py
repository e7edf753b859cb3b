"""The pytest plugin: kernels of any project in any place, and nothing where nobody asks for it."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from minidl.kernels import strategies

ROOT = Path(__file__).parent.parent
PLUGIN = "minidl.kernels.pytest_plugin"
HEAVY = {"numba", "numba_cuda", "llvmlite", "cupy", "hypothesis"}


def pytest_on(tmp_path, source: str, *options: str) -> subprocess.CompletedProcess:
    """A pytest of another project, on one file."""
    (tmp_path / "test_it.py").write_text(source)
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("MINIDL_", "PYTEST_"))}
    clean |= {n: v for n, v in os.environ.items() if n == "MINIDL_CACHE"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider", *options],
        cwd=tmp_path, env=clean | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


UNCONCERNED = f"""
import sys
import pytest

@pytest.fixture
def backend():
    return "mine"

def test_fixture(backend):
    assert backend == "mine"

@pytest.mark.parametrize("backend", ["a", "b"])
def test_parameter(backend):
    assert backend in "ab"

def test_nothing_heavy_is_loaded():
    assert not {HEAVY} & set(sys.modules)
"""


def test_who_does_not_use_it_does_not_notice(tmp_path):
    done = pytest_on(tmp_path, UNCONCERNED, "--strict-markers", "-W", "error", "-p", "no:hypothesispytest")  # noqa: E501  # fmt: skip
    assert re.search(r"^4 passed in", done.stdout, re.MULTILINE), done.stdout + done.stderr


FAULTY = """
import numpy as np
from numba import cuda

@cuda.jit
def count(out):
    out[0] += 1

def test_watched(kernel_runner):
    kernel_runner(count, 1, 64, np.zeros(1))

def test_not_watched(kernel_runner, backend):
    assert backend.name == "emulated"
    out = np.zeros(1)
    assert kernel_runner(count, 1, 64, out, sanitize=False) is None
    assert out[0] == 64

def test_unaware():
    count[1, 64](cuda.device_array(1))
"""


@pytest.mark.emulator
def test_a_finding_fails_the_test_with_its_report(tmp_path):
    done = pytest_on(tmp_path, FAULTY, "--cuda-sanitize", "--strict-markers")
    assert "2 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    # by the lines of the tracebacks: where CI is set, pytest's summary says it all again
    reported = re.findall("^E .*SanitizerError: the sanitizer found", done.stdout, re.MULTILINE)
    assert len(reported) == 2
    assert "race of out[0]" in done.stdout
    done = pytest_on(tmp_path, FAULTY, "--cuda-emulate", "--cuda=gpu")
    assert "--cuda=gpu: numba-cuda finds no GPU here" in done.stdout + done.stderr


def test_kernels_get_arrays_in_any_strides(kernel_runner):
    from numba import cuda

    @cuda.jit
    def add(x, y, out):
        i, j = cuda.grid(2)
        if i < out.shape[0] and j < out.shape[1]:
            out[i, j] = x[i, j] + y[i, j]

    x, memory = np.arange(35.0).reshape(5, 7), np.full((11, 9), 3.0)
    out = memory[1::2, 8:1:-1]
    kernel_runner(add, (1, 1), (8, 8), x[::-1], x.T.copy().T, out)
    np.testing.assert_array_equal(out, x[::-1] + x)
    out[...] = 3
    assert (memory == 3).all()
    kernel_runner(add, (1, 1), (8, 8), x[:0], x[:0], out[:0])


def test_what_goes_to_a_gpu_and_comes_back(monkeypatch):
    """The copies of cuda/real.py, with another piece of this memory for the GPU's."""
    real = pytest.importorskip("minidl.kernels.cuda.real")

    class There:
        def __init__(self, memory, start=0):
            self.memory, self.start, self.gpu_data = memory.copy(), start, self

        def view(self, start):
            return types.SimpleNamespace(of=self.memory, start=start)

        def copy_to_host(self):
            return self.memory

    def array(shape, strides, dtype, gpu_data):
        return np.ndarray(shape, dtype, gpu_data.of, gpu_data.start, strides)

    module = types.SimpleNamespace(DeviceNDArray=array)
    fake = types.SimpleNamespace(
        to_device=There,
        synchronize=lambda: None,
        cudadrv=types.SimpleNamespace(devicearray=module),
    )
    monkeypatch.setattr(real, "cuda", fake)
    launched = []

    class Kernel:
        targetoptions = ()

        def __getitem__(self, launch):
            launched.append(launch)
            return self.run

        def run(self, x, y, by):
            assert x.ctypes.data % 4 == 0
            y[...] = x * by

    memory = np.arange(30, dtype=np.float32)
    x, y = memory[20:10:-2], memory[1:10:2]
    x.flags.writeable = False
    real.launch(Kernel(), 2, 32, (x, y, 10), shared=8)
    assert launched == [(2, 32, 0, 8)]
    np.testing.assert_array_equal(memory[:12], [0, 200, 2, 180, 4, 160, 6, 140, 8, 120, 10, 11])
    real.launch(Kernel(), 2, 32, (x[:0], y[:0], 10))


@given(strategies.arrays(np.float32, strategies.shapes(0, 3, 0, 6), special=True))
def test_drawn_arrays_are_of_their_dtype(x):
    assert x.dtype == np.float32
    assert x.ndim <= 3


@pytest.mark.parametrize("layout", ["plain", *strategies.LAYOUTS])
def test_layouts_keep_what_is_in_them(layout):
    value = np.arange(12, dtype=np.int32).reshape(3, 4)
    x = strategies.placed(value, layout)
    np.testing.assert_array_equal(x, value)
    assert x.flags.c_contiguous == (layout in ("plain", "shifted", "broadcast") and x.strides == (16, 4))  # noqa: E501  # fmt: skip
    with pytest.raises(ValueError, match="no layout 'diagonal'"):
        strategies.placed(value, "diagonal")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16, bool])
def test_special_values_are_of_their_dtype(dtype):
    values = np.array(strategies.specials(dtype))
    assert values.dtype == dtype
    if values.dtype.kind == "f":
        assert np.isnan(values).any()
        assert np.isinf(values).sum() == 2
        assert np.signbit(values[values == 0]).any()
        assert (np.abs(values[values != 0]) < np.finfo(dtype).tiny).any()
