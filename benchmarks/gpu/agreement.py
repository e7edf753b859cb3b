"""Does a GPU compute what the emulator computes? Every Case on both, and NVIDIA's sanitizer."""

import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np

from minidl.kernels import cuda
from minidl.kernels.cases import CASES, Blank, Call, Draw, Seeded, draw_example
from minidl.kernels.cuda import _numba, memory

from .measure import ulps

MODES = "any", "edges"
TOOLS = "memcheck", "racecheck"
PATIENCE = 90  # seconds for a tool


def cases(until: float, seeds: int = 2) -> list[dict[str, Any]]:
    """For each kernel the largest difference of GPU and emulator, in units in the last place."""
    worst: dict[tuple[str, str], dict[str, Any]] = {}
    for dtype in ("float32", "float64"):
        for case in CASES.values():
            for mode, seed in ((m, s) for m in MODES for s in range(seeds)):
                if time.monotonic() > until:
                    return [*worst.values(), {"kernel": f"from {case.name} on: out of time"}]
                for call in draw_example(case, Draw(Seeded(seed), dtype, mode)).calls:
                    row = worst.setdefault((call.kernel, dtype), _row(call, dtype))
                    _compare(call, row)
    return list(worst.values())


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


def sanitized() -> list[dict[str, Any]]:
    """What compute-sanitizer says of the launches of all Cases, one seed each."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return [{"tool": "compute-sanitizer", "result": "not installed"}]
    return [{"tool": tool, "result": _sanitized(program, tool)} for tool in TOOLS]


def _sanitized(program: str, tool: str) -> str:
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", __name__]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"nothing found in {PATIENCE} s, not finished"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return "clean" if done.returncode == 0 else f"exit {done.returncode}: {lines[-1:]}"


if __name__ == "__main__":  # what the sanitizer watches
    for one in CASES.values():
        for each in draw_example(one, Draw(Seeded(0), "float32", "any")).calls:
            results(each)
