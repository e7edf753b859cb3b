"""Launches on a GPU: the cubins of `cubin.py`, on CuPy's arrays, in CuPy's current stream.

numba-cuda's own launcher would wrap each array in objects of its own, some 30 us each, and may wait
for the GPU. A launch here looks up the loaded function by cheap facts about the arguments, writes
the numbers that Numba's kernels take for an array in a list, and hands that to the driver. It
waits for nothing, so it may stand in a captured graph; what is loaded by then, that is: loading
may not happen while a stream is captured.
"""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import cupy

from . import arguments, cubin
from ._numba import Kernel

FREE_SHARED = 48 * 1024  # bytes; a kernel that wants more has to ask the driver for it
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

_lock = threading.Lock()  # held while something is made that all threads share
_streams: dict[int, Any] = {}  # by device
_loaded: dict[tuple[Any, ...], "_Loaded"] = {}


class _Loaded(NamedTuple):
    """A kernel's function in the memory of one GPU."""

    function: Any  # cupy.cuda.function.Function
    floats: tuple[tuple[int, type], ...]  # Python floats among its words: where, and their dtype


def stream() -> Any:
    """CuPy's current stream; a non-blocking one of ours in the place of the default stream.

    Memory has to be asked for in the stream that uses it, so allocations call this, too. Our
    stream, one per device, waits for what was begun in the default stream before.
    """
    current = cupy.cuda.get_current_stream()
    if current.ptr:
        return current
    device = cupy.cuda.runtime.getDevice()
    with _lock:
        if device not in _streams:
            _streams[device] = cupy.cuda.Stream(non_blocking=True)
    ours = _streams[device]
    ours.wait_event(current.record())
    ours.use()
    return ours


def launch(
    kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], shared: int, args: Any
) -> None:
    """Start a kernel on the current GPU, and return before it has run."""
    on = stream()
    facts: list[Any] = [kernel, cupy.cuda.runtime.getDevice()]
    words: list[Any] = []
    contiguous = True  # all arrays together, as in `arguments.signature`
    for a in args:
        if isinstance(a, cupy.ndarray):
            facts += a.dtype, a.ndim
            contiguous = contiguous and a.flags.c_contiguous
            words += 0, 0, a.size, a.itemsize, a.data.ptr, *a.shape, *a.strides
        else:
            facts.append(type(a))
            words.append(a)
    key = contiguous, *facts
    try:
        function, floats = _loaded[key]
    except KeyError:
        function, floats = _loaded[key] = _load(kernel, args)
    for i, dtype in floats:
        words[i] = dtype(words[i])
    if shared > FREE_SHARED:
        cupy.cuda.driver.funcSetAttribute(function.ptr, _MAX_DYNAMIC_SHARED, shared)
    function(grid, block, words, shared, on)


def _load(kernel: Kernel, args: tuple[Any, ...]) -> _Loaded:
    """Bring a kernel to the current GPU. Here all is checked; launches of its like are not."""
    given = arguments.checked(kernel, args)
    cc = capability()
    code = cubin.compiled(kernel, arguments.signature(kernel, given), cc)
    module = cupy.cuda.function.Module()
    try:
        module.load(code.code)
    except cupy.cuda.driver.CUDADriverError as error:
        raise RuntimeError(
            f"{kernel.__name__}: the driver does not take code for compute capability "
            f"{cubin.dotted(cc)} made by {cubin.toolkit()} ({error}); minidl doctor tells more"
        ) from error
    return _Loaded(module.get_function(code.entry), tuple(_floats(args, given)))


def _floats(args: Any, given: Any) -> Iterator[tuple[int, type]]:
    """Where in the words `checked` put a number of another type in a Python float's place."""
    at = 0
    for before, after in zip(args, given):
        if after is not before:
            yield at, type(after)
        at += 5 + 2 * after.ndim if isinstance(after, cupy.ndarray) else 1


def capability() -> tuple[int, int]:
    """The current GPU's compute capability."""
    digits = cupy.cuda.Device().compute_capability  # "90"
    return int(digits[:-1]), int(digits[-1])
