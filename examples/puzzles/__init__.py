"""Ten puzzles for people who learn to write GPU kernels, each with a solution and two wrong ones.

notebooks/03_gpu_puzzles.ipynb states them, and `judge` looks at an attempt; no GPU is needed. A
puzzle's file has its definition in NumPy, a solution, and two wrong ones with what each is told.
"""

from typing import Any

from minidl.kernels.cuda import kernel_of

from . import correlate, dot, double, flip, outer, product, rows, running, smooth, square
from .verdict import Puzzle, Verdict

__all__ = ["PUZZLES", "Puzzle", "Verdict", "judge"]

# in the order in which they are best tried
PUZZLES = {
    module.__name__.rpartition(".")[2]: module.puzzle
    for module in (double, square, outer, flip, smooth, dot, correlate, running, rows, product)
}


def judge(kernel: Any, name: str = "") -> Verdict:
    """Say whether a kernel of `cuda.jit` solves a puzzle: the one it is named after, or another."""
    kernel = kernel_of(kernel)
    name = name or kernel.__name__
    if name not in PUZZLES:
        raise ValueError(f"no puzzle is called {name!r}; there are {', '.join(PUZZLES)}")
    return PUZZLES[name].judge(kernel)
