"""Emulated device memory: NumPy arrays, but closed to the host as a GPU's are, and guarded.

A GPU's memory cannot be read by NumPy. Emulated memory could be, and an op that computes with
NumPy where a kernel is due would then pass every test and fail on the first GPU; so it refuses.
"""

import math
from typing import Any, NoReturn

import numpy as np
from numpy.lib import stride_tricks

GUARD = 256  # bytes before and behind each array; a GPU's allocations are aligned to as many
UNSET = 0xFF  # in every byte: NaN in any float, and no NaN that arithmetic makes


class Buffer(np.ndarray):
    """The bytes of one allocation, its guards included."""


class DeviceArray(np.ndarray):
    """An array that kernels alone read and write.

    Views are free: reshape, slices, transpose, swapaxes. All else is an error that names it, but
    for np.asarray, which asks no subclass.
    """

    # of an ndarray it is "cpu", as the array API standard has it
    device = "cuda"  # type: ignore[assignment]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> NoReturn:
        _refuse(f"numpy.{ufunc.__name__}")

    def __array_function__(self, function: Any, *call: Any) -> NoReturn:
        _refuse(f"{function.__module__}.{function.__name__}")

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        for part in parts:
            if not (part is None or part is ... or isinstance(part, (slice, int, np.integer))):
                _refuse(f"indexing with a {type(part).__name__}")
        if not any(part is ... for part in parts):
            parts = *parts, ...  # a single element is an array, too: no scalar is on the host
        return super().__getitem__(parts)

    def reshape(self, *shape: Any, **options: Any) -> Any:
        """A view in another shape; where none exists, an error."""
        y = super().reshape(*shape, **options)
        if _buffer(y) is not _buffer(self):
            _refuse("reshape, for which this memory order needs a copy,")
        return y

    def __repr__(self) -> str:
        return f"<emulated device memory: {self.dtype} {self.shape}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)


def _refuse(what: str) -> NoReturn:
    raise TypeError(
        f"{what} on device memory: only kernels work there, and views (reshape, slices, "
        "transpose); move it with .numpy(), or with .to('cpu') if it is a tensor"
    )


def _refusing(name: str) -> Any:
    def method(self: DeviceArray, *args: Any, **options: Any) -> NoReturn:
        _refuse(name)

    return method


_VIEWS = {"reshape", "transpose", "swapaxes", "squeeze", "view"}
_READERS = (
    "__setitem__", "__iter__", "__contains__", "__bool__", "__int__", "__float__", "__complex__",
    "__index__", "__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__", "__dlpack__",
)  # fmt: skip
for _name in dir(np.ndarray):
    _method = callable(getattr(np.ndarray, _name)) and _name[0] != "_" and _name not in _VIEWS
    if _method or _name in _READERS:
        setattr(DeviceArray, _name, _refusing(_name))
DeviceArray.flat = property(_refusing("flat"))  # type: ignore[assignment]


def empty(shape: tuple[int, ...], dtype: np.dtype) -> DeviceArray:
    """A guarded array; who reads what nobody wrote there sees NaN."""
    size = math.prod(shape) * dtype.itemsize
    buffer = Buffer(size + 3 * GUARD, np.uint8)  # one guard more, for the alignment
    buffer.fill(UNSET)
    return DeviceArray(shape, dtype, buffer, _start(buffer))


def _start(buffer: Buffer) -> int:
    return GUARD + -buffer.ctypes.data % GUARD


def _buffer(x: Any) -> Any:
    """What x is, at last, a view of."""
    while getattr(x, "base", None) is not None:
        x = x.base
    return x


def intact(x: np.ndarray) -> bool:
    """Whether nobody wrote beside the array that x is a view of. True of memory without guards."""
    buffer = _buffer(x)
    if not isinstance(buffer, Buffer):
        return True
    start = _start(buffer)
    around = buffer[:start].tobytes() + buffer[start + buffer.size - 3 * GUARD :].tobytes()
    return around == bytes([UNSET]) * (3 * GUARD)


def host(x: np.ndarray) -> np.ndarray:
    """The same memory as the host sees it: for the emulator, and for copies."""
    return np.ndarray.view(x, np.ndarray)


def strided(x: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """A view of x from its first element on, with a shape and strides in bytes."""
    return stride_tricks.as_strided(x, shape, strides, subok=True)
