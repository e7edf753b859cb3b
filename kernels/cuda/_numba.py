"""The one place that imports numba-cuda: the `jit` of every kernel in this folder, and its launch.

numba-cuda is in maintenance mode; a move to its successor should touch this file and no other.
"""

import contextlib
import functools
import importlib.util
import inspect
import math
import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

# must be set before numba-cuda is imported: our small grids are small on purpose
os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")
if not hasattr(np, "row_stack"):  # numba-cuda 0.30 looks this name up; numpy 2.5 dropped it
    vars(np)["row_stack"] = np.vstack
# `from numba import cuda` alone would find the old numba.cuda that ships inside numba
if importlib.util.find_spec("numba_cuda") is None:
    raise ImportError(
        "the CUDA kernels need numba-cuda: pip install 'minidl[cuda13]', or 'minidl[emulate]' to "
        "run them on a CPU"
    )

from numba import cuda as _cuda
from numba.cuda.extending import intrinsic

cuda: Any = _cuda  # in a kernel its names mean other things than type checkers read

__all__ = [
    "EMULATED", "Kernel", "Launch", "blocks", "compile_ir", "cuda", "device", "emulation",
    "every_kernel", "intrinsic", "jit", "kernel_of", "linked", "recording", "triple",
]  # fmt: skip

if not cuda.is_available():  # to type a device function asks for the GPU's compute capability

    class _Device:
        compute_capability = (9, 0)

    cuda.dispatcher.get_current_device = lambda: _Device

_asked = os.environ.get("MINIDL_CUDA", "")
if _asked not in ("", "emulate"):
    raise ValueError(f"MINIDL_CUDA is {_asked!r}; it can be 'emulate' or unset")
# whether new arrays are emulated memory; `emulation` changes it
EMULATED = _asked == "emulate" or not cuda.is_available()

# inlined before typing: compiling a separate device function would ask for a GPU
device = cuda.jit(device=True, inline="always")
# typed once for all kernels and inlined by NVVM: typing a large kernel whole takes seconds
linked = cuda.jit(device=True, forceinline=True)


every_kernel: "weakref.WeakSet[Kernel]" = weakref.WeakSet()


class Kernel:
    """A CUDA kernel: `kernel[grid, block](*args)` runs it where its arrays are.

    NumPy arrays: the emulator runs the compiled kernel on the CPU. Arrays on the GPU: it is
    launched there. A grid with a 0 launches nothing. A third number, `kernel[grid, block, n]`, is
    the size of its dynamic shared memory in bytes.
    """

    def __init__(
        self,
        function: Callable[..., None],
        mixed: bool,
        min_cc: tuple[int, int],
        foreign: bool = False,
        debug: bool = False,
    ) -> None:
        self.foreign = foreign  # somebody's, with numba-cuda's own rules for arguments
        self.debug = debug  # whether it raises exceptions, as under `cuda.jit(debug=True)`
        self.function = self.__wrapped__ = function  # inspect.getsource finds it there
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
        self.mixed, self.min_cc = mixed, min_cc
        every_kernel.add(self)

    def __repr__(self) -> str:
        return f"Kernel({self.function.__module__}.{self.__name__})"

    def __getitem__(self, launch: tuple[Any, ...]) -> Callable[..., None]:
        grid, block, *shared = launch
        return functools.partial(self._launch, triple(grid), triple(block), *shared or (0,))

    def _launch(
        self, grid: tuple[int, ...], block: tuple[int, ...], shared: int, *args: Any
    ) -> None:
        if 0 in grid:
            return
        if _recorders:
            from . import arguments

            kinds = arguments.signature(self, arguments.checked(self, args))
            _recorders[-1].append(Launch(self, kinds, math.prod(block), shared))
        elif _on_host(args):
            from . import arguments, emulator  # a machine with a GPU may lack what they need

            emulator.launch(self, grid, block, shared, arguments.checked(self, args))
        else:
            _gpu().launch(self, grid, block, shared, args)


def _on_host(args: tuple[Any, ...]) -> bool:
    """Whether an array is NumPy's; while nothing is emulated, so fast that launches do not mind."""
    return np.ndarray in map(type, args) or (
        EMULATED and any(isinstance(a, np.ndarray) for a in args)
    )


@functools.cache
def _gpu() -> Any:
    from . import gpu

    return gpu


class Launch(NamedTuple):
    """A launch that was asked for: of which kernel, for which argument types, how large."""

    kernel: Kernel
    signature: tuple[Any, ...]
    threads: int  # of a block
    shared: int  # bytes of dynamic shared memory


_recorders: list[list[Launch]] = []


@contextlib.contextmanager
def recording() -> Iterator[list[Launch]]:
    """Note the launches inside this block instead of executing them: outputs stay unset."""
    _recorders.append([])
    try:
        yield _recorders[-1]
    finally:
        _recorders.pop()


@contextlib.contextmanager
def emulation() -> Iterator[None]:
    """Inside this block new arrays are emulated memory, on a machine with a GPU too."""
    global EMULATED
    before, EMULATED = EMULATED, True
    try:
        yield
    finally:
        EMULATED = before


