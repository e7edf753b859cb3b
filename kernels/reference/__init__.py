"""The definition of every kernel, in plain NumPy, for any float dtype.

It is also the CPU's own version of each kernel that `cpu/` does not write better.
"""

from typing import TYPE_CHECKING, Any

from ..families import files_of
from ..roles import kernels_of
from .memory import (  # noqa: F401
    contiguous,
    empty,
    empty_image,
    empty_like,
    memory_order,
    release,
    scratch,
    use_arena,
)

globals().update(kernels_of(*files_of(__name__)))

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
