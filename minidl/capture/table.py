"""A program as a table: kernels, shapes, bytes, operations, and how long each one takes.

A kernel's bound is the time that it cannot go below on this machine (Williams et al. 2009, the
roofline model): that of its operations at the rate of a large matrix product, or that of its bytes
at the rate of a large copy, whichever is longer.
"""

import functools
import html as markup
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Device
from ..kernels.roles import roles
from .program import restore, saved, written
from .record import Entry, Ref

if TYPE_CHECKING:
    from .program import Program

TIMES = {"in": 1, "out": 1, "inout": 2}  # how often a kernel moves an argument, at least
# Operations for each element of the largest array: 1 where nothing is said.
PER_ELEMENT = {
    "copy": 0, "fill": 0, "take": 0, "put_": 0, "distinct": 0, "reserve_": 0,
    "batch_norm": 6, "batch_norm_eval": 3, "batch_norm_grad": 9, "batch_norm_eval_grad": 6,
    "layer_norm": 7, "layer_norm_grad": 12, "log_softmax": 4, "softmax": 4, "cross_entropy": 4,
    "cross_entropy_grad": 4, "dropout": 2, "dropout_grad": 2, "sgd_step_": 4, "adam_step_": 12,
    "rmsprop_step_": 10, "adagrad_step_": 7,
}  # fmt: skip
TABLES = {"take": (0, 2), "put_": (2, 0)}  # a table, and the rows of it that a kernel moves
LEFT = {"kernel", "op", "shapes", "bound by"}  # columns of text


def traffic(entry: Entry) -> int:
    """Bytes that a kernel moves at least: inputs in, outputs out, what it changes both ways."""
    nbytes = sum(TIMES.get(kind, 0) * ref.nbytes for kind, ref in entry.refs())
    if entry.name in TABLES:
        table, rows = TABLES[entry.name]
        nbytes += entry.args[rows].nbytes - entry.args[table].nbytes * TIMES[entry.kinds[table]]
    return nbytes


def operations(entry: Entry) -> int:
    """Additions, multiplications and the like: exact for products, about right for the rest."""
    shape = {n: a.like[0] for n, a in zip(roles(entry.call), entry.args) if isinstance(a, Ref)}
    size = {name: math.prod(lengths) for name, lengths in shape.items()}
    slopes = size.get("y", size.get("dy", 0))
    if "conv2d" in entry.name:
        return 2 * slopes * math.prod(shape["dw" if "dw" in shape else "w"][:-1])
    if entry.name.startswith("csr_matmul"):
        return 2 * size["row"] * shape["x" if "x" in shape else "dy"][-1]
    if entry.name.startswith("bmm"):
        return 2 * slopes * (shape["a"][-1] if "a" in shape else shape["b"][-2])
    if entry.name.startswith(("matmul", "linear")):
        matrices = [n for name, n in size.items() if len(shape[name]) == 2]
        return 2 * math.isqrt(math.prod(matrices))  # of M K, K N and M N
    return PER_ELEMENT.get(entry.name, 1) * max(size.values(), default=0)


@dataclass
class Profile:
    """How long each entry of a program takes, and what it is held against.

    seconds: the median of each entry, 0 on the host. rate, bandwidth: operations and bytes per
    second of this machine at its best; 0 where the emulator computes.
    """

    program: "Program"
    seconds: list[float]
    rate: float
    bandwidth: float

    def bound(self, entry: Entry) -> float:
        """Seconds below which an entry cannot go."""
        return max(operations(entry) / self.rate, traffic(entry) / self.bandwidth)

    def columns(self, entry: Entry, seconds: float) -> dict[str, str]:
        """What the table says of an entry."""
        if entry.host:
            return {}
        row = {"us": f"{seconds * 1e6:,.1f}", "GB/s": f"{traffic(entry) / seconds / 1e9:,.2f}"}
        row["GFLOP/s"] = f"{operations(entry) / seconds / 1e9:,.2f}"
        if self.rate:
            compute = operations(entry) / self.rate > traffic(entry) / self.bandwidth
            row["bound by"] = "compute" if compute else "memory"
            row["of bound"] = f"{self.bound(entry) / seconds:.0%}"
        return row

    def total(self) -> str:
        """One line: the sum, and the machine."""
        line = f"; {sum(self.seconds) * 1e3:,.2f} ms in kernels"
        if self.rate:
            line += f", of {self.rate / 1e9:,.0f} GFLOP/s and {self.bandwidth / 1e9:,.1f} GB/s"
        return line

    def __str__(self) -> str:
        return text(self.program, self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self.program, self)


