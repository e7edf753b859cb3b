"""What augmentation costs: the CIFAR-10 network's captured step on one batch, and fed by a loader.

    python -m benchmarks.data [--threads 1] [--rounds 9] [--json FILE]

128 images of 32 x 32 bytes a batch. ms: median of a step, all kinds of feeding taking turns.
cost: what a batch adds to the step on one that is ready, in percent. cpu: milliseconds of all cores
to make a batch, with nothing else running: on one core a step takes at least that much longer.
workers 0: made by the thread that trains; 1: in the background.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import minidl
from minidl.data import DataLoader, Flip, Normalize, PadCrop, RandomAffine

from . import report
from .networks import CASES
from .workers.in_minidl import training

NORMALIZE = Normalize((0.491, 0.482, 0.447), (0.247, 0.243, 0.262))
TURN, AFFINE = [PadCrop(4), Flip()], RandomAffine(15, (0.1, 0.1), (0.9, 1.1))
TRANSFORMS = {
    "normalize": [NORMALIZE],
    "crop + flip": [*TURN, NORMALIZE],
    "affine + crop + flip": [AFFINE, *TURN, NORMALIZE],
}
STEPS = 8  # of each kind in a round


def trained() -> Any:
    """A captured step of B128."""
    model = CASES["B128"].model()
    optimizer = CASES["B128"].optim(model.parameters())
    return minidl.capture(training(model, optimizer))


def forever(loader: Any) -> Iterator[Any]:
    """Its batches, epoch after epoch."""
    while True:
        yield from loader


def rows(threads: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each way to feed a step."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    minidl.set_num_threads(threads)
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (12_800, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 12_800)

    def loader(name: str, workers: int) -> Any:
        return DataLoader(data, 128, True, seed=0, transform=TRANSFORMS[name], workers=workers)

    kinds = [*itertools.product(TRANSFORMS, (0, 1))]
    feeds: dict[Any, Iterator[Any]] = {kind: forever(loader(*kind)) for kind in kinds}
    feeds["one batch"] = itertools.repeat(next(feeds[kinds[0]]))
    step, times = trained(), {kind: list[float]() for kind in feeds}
    for turn in range(rounds + 1):
        for kind, feed in feeds.items():
            start = time.perf_counter()
            for x, y in itertools.islice(feed, STEPS):
                step(x, y)
            if turn:
                times[kind].append((time.perf_counter() - start) / STEPS * 1e3)
    ready = statistics.median(times["one batch"])
    found = [{"threads": threads, "batches": "one", "workers": "", "ms": ready}]
    for name, workers in kinds:
        # of the same round, so that a busy moment of the machine hits both
        more = [a - b for a, b in zip(times[name, workers], times["one batch"], strict=True)]
        row = {"ms": statistics.median(times[name, workers])}
        row |= {"cost %": 100 * statistics.median(more) / ready, "cpu": alone(loader(name, 0))}
        found.append({"threads": threads, "batches": name, "workers": workers} | row)
    return found


def alone(loader: Any) -> float:
    """Milliseconds of all cores for one of its batches."""
    start = time.process_time()
    for _ in loader:
        pass
    return (time.process_time() - start) / len(loader) * 1e3


def main(line: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    chosen = parser.parse_args(line)
    report.show(rows(chosen.threads, chosen.rounds), chosen.json)


if __name__ == "__main__":
    main()
