"""The GPU that a program sees where there is none: its memory, streams, events, and what it has."""

import contextlib
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .arguments import as_array
from .emulator import CC, grid

UNSET = 0xFF  # bytes of new device memory: NaN, or -1


class DeviceArray(np.ndarray):
    """What stands for an array on the GPU."""

    __cuda_ndarray__ = True
    unwritten = False  # of what owns the memory

    def __new__(
        cls,
        shape: Any,
        strides: Any = None,
        dtype: Any = None,
        stream: Any = 0,
        gpu_data: Any = None,
    ) -> "DeviceArray":
        """New memory with nothing in it, or that of gpu_data."""
        shape = shape if isinstance(shape, tuple) else (shape,)
        if gpu_data is not None:
            return np.lib.stride_tricks.as_strided(gpu_data, shape, strides, subok=True).view(dtype)
        extent = np.lib.stride_tricks.as_strided(np.empty(1, dtype), shape, strides)
        memory = np.full(max(extent.size * extent.itemsize, 1), UNSET, np.uint8)
        like = extent.shape, extent.dtype, memory.data, 0, extent.strides
        made: Any = super().__new__(cls, *like)
        made.unwritten = True
        return _known(made)

    def __bool__(self) -> bool:
        return len(self) > 0 if self.ndim else super().__bool__()

    @property
    def gpu_data(self) -> "DeviceArray":
        """Its memory: itself."""
        return self

    def split(self, section: int, stream: Any = 0) -> Iterator[np.ndarray]:
        """Views of so many elements each, one after the other."""
        for start in range(0, self.size, section):
            yield self[start : start + section]

    @property
    def owner(self) -> "DeviceArray":
        """The array whose memory this is a view of."""
        owner = self
        while isinstance(owner.base, DeviceArray):
            owner = owner.base
        return owner

    def copy_to_host(self, ary: Any = None, stream: Any = 0) -> np.ndarray:
        """Its contents, or ary filled with them."""
        if ary is None:
            return np.array(self, order="K", subok=False)
        ary[...] = self
        return ary

    def copy_to_device(self, ary: Any, stream: Any = 0) -> None:
        """Fill it with an array's contents."""
        self[...] = ary
        self.owner.unwritten = False

    def is_c_contiguous(self) -> bool:
        """Whether its elements lie in C order."""
        return self.flags.c_contiguous

    def is_f_contiguous(self) -> bool:
        """Whether its elements lie in Fortran's order."""
        return self.flags.f_contiguous

    def setitem(self, key: Any, value: Any, stream: Any = 0) -> None:
        """Fill a part of it."""
        self[key] = value
        self.owner.unwritten = False

    def bind(self, stream: Any = 0) -> "DeviceArray":
        """Itself: all streams are one."""
        return self

    @property
    def alloc_size(self) -> int:
        """Its bytes."""
        return self.nbytes

    @property
    def stream(self) -> int:
        """The default one."""
        return 0

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.__array_interface__, "version": 3}


class Stream:
    """A stream: what is launched is done at once, in order."""

    handle = 0

    def synchronize(self) -> None:
        """Nothing to wait for."""

    @contextlib.contextmanager
    def auto_synchronize(self) -> Iterator["Stream"]:
        """A block at whose end nothing is left to wait for."""
        yield self

    def add_callback(self, callback: Callable[..., Any], arg: Any = None) -> None:
        """Call it: what came before is done."""
        callback(self, 0, arg)


class Event:
    """An event; no time passes between two."""

    def record(self, stream: Any = 0) -> None:
        """Nothing to note."""

    synchronize = wait = record

    def query(self) -> bool:
        """Whether it has happened."""
        return True

    def elapsed_time(self, other: "Event") -> float:
        """Milliseconds of a GPU, of which there is none."""
        return 0.0


