"""What CUDA kernels cost in the emulator, on a machine without a GPU.

    python -m benchmarks.emulator [--json FILE]

Medians of 15 rounds of compiled kernels; compiling them comes before, and is kept for next time.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ["MINIDL_CUDA"] = "emulate"  # read when "cuda" is first asked for

import numpy as np

import minidl
from minidl.kernels.cuda import ladder
from minidl.models import cifar10_cnn
from minidl.nn import functional as F

from . import report

BATCH = 8


def rounds() -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    a = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    y, one = np.empty_like(a), np.ones((1, 1), np.float32)
    images = np.random.default_rng(1).standard_normal((BATCH, 32, 32, 3), dtype=np.float32)
    x, label = (minidl.Tensor(v, device="cuda") for v in (images, np.arange(BATCH)))
    model = cifar10_cnn().to("cuda")
    return {
        "launch of one block": lambda: ladder.naive(one, one, np.empty_like(one)),
        **{
            f"{step.__name__}, 64 x 64 x 64": lambda step=step: step(a, a, y)
            for step in ladder.STEPS
        },
        f"CIFAR-10 network, batch {BATCH}, forward and backward": lambda: F.cross_entropy(
            model(x), label
        ).backward(),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emulator")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    times = report.interleaved(rounds())
    report.show([{"what": what, "ms": ms} for what, ms in times.items()], options.json)


if __name__ == "__main__":
    main()
