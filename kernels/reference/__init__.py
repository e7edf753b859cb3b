"""The definition of every kernel, in plain NumPy, for any float dtype.

It is also the CPU's own version of each kernel that `cpu/` does not write better.
"""

from typing import TYPE_CHECKING, Any

from ..families import files_of
from ..roles import kernels_of
from .memory import contiguous, empty, empty_image, empty_like, memory_order, scratch  # noqa: F401

globals().update(kernels_of(*files_of(__name__)))

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
