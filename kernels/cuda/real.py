"""numba-cuda's kernels on a real GPU, given NumPy arrays in any strides."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ._numba import cuda


def launch(kernel: Any, grid: Any, block: Any, args: tuple[Any, ...], shared: int = 0) -> None:
    """Run a kernel on copies of arrays, and copy back what it made of them.

    A copy lies on the GPU as the array does here: as far from a multiple of 16 bytes, with the same
    strides, what lies between its elements included.
    """
    given: list[Any] = []
    back: list[Callable[[], None]] = []
    for a in args:
        if isinstance(a, np.ndarray):
            there, bring = _moved(a)
            given.append(there)
            back.append(bring)
        else:
            given.append(a)
    _compiled(kernel)[grid, block, 0, shared](*given)
    cuda.synchronize()
    for bring in back:
        bring()


@functools.cache
def _compiled(kernel: Any) -> Any:
    """A kernel of `cuda.jit`; one made of a plain function, or of one of minidl's kernels."""
    return (
        kernel
        if hasattr(kernel, "targetoptions")
        else cuda.jit(getattr(kernel, "function", kernel))
    )


def _moved(a: np.ndarray) -> tuple[Any, Callable[[], None]]:
    """An array on the GPU, and what copies it back."""
    low, high = np.lib.array_utils.byte_bounds(a)
    ahead = low % 16
    # 16 more: a place for no elements, too
    memory = np.zeros(ahead + high - low + 16, np.uint8)
    start = ahead + a.ctypes.data - low
    here = np.ndarray(a.shape, a.dtype, memory, start, a.strides)
    here[...] = a
    there = cuda.to_device(memory)
    view = cuda.cudadrv.devicearray.DeviceNDArray(
        a.shape, a.strides, a.dtype, gpu_data=there.gpu_data.view(start)
    )

    def bring() -> None:
        memory[...] = there.copy_to_host()
        if a.flags.writeable:
            a[...] = here

    return view, bring
