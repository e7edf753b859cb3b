"""What is not arithmetic: one small op, threads that share work, importing, the first step.

    python -m benchmarks.overhead [--parts ops,start] [--json FILE]

ops: `h = h * b + x` counted as two, on 8 numbers: nearly all of it is the engine's own time. With
PyTorch installed the same chain runs in it, interleaved. Captured, it is replayed, and beside that
stand the same calls of kernels in a loop and nothing else. Medians of 15 rounds.
start: fresh processes; the median of 5 imports, and of 3 until the end of the first training step
of the CIFAR-10 network, batch 128, with no kernel compiled before (cold) and with all of them in
the cache (warm). Cold ones compile in a process for each core, or in one.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minidl

from . import report

OPS = 10
REPEATS = 300
ROOT = Path(__file__).resolve().parents[1]
FIRST_STEP = """
import numpy as np, minidl
from minidl.nn import functional as F
model = minidl.models.cifar10_cnn()
optimizer = minidl.optim.Adam(model.parameters(), lr=1e-3)
x, y = minidl.Tensor(np.ones((128, 32, 32, 3), np.float32)), minidl.Tensor(np.arange(128) % 10)
F.cross_entropy(model(x), y).backward()
optimizer.step()
"""


def chain(x: Any, b: Any) -> Any:
    """Ten small ops in a row."""
    h = x
    for _ in range(OPS // 2):
        h = h * b + x
    return h


def step(x: Any, b: Any, one: Any) -> None:
    """The chain, forward and backward."""
    x.grad = None
    chain(x, b).backward(one)


def rounds() -> dict[str, Callable[[], Any]]:
    """What is timed, by name; each runs the ten ops once."""
    ones = np.ones(8, np.float32)
    b, one = minidl.tensor(ones), minidl.tensor(ones)
    x = minidl.tensor(ones, requires_grad=True)
    runs: dict[str, Callable[[], Any]] = {
        "minidl forward": lambda: chain(x, b),
        "minidl forward + backward": lambda: step(x, b, one),
        "numpy forward": lambda: chain(ones, ones),
    }
    try:
        import torch
    except ImportError:
        return runs
    torch.set_num_threads(1)
    tb, tone, tx = torch.ones(8), torch.ones(8), torch.ones(8, requires_grad=True)
    runs["torch forward"] = lambda: chain(tx, tb)
    runs["torch forward + backward"] = lambda: step(tx, tb, tone)
    return runs


def long_chain(n: int) -> float:
    """Microseconds per op of a chain of n additions, backward and freeing included."""
    x = minidl.tensor([1.0], requires_grad=True)
    one = minidl.tensor([1.0])
    start = time.perf_counter()
    h = x
    for _ in range(n):
        h = h + one
    h.backward()
    del h
    return (time.perf_counter() - start) / n * 1e6


def captured() -> dict[str, Callable[[], Any]]:
    """The chain recorded and replayed, where this minidl can; and its kernels in a bare loop."""
    if not callable(getattr(minidl, "capture", None)):
        return {}
    x, b = (minidl.tensor(np.ones(8, np.float32)) for _ in range(2))
    step = minidl.capture(lambda x, b: chain(x, b))
    for _ in range(4):  # recorded twice, and one to spare
        step(x, b)
    calls = step.program.calls

    def bare() -> None:
        for call in calls:
            call()

    return {"minidl forward, captured": lambda: step(x, b), "its kernels in a bare loop": bare}


def shared() -> dict[str, Callable[[], Any]]:
    """Handing nothing to do to all threads, and doing it alone; NumPy's BLAS beside that."""
    if os.environ.get("MINIDL_CPU") == "reference":
        return {}
    from minidl.kernels.cpu import _numba, _threads

    @_numba.loop
    def empty(start, stop):
        """A compiled loop that is done at once."""

    def nothing(i: int) -> None:
        """A task that is done at once."""

    a, b = np.ones((128, 2304), np.float32), np.ones((2304, 64), np.float32)
    n = _threads.threads()
    return {
        "one task": lambda: _threads.share(1, nothing),
        f"{n} tasks, shared": lambda: _threads.share(n, nothing),
        "compiled loop, one thread": lambda: empty(n, 0),
        f"compiled loop, {n} threads": lambda: empty(n, 1 << 30),
        "np.matmul 128 x 2304 x 64": lambda: a @ b,
        "the same after a compiled loop on all threads": lambda: (empty(n, 1 << 30), a @ b),
    }


def ops() -> list[dict[str, Any]]:
    """Microseconds of one op, and of sharing work."""
    timings = report.interleaved(rounds() | captured(), repeats=REPEATS)
    found: list[dict[str, Any]] = [
        {"what": name, "us_per_op": ms * 1e3 / OPS} for name, ms in timings.items()
    ]
    for n in (1_000, 100_000):
        found.append({"what": f"chain of {n:,}", "us_per_op": min(long_chain(n) for _ in range(3))})
    for name, ms in report.interleaved(shared(), repeats=REPEATS).items():
        found.append({"what": name, "us": ms * 1e3})
    return found


def start() -> list[dict[str, Any]]:
    """Seconds of fresh processes."""
    found = []
    for name in ("numpy", "minidl", "torch"):
        if importlib.util.find_spec(name):
            seconds = statistics.median(took(f"import {name}") for _ in range(5))
            found.append({"what": f"import {name}", "s": seconds})
    for what, times in first_steps().items():
        found.append({"what": f"first step, {what}", "s": statistics.median(times)})
    return found


def first_steps(repeats: int = 3) -> dict[str, list[float]]:
    """Seconds of processes that take one step, each cold one with an empty cache of its own."""
    times: dict[str, list[float]] = {"cold": [], "cold, one process": [], "warm": []}
    for _ in range(repeats):
        for what, alone in (("cold, one process", {"MINIDL_COMPILERS": "1"}), ("cold", {})):
            with tempfile.TemporaryDirectory() as cache:
                times[what].append(took(FIRST_STEP, MINIDL_CACHE=cache, **alone))
                if not alone:
                    times["warm"].append(took(FIRST_STEP, MINIDL_CACHE=cache))
    return times


def took(code: str, **environment: str) -> float:
    """Seconds that a new interpreter needs for code, its own start included."""
    quiet = {"MINIDL_QUIET": "1"} | environment
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | quiet, check=True)
    return time.perf_counter() - begin


PARTS = {"ops": ops, "start": start}


def main(line: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(line)
    parts = options.parts.split(",")
    if unknown := [name for name in parts if name not in PARTS]:
        parser.error(f"no part {unknown[0]}; known: {', '.join(PARTS)}")
    report.show([row for name in parts for row in PARTS[name]()], options.json)


if __name__ == "__main__":
    main()