def jit(
    function: Callable[..., None] | None = None,
    *,
    name: str = "",
    mixed: bool = False,
    min_cc: tuple[int, int] = (7, 5),
) -> Any:
    """Make a kernel of a function: `@jit`, or `@jit(min_cc=(8, 0))`.

    name: of the kernel, where one function makes several. mixed: it may be given float arrays of
    different dtypes. min_cc: the compute capability from which on it can be compiled.
    """
    if function is None:
        return functools.partial(jit, name=name, mixed=mixed, min_cc=min_cc)
    if name:
        function.__name__ = function.__qualname__ = name
    return Kernel(function, mixed, min_cc)


def kernel_of(given: Any) -> Kernel:
    """A kernel of ours, of numba-cuda's `cuda.jit`, or a plain function, as one of ours."""
    if isinstance(given, Kernel):
        return given
    function = getattr(given, "py_func", given)
    if not callable(function) or not hasattr(function, "__code__"):
        raise TypeError(f"a kernel is a function under cuda.jit, not a {type(given).__name__}")
    return _foreign(function, bool(getattr(given, "targetoptions", {}).get("debug")))


@functools.cache
def _foreign(function: Callable[..., None], debug: bool) -> Kernel:
    return Kernel(function, True, (7, 5), foreign=True, debug=debug)


def blocks(count: int, size: int) -> int:
    """How many blocks of a size cover a count."""
    return -(-count // size)


def triple(n: int | tuple[int, ...]) -> tuple[int, ...]:
    """A size of a grid or a block along three axes."""
    n = tuple(n) if isinstance(n, (tuple, list)) else (n,)
    return n + (1,) * (3 - len(n))


def compile_ir(
    kernel: Callable[..., None],
    types: tuple[Any, ...],
    lines: bool = False,
    raises: dict[int, Any] | None = None,
) -> list[str]:
    """The LLVM IR that numba-cuda makes of a kernel, before NVVM sees it. Needs no GPU.

    The kernel's module comes first, then one for each device function that is not inlined. lines:
    each instruction tells the line of the source that it is for. raises: the kernel raises
    exceptions, as under debug=True; filled with what its error codes mean: class, arguments, and
    function, file and line.
    """
    _tell_lines(kernel)
    with warnings.catch_warnings():  # those of a lambda, or of what was typed in, say
        warnings.filterwarnings("ignore", "Could not find source for function")
        if raises is None:
            return _library(kernel, types, lineinfo=lines).llvm_strs
        library, known = _raising(kernel, types, lines)
    raises.update(known)
    return library.llvm_strs


def _raising(kernel: Callable[..., None], types: tuple[Any, ...], lines: bool) -> Any:
    """A kernel as `cuda.jit(debug=True)` lowers it, and its exceptions by their codes."""
    compiler = cuda.compiler
    asked = {"debug": True, "lineinfo": lines, "nvvm_options": {"opt": 0}, "cc": (7, 5)}
    made = compiler.compile_cuda(kernel, None, types, **asked)
    name = made.fndesc.llvm_func_name
    made.library._entry_name = name
    compiler.kernel_fixup(made.library.get_function(name), True)
    return made.library, made.call_helper.exceptions


def _tell_lines(function: Callable[..., None]) -> None:
    """Let device functions tell their lines: each is compiled once, for whoever calls it first."""
    known = inspect.getclosurevars(function)
    for called in (*known.globals.values(), *known.nonlocals.values()):
        options = getattr(called, "targetoptions", {})
        if options.get("device") and not options.get("lineinfo"):
            options["lineinfo"] = True
            _tell_lines(called.py_func)


def captured(function: Callable[..., None], seen: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The arrays on the device that a kernel, or a function that it calls, has by name."""
    known = inspect.getclosurevars(function)
    found: dict[str, Any] = {}
    for name, value in {**known.globals, **known.nonlocals}.items():
        if hasattr(value, "__cuda_array_interface__"):
            found[name] = value
        elif getattr(value, "targetoptions", {}).get("device") and value.py_func not in seen:
            found |= captured(value.py_func, (*seen, value.py_func))
    return found


def compile_ptx(
    kernel: Callable[..., None], types: tuple[Any, ...], cc: tuple[int, int], mark: str | None
) -> str:
    """The PTX that NVVM makes of a kernel for a compute capability, as `cuda.compile` does.

    mark: a hash of all that the kernel depends on. With one, it is typed and lowered once for
    several capabilities asked for in a row, which takes most of the time.
    """
    library = _kept(kernel, types, mark) if mark else _library(kernel, types)
    (text,) = library.get_asm_strs(cc=cc)
    return text


@functools.lru_cache(maxsize=1)
def _kept(kernel: Callable[..., None], types: tuple[Any, ...], mark: str) -> Any:
    return _library(kernel, types)


def _library(kernel: Callable[..., None], types: tuple[Any, ...], **options: bool) -> Any:
    """A kernel as numba-cuda lowers it, which does not depend on the GPU from 7.5 on.

    The only private call into numba-cuda: the public `cuda.compile` returns PTX alone.
    """
    try:
        compiled = cuda.compiler._compile_pyfunc_with_fixup
    except AttributeError as moved:
        raise RuntimeError(
            "numba-cuda's private compiler entry has moved (known good: numba-cuda 0.30.4): "
            "see how cuda.compile works there and update _library in kernels/cuda/_numba.py"
        ) from moved
    return compiled(kernel, types, device=False, abi="numba", cc=(7, 5), **options)[0]
