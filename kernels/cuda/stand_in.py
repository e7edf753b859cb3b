"""numba-cuda's own launches and arrays, served by the emulator: programs run without a GPU.

    with standing_in():
        ...  # kernel[grid, block](x), cuda.to_device(x), y.copy_to_host()

What a program imports stays numba-cuda: its kernels are compiled by it, and the names through
which it asks the driver for memory, streams, events and launches answer from here meanwhile.
"""

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ._numba import Kernel, cuda, kernel_of, triple
from .arguments import checked
from .emulator import CC, launch
from .sanitizer import Report, sanitize

FORALL = 256  # threads of a block where `forall` leaves them to the driver
UNSET = 0xFF  # bytes of new device memory: NaN, or -1


class Asked(NamedTuple):
    """A launch that a program asks for. fresh: names of arrays in which nothing is yet."""

    kernel: Kernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: tuple[Any, ...]
    shared: int
    fresh: tuple[str, ...]


class DeviceArray(np.ndarray):
    """What stands for an array on the GPU."""

    unwritten = False  # of what owns the memory

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


_DEVICE = types.SimpleNamespace(
    id=0, name=b"minidl's emulator", compute_capability=CC, WARP_SIZE=32, MULTIPROCESSOR_COUNT=1,
    MAX_THREADS_PER_BLOCK=1024, MAX_SHARED_MEMORY_PER_BLOCK=49152, MAX_BLOCK_DIM_X=1024,
    MAX_BLOCK_DIM_Y=1024, MAX_BLOCK_DIM_Z=64, MAX_GRID_DIM_X=2**31 - 1, MAX_GRID_DIM_Y=65535,
    MAX_GRID_DIM_Z=65535, COOPERATIVE_LAUNCH=0, synchronize=lambda: None, reset=lambda: None,
)  # fmt: skip
_CONTEXT = types.SimpleNamespace(device=_DEVICE, synchronize=lambda: None, reset=lambda: None)


def _to_device(obj: Any, stream: Any = 0, copy: bool = True, to: Any = None) -> Any:
    if to is not None:
        to.copy_to_device(obj, stream)
        return to
    if isinstance(obj, DeviceArray):
        return obj
    host = np.asarray(obj)
    _contiguous(host)
    return np.array(host, order="K").view(DeviceArray)


def _device_array(
    shape: Any, dtype: Any = np.float64, strides: Any = None, order: Any = "C", stream: Any = 0
) -> DeviceArray:
    like = np.empty(shape, dtype, order)
    if strides is not None:
        like = np.lib.stride_tricks.as_strided(np.empty(1, dtype), like.shape, strides)
    return _device_array_like(like)


def _device_array_like(ary: Any, stream: Any = 0) -> DeviceArray:
    like = np.empty_like(ary, subok=False)  # its axes in the same order in memory
    memory = np.full(max(like.nbytes, 1), UNSET, np.uint8)
    made = DeviceArray(like.shape, like.dtype, memory.data, 0, like.strides)
    made.unwritten = True
    return made


def _host_array(shape: Any, dtype: Any = np.float64, *_: Any, order: Any = "C", **__: Any) -> Any:
    return np.zeros(shape, dtype, order)


def _mapped_array(*args: Any, **options: Any) -> DeviceArray:
    return _host_array(*args, **options).view(DeviceArray)


@contextlib.contextmanager
def _nothing(*_: Any, **__: Any) -> Iterator[None]:
    yield