def profiled(program: "Program", repeats: int) -> Profile:
    """Run the kernels of a program one by one, on its last inputs, and put all back."""
    refs = written(program.recording)
    before = saved(refs)
    times: list[list[float]] = [[] for _ in program.calls]
    waits = [wait for device in program.blocks for wait in _waits(device)]

    def timed(n: int, call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            start = time.perf_counter()
            call()
            for wait in waits:
                wait()
            times[n].append(time.perf_counter() - start)

        return run

    pairs = zip(program.calls, program.entries)
    calls = [timed(n, call) for n, (call, entry) in enumerate(pairs) if not entry.host]
    try:
        for _ in range(repeats):
            program.run(calls)
    finally:
        restore(refs, before)
    rate, bandwidth = limits(next(iter(program.blocks)))
    return Profile(program, [statistics.median(t) if t else 0.0 for t in times], rate, bandwidth)


def _waits(device: Device) -> list[Callable[[], None]]:
    return [] if device.name == "cpu" else [device.kernels.memory.synchronize]


@functools.cache
def limits(device: Device) -> tuple[float, float]:
    """Operations and bytes per second of a large product and a large copy; 0 in the emulator."""
    k = device.kernels
    if device.name != "cpu" and k.memory.emulated():
        return 0.0, 0.0
    a, b, y = (k.fill(k.empty((1024, 1024), np.dtype("float32")), 1) for _ in range(3))
    x, z = (k.fill(k.empty((1 << 24,), np.dtype("float32")), 1) for _ in range(2))

    def best(run: Callable[[], Any]) -> float:
        found = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            for wait in _waits(device):
                wait()
            found.append(time.perf_counter() - start)
        return min(found)

    product, copy = best(lambda: k.matmul(a, b, y)), best(lambda: k.copy(x, z, False))
    return 2 * 1024**3 / product, 2 * x.nbytes / copy


# --- tables


def _rows(program: "Program", profile: Profile | None) -> list[dict[str, str]]:
    rows = []
    seconds = [0.0] * len(program.entries) if profile is None else profile.seconds
    for entry, taken in zip(program.entries, seconds):
        note = f" ({entry.note})" if entry.note else ""
        row = {"kernel": entry.name, "op": entry.op + note}
        if entry.host:
            row["op"] = "on the host"
        else:
            row["shapes"] = _shapes(entry)
            row["KB"] = f"{traffic(entry) / 1e3:,.1f}"
            row["MFLOP"] = f"{operations(entry) / 1e6:,.3f}"
        rows.append(row | (profile.columns(entry, taken) if profile else {}))
    return rows


def _shapes(entry: Entry) -> str:
    """Inputs -> outputs."""
    sides: tuple[list[str], list[str]] = ([], [])
    for kind, ref in entry.refs():
        sides[kind != "in"].append("x".join(map(str, ref.like[0])) or "()")
    return " -> ".join(" ".join(side) for side in sides if side)


def summary(program: "Program") -> str:
    """One line: kernels, operations, bytes, memory."""
    kernels = [e for e in program.entries if not e.host]
    rewritten = sum(bool(e.note) for e in kernels)
    apart = sum(storage.nbytes for storage in program.spans)
    return (
        f"{len(kernels)} kernels, {rewritten or 'none'} rewritten; "
        f"{sum(map(operations, kernels)) / 1e6:,.2f} MFLOP, "
        f"{sum(map(traffic, kernels)) / 1e6:,.2f} MB moved; {program.nbytes / 1e6:,.2f} MB of "
        f"memory for arrays of {apart / 1e6:,.2f} MB"
    )


def _table(program: "Program", profile: Profile | None) -> tuple[list[str], list, str]:
    rows = _rows(program, profile)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, rows, summary(program) + (profile.total() if profile else "")


def text(program: "Program", profile: Profile | None = None) -> str:
    """The table to print."""
    columns, rows, last = _table(program, profile)
    cells = [columns, *([row.get(c, "") for c in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    sides = [str.ljust if c in LEFT else str.rjust for c in columns]
    lines = (
        "  ".join(side(value, w) for side, value, w in zip(sides, row, widths)).rstrip()
        for row in cells
    )
    return "\n".join([*lines, last])


def html(program: "Program", profile: Profile | None = None) -> str:
    """The table for a notebook."""
    columns, rows, last = _table(program, profile)

    def line(tag: str, values: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{markup.escape(v)}</{tag}>" for v in values) + "</tr>"

    body = "".join(line("td", [row.get(c, "") for c in columns]) for row in rows)
    head, caption = line("th", columns), markup.escape(last)
    return f"<table><caption>{caption}</caption>{head}{body}</table>"
