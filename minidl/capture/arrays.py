"""Arrays of a recorded step: the form in which ops see them, and where they lie in memory."""

from typing import Any

import numpy as np

from .. import backend
from ..backend import Array, Device

# functions of NumPy that only look at an array in another way
_VIEWS = {
    np.broadcast_to, np.expand_dims, np.moveaxis, np.ndim, np.reshape, np.shape, np.size,
    np.squeeze, np.swapaxes, np.transpose,
}  # fmt: skip
_READERS = (
    "__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__", "argmax",
    "argmin", "argsort", "astype", "choose", "compress", "copy", "diagonal", "dot", "dump", "dumps",
    "fill", "flatten", "item", "nonzero", "put", "ravel", "repeat", "searchsorted", "sort", "take",
    "tobytes", "tofile", "tolist",
)  # fmt: skip


class Recorded(np.ndarray):
    """An array that a step made: views are free, anything else that NumPy does is noted."""

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any
    ) -> Any:
        _notice(f"numpy.{ufunc.__name__}")
        if out is not None:
            options["out"] = tuple(map(plain, out))
        return getattr(ufunc, method)(*map(plain, inputs), **options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function not in _VIEWS:
            _notice(f"{function.__module__}.{function.__name__}")
        return super().__array_function__(function, types, args, kwargs)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if not isinstance(found, Recorded):
            _notice("reading an element")
        elif found.base is None:
            _notice("indexing with an array")
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        _notice("assigning to an array")
        super().__setitem__(key, value)


def _noticing(name: str) -> Any:
    own = getattr(np.ndarray, name)

    def method(self: Recorded, *args: Any, **options: Any) -> Any:
        _notice(f"numpy.ndarray.{name}")
        return own(plain(self), *args, **options)

    return method


for _name in _READERS:
    if hasattr(np.ndarray, _name):
        setattr(Recorded, _name, _noticing(_name))


def _notice(what: str) -> None:
    if backend.recorder is not None and backend.recorder.on():
        backend.recorder.refuse(f"{what} works on an array, where only kernels and views can")


def plain(x: Any) -> Any:
    """x without the watch, if it is such an array, or each of a tuple."""
    if isinstance(x, Recorded):
        return np.ndarray.view(x, np.ndarray)
    if isinstance(x, tuple | list) and any(isinstance(part, Recorded) for part in x):
        return type(x)(map(plain, x))
    return x


def is_array(x: Any) -> bool:
    """Whether x is an array of some device."""
    return hasattr(x, "strides") and not isinstance(x, np.generic)


def address(device: Device, array: Array) -> int:
    """Where in memory the first element lies."""
    return array.ctypes.data if device.name == "cpu" else device.kernels.memory.pointer(array)


def place(device: Device, block: Array, offset: int, like: tuple) -> Array:
    """An array in a block of bytes; like: its shape, dtype and strides."""
    shape, dtype, strides = like
    if device.name == "cpu":
        return np.ndarray(shape, dtype, block, offset, strides)
    first = block[offset : offset + dtype.itemsize].view(dtype)
    return device.kernels.memory.as_strided(first, shape, strides)
