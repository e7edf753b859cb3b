"""Compiles the CPU kernels ahead of their first use, in parallel processes.

What a kernel is compiled for follows from dtypes, not from shapes; so examples of the Cases, in
float32, ask for everything that a network will. But for register tiles, whose height does follow
from shapes: each is asked for by itself.
"""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import ahead, cpu
from .cases import CASES, Blank, Call, Draw, Seeded, draw_example
from .cpu import _numba, simd

MODES = "any", "large"  # past the sizes from which kernels have other ones of their own
SEEDS = range(3)
_WINOGRAD = {"winograd 2": 2, "winograd 4": 4}  # by the outputs of a tile; not drawn by Cases


def warm(workers: int | None = None) -> int:
    """Compile all CPU kernels that are not in the cache; how many were not.

    workers: processes; unset, one for each core. What a process that ends early leaves is compiled
    in this one.
    """
    before = len(_compiled())
    tasks = iter(names())
    helpers = ahead.started(workers or ahead.processes(), __name__, answers=True)
    left: list[str] = []
    threads = [threading.Thread(target=_feed, args=(h, tasks, left)) for h in helpers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for helper in helpers:
            helper.end()
    for task in [*left, *tasks]:
        run(task)
    return len(_compiled()) - before


def names() -> list[str]:
    """All that can be compiled, in pieces that take about a second: Cases, and register tiles."""
    return [*CASES, *_WINOGRAD, *(f"tile {n}" for n in range(len(simd.heights())))]


def serve() -> None:
    """What a helper does: compile what it is told to, and say so."""
    for line in sys.stdin:
        run(line.strip())
        print(flush=True)


def run(name: str) -> None:
    """Compile what belongs to a name, by running examples as threads share them."""
    before = _numba.PARALLEL, _numba.SHARED
    _numba.PARALLEL, _numba.SHARED = 0, 1  # an example has often one part only, a network many
    try:
        _run(name)
    finally:
        _numba.PARALLEL, _numba.SHARED = before


def _run(name: str) -> None:
    if name.startswith("tile "):
        simd.tile(*simd.heights()[int(name[5:])])
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


def _feed(helper: ahead.Helper, tasks: Iterator[str], left: list[str]) -> None:
    """Hand a helper one task after the other: what takes long is not known beforehand."""
    for task in tasks:
        if not helper.ask(task):
            left.append(task)
            return


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
    return [*_numba.folder().glob("*.code")]
