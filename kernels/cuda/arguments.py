"""What a kernel is given: the Numba types it is compiled for, and the words it is called with."""

from typing import Any

import numpy as np
from numba import types
from numba.np import numpy_support

from ._numba import Kernel


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
    arrays = {n: a for n, a in zip(kernel.parameters, args) if is_array(a)}
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


def is_array(value: Any) -> bool:
    """Whether an argument is an array of NumPy or CuPy; NumPy's scalars have strides, too."""
    return hasattr(value, "strides") and hasattr(value, "flags") and not np.isscalar(value)


def _type_of(kernel: Kernel, name: str, value: Any, contiguous: bool) -> types.Type:
    """The Numba type of an argument. Raises TypeError where the kernel could not take it."""
    array = is_array(value)
    if not array and not isinstance(value, (np.generic, int, float)):
        kind = type(value).__name__
        raise TypeError(f"{kernel.__name__}: {name} is a {kind}; kernels take arrays and numbers")
    if isinstance(value, np.ndarray) and not (value.flags.aligned and value.dtype.isnative):
        raise TypeError(f"{kernel.__name__}: {name} is not aligned or not in native byte order")
    dtype = value.dtype if array else np.result_type(value)
    if kernel.foreign and array and dtype.kind == "V":
        pass  # records
    elif dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise TypeError(f"{kernel.__name__}: {name} is {dtype}; kernels take bool, int and float")
    scalar = numpy_support.from_dtype(dtype)
    return types.Array(scalar, value.ndim, "C" if contiguous else "A") if array else scalar


def signature(kernel: Kernel, args: tuple[Any, ...]) -> tuple[types.Type, ...]:
    """The Numba types under which a kernel is compiled for these arguments.

    All arrays contiguous is one specialisation, any other strides are a second one: that keeps
    the number of compilations at two per dtype, where typing each array alone would give 2**n.
    """
    contiguous = all(a.flags.c_contiguous for a in args if is_array(a))
    return tuple(_type_of(kernel, n, a, contiguous) for n, a in zip(kernel.parameters, args))
