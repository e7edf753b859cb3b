"""The CUDA kernels: a GPU runs them, or without one the emulator, as numba-cuda compiled them.

One flat namespace with the names and signatures of `reference/`; a kernel that is not here yet is
an error that names the file to edit, never a silent fallback.
"""

from typing import Any

from .loss import cross_entropy, cross_entropy_grad
from .memory import empty, empty_image, empty_like, scratch
from .optim import adam_step_, count_
from .reduce import sum_rows
from .window import conv2d, conv2d_grad_w, conv2d_grad_x

__all__ = [
    "adam_step_",
    "conv2d",
    "conv2d_grad_w",
    "conv2d_grad_x",
    "count_",
    "cross_entropy",
    "cross_entropy_grad",
    "empty",
    "empty_image",
    "empty_like",
    "scratch",
    "sum_rows",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"there is no CUDA kernel {name!r} yet: write it in kernels/cuda/, in the file that "
        "defines it in kernels/reference/, and export it in kernels/cuda/__init__.py"
    )
