"""Where arrays come from: CuPy's pool on a GPU, guarded memory where the emulator runs the kernels.

Each allocation is noted while it lives, so that an out-of-memory error can say what takes the room.
"""

import functools
import math
import os
import weakref
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..roles import Array
from . import _numba, guarded
from ._numba import emulation  # noqa: F401  (for who holds this module alone)
from .guarded import intact  # noqa: F401  (the emulator asks it about every argument)

MIB = 2**20
LISTED = 8  # tensors that an out-of-memory error names


class OutOfMemoryError(MemoryError):
    """There is no room for an array on the device."""


class Allocation(weakref.ref):
    """A live array: what it is, without keeping it alive."""

    __slots__ = ("shape", "dtype", "nbytes")
    shape: tuple[int, ...]
    dtype: np.dtype
    nbytes: int


_live: dict[int, Allocation] = {}
_bytes = {"live": 0, "peak": 0}


def _limit() -> int:
    """MINIDL_CUDA_MEMORY in bytes, 0 where it is unset: no limit but the device's own."""
    text = os.environ.get("MINIDL_CUDA_MEMORY", "0")
    if not text.isdecimal():
        raise ValueError(f"MINIDL_CUDA_MEMORY is {text!r}, but must be a whole number of MiB")
    return int(text) * MIB


LIMIT = _limit()


def emulated() -> bool:
    """Whether the emulator runs the kernels, and arrays are its guarded memory."""
    return _numba.EMULATED


@functools.cache
def _gpu() -> Any:
    from . import gpu  # it needs CuPy

    if LIMIT:
        gpu.cupy.get_default_memory_pool().set_limit(size=LIMIT)
    return gpu


def _cupy() -> Any:
    """CuPy, in the stream that kernels run in: its pool serves each stream by itself."""
    gpu = _gpu()
    gpu.stream()
    return gpu.cupy


def empty(shape: tuple[int, ...], dtype: DTypeLike, order: tuple[int, ...] | None = None) -> Array:
    """An array of a shape, unset. order: its axes from outermost in memory to innermost."""
    if order is None:
        return _new(shape, np.dtype(dtype))
    outward = _new(tuple(shape[a] for a in order), np.dtype(dtype))
    return outward.transpose(tuple(sorted(range(len(order)), key=order.__getitem__)))


def empty_like(x: Array) -> Array:
    """An array of x's shape, dtype and memory order, unset."""
    return empty(x.shape, x.dtype, memory_order(x))


