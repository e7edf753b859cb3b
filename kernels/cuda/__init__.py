"""The CUDA kernels: a GPU runs them, or without one the emulator, as numba-cuda compiled them.

One flat namespace with the names and signatures of `reference/`; a kernel that is not here yet is
an error that names the file to edit, never a silent fallback.
"""

from typing import Any

from ..families import files_of
from ..roles import kernels_of
from ._numba import Kernel, blocks, cuda, device, jit, kernel_of, triple  # noqa: F401
from .linear import set_matmul  # noqa: F401
from .memory import contiguous, empty, empty_image, empty_like, memory_order, scratch  # noqa: F401

globals().update(kernels_of(*files_of(__name__)))


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"there is no CUDA kernel {name!r} yet: write it in kernels/cuda/, in the file that "
        "defines it in kernels/reference/"
    )
