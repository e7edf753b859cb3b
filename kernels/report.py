"""Compile every CUDA kernel, without a GPU, and tell what it takes of one.

    python -m minidl.kernels.report                 # for sm_75, sm_80 and sm_90
    python -m minidl.kernels.report --cc 8.6,12.0   # for others; `--json` for programs

Which argument types a kernel is compiled for is found out by running: each op and gradient is
called on the arguments of its Case in three memory layouts, and at sizes of real networks, while
launches are noted instead of executed. The exit status is 1 where a kernel spills registers, has a
stack frame (an array that it indexes by numbers not known when it is compiled), computes in float64
though its arrays are float32, asks for more registers than a GPU has, does not compile, or is
launched by none of these calls.

What was compiled stays in the cache folder ($MINIDL_CACHE, or the user's), where launches look for
it: run this for the GPU's compute capability on any machine, copy the folder `kernels/cuda`, and
the machine with the GPU compiles nothing. Both need the same versions of Python and numba-cuda.
"""

import argparse
import collections
import concurrent.futures
import functools
import importlib
import itertools
import json
import multiprocessing
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import types

from . import cuda
from .cases import CASES, Blank, Call, Draw, Seeded, draw_example
from .cuda import _numba, arguments, cubin, ladder
from .cuda._numba import Kernel, Launch
from .cuda.gemm import gemm
from .roles import Array

ARCHITECTURES = (7, 5), (8, 0), (9, 0)
FLOATS = "float32", "float64"
MODES = "any", "edges", "large"  # of drawing: sizes on both sides of every branch of a launcher
SEEDS = range(3)
LAYOUTS = "C", "F", "gaps"
RELATIONS = "lt", "le", "gt", "ge", "eq", "ne"
REGISTERS = 65536  # of a multiprocessor, on every GPU since 2012: what one block can have at most

# What may break a rule, and why: kernel, then the rule.
ALLOWED: dict[tuple[str, str], str] = {}


class Row(NamedTuple):
    """One kernel for one set of argument types on one architecture."""

    kernel: str
    types: str
    cc: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spills: int = 0
    f64: int = 0
    divisions: int = 0
    threads: int = 0
    all_registers: int = 0  # of a block
    occupancy: float | None = None  # of the threads a multiprocessor can have, with such blocks
    wrong: str = ""


# ---- which kernels, for which types


def kernels() -> list[Kernel]:
    """Every kernel of this package."""
    for file in pkgutil.iter_modules(cuda.__path__):
        if not file.name.startswith(("gpu", "emulator")):  # without kernels; one needs a GPU
            importlib.import_module(f".{file.name}", cuda.__name__)
    found = (k for k in _numba.every_kernel if k.function.__module__.startswith(cuda.__name__))
    return sorted(found, key=name_of)


def name_of(kernel: Kernel) -> str:
    """File and name of a kernel: "reduce._add_up"."""
    return f"{kernel.function.__module__.rpartition('.')[2]}.{kernel.__name__}"


@functools.cache
def launches() -> list[Launch]:
    """One launch of each kernel for each set of argument types, with the largest block."""
    found: dict[tuple[Any, ...], Launch] = {}
    with _numba.emulation(), _numba.recording() as noted:
        for dtype in FLOATS:
            _run_cases(dtype)
            _run_more(dtype)
        _run_ladder()
    for launch in noted:
        key = launch.kernel, launch.signature
        if key not in found or found[key].threads < launch.threads:
            found[key] = launch
    return sorted(found.values(), key=lambda a: (name_of(a.kernel), str(a.signature)))


def _run_cases(dtype: str) -> None:
    for case in CASES.values():
        for mode in MODES:
            for seed in SEEDS:
                example = draw_example(case, Draw(Seeded(seed), dtype, mode))
                for call in example.calls:
                    for layout in LAYOUTS:
                        getattr(cuda, call.kernel)(*_arguments(call, layout))


