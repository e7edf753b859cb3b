"""Does a GPU compute what the emulator computes? Every Case on both, and NVIDIA's sanitizer."""

import itertools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl.kernels import cuda
from minidl.kernels.cases import CASES, Blank, Call, Draw, Seeded, draw_example
from minidl.kernels.cuda import _numba, memory

from .measure import ulps
from .processes import finish

MODES = "any", "edges"
TOOLS = "memcheck", "racecheck"
MODULE = "benchmarks.gpu.agreement"


def cases(until: float, seeds: int = 2) -> Iterator[dict[str, Any]]:
    """For each kernel the largest difference of GPU and emulator, in units in the last place."""
    for dtype in ("float32", "float64"):
        for case in CASES.values():
            if time.monotonic() > until:
                yield {"kernel": f"from {case.name}, {dtype} on: out of time"}
                return
            worst: dict[str, dict[str, Any]] = {}
            for mode, seed in itertools.product(MODES, range(seeds)):
                for call in draw_example(case, Draw(Seeded(seed), dtype, mode)).calls:
                    _compare(call, worst.setdefault(call.kernel, _row(call, dtype)))
            yield from worst.values()


def _row(call: Call, dtype: str) -> dict[str, Any]:
    return {"kernel": call.kernel, "dtype": dtype, "calls": 0, "ulps": 0.0, "error": ""}


def _compare(call: Call, row: dict[str, Any]) -> None:
    row["calls"] += 1
    try:
        with _numba.emulation():
            here = results(call)
        there = results(call)
    except Exception as error:  # the table tells of all kernels, whatever happens to one
        row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        return
    row["ulps"] = max(row["ulps"], *(ulps(here[n], there[n]) for n in here))


def results(call: Call) -> dict[str, np.ndarray]:
    """What a kernel computes where arrays are made now, by name of the output."""
    args = dict(call.args)
    for name, value in args.items():
        if isinstance(value, Blank):
            args[name] = memory.from_host(np.zeros(value.shape, value.dtype or call.dtype))
        elif isinstance(value, np.ndarray):
            args[name] = memory.from_host(value)
    getattr(cuda, call.kernel)(*(args[name] for name in call.roles()))
    return {name: memory.to_host(args[name]) for name in call.outputs()}


def sanitized(until: float) -> Iterator[dict[str, Any]]:
    """What compute-sanitizer says of the launches of all Cases, one seed each."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    program = shutil.which("compute-sanitizer", path=places)
    if program is None:
        yield {"tool": "compute-sanitizer", "result": "not installed"}
        return
    for left, tool in zip(range(len(TOOLS), 0, -1), TOOLS):
        yield _sanitized(program, tool, (until - time.monotonic()) / left)


def _sanitized(program: str, tool: str, seconds: float) -> dict[str, Any]:
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", MODULE]
    status, out, err = finish(command, seconds)
    row = {"tool": tool, "program": program}
    said = [line for line in (out + err).splitlines() if line.startswith("=====")]
    if status == 0:
        return row | {"result": "clean"}
    summary = " ".join(said[-1:] or (out + err).strip().splitlines()[-1:])
    if status is None and not said[1:]:  # its first line is its name
        return row | {"result": f"nothing found in {seconds:.0f} s, not finished"}
    return row | {"result": "", "error": f"exit status {status}: {summary}"}


if __name__ == "__main__":  # what the sanitizer watches
    for one in CASES.values():
        for each in draw_example(one, Draw(Seeded(0), "float32", "any")).calls:
            results(each)
