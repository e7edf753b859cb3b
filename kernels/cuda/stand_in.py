"""numba-cuda's own launches and arrays, served by the emulator: programs run without a GPU.

    with standing_in():
        ...  # kernel[grid, block](x), cuda.to_device(x), y.copy_to_host()

What a program imports stays numba-cuda: its kernels are compiled by it, and the names through
which it asks the driver for memory, streams, events and launches answer from here meanwhile.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ._numba import Kernel, cuda, kernel_of, triple
from .arguments import checked
from .declared import cast, declared, plain
from .device import (
    CONTEXT,
    DEVICE,
    SERVED,
    DeviceArray,
    as_device_array,
    contiguous,
    is_device_array,
)
from .emulator import grid, launch
from .sanitizer import Report, sanitize

FORALL = 256  # threads of a block where `forall` leaves them to the driver


class Asked(NamedTuple):
    """A launch that a program asks for. fresh: names of arrays in which nothing is yet."""

    kernel: Kernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: tuple[Any, ...]
    shared: int
    fresh: tuple[str, ...]


def _emulate(asked: Asked) -> None:
    """Run a launch in the emulator."""
    kernel, grid, block, args, shared, _ = asked
    launch(kernel, grid, block, shared, checked(kernel, args))


def watched(asked: Asked) -> Report:
    """What the sanitizer says of a launch."""
    kernel, grid, block, args, shared, fresh = asked
    return sanitize(kernel, grid, block, *args, shared=shared, fresh=fresh)


def asked(kernel: Any, grid: Any, block: Any, args: tuple[Any, ...], shared: int = 0) -> Asked:
    """A launch of a kernel, with what is to be done to its arguments done to them."""
    ours, given, fresh = kernel_of(kernel), [], []
    kinds = declared(kernel, args)
    extensions = getattr(kernel, "extensions", None) or ()
    for i, a in enumerate(args):
        for extension in reversed(extensions):
            kind = cuda.dispatcher.typeof(plain(a))
            _, a = extension.prepare_args(kind, a, stream=0, retr=[])
        given_in, out, a = type(a) is cuda.args.In, type(a) is cuda.args.Out, plain(a)
        if isinstance(a, DeviceArray):
            out, a.owner.unwritten = a.owner.unwritten, False
        if out and i < len(ours.parameters):
            fresh.append(ours.parameters[i])
        if kinds and not isinstance(a, np.ndarray):
            a = cast(ours.__name__, kinds[i], a)
        a = _on_device(a)
        given.append(a.copy(order="K") if given_in and isinstance(a, np.ndarray) else a)
    return Asked(ours, triple(grid), triple(block), tuple(given), shared, tuple(fresh))


def _on_device(a: Any) -> Any:
    """An argument as the emulator takes it."""
    if isinstance(a, tuple):
        items = map(_on_device, a)
        return type(a)(*items) if hasattr(a, "_fields") else tuple(items)
    if isinstance(a, np.ndarray):
        if isinstance(a, DeviceArray):
            a.owner.unwritten = False
        else:
            contiguous(a)
        return a.view(np.ndarray)
    return as_device_array(a).view(np.ndarray) if is_device_array(a) else a


def launched(
    kernel: Any,
    grid: Any,
    block: Any,
    args: tuple[Any, ...],
    shared: int = 0,
    fresh: tuple[str, ...] = (),
    watch: bool = False,
) -> Report | None:
    """Run a kernel on NumPy arrays in any strides. watch: return the sanitizer's report of it."""
    ours = Asked(kernel_of(kernel), triple(grid), triple(block), args, shared, fresh)
    if watch:
        return watched(ours)
    _emulate(ours)
    return None


class Compiled:
    """A kernel for one set of argument types, as a dispatcher has it in `overloads`.

    numba-cuda compiles it when somebody asks for what only numba-cuda knows: its PTX, say.
    """

    def __init__(self, dispatcher: Any, kinds: tuple[Any, ...]) -> None:
        self._dispatcher, self.argtypes = dispatcher, kinds

    @functools.cached_property
    def _made(self) -> Any:
        options = self._dispatcher.targetoptions
        return cuda.dispatcher._Kernel(self._dispatcher.py_func, self.argtypes, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)

    def max_cooperative_grid_blocks(self, blockdim: Any, dynsmemsize: int = 0) -> int:
        """How many blocks of a size the GPU that is emulated has room for at once."""
        return grid.resident(math.prod(triple(blockdim)), dynsmemsize)


@contextlib.contextmanager
def _changed(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Inside this block attributes of objects are others."""
    before = [(where, name, getattr(where, name)) for where, name, _ in changes]
    for where, name, answer in changes:
        setattr(where, name, answer)
    try:
        yield
    finally:
        for where, name, answer in before:
            setattr(where, name, answer)


@contextlib.contextmanager
def standing_in(serve: Callable[[Asked], Any] = _emulate) -> Iterator[None]:
    """Inside this block programs that use numba-cuda run here, with or without a GPU.

    serve: what is done with each launch; by default the emulator runs it.
    """
    dispatcher = cuda.dispatcher

    def call(self: Any, args: Any, config: Any) -> None:
        if 0 not in config.griddim:
            serve(asked(self, config.griddim, config.blockdim, args, config.sharedmem))
        if not getattr(self, "minidl_signatures", None):
            kinds = tuple(self.typeof_pyval(plain(a)) for a in args)
            self.overloads.setdefault(kinds, Compiled(self, kinds))

    def forall(self: Any, *args: Any) -> None:
        block = self.thread_per_block or FORALL
        if self.ntasks:
            self.dispatcher[-(-self.ntasks // block), block, 0, self.sharedmem](*args)

    def compile_(self: Any, signature: Any) -> Any:
        kinds = tuple(signature)
        vars(self).setdefault("minidl_signatures", []).append(kinds)
        return self.overloads.setdefault(kinds, Compiled(self, kinds))

    compiling = dispatcher.CUDADispatcher.disable_compile

    def disable_compile(self: Any, val: bool = True) -> None:
        if self.targetoptions.get("device"):  # a kernel of a signature is compiled when launched
            compiling(self, val)

    changes = [
        (dispatcher.CUDADispatcher, "call", call),
        (dispatcher.CUDADispatcher, "compile", compile_),
        (dispatcher.CUDADispatcher, "disable_compile", disable_compile),
        (dispatcher.CUDADispatcher, "specialize", lambda self, *args: self),
        (dispatcher.ForAll, "__call__", forall),
        (dispatcher.driver, "_to_core_stream", lambda stream: stream),
        (dispatcher, "get_current_device", lambda: DEVICE),
        (cuda.cudadrv.devices, "get_context", lambda devnum=None: CONTEXT),
        (cuda.cudadrv.devicearray, "DeviceNDArray", DeviceArray),
        (dispatcher.config, "CUDA_LOW_OCCUPANCY_WARNINGS", 0),
    ]
    for name, answer in SERVED.items():
        changes += [(m, name, answer) for m in (cuda, cuda.api) if hasattr(m, name)]
    with _changed(changes):
        yield
