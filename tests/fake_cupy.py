"""A CuPy of a few lines with one GPU, to rehearse on a machine without one what runs on GPUs.

Its arrays lie in NumPy's memory, and its functions read their arguments back from the words that
the driver would get and give them to the emulator. What a GPU does with them, only a GPU can show.

    pytest -m gpu --fake-gpu tests/test_ladder.py
"""

import collections
import ctypes
import importlib.machinery
import sys
import threading
import types

import numpy as np

from minidl.kernels.cuda import _numba, cubin, emulator

ALIGNED = 512  # bytes: where CuPy's allocations start
TOTAL = 2**30  # bytes of memory that it says there are


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


class ndarray:
    """What minidl uses of CuPy's arrays: views, and whole copies from and to the host.

    NumPy cannot read one, nor can arithmetic be done on it.
    """

    __module__, device = "cupy", "<CUDA Device 0>"
    __array_ufunc__ = None
    __cuda_array_interface__ = "here"  # that it is there says: on a GPU

    def __init__(self, host, base=None):
        self.base = base  # of a view, what it is a view of
        self.host, self.data = host, Pointer(host.ctypes.data)
        self.shape, self.strides, self.size = host.shape, host.strides, host.size
        self.dtype, self.itemsize, self.ndim = host.dtype, host.itemsize, host.ndim
        self.flags, self.nbytes = host.flags, host.nbytes

    def _view(self, host):
        assert not host.size or np.shares_memory(host, self.host), "a copy where minidl wants views"
        return ndarray(host, self)

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __len__(self):
        return len(self.host)

    def __getitem__(self, key):
        parts = key if isinstance(key, tuple) else (key,)
        return self._view(self.host[parts if ... in parts else (*parts, ...)])

    def reshape(self, *shape):
        return self._view(self.host.reshape(*shape))

    def transpose(self, *axes):
        return self._view(self.host.transpose(*axes))

    def swapaxes(self, *axes):
        return self._view(self.host.swapaxes(*axes))

    def view(self, dtype):
        return self._view(self.host.view(dtype))

    @property
    def T(self):
        return self.transpose()

    def __dlpack_device__(self):
        return 2, 0  # CUDA, the first

    def __dlpack__(self, **_):
        return self

    def set(self, host):
        assert type(host) is np.ndarray and (host.shape, host.dtype) == (self.shape, self.dtype)
        self.host[...] = host

    def get(self):
        return self.host.copy()


def empty(shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.full(size + ALIGNED, 0xFF, np.uint8)  # NaN, for who reads what nobody wrote
    return ndarray(np.ndarray(shape, dtype, room, -room.ctypes.data % ALIGNED))


def as_strided(x, shape, strides):
    y = np.lib.stride_tricks.as_strided(x.host, shape, strides)
    return ndarray(y)


class Fake:
    """A CuPy with one GPU: what minidl calls, and what it was called with."""

    def __init__(self, capability="80"):
        fake, self.loaded, self.attributes = self, [], []
        self.calls = collections.deque(maxlen=100)
        self.compiled, self.refuses = {}, False

        class Module:
            def load(self, code):
                if fake.refuses:
                    raise DriverError("CUDA_ERROR_INVALID_IMAGE")
                assert isinstance(code, bytes)
                self.code = code
                fake.loaded.append(code)

            def get_function(self, entry):
                assert entry.encode() in self.code
                return Function(*fake.compiled[entry])

        class Function:
            ptr = 77

            def __init__(self, kernel, signature):
                self.kernel, self.signature = kernel, signature

            def __call__(self, grid, block, words, shared_mem=0, stream=None):
                args = decode(self.signature, list(words))
                fake.calls.append((self.kernel, args, stream))
                emulator.launch(self.kernel, grid, block, shared_mem, args)

        self.module = module = types.ModuleType("cupy")
        module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)  # `find_spec` looks there
        module.ndarray, module.empty = ndarray, empty
        module.from_dlpack = lambda source: source.__dlpack__()[...]
        module.lib = types.SimpleNamespace(
            stride_tricks=types.SimpleNamespace(as_strided=as_strided)
        )
        major, minor = map(int, (capability[:-1], capability[-1]))
        facts = dict(name=b"a fake", major=major, minor=minor, totalGlobalMem=TOTAL)
        module.cuda = types.SimpleNamespace(
            get_current_stream=lambda: getattr(CURRENT, "stream", NULL),
            Stream=Stream,
            Device=lambda: types.SimpleNamespace(compute_capability=capability),
            function=types.SimpleNamespace(Module=Module),
            runtime=types.SimpleNamespace(
                getDevice=lambda: 0,
                getDeviceProperties=lambda device: facts,
                deviceSynchronize=lambda: None,
                memGetInfo=lambda: (TOTAL, TOTAL),
            ),
            driver=types.SimpleNamespace(
                CUDADriverError=DriverError,
                funcSetAttribute=lambda *args: self.attributes.append(args),
            ),
        )
        pool = dict.fromkeys(("total_bytes", "used_bytes", "free_bytes"), lambda: 0)
        pool = types.SimpleNamespace(**pool, free_all_blocks=lambda: None)
        module.get_default_memory_pool = lambda: pool

    def install(self, put=setattr, put_item=dict.__setitem__):
        """Let minidl find this GPU; put and put_item set what tests may want to set back."""
        original = cubin.compiled

        def compiled(kernel, signature, cc):
            made = original(kernel, signature, cc)
            self.compiled[made.entry] = kernel, signature
            return made

        put_item(sys.modules, "cupy", self.module)
        put(cubin, "compiled", compiled)
        put(_numba, "EMULATED", False)


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
