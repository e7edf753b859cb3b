"""Compiled kernels: the one `jit` of this package, and where its machine code is kept.

Numba's own cache looks at the file of the function alone, so that after an edit of a function it
calls from another file it would go on running the old one. Ours keeps everything in one folder,
named after all that the code depends on: `<cache>/<hash of every file of kernels/ that this folder
may import, of the versions of numba, llvmlite and numpy, and of this CPU>/`. One file per function
and signature, which `disk.py` reads only where it is whole and this user's: machine code, in
Numba's pickled form, is the one thing here that is trusted.
"""

import functools
import hashlib
import pickle
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding
from numba import types
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.extending import intrinsic, register_jitable

from .. import ahead, disk
from ._threads import threads

# Elements from which threads pay: `python -m benchmarks.kernels --parallel`.
PARALLEL = 1 << 17
SHARED = 2  # tasks from which there is something to share
# Parts for a thread, so many that the last of them is not waited for long, and elements of each.
_PARTS, _PART = 16, 1 << 14


def jit(
    function: Callable[..., Any] | None = None, *, fast: tuple[str, ...] = (), key: str | None = ""
) -> Any:
    """Compile a function when it is first called, or load what an earlier process compiled.

    fast: the freedoms LLVM gets in float arithmetic, of "contract" (fused multiply-add), "reassoc"
    and "nsz". Never "nnan" or "ninf": NaN and infinity are results. key: on disk, in the
    place of what the function closes over, where that is not the same in every process; None: not
    on disk.
    """
    if function is None:
        return functools.partial(jit, fast=fast, key=key)
    kernel = numba.njit(function, nogil=True, error_model="numpy", fastmath=set(fast))
    if key is not None:
        kernel._cache = KernelCache(function, key)  # where njit(cache=True) puts Numba's own
    return kernel


def loop(
    function: Callable[..., Any] | None = None,
    *,
    fast: tuple[str, ...] = (),
    key: str | None = "",
) -> Any:
    """Compile f(start, stop, *args) for run(n, work, *args), which calls it on parts of range(n).

    work is the number of elements that pass through, times four where much is done to each: it
    decides whether threads share the parts. What the function does for a number must not depend
    on the part it stands in: then the bits do not depend on the threads.
    """
    if function is None:
        return functools.partial(loop, fast=fast, key=key)
    kernel = jit(function, fast=fast, key=key)
    run_shared: Callable[..., None] | None = None

    def run(n: int, work: int, *args: Any) -> None:
        nonlocal run_shared
        many = threads()
        if work < PARALLEL or many < 2 or n < SHARED:
            kernel(0, n, *args)
            return
        if run_shared is None:
            from .team import shared  # which is made of compiled functions itself

            run_shared = shared(kernel)
        run_shared(min(n, _PARTS * many, max(2, work // _PART)), n, *args)

    return run


def callable_within(scalar: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function of numbers, which becomes part of the compiled ones that call it."""
    return register_jitable(forceinline=True)(scalar)


@intrinsic
def widest(typing):
    """Let LLVM use the longest vectors of this CPU in the function that calls this.

    For AVX-512 it takes half of them by itself, for the sake of old CPUs that slowed down.
    """

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for width in ("prefer", "min-legal"):  # llvmlite's own add() knows no such attribute
            set.add(builder.function.attributes, f'"{width}-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), lower


class KernelCache(NullCache):
    """Machine code of one function on disk, in the place of Numba's FunctionCache."""

    broken = False  # of all: one warning is enough

    def __init__(self, function: Callable[..., Any], key: str = ""):
        self.function, self.key = function, key

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """The code for a signature, or None where it has to be compiled."""
        target_context.refresh()
        path = self.path(sig, target_context.codegen())
        code = disk.read(path)
        if code is None:
            ahead.begun(sys._getframe())
            code = disk.claim(path)
            if code is None:
                return None
            ahead.ended(kept=True)
        return CompileResult._rebuild(target_context, *pickle.loads(code))

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        """Keep freshly compiled code for the next process."""
        path = self.path(sig, data.codegen)
        try:
            kept = self._write(path, data)
        finally:
            disk.release(path)
        ahead.ended(kept)

    def _write(self, path: Path, data: CompileResult) -> bool:
        if KernelCache.broken or fingerprint() != _LOADED:
            return False  # files edited under a running process: its code is of neither version
        try:
            disk.write(path, dumps(data._reduce()))
        except OSError as error:
            KernelCache.broken = True
            print(
                f"minidl: compiled kernels cannot be kept in {folder()} ({error.strerror}), so "
                "every process compiles them again; MINIDL_CACHE names another folder",
                file=sys.stderr,
            )
        return not KernelCache.broken

    def path(self, sig: Any, codegen: Any) -> Path:
        """File of a signature: its name says which function, its hash all that differs within."""
        function = self.function
        cells = self.key or [cell.cell_contents for cell in function.__closure__ or ()]
        key = repr((function.__module__, function.__code__.co_firstlineno, sig))
        key += repr(codegen.magic_tuple())  # CPU and features, as Numba was told to see them
        digest = hashlib.sha256(key.encode() + dumps(cells)).hexdigest()
        return folder() / f"{function.__qualname__.replace('<locals>', '')}-{digest[:16]}.code"


def folder() -> Path:
    """Where this version of the kernels, on this machine, keeps its code."""
    return disk.home() / _LOADED[:16]


def fingerprint() -> str:
    """Hash of all that compiled code depends on."""
    versions = numba.__version__, llvmlite.__version__, np.__version__, platform.python_version()
    cpu = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    found = hashlib.sha256(repr((versions, cpu, sys.platform)).encode())
    root = Path(__file__).resolve().parents[1]
    for file in sorted(
        [*root.glob("*.py"), *root.glob("cpu/**/*.py"), *root.glob("reference/*.py")]
    ):
        source = file.read_bytes()
        found.update(f"{file.relative_to(root).as_posix()} {len(source)}\n".encode() + source)
    return found.hexdigest()


_LOADED = fingerprint()
