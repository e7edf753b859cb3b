"""Which signature of `cuda.jit("void(float32[:], int64)")` a launch takes, and its numbers so."""

from typing import Any

import numpy as np
from numba import types
from numba.np import numpy_support

from ._numba import cuda
from .arguments import Pointer
from .device import memory_at


def declared(kernel: Any, args: tuple[Any, ...]) -> Any:
    """The argument types of the signature of `cuda.jit(signature)` that these arguments fit."""
    signatures = getattr(kernel, "minidl_signatures", None)
    if not signatures:
        return None
    fitting = [kinds for kinds in signatures if _fits(kinds, args)]
    if not fitting:
        raise TypeError(f"{kernel.__name__}: no signature of it fits these arguments: {signatures}")
    return max(fitting, key=lambda kinds: sum(map(_keeps, kinds, args)))


def cast(name: str, kind: Any, value: Any) -> Any:
    """A number as a signature declares it, wrapped around as C does; others as they are."""
    if isinstance(kind, types.CPointer):
        if (memory := memory_at(int(value))) is None:
            raise TypeError(f"{name}: {value:#x} is no address in an array on the device")
        return Pointer.of(int(value), kind, memory)
    if isinstance(kind, types.BaseTuple):
        items = [cast(name, k, v) for k, v in zip(kind, value)]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if not isinstance(kind, (types.Number, types.Boolean)):
        return value
    return np.asarray(value).astype(np.dtype(str(kind)))[()]


def _fits(kinds: Any, args: tuple[Any, ...]) -> bool:
    """Whether arrays are what a signature declares, and numbers are where it declares numbers."""
    return len(kinds) == len(args) and all(map(_takes, kinds, map(plain, args)))


def _takes(kind: Any, value: Any) -> bool:
    if isinstance(kind, types.Array) or isinstance(value, np.ndarray):
        return (
            isinstance(kind, types.Array)
            and isinstance(value, np.ndarray)
            and kind.ndim == value.ndim
            and kind.dtype == numpy_support.from_dtype(value.dtype)
        )
    if isinstance(kind, types.BaseTuple) or isinstance(value, tuple):
        both = isinstance(kind, types.BaseTuple) and isinstance(value, tuple)
        return both and _fits(tuple(kind), value)
    return True


def _keeps(kind: Any, value: Any) -> bool:
    """Whether a number stays what it is when it is cast as declared."""
    value = plain(value)
    if not isinstance(kind, (types.Number, types.Boolean)):
        return True
    return np.can_cast(np.result_type(value), str(kind))


def plain(value: Any) -> Any:
    """An argument without cuda.In, Out or InOut around it."""
    return value.value if isinstance(value, cuda.args.ArgHint) else value