def _run_more(dtype: str) -> None:
    """What no Case draws: sizes of real networks, for which launchers have kernels of their own."""

    def x(*shape: int) -> Array:
        return np.zeros(shape, dtype)

    for m, k in (2048, 64), (64, 4096), (7, 7):
        for tf32 in (False, True)[: 1 + (dtype == "float32")]:
            gemm(x(m, k), x(k, m), None, x(m, m), False, False, tf32)
    gemm(x(3, 8, 8), x(3, 8, 8), None, x(3, 8, 8), False, False)
    sizes = itertools.product((8, 64), (1, 8, 32), (16, 32, 64), (1, 2))
    for side, c, f, dilation in sizes:
        image, w, y = x(16, side, side, c), x(3, 3, c, f), x(16, side, side, f)
        how = (1, 1), ((dilation, dilation),) * 2, (dilation, dilation), 1, False
        cuda.conv2d(image, w, None, y, *how)
        cuda.conv2d_grad_x(y, w, image, *how)
        cuda.conv2d_grad_w(y, image, w, *how)
    cuda.take_grad(x(5000, 8), np.zeros(5000, np.int64), x(99, 8), False)
    for relation in RELATIONS:
        for a in (x(9), x(18)[::2]):
            cuda.compare(a, a, np.zeros(9, bool), relation)


def _run_ladder() -> None:
    for step in ladder.STEPS:
        for size in (7, 64):
            step(*(np.zeros((size, size), np.float32) for _ in range(3)))


def _arguments(call: Call, layout: str) -> Iterator[Any]:
    for name, role in call.roles().items():
        value = call.args[name]
        if isinstance(value, Blank):
            value = np.zeros(value.shape, value.dtype or call.dtype)
        is_array = role != "static" and value is not None
        yield _laid_out(value, layout) if is_array else value


def _laid_out(x: Array, layout: str) -> Array:
    if layout == "F":
        return np.asfortranarray(x)
    return np.repeat(x[..., None], 2, -1)[..., 0] if layout == "gaps" else x


# ---- what they take