_SERVED: dict[str, Any] = {
    "is_available": lambda: True,
    "get_current_device": lambda: _DEVICE,
    "current_context": lambda devnum=None: _CONTEXT,
    "select_device": lambda device_id=0: _DEVICE,
    "gpus": [_DEVICE],
    "close": lambda: None,
    "detect": lambda: True,
    "synchronize": lambda: None,
    "to_device": _to_device,
    "device_array": _device_array,
    "device_array_like": _device_array_like,
    "as_cuda_array": lambda obj, sync=True: obj,
    "is_cuda_array": lambda obj: isinstance(obj, DeviceArray),
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


def _contiguous(a: np.ndarray) -> None:
    """ValueError where a GPU would not get an array of the host's at once."""
    if not (a.flags.c_contiguous or a.flags.f_contiguous):
        raise ValueError(
            "numba-cuda copies whole arrays only: an array with gaps is no argument (use "
            "np.ascontiguousarray, or a view of an array on the device)"
        )


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
    declared = _declared(kernel, args)
    if name := _captured(ours.function):
        raise TypeError(
            f"{ours.__name__} refers to {name}, an array on the device, by a global name; the "
            "emulator does not know that: make it an argument"
        )
    for i, a in enumerate(args):
        out, a = type(a) is cuda.args.Out, _plain(a)
        if isinstance(a, DeviceArray):
            out, a.owner.unwritten = a.owner.unwritten, False
        elif isinstance(a, np.ndarray):
            _contiguous(a)
        if out and i < len(ours.parameters):
            fresh.append(ours.parameters[i])
        if declared and not isinstance(a, np.ndarray):
            a = _cast(ours.__name__, declared[i], a)
        given.append(a.view(np.ndarray) if isinstance(a, np.ndarray) else a)
    return Asked(ours, triple(grid), triple(block), tuple(given), shared, tuple(fresh))


def _declared(kernel: Any, args: tuple[Any, ...]) -> Any:
    """The argument types of the signature of `cuda.jit(signature)` that these arguments fit."""
    signatures = getattr(kernel, "minidl_signatures", None)
    if not signatures:
        return None
    fitting = [kinds for kinds in signatures if _fits(kinds, args)]
    if not fitting:
        raise TypeError(f"{kernel.__name__}: no signature of it fits these arguments: {signatures}")
    return max(fitting, key=lambda kinds: sum(map(_keeps, kinds, args)))


def _captured(function: Callable[..., None]) -> str | None:
    """The name of an array on the device that is no argument."""
    code = function.__code__
    known = {n: function.__globals__.get(n) for n in code.co_names}
    cells = zip(code.co_freevars, function.__closure__ or ())
    known |= {n: cell.cell_contents for n, cell in cells}
    return next((n for n, value in known.items() if isinstance(value, DeviceArray)), None)


def _cast(name: str, kind: Any, value: Any) -> Any:
    """A number as a signature declares it."""
    try:
        return np.dtype(str(kind)).type(value)
    except TypeError as error:
        raise TypeError(
            f"{name}: it takes {kind}; the emulator takes arrays and numbers"
        ) from error


def _fits(kinds: Any, args: tuple[Any, ...]) -> bool:
    """Whether arrays are what a signature declares, and numbers are where it declares numbers."""
    shapes = [(getattr(k, "ndim", None), str(getattr(k, "dtype", ""))) for k in kinds]
    given = [_plain(a) for a in args]
    return shapes == [
        (a.ndim, a.dtype.name) if isinstance(a, np.ndarray) else (None, "") for a in given
    ]


def _keeps(kind: Any, value: Any) -> bool:
    """Whether a number stays what it is when it is cast as declared."""
    value = _plain(value)
    return isinstance(value, np.ndarray) or np.can_cast(np.result_type(value), str(kind))


def _plain(value: Any) -> Any:
    """An argument without cuda.In, Out or InOut around it."""
    return value.value if isinstance(value, cuda.args.ArgHint) else value


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


@contextlib.contextmanager
def standing_in(serve: Callable[[Asked], Any] = _emulate) -> Iterator[None]:
    """Inside this block programs that use numba-cuda run here, with or without a GPU.

    serve: what is done with each launch; by default the emulator runs it.
    """
    dispatcher = cuda.dispatcher

    def call(self: Any, args: Any, config: Any) -> None:
        if 0 not in config.griddim:
            serve(asked(self, config.griddim, config.blockdim, args, config.sharedmem))

    def forall(self: Any, *args: Any) -> None:
        block = self.thread_per_block or FORALL
        if self.ntasks:
            self.dispatcher[-(-self.ntasks // block), block, 0, self.sharedmem](*args)

    def compile_(self: Any, signature: Any) -> None:
        vars(self).setdefault("minidl_signatures", []).append(tuple(signature))

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
        (dispatcher, "get_current_device", lambda: _DEVICE),
        (cuda.cudadrv.devices, "get_context", lambda devnum=None: _CONTEXT),
        (dispatcher.config, "CUDA_LOW_OCCUPANCY_WARNINGS", 0),
    ]
    for name, answer in _SERVED.items():
        changes += [(m, name, answer) for m in (cuda, cuda.api) if hasattr(m, name)]
    before = [(where, name, getattr(where, name)) for where, name, _ in changes]
    for where, name, answer in changes:
        setattr(where, name, answer)
    try:
        yield
    finally:
        for where, name, answer in before:
            setattr(where, name, answer)
