"""Launches on a GPU, up to the driver: a CuPy of a few lines stands where CuPy does.

Its arrays lie in NumPy's memory, and its functions read their arguments back from the words that
the driver would get and give them to the emulator. What a GPU does with them, only a GPU can show.
"""

import ctypes
import importlib
import platform
import sys
import threading
import types

import numpy as np
import pytest

if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    pytest.skip("the CUDA emulator runs on Linux x86-64 only", allow_module_level=True)

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


class Pointer:
    def __init__(self, ptr):
        self.ptr = ptr


class Stream:
    """Notes what it is asked for; the default stream has pointer 0."""

    made = 0

    def __init__(self, non_blocking=False, ptr=None):
        assert non_blocking or ptr is not None
        type(self).made += ptr is None
        self.ptr = 1000 + Stream.made if ptr is None else ptr
        self.waited = []

    def use(self):
        CURRENT.stream = self

    def record(self):
        return f"event of {self.ptr}"

    def wait_event(self, event):
        self.waited.append(event)


NULL = Stream(ptr=0)
CURRENT = threading.local()


class DriverError(RuntimeError):
    pass


class Fake:
    """A CuPy with one GPU: what gpu.py calls, and what it was called with."""

    def __init__(self, capability="80"):
        fake, self.loaded, self.calls, self.attributes = self, [], [], []
        self.compiled, self.refuses = {}, False

        class ndarray:
            def __init__(self, host):
                self.host, self.data = host, Pointer(host.ctypes.data)
                self.shape, self.strides, self.size = host.shape, host.strides, host.size
                self.dtype, self.itemsize, self.ndim = host.dtype, host.itemsize, host.ndim
                self.flags = host.flags

        class Module:
            def load(self, code):
                if fake.refuses:
                    raise DriverError("CUDA_ERROR_INVALID_IMAGE")
                assert isinstance(code, bytes)
                fake.loaded.append(code)

            def get_function(self, entry):
                assert entry.encode() in fake.loaded[-1]
                return Function(entry)

        class Function:
            ptr = 77

            def __init__(self, entry):
                self.entry = entry

            def __call__(self, grid, block, words, shared_mem=0, stream=None):
                kernel, signature = fake.compiled[self.entry]
                args = decode(signature, list(words))
                fake.calls.append((kernel, args, stream))
                emulator.launch(kernel, grid, block, shared_mem, args)

        self.module = module = types.ModuleType("cupy")
        module.ndarray = ndarray
        module.cuda = types.SimpleNamespace(
            get_current_stream=lambda: getattr(CURRENT, "stream", NULL),
            Stream=Stream,
            Device=lambda: types.SimpleNamespace(compute_capability=capability),
            function=types.SimpleNamespace(Module=Module),
            runtime=types.SimpleNamespace(getDevice=lambda: 0),
            driver=types.SimpleNamespace(
                CUDADriverError=DriverError,
                funcSetAttribute=lambda *args: self.attributes.append(args),
            ),
        )


def decode(signature, words):
    """The arguments that lie in the words of a launch, as Numba's kernels would read them."""
    args = []
    for kind in signature:
        if isinstance(kind, _numba.cuda.types.Array):
            meminfo, parent, size, itemsize, pointer = words[:5]
            shape, strides = words[5 : 5 + kind.ndim], words[5 + kind.ndim : 5 + 2 * kind.ndim]
            del words[: 5 + 2 * kind.ndim]
            dtype = np.dtype(str(kind.dtype))
            assert (meminfo, parent, itemsize) == (0, 0, dtype.itemsize)
            assert size == np.prod(shape, dtype=int)
            reach = [(n - 1) * s for n, s in zip(shape, strides) if n]
            below, above = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
            raw = (ctypes.c_char * (above - below + itemsize)).from_address(pointer + below)
            args.append(np.ndarray(shape, dtype, raw, -below, strides))
        else:
            word = words.pop(0)
            # CuPy sends a Python number as int64, float64 or bool
            plain = {int: np.int64, float: np.float64, bool: np.bool_}.get(type(word))
            word = plain(word) if plain else word
            assert word.dtype == np.dtype(str(kind).replace("boolean", "bool"))
            args.append(word)
    assert not words
    return tuple(args)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    fake = Fake()
    monkeypatch.setitem(sys.modules, "cupy", fake.module)
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    monkeypatch.setattr(_numba, "EMULATED", False)
    monkeypatch.delattr("minidl.kernels.cuda.gpu", raising=False)
    monkeypatch.delitem(sys.modules, "minidl.kernels.cuda.gpu", raising=False)
    fake.gpu = importlib.import_module("minidl.kernels.cuda.gpu")
    _numba._gpu.cache_clear()
    CURRENT.__dict__.clear()
    original = cubin.compiled

    def compiled(kernel, signature, cc):
        made = original(kernel, signature, cc)
        fake.compiled[made.entry] = kernel, signature
        return made

    monkeypatch.setattr(cubin, "compiled", compiled)
    yield fake
    _numba._gpu.cache_clear()
    sys.modules.pop("minidl.kernels.cuda.gpu", None)


def on_gpu(fake, *arrays):
    return [fake.module.ndarray(a) for a in arrays]


def test_a_kernel_gets_its_arguments(fake):
    x, y = np.arange(40, dtype="f4"), np.ones(40, "f4")
    axpy[2, 32](*on_gpu(fake, x, y), 0.5)
    np.testing.assert_array_equal(y, 1 + 0.5 * x)
    kernel, args, _ = fake.calls[0]
    assert kernel is axpy
    assert type(args[2]) is np.float32  # a Python float beside float32 arrays


