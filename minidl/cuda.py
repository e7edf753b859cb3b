"""The device "cuda": is it there, what is it, and what is in its memory.

Names as in torch.cuda. Memory is what live arrays take, on a GPU and in the emulator alike; CuPy's
pool keeps what they leave for the next ones.
"""

from typing import Any, NamedTuple

from .backend import cuda_kernels, cuda_problem

__all__ = [
    "DeviceInfo", "OutOfMemoryError", "bus_id", "device_count", "devices", "empty_cache",
    "get_device_properties", "is_available", "launch_config", "max_memory_allocated",
    "memory_allocated", "memory_summary", "reset_peak_memory_stats", "synchronize",
]  # fmt: skip

OutOfMemoryError: type[MemoryError]  # of the kernels, which are loaded on demand
LISTED = 5  # tensors in a summary


class DeviceInfo(NamedTuple):
    """A device that computes: its name, compute capability, and bytes of memory."""

    name: str
    compute_capability: tuple[int, int]
    memory: int


def launch_config(count: int, threads: int = 128) -> tuple[int, int]:
    """(blocks, threads) for one thread per element: kernel[launch_config(x.size)](x, y).

    The last block may have threads to spare: a kernel asks `if cuda.grid(1) < x.size`.
    """
    if count < 0 or not 1 <= threads <= 1024:
        raise ValueError(
            f"launch_config: {count} elements in blocks of {threads} threads; a block has 1 to 1024"
        )
    return -(-count // threads), threads


def is_available() -> bool:
    """Whether `.to("cuda")` works: on a GPU, or with MINIDL_CUDA=emulate without one."""
    return not cuda_problem()


def devices() -> list[DeviceInfo]:
    """The GPU that minidl computes on, or the emulator; nothing where there is neither."""
    return [DeviceInfo(*_memory().describe())] if is_available() else []


def device_count() -> int:
    """How many devices there are to compute on: 1 at most."""
    return len(devices())


def get_device_properties(device: int = 0) -> DeviceInfo:
    """What a device is. IndexError for one that is not there."""
    found = devices()
    if not 0 <= device < len(found):
        problem = cuda_problem() or "minidl computes on one device, 0"
        raise IndexError(f"there is no device {device}: {problem}")
    return found[device]


def bus_id() -> str:
    """The GPU's place on the PCI bus, by which other libraries know it; empty in the emulator."""
    return _memory().bus_id()


def memory_allocated() -> int:
    """Bytes in arrays that are alive."""
    return _memory().allocated()


def max_memory_allocated() -> int:
    """The most bytes that were alive at once, since the start or reset_peak_memory_stats()."""
    return _memory().peak()


def reset_peak_memory_stats() -> None:
    """Let max_memory_allocated() count anew."""
    _memory().reset_peak()


def memory_summary() -> str:
    """What is in the device's memory, in a few lines: sums, and the largest arrays."""
    memory = _memory()
    name, (major, minor), _ = memory.describe()
    size, live = memory.readable, sorted(memory.live(), key=lambda a: -a.nbytes)
    free, total = memory.room()
    rows = [
        ("live", memory.allocated(), f"in {len(live):,} arrays"),
        ("peak", memory.peak(), "live at once"),
        ("reserved", memory.reserved(), "taken from the device, unused ones included"),
        *([("free", free, f"of {size(total)}")] if total else []),
        *(("largest" if i == 0 else "", a.nbytes, f"{a.dtype} {a.shape}")
          for i, a in enumerate(live[:LISTED])),
    ]  # fmt: skip
    lines = [f"{what:8} {size(nbytes):>14}  {note}" for what, nbytes, note in rows]
    return "\n".join([f"cuda: {name}, compute capability {major}.{minor}", *lines])


def synchronize() -> None:
    """Wait until the device has done all that it was asked for."""
    _memory().synchronize()


def empty_cache() -> None:
    """Give memory that waits for its next use back to the device, for other programs."""
    _memory().empty_cache()


def _memory() -> Any:
    problem = cuda_problem()
    if problem:
        raise RuntimeError(problem)
    return cuda_kernels().memory


def __getattr__(name: str) -> Any:
    if name == "OutOfMemoryError":
        return _memory().OutOfMemoryError
    raise AttributeError(f"module 'minidl.cuda' has no attribute {name!r}")
