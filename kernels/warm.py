"""Compiles the CPU kernels ahead of their first use, in parallel processes.

What a kernel is compiled for follows from dtypes, not from shapes; so examples of the Cases, in
float32, ask for everything that a network will. But for register tiles, whose height does follow
from shapes: each is asked for by itself.
"""

import concurrent.futures
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np

from . import cpu
from .cases import CASES, Blank, Call, Draw, Seeded, draw_example
from .cpu import simd
from .cpu._numba import folder

MODES = "any", "large"  # past the sizes from which kernels have other ones of their own
SEEDS = range(3)
_WINOGRAD = {"winograd 2": 2, "winograd 4": 4}  # by the outputs of a tile; not drawn by Cases


def warm(workers: int | None = None) -> int:
    """Compile all CPU kernels that are not in the cache; how many were not."""
    before = len(_compiled())
    workers = workers or os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, spawn) as pool:
        # a name at a time: what takes long is not known beforehand
        list(pool.map(_run, [*CASES, *_WINOGRAD, *simd.heights()]))
    return len(_compiled()) - before


def _run(name: str | tuple) -> None:
    if isinstance(name, tuple):
        simd.tile(*name)
        return
    if name in _WINOGRAD:
        _winograd(_WINOGRAD[name])
        return
    for mode in MODES:
        for seed in SEEDS:
            for call in draw_example(CASES[name], Draw(Seeded(seed), "float32", mode)).calls:
                if kernel := getattr(cpu, call.kernel, None):
                    for inside in (False, True):
                        kernel(*(_array(a, call, inside) for a in call.args.values()))


def _winograd(tile: int) -> None:
    """All passes of Winograd's convolution, with few channels and with many."""
    if not simd.chosen:
        return
    before, k = cpu.get_conv(), vars(cpu)
    cpu.set_conv("winograd", tile)
    try:
        for n, c in ((64, 16), (8, 192)):
            x, y = (cpu.empty_image((n, 12, 12, c), np.float32) for _ in "xy")
            w, pad = np.zeros((3, 3, c, c), np.float32), ((1, 1), (1, 1))
            x[...] = y[...] = 0
            how = (1, 1), pad, (1, 1), 1, False
            k["conv2d"](x, w, w[0, 0, 0], y, *how)
            k["conv2d_grad_x"](y, w, x, *how)
            k["conv2d_grad_w"](y, x, w, *how)
    finally:
        cpu.set_conv(*before)


def _array(value: Any, call: Call, inside: bool) -> Any:
    """inside: batches of images in the order H, W, N, C."""
    if isinstance(value, Blank):
        value = np.zeros(value.shape, value.dtype or call.dtype)
    if not isinstance(value, np.ndarray):
        return value
    if inside and value.ndim == 4:
        return value.transpose(1, 2, 0, 3).copy().transpose(2, 0, 1, 3)
    return value.copy()


def _compiled() -> list[Path]:
    return [*folder().glob("*.code")]
