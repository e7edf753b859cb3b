"""minidl bench: the same network trained on every device of the machine, how fast and at what cost.

Batches are on the device beforehand and steps are captured, as fit does; a device is waited for
before each look at the clock. Steps are timed in blocks, long enough for the clock and the
counters of energy, and the first ones, which compile and record, do not count.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import __version__, capture, cuda, data, io, models, optim
from ..backend import Device, device
from ..energy import Meter, Nvml, Rapl
from ..nn import functional as F
from ..random import manual_seed
from ..tensor import Tensor
from ..threads import get_num_threads
from .recipes import Recipe, find

BLOCK = 0.1  # seconds of steps in a block, at least
BLOCKS = 5  # at least, however short the time
WARM_UP = 4  # steps: two that are recorded, one that proves the program, one more
BATCHES = 8  # different ones, in turn


class Row(NamedTuple):
    """How one device trains the network."""

    device: str
    what: str
    milliseconds: float  # of a step: the median, and the quartiles around it
    quartiles: tuple[float, float]
    samples_per_second: float
    joules_per_sample: dict[str, float]  # by counter, what is measured
    not_measured: dict[str, str]  # the other counters, and why
    loss: float  # after `steps` steps of the same batches
    steps: int


def bench(arguments: argparse.Namespace, argv: list[str]) -> None:
    """Train on each device and print the table."""
    recipe, training, _ = find(arguments.model, arguments.data)
    size = arguments.batch_size or recipe.batch_size
    loader = data.DataLoader(training, size, True, seed=0, drop_last=True,
                             transform=recipe.normalize)  # fmt: skip
    batches = list(itertools.islice(loader, BATCHES))
    model, seconds = arguments.model, arguments.seconds
    names = arguments.device or devices()
    rows = [measured(name, model, recipe, batches, seconds) for name in names]
    if arguments.json:
        result = {
            "model": model, "batch_size": size, "minidl": __version__,
            "machine": f"{platform.system()} {platform.machine()}",
            "devices": [row._asdict() for row in rows],
        }  # fmt: skip
        text = json.dumps(result, indent=1) + "\n"
        if arguments.json == "-":
            sys.stdout.write(text)
            return
        io.write(Path(arguments.json), text.encode())
    print(f"{model}, training, batches of {size}")
    print(table(rows))


def devices() -> list[str]:
    """The CPU, and the GPU (or, if the emulator was asked for, that) where there is one."""
    return ["cpu", *(["cuda"] if cuda.is_available() else [])]


def measured(
    name: str, model: str, recipe: Recipe, batches: list[tuple[Any, ...]], seconds: float
) -> Row:
    """One device's row."""
    where = device(name)
    step, wait = _training(where, model, recipe, batches)
    for _ in range(WARM_UP):
        loss = step().item()  # after the same number of steps on each device, on the same batches
    start = time.perf_counter()
    step()
    wait()
    block = max(1, round(BLOCK / (time.perf_counter() - start)))
    meter, times = Meter((Rapl,) if name == "cpu" else (Nvml, Rapl)), list[float]()
    end = time.perf_counter() + seconds
    meter.read()
    while time.perf_counter() < end or len(times) < BLOCKS:
        start = time.perf_counter()
        for _ in range(block):
            step()
        wait()
        times.append((time.perf_counter() - start) / block)
    samples = len(batches[0][1]) * block * len(times)
    spent = {n: joules / samples for n, joules in meter.read().items() if joules == joules}
    low, median, high = np.percentile(times, (25, 50, 75)) * 1e3
    return Row(
        name, described(name), float(median), (float(low), float(high)),
        len(batches[0][1]) / statistics.median(times), spent, dict(meter.missing), loss, WARM_UP,
    )  # fmt: skip


def _training(
    where: Device, model: str, recipe: Recipe, batches: list[tuple[Any, ...]]
) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """A function that takes the next step, and one that waits for the device."""
    manual_seed(0)
    network = models.build(model, **recipe.network).to(where)
    optimizer = optim.get(recipe.optimizer, network.parameters(), lr=recipe.lr)
    there: Iterator = itertools.cycle([(Tensor(x, device=where), Tensor(y, device=where))
                                       for x, y in batches])  # fmt: skip

    def train(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        return loss

    captured = capture(train)
    return lambda: captured(*next(there)), cuda.synchronize if where.name == "cuda" else _done


def _done() -> None:
    """On the CPU a step is done when it returns."""


def described(name: str) -> str:
    """Which GPU or CPU a device is."""
    if name != "cpu":
        return cuda.get_device_properties().name
    threads = get_num_threads() if os.environ.get("MINIDL_CPU") != "reference" else None
    how = "NumPy alone" if threads is None else f"{threads} thread" + "s" * (threads > 1)
    return f"{_processor()}, {how}"


def _processor() -> str:
    """The CPU's name: Linux tells it in a file, others by way of Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def table(rows: list[Row]) -> str:
    """What was measured, to be read; and why the rest was not."""
    head = "device", "ms per step", "quartiles", "samples/s", "joules per sample", "what it is"
    lines = [head]
    for row in rows:
        joules = ", ".join(f"{n} {value:.3g}" for n, value in row.joules_per_sample.items())
        spread = "{:.3f} to {:.3f}".format(*row.quartiles)
        lines.append((row.device, f"{row.milliseconds:.3f}", spread,
                      f"{row.samples_per_second:,.0f}", joules or "not measured",
                      row.what))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines]
    losses = ", ".join(f"{row.device} {row.loss:.6f}" for row in rows)
    text.append(f"loss after {rows[0].steps} steps: {losses}")
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        ratio = last.samples_per_second / first.samples_per_second
        text.append(f"{last.device} trains {ratio:.2f} times as many samples a second")
    missing = {name: why for row in rows for name, why in row.not_measured.items()}
    text += [f"joules of {name}: not measured, {why}" for name, why in missing.items()]
    return "\n".join(text)