DEVICE = types.SimpleNamespace(
    id=0, name=b"minidl's emulator", compute_capability=CC, WARP_SIZE=32,
    MULTIPROCESSOR_COUNT=grid.MULTIPROCESSORS, supports_float16=True, supports_bfloat16=False,
    supports_fp8=False,
    MAX_THREADS_PER_BLOCK=1024, MAX_SHARED_MEMORY_PER_BLOCK=49152, MAX_BLOCK_DIM_X=1024,
    MAX_BLOCK_DIM_Y=1024, MAX_BLOCK_DIM_Z=64, MAX_GRID_DIM_X=2**31 - 1, MAX_GRID_DIM_Y=65535,
    MAX_GRID_DIM_Z=65535, COOPERATIVE_LAUNCH=1, synchronize=lambda: None, reset=lambda: None,
)  # fmt: skip
CONTEXT = types.SimpleNamespace(device=DEVICE, synchronize=lambda: None, reset=lambda: None)


_memory: weakref.WeakValueDictionary[int, DeviceArray] = weakref.WeakValueDictionary()


def _known(a: DeviceArray) -> DeviceArray:
    """An array whose memory can be found by its address."""
    _memory[a.ctypes.data] = a
    return a


def memory_at(address: int) -> np.ndarray | None:
    """The array on the device that an address lies in."""
    for start, a in _memory.items():
        if start <= address < start + max(a.nbytes, 1):
            return a.view(np.ndarray)
    return None


def _to_device(obj: Any, stream: Any = 0, copy: bool = True, to: Any = None) -> Any:
    if to is not None:
        to.copy_to_device(obj, stream)
        return to
    if isinstance(obj, DeviceArray):
        return obj
    host = np.asarray(obj)
    contiguous(host)
    return _known(np.array(host, order="K").view(DeviceArray))


def _device_array(
    shape: Any, dtype: Any = np.float64, strides: Any = None, order: Any = "C", stream: Any = 0
) -> DeviceArray:
    like = np.empty(shape, dtype, order)
    return DeviceArray(like.shape, like.strides if strides is None else strides, dtype)


def _device_array_like(ary: Any, stream: Any = 0) -> DeviceArray:
    like = np.empty_like(ary, subok=False)  # its axes in the same order in memory
    return DeviceArray(like.shape, like.strides, like.dtype)


def as_device_array(obj: Any, sync: bool = True) -> DeviceArray:
    """An array on the device, of whatever says of itself by its interface that it is one."""
    return obj if isinstance(obj, DeviceArray) else as_array(obj).view(DeviceArray)


def is_device_array(obj: Any) -> bool:
    """Whether something says that it is an array on the device."""
    return hasattr(obj, "__cuda_array_interface__")


def _host_array(shape: Any, dtype: Any = np.float64, *_: Any, order: Any = "C", **__: Any) -> Any:
    return np.zeros(shape, dtype, order)


def _mapped_array(*args: Any, **options: Any) -> DeviceArray:
    return _host_array(*args, **options).view(DeviceArray)


@contextlib.contextmanager
def _nothing(*_: Any, **__: Any) -> Iterator[None]:
    yield


SERVED: dict[str, Any] = {
    "is_available": lambda: True,
    "get_current_device": lambda: DEVICE,
    "current_context": lambda devnum=None: CONTEXT,
    "select_device": lambda device_id=0: DEVICE,
    "gpus": [DEVICE],
    "close": lambda: None,
    "detect": lambda: True,
    "synchronize": lambda: None,
    "to_device": _to_device,
    "device_array": _device_array,
    "device_array_like": _device_array_like,
    "as_cuda_array": as_device_array,
    "is_cuda_array": is_device_array,
    "pinned_array": _host_array,
    "pinned_array_like": lambda ary: np.zeros_like(ary),
    "mapped_array": _mapped_array,
    "mapped_array_like": lambda ary, *_, **__: np.zeros_like(ary).view(DeviceArray),
    "managed_array": _mapped_array,
    "pinned": _nothing,
    "defer_cleanup": _nothing,
    "stream": Stream,
    "default_stream": Stream,
    "legacy_default_stream": Stream,
    "per_thread_default_stream": Stream,
    "event": lambda timing=True: Event(),
    "event_elapsed_time": lambda start, end: 0.0,
}


def contiguous(a: np.ndarray) -> None:
    """ValueError where a GPU would not get an array of the host's at once."""
    if not (a.flags.c_contiguous or a.flags.f_contiguous):
        raise ValueError(
            "numba-cuda copies whole arrays only: an array with gaps is no argument (use "
            "np.ascontiguousarray, or a view of an array on the device)"
        )
