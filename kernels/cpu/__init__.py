"""The CPU's own versions of kernels: Numba and BLAS, where they clearly beat the definition.

What is not here is served by `reference/`, and so are float64 and rare shapes.
"""

from ..families import files_of
from ..roles import kernels_of
from ._threads import set_threads, threads  # noqa: F401
from .memory import empty, empty_image, empty_like  # noqa: F401
from .winograd import get_conv, set_conv  # noqa: F401

globals().update(kernels_of(*files_of(__name__)))
