"""Compiles the CPU kernels ahead of their first use, in parallel processes.

What a kernel is compiled for follows from dtypes, not from shapes; so examples of the Cases, in
float32, ask for everything that a network will.
"""

import concurrent.futures
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np

from . import cpu
from .cases import CASES, Blank, Call, Draw, Seeded, draw_example
from .cpu._numba import folder

MODES = "any", "large"  # past the sizes from which kernels have other ones of their own
SEEDS = range(3)


def warm(workers: int | None = None) -> int:
    """Compile all CPU kernels that are not in the cache; how many were not."""
    before = len(_compiled())
    workers = workers or os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, spawn) as pool:
        # a name at a time: what takes long is not known beforehand
        list(pool.map(_run, CASES))
    return len(_compiled()) - before


def _run(name: str) -> None:
    for mode in MODES:
        for seed in SEEDS:
            for call in draw_example(CASES[name], Draw(Seeded(seed), "float32", mode)).calls:
                if kernel := getattr(cpu, call.kernel, None):
                    kernel(*(_array(a, call) for a in call.args.values()))


def _array(value: Any, call: Call) -> Any:
    if isinstance(value, Blank):
        return np.zeros(value.shape, value.dtype or call.dtype)
    return value.copy() if isinstance(value, np.ndarray) else value


def _compiled() -> list[Path]:
    return [*folder().glob("*.code")]
