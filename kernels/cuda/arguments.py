"""What a kernel is given: the Numba types it is compiled for, and the words it is called with."""

import enum
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import NumbaError
from numba.np import numpy_support

from ._numba import Kernel, cuda


class Pointer(int):
    """An address, for a kernel whose signature declares a pointer."""

    kind: types.Type
    memory: np.ndarray  # the array it points into

    @classmethod
    def of(cls, address: int, kind: types.Type, memory: np.ndarray) -> "Pointer":
        """An address in an array, of what a type of pointer points to."""
        made = cls(address)
        made.kind, made.memory = kind, memory
        return made


class _Seen:
    """What NumPy sees of somebody's array on the device."""

    def __init__(self, given: Any) -> None:
        told = given.__cuda_array_interface__
        self.given = given  # whose memory it is
        self.__array_interface__ = {k: told[k] for k in ("shape", "typestr", "data")}
        self.__array_interface__ |= {"strides": told.get("strides"), "version": 3}
        self.__array_interface__ |= {"descr": told["descr"]} if "descr" in told else {}


def as_array(given: Any) -> np.ndarray:
    """Emulated memory as NumPy's, of what says by its interface that it is an array there."""
    return np.asarray(given if isinstance(given, np.ndarray) else _Seen(given))


def checked(kernel: Kernel, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, each Python float in the dtype of the first float array.

    So no Python number can turn a float32 kernel into a float64 one. TypeError for a wrong number
    of arguments, for arrays of which some are on the GPU and some are not, and for float arrays of
    different dtypes unless the kernel is `jit(mixed=True)`. A foreign kernel's Python floats are
    float64, as numba-cuda launches it.
    """
    if len(args) != len(kernel.parameters):
        names = ", ".join(kernel.parameters)
        raise TypeError(f"{kernel.__name__}: got {len(args)} arguments for ({names})")
    arrays = {n: a for n, a in leaves(kernel, args).items() if is_array(a)}
    on_host = [n for n, a in arrays.items() if isinstance(a, np.ndarray)]
    if 0 < len(on_host) < len(arrays):
        one, what = ("is a", "array") if len(on_host) == 1 else ("are", "arrays")
        names = ", ".join(on_host)
        raise TypeError(f"{kernel.__name__}: {names} {one} NumPy {what}, the rest is on the GPU")
    floats = [a.dtype for a in arrays.values() if a.dtype.kind == "f"]
    if len(set(floats)) > 1 and not kernel.mixed:
        found = [f"{n} {a.dtype}" for n, a in arrays.items()]
        raise TypeError(f"{kernel.__name__}: mixed float dtypes ({', '.join(found)})")
    if floats and not kernel.foreign:
        args = tuple(floats[0].type(a) if type(a) is float else a for a in args)
    return args


def leaves(kernel: Kernel, args: tuple[Any, ...]) -> dict[str, Any]:
    """What arguments are made of, by name: of a tuple t its items, t[0], t[1], or by their fields.

    A record becomes an array without axes.
    """
    given = zip(kernel.parameters, args)
    if not kernel.foreign:
        return dict(given)
    return dict(leaf for name, value in given for leaf in _leaves(name, value))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", None)
        for i, item in enumerate(value):
            yield from _leaves(f"{name}.{fields[i]}" if fields else f"{name}[{i}]", item)
    else:
        yield name, np.asarray(value) if isinstance(value, np.void) else value


def is_array(value: Any) -> bool:
    """Whether an argument is an array of NumPy or CuPy; NumPy's scalars have strides, too."""
    return hasattr(value, "strides") and hasattr(value, "flags") and not np.isscalar(value)


def flatten(args: tuple[Any, ...]) -> Iterator[tuple[int, bool]]:
    """The arguments in words of 8 bytes, and of each whether an array's or a record's memory
    begins there: an array is meminfo, parent, size, itemsize, data, shape, strides; a record is
    its address; a number lies at the start of its word, each part of a complex one in its own."""
    for a in args:
        if isinstance(a, np.ndarray):
            yield from ((word, False) for word in (0, 0, a.size, a.itemsize))
            yield a.ctypes.data, True
            yield from ((word, False) for word in (*a.shape, *a.strides))
        elif type(a) is int:
            yield a, False
        elif isinstance(a, tuple):
            yield from flatten(a)
        elif isinstance(a, np.void):
            yield np.asarray(a).ctypes.data, True
        elif isinstance(a, (complex, np.complexfloating)):
            yield from flatten((a.real, a.imag))
        elif isinstance(a, enum.Enum):
            yield from flatten((a.value,))
        else:
            raw = np.asarray(a).tobytes()
            yield int.from_bytes(raw, "little", signed=len(raw) == 8), isinstance(a, Pointer)


def _foreign_type(value: Any) -> types.Type | None:
    """The type that numba-cuda gives a value that is no array; None where a launch takes none."""
    if isinstance(value, Pointer):
        return value.kind
    if not isinstance(value, (np.generic, int, float, complex, enum.Enum)):
        return None
    try:
        return cuda.dispatcher.typeof(value)
    except (NumbaError, ValueError):
        return None


def _type_of(kernel: Kernel, name: str, value: Any, contiguous: bool) -> types.Type:
    """The Numba type of an argument. Raises TypeError where the kernel could not take it."""
    array = is_array(value)
    if kernel.foreign and isinstance(value, tuple):
        fields = getattr(value, "_fields", range(len(value)))
        kinds = [_type_of(kernel, f"{name}.{f}", v, contiguous) for f, v in zip(fields, value)]
        return types.BaseTuple.from_types(tuple(kinds), type(value))
    if kernel.foreign and not array:
        if (found := _foreign_type(value)) is not None:
            return found
    elif array or isinstance(value, (np.generic, int, float)):
        return _plain_type(kernel, name, value, array, contiguous)
    what = "arrays, numbers, records and tuples" if kernel.foreign else "arrays and numbers"
    kind = type(value).__name__
    raise TypeError(f"{kernel.__name__}: {name} is a {kind}; kernels take {what}")


def _plain_type(kernel: Kernel, name: str, value: Any, array: bool, contiguous: bool) -> types.Type:
    if isinstance(value, np.ndarray) and not (value.flags.aligned and value.dtype.isnative):
        raise TypeError(f"{kernel.__name__}: {name} is not aligned or not in native byte order")
    dtype = value.dtype if array else np.result_type(value)
    if kernel.foreign:
        try:
            scalar = numpy_support.from_dtype(dtype)
        except NumbaError:
            scalar = types.pyobject
        if scalar is types.pyobject:
            raise TypeError(f"{kernel.__name__}: {name} is {dtype}; Numba has no such type")
    elif dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise TypeError(f"{kernel.__name__}: {name} is {dtype}; kernels take bool, int and float")
    else:
        scalar = numpy_support.from_dtype(dtype)
    return types.Array(scalar, value.ndim, "C" if contiguous else "A") if array else scalar


def signature(kernel: Kernel, args: tuple[Any, ...]) -> tuple[types.Type, ...]:
    """The Numba types under which a kernel is compiled for these arguments.

    All arrays contiguous is one specialisation, any other strides are a second one: that keeps
    the number of compilations at two per dtype, where typing each array alone would give 2**n.
    """
    arrays = [a for a in leaves(kernel, args).values() if is_array(a)]
    contiguous = all(a.flags.c_contiguous for a in arrays)
    return tuple(_type_of(kernel, n, a, contiguous) for n, a in zip(kernel.parameters, args))
