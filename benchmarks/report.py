"""Timing in turn, a table on the screen, and the same numbers as JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any


def interleaved(
    runs: dict[str, Callable[[], Any]],
    *,
    rounds: int = 15,
    repeats: int = 1,
    warm: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of one call of each run.

    All take turns in every round, so that a busy moment of the machine hits all alike.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm + rounds):
        for name, run in runs.items():
            start = clock()
            for _ in range(repeats):
                run()
            if turn >= warm:
                times[name].append((clock() - start) / repeats * 1e3)
    return {name: statistics.median(t) for name, t in times.items()}


def environment() -> dict[str, Any]:
    """Versions and machine, without which a number says little."""
    versions = {}
    for name in ("numpy", "numba", "torch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": {"python": platform.python_version(), **versions},
        "cpu": _cpu(),
        "cores": os.cpu_count(),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def show(rows: list[dict[str, Any]], path: str | None = None) -> None:
    """Print rows as a table; with a path also write them there as JSON."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = [[_text(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *text, strict=True)]
    for line in [columns, *text]:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
    if path:
        save(path, rows)


def save(path: str, rows: list[dict[str, Any]], found: dict[str, Any] | None = None) -> None:
    """Write rows as JSON, with versions, machine, and what else was found out about them."""
    about = environment()
    about["versions"] |= (found or {}).get("versions", {})
    with open(path, "w") as f:
        json.dump({**(found or {}), **about, "rows": rows}, f, indent=1)
        f.write("\n")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
