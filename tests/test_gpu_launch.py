"""Launches on a GPU, up to the driver: a CuPy of a few lines stands where CuPy does.

And all of the way from a test that is marked `gpu` to the driver, for a few of these tests.
"""

import importlib
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    pytest.skip("the CUDA emulator runs on Linux x86-64 only", allow_module_level=True)

from fake_cupy import CURRENT, Fake, Stream, ndarray

from minidl.kernels.cuda import _numba, cubin, emulator
from minidl.kernels.cuda._numba import cuda, jit

pytestmark = pytest.mark.emulator


@jit
def axpy(x, y, a):
    i = cuda.grid(1)
    if i < x.shape[0]:
        y[i] += a * x[i]


@jit
def typed(x, flags, y, real, whole, yes):
    i = cuda.grid(1)
    if i < y.size and yes:
        y[i] = x[i, 0] * real + whole + flags[i]


@jit(min_cc=(9, 9))
def of_tomorrow(x):
    x[0] = 1


@jit
def dynamic(x, y):
    s = cuda.shared.array(0, x.dtype)
    i = cuda.threadIdx.x
    s[i] = x[i]
    cuda.syncthreads()
    y[i] = s[x.size - 1 - i]


@pytest.fixture
def fake(monkeypatch, tmp_path):
    fake = Fake()
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    fake.install(monkeypatch.setattr, monkeypatch.setitem)
    monkeypatch.delattr("minidl.kernels.cuda.gpu", raising=False)
    monkeypatch.delitem(sys.modules, "minidl.kernels.cuda.gpu", raising=False)
    fake.gpu = importlib.import_module("minidl.kernels.cuda.gpu")
    _numba._gpu.cache_clear()
    CURRENT.__dict__.clear()
    yield fake
    _numba._gpu.cache_clear()
    sys.modules.pop("minidl.kernels.cuda.gpu", None)


def on_gpu(*arrays):
    return [ndarray(a) for a in arrays]


def test_a_kernel_gets_its_arguments(fake):
    x, y = np.arange(40, dtype="f4"), np.ones(40, "f4")
    axpy[2, 32](*on_gpu(x, y), 0.5)
    np.testing.assert_array_equal(y, 1 + 0.5 * x)
    kernel, args, _ = fake.calls[0]
    assert kernel is axpy
    assert type(args[2]) is np.float32  # a Python float beside float32 arrays


def test_any_strides_and_scalars(fake):
    x = np.arange(24, dtype="f4").reshape(6, 4)[::-1, ::2]
    flags, y = np.arange(6) % 3 == 0, np.zeros(12, "f4")[::2]
    typed[1, 32](*on_gpu(x, flags, y), np.float32(2), 3, True)
    np.testing.assert_array_equal(y, x[:, 0] * 2 + 3 + flags)
    (args,) = (args for _, args, _ in fake.calls)
    assert [type(a) for a in args[3:]] == [np.float32, np.int64, np.bool_]
    assert args[0].strides == x.strides


def test_code_is_loaded_once_for_the_same_kinds_of_arguments(fake):
    for n in (5, 9):
        axpy[1, 32](*on_gpu(np.ones(n, "f4"), np.ones(n, "f4")), 2.0)
    assert len(fake.loaded) == 1
    axpy[1, 32](*on_gpu(np.ones(9, "f8"), np.ones(9, "f8")), 2.0)
    assert len(fake.loaded) == 2
    assert type(fake.calls[-1][1][2]) is np.float64
    axpy[1, 32](*on_gpu(np.ones(18, "f4")[::2], np.ones(9, "f4")), 2.0)
    assert len(fake.loaded) == 3
    axpy[1, 32](*on_gpu(np.ones(9, "f4"), np.ones(9, "f4")), np.float64(2))
    assert len(fake.loaded) == 4  # a float64 scalar is another kernel, asked for by name
    assert len(fake.calls) == 5


def test_a_second_process_compiles_nothing(fake, monkeypatch):
    args = on_gpu(np.ones(5, "f4"), np.ones(5, "f4"))
    axpy[1, 32](*args, 2.0)
    fake.gpu._loaded.clear()
    monkeypatch.setattr(cubin, "compile_ptx", lambda *_: pytest.fail("compiled again"))
    axpy[1, 32](*args, 2.0)
    assert len(fake.loaded) == 2 and fake.loaded[0] == fake.loaded[1]


def test_one_stream_of_ours_in_all_threads(fake):
    args = on_gpu(np.ones(5, "f4"), np.ones(5, "f4"))
    axpy[1, 32](*args, 2.0)
    axpy[1, 32](*args, 2.0)
    other = threading.Thread(target=lambda: axpy[1, 32](*args, 2.0))
    other.start()
    other.join()
    streams = [stream for _, _, stream in fake.calls]
    assert len({s.ptr for s in streams}) == 1 and streams[0].ptr >= 1000
    # once in each thread, for what it began in the default stream
    assert streams[0].waited == ["event of 0"] * 2


def test_a_stream_of_the_users_is_used(fake):
    theirs = Stream(ptr=5)
    theirs.use()
    axpy[1, 32](*on_gpu(np.ones(5, "f4"), np.ones(5, "f4")), 2.0)
    assert fake.calls[0][2] is theirs
    assert fake.gpu.stream() is theirs


