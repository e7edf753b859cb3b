"""What the code of a kernel depends on, and a folder for what was compiled of it.

A kernel is compiled again when it has changed, or a function, a number or a dtype it refers to, in
whatever file that stands; and only then: an edit of one kernel leaves the others' code valid.
Nothing of the machine is in a fingerprint, so code can be compiled on one and run on another.
"""

import dis
import functools
import hashlib
import sys
import types
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import disk
from ._numba import Kernel

# What is theirs is told by name, for their versions are in the hash.
_THEIRS = {*sys.stdlib_module_names, "numpy", "numba", "llvmlite"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))


class _NoHash(Exception):
    """A kernel refers to something whose value cannot be told."""


@functools.cache
def versions() -> tuple[str, ...]:
    """Of what turns a kernel into code."""
    python = "python {}.{}".format(*sys.version_info)
    return python, *(f"{p} {metadata.version(p)}" for p in ("numba", "numba-cuda", "llvmlite"))


def fingerprint(kernel: Kernel) -> str | None:
    """Hash of all that the code of a kernel depends on, but the types of its arguments.

    None where the kernel refers to something that has no hash: each process then compiles it
    anew. Nothing is compiled to find this out.
    """
    try:
        told = _tell_function(kernel.function, [])
    except _NoHash:
        return None
    return hashlib.sha256(repr((versions(), told)).encode()).hexdigest()


def _tell(value: Any, seen: list[Any]) -> str:
    """A text that tells a value apart from all others a kernel could refer to in its place."""
    kind = type(value)
    if kind in _PLAIN:
        return f"{kind.__name__} {value!r}"
    if isinstance(value, (tuple, frozenset)):
        inner = [_tell(v, seen) for v in value]
        fields = getattr(value, "_fields", "")  # of a NamedTuple
        return f"{kind.__name__} {fields} {sorted(inner) if kind is frozenset else inner}"
    if hasattr(value, "__cuda_array_interface__"):
        raise _NoHash  # its address is in the code
    if isinstance(value, (np.generic, np.ndarray)):
        return f"array {value.dtype} {value.shape} {value.tobytes().hex()}"
    if isinstance(value, types.ModuleType):
        return _theirs(value.__name__, "module")
    # a device function of numba-cuda's, or an intrinsic: by the function that was decorated
    function = getattr(value, "py_func", None) or getattr(value, "_defn", value)
    if isinstance(function, types.FunctionType):
        options = getattr(value, "targetoptions", {})
        asked = options.get("fastmath"), options.get("debug")
        return f"{kind.__name__} {asked} {_tell_function(function, seen)}"
    if name := getattr(value, "__qualname__", None):
        return _theirs(value.__module__ or "builtins", name)
    if kind.__module__.startswith(("numpy.", "numba.", "llvmlite.")):  # dtypes, and types
        return _theirs(kind.__module__, f"{kind.__name__} {value}")
    raise _NoHash


def _theirs(module: str, name: str) -> str:
    if module.split(".")[0] not in _THEIRS or " at 0x" in name:  # an address says nothing
        raise _NoHash
    return f"{module} {name}"


def _tell_function(function: Any, seen: list[Any]) -> str:
    """All that a function does: its code, and all that the code refers to."""
    if function in seen:
        return f"function {seen.index(function)}"
    named = "<locals>" not in function.__qualname__  # else a function makes it, in many versions
    if named and (function.__module__ or "").split(".")[0] in _THEIRS:
        return _theirs(function.__module__, function.__qualname__)
    seen.append(function)
    try:
        cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError as empty:
        raise _NoHash from empty
    given = *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()
    return f"{_tell((cells, given), seen)} {_tell_code(function.__code__, function, seen)}"


def _tell_code(code: types.CodeType, function: types.FunctionType, seen: list[Any]) -> str:
    inner = [
        _tell_code(c, function, seen) if isinstance(c, types.CodeType) else _tell(c, seen)
        for c in code.co_consts
    ]
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_flags
    used = [_tell(value, seen) for value in _globals(code, function)]
    return f"{code.co_code.hex()} {names} {inner} {used}"


def _globals(code: types.CodeType, function: types.FunctionType) -> Iterator[Any]:
    """The values of the global names in a piece of code; of `module.name`, if that is ours."""
    steps = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
    for at, step in enumerate(steps):
        if step.opname != "LOAD_GLOBAL":
            continue
        known = function.__globals__, vars(sys.modules["builtins"])
        value = next((names[step.argval] for names in known if step.argval in names), _NoHash)
        for after in steps[at + 1 :]:
            if not isinstance(value, types.ModuleType) or after.argval not in vars(value):
                break
            if value.__name__.split(".")[0] in _THEIRS:
                break
            value = vars(value)[after.argval]
        if value is _NoHash:
            raise _NoHash  # a name that is nowhere
        yield value


# ---- the folder


def load(kind: str, key: str) -> bytes | None:
    """What was stored under a key; None where nothing was, or it is not to be trusted."""
    return disk.read(_path(kind, key))


def store(kind: str, key: str, data: bytes) -> None:
    """Keep data for later processes; where the folder cannot be written, say so once."""
    try:
        disk.write(_path(kind, key), data)
    except OSError as error:
        _say_once(f"minidl: CUDA kernels cannot be kept in {folder()} ({error.strerror})")


def folder() -> Path:
    """Where compiled CUDA kernels are kept."""
    return disk.home() / "cuda"


def _path(kind: str, key: str) -> Path:
    return folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.{kind}"


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)
