"""What one small op costs, forward and backward, and how the cost grows with a chain's length.

    python -m benchmarks.overhead [--json FILE]

One op is `h = h * b + x` counted as two, on 8 numbers: nearly all of it is the engine's own time.
With PyTorch installed the same chain runs in it, interleaved. Medians of 15 rounds.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import minidl

from . import report

OPS = 10
REPEATS = 300


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    timings = report.interleaved(rounds(), repeats=REPEATS)
    rows: list[dict[str, Any]] = [
        {"what": name, "us_per_op": ms * 1e3 / OPS} for name, ms in timings.items()
    ]
    for n in (1_000, 100_000):
        rows.append({"what": f"chain of {n:,}", "us_per_op": min(long_chain(n) for _ in range(3))})
    report.show(rows, options.json)


if __name__ == "__main__":
    main()