def test_any_strides_and_scalars(fake):
    x = np.arange(24, dtype="f4").reshape(6, 4)[::-1, ::2]
    flags, y = np.arange(6) % 3 == 0, np.zeros(12, "f4")[::2]
    typed[1, 32](*on_gpu(fake, x, flags, y), np.float32(2), 3, True)
    np.testing.assert_array_equal(y, x[:, 0] * 2 + 3 + flags)
    (args,) = (args for _, args, _ in fake.calls)
    assert [type(a) for a in args[3:]] == [np.float32, np.int64, np.bool_]
    assert args[0].strides == x.strides


def test_code_is_loaded_once_for_the_same_kinds_of_arguments(fake):
    for n in (5, 9):
        axpy[1, 32](*on_gpu(fake, np.ones(n, "f4"), np.ones(n, "f4")), 2.0)
    assert len(fake.loaded) == 1
    axpy[1, 32](*on_gpu(fake, np.ones(9, "f8"), np.ones(9, "f8")), 2.0)
    assert len(fake.loaded) == 2
    assert type(fake.calls[-1][1][2]) is np.float64
    axpy[1, 32](*on_gpu(fake, np.ones(18, "f4")[::2], np.ones(9, "f4")), 2.0)
    assert len(fake.loaded) == 3
    axpy[1, 32](*on_gpu(fake, np.ones(9, "f4"), np.ones(9, "f4")), np.float64(2))
    assert len(fake.loaded) == 4  # a float64 scalar is another kernel, asked for by name
    assert len(fake.calls) == 5


def test_a_second_process_compiles_nothing(fake, monkeypatch):
    args = on_gpu(fake, np.ones(5, "f4"), np.ones(5, "f4"))
    axpy[1, 32](*args, 2.0)
    fake.gpu._loaded.clear()
    monkeypatch.setattr(cubin, "_ptx", lambda *_: pytest.fail("compiled again"))
    axpy[1, 32](*args, 2.0)
    assert len(fake.loaded) == 2 and fake.loaded[0] == fake.loaded[1]


def test_one_stream_of_ours_in_all_threads(fake):
    args = on_gpu(fake, np.ones(5, "f4"), np.ones(5, "f4"))
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
    axpy[1, 32](*on_gpu(fake, np.ones(5, "f4"), np.ones(5, "f4")), 2.0)
    assert fake.calls[0][2] is theirs
    assert fake.gpu.stream() is theirs


def test_dynamic_shared_memory(fake):
    x, y = np.arange(32, dtype="f4"), np.zeros(32, "f4")
    dynamic[1, 32, 128](*on_gpu(fake, x, y))
    np.testing.assert_array_equal(y, x[::-1])
    assert not fake.attributes


def test_dynamic_shared_memory_beyond_48_kib_is_asked_for(fake, monkeypatch):
    given = []
    monkeypatch.setattr(emulator, "launch", lambda *args: given.append(args[3]))
    x, y = on_gpu(fake, np.zeros(32, "f4"), np.zeros(32, "f4"))
    dynamic[1, 32, 48 * 1024](x, y)
    assert given == [48 * 1024] and not fake.attributes
    dynamic[1, 32, 64 * 1024](x, y)
    assert given[1:] == [64 * 1024] and fake.attributes == [(77, 8, 64 * 1024)]


def test_an_empty_grid_launches_nothing(fake):
    axpy[0, 32](*on_gpu(fake, np.ones(0, "f4"), np.ones(0, "f4")), 2.0)
    assert not fake.calls


def test_numpy_among_gpu_arrays_is_named(fake):
    (x,) = on_gpu(fake, np.ones(5, "f4"))
    with pytest.raises(TypeError, match="axpy: y is a NumPy array, the rest is on the GPU"):
        axpy[1, 32](x, np.ones(5, "f4"), 2.0)
    with pytest.raises(TypeError, match="axpy: x is a NumPy array"), _numba.emulation():
        axpy[1, 32](np.ones(5, "f4"), x, 2.0)
    assert not fake.calls


def test_wrong_arguments_are_refused_before_the_driver_sees_them(fake):
    x, y = on_gpu(fake, np.ones(5, "f4"), np.ones(5, "f8"))
    with pytest.raises(TypeError, match=r"got 2 arguments for \(x, y, a\)"):
        axpy[1, 32](x, x)
    with pytest.raises(TypeError, match=r"mixed float dtypes \(x float32, y float64\)"):
        axpy[1, 32](x, y, 2.0)
    with pytest.raises(TypeError, match="a is a str; kernels take arrays and numbers"):
        axpy[1, 32](x, x, "2")


def test_a_gpu_that_is_too_old(fake):
    with pytest.raises(ValueError, match=r"of_tomorrow: needs .* 9\.9 or newer, .* has 8\.0"):
        of_tomorrow[1, 1](*on_gpu(fake, np.ones(1, "f4")))


def test_a_driver_that_is_too_old(fake):
    fake.refuses = True
    with pytest.raises(RuntimeError, match=r"axpy: the driver .* 8\.0 .*INVALID_IMAGE"):
        axpy[1, 32](*on_gpu(fake, np.ones(5, "f4"), np.ones(5, "f4")), 2.0)


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
