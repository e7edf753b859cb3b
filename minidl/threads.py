"""How many threads compute on the CPU."""

from typing import Any

from .backend import device


def set_num_threads(n: int) -> None:
    """Let n threads share the work of an op on the CPU; results do not depend on it.

    At first there is one for each core, or NUMBA_NUM_THREADS. Small work stays on one thread.
    RuntimeError on MINIDL_CPU=reference.
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"set_num_threads: n is a {type(n).__name__}, but must be a whole number")
    if n < 1:
        raise ValueError(f"set_num_threads: n is {n}, but must be at least 1")
    _kernels().set_threads(n)


def get_num_threads() -> int:
    """How many threads share the work of an op on the CPU."""
    return _kernels().threads()


def _kernels() -> Any:
    kernels = device("cpu").kernels
    if not hasattr(kernels, "set_threads"):
        raise RuntimeError(
            "MINIDL_CPU=reference computes with NumPy alone, which takes the number of its threads "
            "from OPENBLAS_NUM_THREADS when it is loaded"
        )
    return kernels
