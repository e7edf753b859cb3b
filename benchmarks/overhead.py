"""What one small op costs, forward and backward, and how the cost grows with a chain's length.

    python -m benchmarks.overhead [--json FILE]

One op is `h = h * b + x` counted as two, on 8 numbers: nearly all of it is the engine's own time.
With PyTorch installed the same chain runs in it, interleaved. Medians of 15 rounds.

Then what a captured step costs beside its kernels: us per entry that a replay takes more than the
same bound kernels in a bare loop. Of a training step on the chain, and of one of a small network;
the least of 200 rounds.
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


def training(model: Any, x: Any, y: Any) -> Any:
    """A captured training step that has a program for x and y."""
    optimizer = minidl.optim.SGD(model.parameters(), lr=1e-3)

    @minidl.capture(check_every=0)
    def train_step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = minidl.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):
        train_step(x, y)
    return train_step


class Chain(minidl.nn.Module):
    """The chain as a network: its rows are logits."""

    def __init__(self) -> None:
        self.b = minidl.nn.Parameter(np.ones(8, np.float32))

    def forward(self, x: Any) -> Any:
        """x (N, 8) -> (N, 8)."""
        return chain(x, self.b)


def least(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Microseconds of each run, the least of many rounds: for a small difference of large times."""
    found = dict.fromkeys(runs, float("inf"))
    for _ in range(200):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(20):
                run()
            found[name] = min(found[name], (time.perf_counter() - start) / 20 * 1e6)
    return found


def replays() -> list[dict[str, Any]]:
    """What replays cost beside their kernels, in us per entry."""
    nn, rng, rows = minidl.nn, np.random.default_rng(0), []
    x = minidl.tensor(rng.normal(size=(4, 8)).astype(np.float32))
    y = minidl.tensor(rng.integers(0, 8, 4))
    layers = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)
    for name, model in (("chain", Chain()), ("network", nn.Sequential(*layers))):
        step = training(model, x, y)
        calls = step.program.calls

        def bare(calls: Any = calls) -> None:
            for call in calls:
                call()

        us = least({"replay": lambda step=step: step(x, y), "bare": bare})
        for what, taken in us.items():
            title = f"{name}: {what}, {len(calls)} entries"
            rows.append({"what": title, "us_per_op": taken / len(calls)})
        more = (us["replay"] - us["bare"]) / len(calls)
        rows.append({"what": f"{name}: a replay's own time per entry", "us_per_op": more})
    return rows


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
    report.show(rows + replays(), options.json)


if __name__ == "__main__":
    main()