def test_dynamic_shared_memory(fake):
    x, y = np.arange(32, dtype="f4"), np.zeros(32, "f4")
    dynamic[1, 32, 128](*on_gpu(x, y))
    np.testing.assert_array_equal(y, x[::-1])
    assert not fake.attributes


def test_dynamic_shared_memory_beyond_48_kib_is_asked_for(fake, monkeypatch):
    given = []
    monkeypatch.setattr(emulator, "launch", lambda *args: given.append(args[3]))
    x, y = on_gpu(np.zeros(32, "f4"), np.zeros(32, "f4"))
    dynamic[1, 32, 48 * 1024](x, y)
    assert given == [48 * 1024] and not fake.attributes
    dynamic[1, 32, 64 * 1024](x, y)
    assert given[1:] == [64 * 1024] and fake.attributes == [(77, 8, 64 * 1024)]


def test_an_empty_grid_launches_nothing(fake):
    axpy[0, 32](*on_gpu(np.ones(0, "f4"), np.ones(0, "f4")), 2.0)
    assert not fake.calls


def test_numpy_among_gpu_arrays_is_named(fake):
    (x,) = on_gpu(np.ones(5, "f4"))
    with pytest.raises(TypeError, match="axpy: y is a NumPy array, the rest is on the GPU"):
        axpy[1, 32](x, np.ones(5, "f4"), 2.0)
    with pytest.raises(TypeError, match="axpy: x is a NumPy array"), _numba.emulation():
        axpy[1, 32](np.ones(5, "f4"), x, 2.0)
    assert not fake.calls


def test_wrong_arguments_are_refused_before_the_driver_sees_them(fake):
    x, y = on_gpu(np.ones(5, "f4"), np.ones(5, "f8"))
    with pytest.raises(TypeError, match=r"got 2 arguments for \(x, y, a\)"):
        axpy[1, 32](x, x)
    with pytest.raises(TypeError, match=r"mixed float dtypes \(x float32, y float64\)"):
        axpy[1, 32](x, y, 2.0)
    with pytest.raises(TypeError, match="a is a str; kernels take arrays and numbers"):
        axpy[1, 32](x, x, "2")


def test_a_gpu_that_is_too_old(fake):
    with pytest.raises(ValueError, match=r"of_tomorrow: needs .* 9\.9 or newer, .* has 8\.0"):
        of_tomorrow[1, 1](*on_gpu(np.ones(1, "f4")))


def test_a_driver_that_is_too_old(fake):
    fake.refuses = True
    with pytest.raises(RuntimeError, match=r"axpy: the driver .* 8\.0 .*INVALID_IMAGE"):
        axpy[1, 32](*on_gpu(np.ones(5, "f4"), np.ones(5, "f4")), 2.0)


def test_numpy_arrays_go_to_the_emulator_on_a_machine_with_a_gpu_too(fake):
    y = np.ones(5, "f4")
    axpy[1, 32](np.ones(5, "f4"), y, 2.0)
    assert (y == 3).all() and not fake.calls


def test_emulation_is_switched_on_and_off(fake):
    with _numba.emulation():
        assert _numba.EMULATED
        with pytest.raises(ZeroDivisionError), _numba.emulation():
            raise ZeroDivisionError
        assert _numba.EMULATED
    assert not _numba.EMULATED


# Tests that are marked `gpu`

REHEARSED = {  # some of each file
    "cuda_device": "live_arrays_are_counted or share_a_gpus_memory",
    "cuda_elementwise": "edges_of_vectors or not_aligned or not_dense or six_axes",
    "cuda_loss": "wrong_label_is_nan_in and int64",
    "cuda_optim": "not_clipped_away",
    "cuda_random": "under_every_schedule or logical_index_alone",
    "cuda_reduce": "any_axes or a_mean_divides or bit_for_bit[real",
    "cuda_training": "two_runs and mlp",
    "cuda_window": "(test_pooling or test_pixels) and (real-33 or real-65)",
    "kernels": "gpu-float32 and (relu or sum_rows or take)",
    "ladder": "test_strided_matrices or keeps_nan or tf32_only",
}


def pytest_with(*arguments, **environment):
    left = {name: value for name, value in os.environ.items() if not name.startswith("MINIDL_CUDA")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    here = Path(__file__).parents[1]
    return subprocess.run(
        command, cwd=here, env=left | environment, capture_output=True, text=True, timeout=900
    ).stdout


def test_rehearsed_without_a_gpu():
    files = [f"tests/test_{name}.py" for name in REHEARSED]
    words = " or ".join(f"(test_{name} and ({some}))" for name, some in REHEARSED.items())
    said = pytest_with("-m", "gpu", "--fake-gpu", "-k", words, *files)
    assert " failed" not in said and " error" not in said, said
    for file in files:
        assert f"{file} ." in said, said


def test_what_is_marked_gpu_is_never_emulated():
    one = "tests/test_ladder.py", "-k=keeps_nan"
    said = pytest_with("-m", "gpu", *one, MINIDL_CUDA="emulate")
    assert "a test on a real GPU: there is none here, or MINIDL_CUDA=emulate is set" in said
    assert "1 error" in said and " passed" not in said