def empty_image(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A batch of images (N, H, W, C), unset: channels innermost is what coalesced loads want."""
    return empty(shape, dtype)


def scratch(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Working space that is valid until the kernel returns; the pool has it ready again then."""
    return _new(shape, np.dtype(dtype))


def memory_order(x: Array) -> tuple[int, ...] | None:
    """x's axes from outermost in memory to innermost; None where that is C order."""
    if x.flags.c_contiguous:
        return None
    return tuple(sorted(range(x.ndim), key=lambda a: -abs(x.strides[a])))


def contiguous(x: Array) -> Array:
    """x in C order: itself where it is, else a copy."""
    if x.flags.c_contiguous:
        return x
    from .move import copy  # move stands on this file

    return copy(x, empty(x.shape, x.dtype), False)


def as_strided(x: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """A view of x from its first element on, with a shape and strides in bytes."""
    if isinstance(x, np.ndarray):
        return guarded.strided(x, shape, strides)
    return _cupy().lib.stride_tricks.as_strided(x, shape, strides)


def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """A view of x with its axes of length 1, and missing ones in front, repeated to a shape."""
    lengths = (1,) * (len(shape) - x.ndim) + x.shape
    strides = (0,) * (len(shape) - x.ndim) + x.strides
    if len(lengths) > len(shape) or any(n not in (1, m) for n, m in zip(lengths, shape)):
        raise ValueError(f"an array of shape {x.shape} does not broadcast to {shape}")
    return as_strided(x, shape, tuple(0 if n == 1 else s for n, s in zip(lengths, strides)))


def pointer(x: Array) -> int:
    """The address of x's first element."""
    return x.ctypes.data if isinstance(x, np.ndarray) else x.data.ptr


def from_host(host: np.ndarray) -> Array:
    """A copy of a NumPy array on the device, in C order."""
    x = _new(host.shape, host.dtype)
    if isinstance(x, np.ndarray):
        guarded.host(x)[...] = host
    else:
        x.set(np.ascontiguousarray(host).reshape(host.shape))  # staged: the host may change it then
    return x


def to_host(x: Array) -> np.ndarray:
    """A copy of x in NumPy, in C order, when all that was launched before is done."""
    if isinstance(x, np.ndarray):
        return np.array(guarded.host(x), order="C")
    _cupy()
    return contiguous(x).get()


def from_dlpack(source: Any) -> Array:
    """An array that shares the memory of a GPU's array of another library."""
    if emulated():
        raise TypeError("the emulator has no GPU memory to share: bring the array to the CPU first")
    return _cupy().from_dlpack(source)


def on_device(x: Any) -> bool:
    """Whether x is an array where kernels can work on it."""
    return isinstance(x, guarded.DeviceArray) or hasattr(x, "__cuda_array_interface__")


# ---- what is allocated


def _new(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    nbytes = math.prod(shape) * dtype.itemsize
    try:
        if not emulated():
            x = _cupy().empty(shape, dtype)
        elif LIMIT and _bytes["live"] + nbytes > LIMIT:
            raise MemoryError
        else:
            x = guarded.empty(shape, dtype)
    except MemoryError as error:  # CuPy's is one, raised when its pool has given back all it could
        raise OutOfMemoryError(_shortage(shape, dtype, nbytes)) from error
    note = Allocation(x, _forget)
    note.shape, note.dtype, note.nbytes = shape, dtype, nbytes
    _live[id(note)] = note
    _bytes["live"] += nbytes
    _bytes["peak"] = max(_bytes["peak"], _bytes["live"])
    return x


def _forget(note: Allocation) -> None:
    del _live[id(note)]
    _bytes["live"] -= note.nbytes


def _shortage(shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> str:
    free, total = room()
    asked = f"out of GPU memory: {readable(nbytes)} for {dtype} {shape} were asked for"
    there = f", {readable(free)} of {readable(total)} are free" if total else ""
    lines = [f"{asked}{there}; {len(_live):,} live tensors hold {readable(_bytes['live'])}"]
    largest = sorted(_live.values(), key=lambda a: -a.nbytes)[:LISTED]
    lines += [f"  {readable(a.nbytes):>12}  {a.dtype} {a.shape}" for a in largest]
    return "\n".join([*lines, "smaller batches, or `del` of tensors that are kept, make room"])


def readable(nbytes: int) -> str:
    """A number of bytes, in the unit that suits it."""
    unit = 0 if nbytes < 1024 else min((nbytes.bit_length() - 1) // 10, 3)
    digits = 1 if unit else 0
    return f"{nbytes / 1024**unit:,.{digits}f} {('bytes', 'KiB', 'MiB', 'GiB')[unit]}"


def room() -> tuple[int, int]:
    """Bytes that are free for arrays, and bytes in all; (0, 0) where nobody set a limit."""
    if emulated():
        return LIMIT and LIMIT - _bytes["live"], LIMIT
    pool = _cupy().get_default_memory_pool()
    free, total = _cupy().cuda.runtime.memGetInfo()
    if LIMIT:
        return min(LIMIT - pool.used_bytes(), free + pool.free_bytes()), LIMIT
    return free + pool.free_bytes(), total


def live() -> list[Allocation]:
    """The arrays that are alive, in the order in which they were made."""
    return list(_live.values())


def allocated() -> int:
    """Bytes in live arrays."""
    return _bytes["live"]


def peak() -> int:
    """The most bytes that were ever in live arrays at once."""
    return _bytes["peak"]


def reset_peak() -> None:
    """Count the peak anew, from what is live now."""
    _bytes["peak"] = _bytes["live"]


def reserved() -> int:
    """Bytes that were taken from the device, those that wait for their next use included."""
    return _bytes["live"] if emulated() else _cupy().get_default_memory_pool().total_bytes()


def empty_cache() -> None:
    """Give what waits for its next use back to the device."""
    if not emulated():
        _cupy().get_default_memory_pool().free_all_blocks()


def describe() -> tuple[str, tuple[int, int], int]:
    """The device's name, compute capability, and bytes of memory."""
    if emulated():
        from .emulator import CC  # it runs on Linux only, and so does sysconf

        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return "emulated on the CPU", CC, LIMIT or pages
    facts = _cupy().cuda.runtime.getDeviceProperties(_cupy().cuda.runtime.getDevice())
    name = facts["name"].decode(errors="replace")
    return name, (facts["major"], facts["minor"]), facts["totalGlobalMem"]


def bus_id() -> str:
    """The GPU's place on the PCI bus, by which other libraries know it; empty in the emulator."""
    return "" if emulated() else _cupy().cuda.Device().pci_bus_id


def synchronize() -> None:
    """Wait until all that was launched is done."""
    if not emulated():
        _cupy().cuda.runtime.deviceSynchronize()
