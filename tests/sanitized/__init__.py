"""Small CUDA kernels, right ones and wrong ones, that say what is to be found in them.

A comment at the end of a line is the label: `# race: s` says that a race of the array s must be
found there, and nothing else anywhere; a kernel without one is correct. A kernel may have several,
where either line of a race may be called the wrong one; an array may have two names, `# race: x|y`.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_LABEL = re.compile(
    r"# (race|uninitialised read|out of bounds|misaligned access|divergent barrier"
    r"|divergent shuffle|shuffle of a silent lane|launch|endless loop)(?:: ([\w|\[\]]+))?$"
)
KERNELS: list["Labelled"] = []


@dataclass(frozen=True)
class Labelled:
    """A kernel, its launch, and what is to be found: kind, array, and lines of the source."""

    kernel: Callable[..., None]
    grid: Any
    block: Any
    args: Callable[[], tuple]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.kernel.__module__.rpartition('.')[2]}.{self.kernel.__name__}"

    def labels(self) -> list[tuple[str, str, int]]:
        """Kind, array and line of each label, in the kernel and in the functions that it calls."""
        known = self.kernel.__globals__
        called = [known.get(name) for name in self.kernel.__code__.co_names]
        found = []
        for function in (self.kernel, *(f.py_func for f in called if hasattr(f, "py_func"))):
            for line, text in enumerate(*inspect.getsourcelines(function)):
                if label := _LABEL.search(text.rstrip()):
                    found.append((label[1], label[2] or "", line))
        return found


def launched(grid: Any, block: Any, args: Callable[[], tuple], **options: Any) -> Callable:
    """Decorates a kernel with a launch of it; options: what `sanitize` takes besides."""

    def labelled(kernel: Callable[..., None]) -> Callable[..., None]:
        KERNELS.append(Labelled(kernel, grid, block, args, options))
        return kernel

    return labelled


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """An array that has something in it."""
    return np.ones(shape, dtype)


def count(n: int, dtype: Any = np.float32) -> np.ndarray:
    """0, 1, 2 ... n - 1."""
    return np.arange(n).astype(dtype)