def measure(launch: Launch, cc: tuple[int, int]) -> Row:
    """Compile what was launched, and judge it."""
    row = Row(name_of(launch.kernel), short(launch.signature), cubin.dotted(cc))
    try:
        took = cubin.compiled(launch.kernel, launch.signature, cc).resources
    except Exception as error:  # of Numba's, NVVM's and nvJitLink's many: all are told
        return row._replace(wrong=f"{type(error).__name__}: {error}".splitlines()[0])
    # in steps of 8 registers and of whole warps
    registers = -(-took.registers // 8) * 8 * -(-launch.threads // 32) * 32
    busy = occupancy(cc, launch.threads, registers, took.shared + launch.shared)
    row = row._replace(
        **took._asdict(), threads=launch.threads, all_registers=registers, occupancy=busy
    )
    return row._replace(wrong=", ".join(_broken(row, is_float32(launch.signature))))


class Multiprocessor(NamedTuple):
    """What one multiprocessor holds at once."""

    threads: int
    blocks: int
    shared: int  # bytes


# CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability"
MULTIPROCESSORS = {
    (7, 5): Multiprocessor(1024, 16, 64 << 10),
    (8, 0): Multiprocessor(2048, 32, 164 << 10),
    (8, 6): Multiprocessor(1536, 16, 100 << 10),
    (8, 9): Multiprocessor(1536, 24, 100 << 10),
    (9, 0): Multiprocessor(2048, 32, 228 << 10),
}
SYSTEM = 1 << 10  # bytes of shared memory that each block takes besides, from 8.0 on


def occupancy(cc: tuple[int, int], threads: int, registers: int, shared: int) -> float | None:
    """The share of a multiprocessor's threads that blocks of a kernel can fill; None: not known.

    threads, registers, shared: of one block. Below a quarter or so there may be too few threads to
    hide how long memory takes; a kernel that does much with each number needs no more.
    """
    if cc not in MULTIPROCESSORS:
        return None
    most = MULTIPROCESSORS[cc]
    warps = -(-threads // 32) * 32
    limits = [most.blocks, most.threads // warps, REGISTERS // max(registers, 1)]
    limits.append(most.shared // max(shared + SYSTEM * (cc >= (8, 0)), 1))
    return min(limits) * warps / most.threads


def examine(kernel: Kernel, *args: Any, threads: int = 256) -> str:
    """The table for one kernel of yours, in blocks of so many threads, on arguments like these."""
    signature = arguments.signature(kernel, arguments.checked(kernel, args))
    launch = Launch(kernel, signature, threads, 0)
    return table([measure(launch, cc) for cc in ARCHITECTURES if cc >= kernel.min_cc])


def _broken(row: Row, float32: bool) -> Iterator[str]:
    """The rules that a kernel breaks, without those that it may. For float64: the last one only."""
    rules = {"spills": row.spills, "stack": row.stack, "f64": row.f64}
    for rule, count in rules.items():
        if float32 and count and (row.kernel, rule) not in ALLOWED:
            yield rule
    if row.all_registers > REGISTERS:
        yield "registers"


def is_float32(signature: Iterable[types.Type]) -> bool:
    """Whether a kernel has no business with float64."""
    return "float64" not in str(tuple(signature))


def short(signature: Iterable[types.Type]) -> str:
    """Argument types in few letters: "3*f32[2] i64", "f32[2]*" where strides are any."""
    words: list[tuple[int, str]] = []
    for kind in signature:
        array = isinstance(kind, types.Array)
        dtype = np.dtype(str(kind.dtype if array else kind).replace("boolean", "bool"))
        word = f"{dtype.kind}{8 * dtype.itemsize}" if dtype.kind != "b" else "bool"
        if array:
            word += f"[{kind.ndim}]" + "*" * (kind.layout == "A")
        if words and words[-1][1] == word:
            words[-1] = (words[-1][0] + 1, word)
        else:
            words.append((1, word))
    return " ".join(f"{n}x {word}" if n > 1 else word for n, word in words)


def rows(architectures: Sequence[tuple[int, int]], workers: int = 1, only: str = "") -> list[Row]:
    """What each kernel takes on each architecture that can run it, then those nobody launches.

    With more workers than one, processes fill the cache first. only: part of the kernels' names.
    """
    todo = jobs(architectures, only)
    if workers > 1:
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, spawn) as pool:
            parts = [(architectures, only, n) for n in range(len(launches()))]
            collections.deque(pool.map(_fill, *zip(*parts)), maxlen=0)
    reached = {launch.kernel for launch in launches()}
    strangers = [k for k in kernels() if k not in reached and only in name_of(k)]
    return [measure(launch, cc) for launch, cc in todo] + [
        Row(name_of(k), "", "", wrong="nothing here launches it") for k in strangers
    ]


def jobs(
    architectures: Sequence[tuple[int, int]], only: str = ""
) -> list[tuple[Launch, tuple[int, int]]]:
    """What has to be compiled: all for each architecture, float64 for the middle one alone.

    Its registers hardly depend on the architecture, and it would double the time.
    """
    middle = sorted(architectures)[len(architectures) // 2]
    return [
        (launch, cc)
        for launch in launches()
        for cc in architectures
        if only in name_of(launch.kernel)
        and cc >= launch.kernel.min_cc
        and (cc == middle or is_float32(launch.signature))
    ]


def _fill(architectures: Sequence[tuple[int, int]], only: str, number: int) -> None:
    """Compile the launch of a number for all architectures: it is lowered once."""
    for launch, cc in jobs(architectures, only):
        if launch is launches()[number]:
            measure(launch, cc)


# ---- the command


HEAD = (
    "kernel", "types", "cc", "regs", "shared", "stack", "spills", ".f64", "div/rem", "threads",
    "regs x threads", "occupancy",
)  # fmt: skip


def table(found: list[Row]) -> str:
    """Rows below each other, what is wrong at their ends."""
    lines = [HEAD, *([*map(str, row[:-2]), _share(row.occupancy)] for row in found)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    marks = ["", *(f"  <- {row.wrong}" if row.wrong else "" for row in found)]
    return "\n".join(
        " ".join(w.ljust(n) if i < 2 else w.rjust(n) for i, (w, n) in enumerate(zip(line, widths)))
        + mark
        for line, mark in zip(lines, marks)
    )


def _share(occupancy: float | None) -> str:
    return "" if occupancy is None else f"{occupancy:.0%}"


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def main(argv: list[str] | None = None) -> int:
    """Print the report; 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m minidl.kernels.report",
        description="Compile every CUDA kernel and tell what it takes of a GPU. Needs no GPU.",
    )
    parser.add_argument("kernel", nargs="?", default="", help="only those with this in the name")
    parser.add_argument("--cc", help='compute capabilities, as in "8.6,12.0"')
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that compile")
    options = parser.parse_args(argv)
    asked = [_capability(c) for c in options.cc.split(",")] if options.cc else ARCHITECTURES
    cubin.toolkit()  # one error, not one for each kernel
    found = rows(asked, options.jobs or 1, options.kernel)
    if not found:
        parser.error(f"no kernel has {options.kernel!r} in its name")
    wrong = [row for row in found if row.wrong]
    if options.json:
        print(json.dumps([row._asdict() for row in found], indent=1))
    else:
        print(table(found))
        count = len({row.kernel for row in found})
        print(f"{len(found)} specialisations of {count} kernels, {len(wrong)} wrong")
    for row in wrong:
        print(f"{row.kernel} ({row.types}; {row.cc}): {row.wrong}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
