"""The sanitizer: what it finds in kernels that say what is wrong with them, and what it counts."""

import contextlib
import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numba import cuda, float32, float64
from sanitized import KERNELS, Labelled, barriers, blocks, count, memory, ones, races, warps  # noqa: F401  # they fill KERNELS

from minidl.kernels import sanitize
from minidl.kernels.cuda.emulator import schedule

pytestmark = pytest.mark.emulator
PAGE = Path(__file__).parent.parent / "docs" / "sanitizer.md"
RESULTS = "2026-11-21-sanitizer.json"


def reported(labelled: Labelled):
    options = labelled.options
    return sanitize(labelled.kernel, labelled.grid, labelled.block, *labelled.args(), **options)


def is_right(labelled: Labelled, report) -> bool:
    """Whether a report says what the labels say: kind, array and line, and nothing besides."""
    labels = labelled.labels()
    kinds = {(kind, name) for kind, array, _ in labels for name in array.split("|")}
    lines = {line for _, _, line in labels}
    return bool(report) == (not labels) and all(
        (found.kind, found.array) in kinds
        and (found.kind == "launch" or lines & {place.line for place in found.places})
        for found in report.findings
    )


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
@pytest.mark.parametrize("labelled", KERNELS, ids=lambda k: k.name)
def test_what_is_found(labelled: Labelled, order: str):
    with schedule(order):
        report = reported(labelled)
    assert is_right(labelled, report), report


def score() -> str:
    """The table of the page."""
    rows: dict[str, list[int]] = {}
    for labelled in KERNELS:
        labels = labelled.labels()
        row = rows.setdefault(labels[0][0] if labels else "nothing", [0, 0, 0])
        report = reported(labelled)
        row[0] += 1
        row[1] += bool(labels) and is_right(labelled, report)
        row[2] += not labels and not report
    lines = ["| what is wrong | kernels | found | false alarms |", "|---|---|---|---|"]
    for kind, (kernels, found, alarms) in sorted(rows.items(), key=lambda row: -row[1][0]):
        cells = (kernels, "", alarms) if kind == "nothing" else (kernels, found, "")
        lines.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def test_the_score_on_the_page():
    assert len(KERNELS) >= 60
    assert score() in PAGE.read_text(), score()


def test_the_times_on_the_page():
    measured = json.loads((PAGE.parents[1] / "benchmarks/results" / RESULTS).read_text())["rows"]
    for row in measured:
        name, times = row["kernel"].replace("_", " "), row["times as long"]
        both = f"{row['emulated ms']:.2g} | {row['sanitized ms']:.2g}"
        assert f"| {name} | {row['accesses']:,} | {both} | {times:.2g} |" in PAGE.read_text()
        assert times <= 30


def test_the_example_on_the_page(tmp_path):
    # a file, for findings quote its lines
    program, said = re.findall(r"```(?:python|text)\n(.*?)```", PAGE.read_text(), re.S)[:2]
    file = tmp_path / "example.py"
    file.write_text(program)
    spec = importlib.util.spec_from_file_location("example", file)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert out.getvalue() == said


# What is counted.


def copy(x, y):
    i = cuda.grid(1)
    y[i] = x[i]


def of_reads(report):
    return next(line for line in report.lines if line.does == "read")


@pytest.mark.parametrize(
    "x, sectors",
    [
        (ones(64), 8),  # 2 warps, 128 bytes each
        (ones(65)[1:], 10),  # which begin 4 bytes behind a sector: one more each
        (ones(72)[8:], 8),  # a whole sector behind
        (ones(128)[::2], 16),  # every second float: 8 to a warp
        (ones(64 * 32)[::32], 64),  # a sector for each lane
        (ones(64)[::-1], 8),
        (np.broadcast_to(ones(1), 64), 2),  # one for each warp
        (ones(64, dtype=np.float64), 16),
        (ones(64, dtype=np.int8), 2),
        (ones(64, dtype=np.float16), 4),
    ],
)
def test_sectors(x, sectors):
    line = of_reads(sanitize(copy, 1, 64, x, np.empty(64, x.dtype)))
    assert (line.requests, line.sectors, line.accesses, line.bytes) == (
        2,
        sectors,
        64,
        x[:1].itemsize * 64,
    )


def test_a_sum_of_what_is_counted():
    report = sanitize(copy, 3, 48, count(144), ones(144))
    # a warp and a half a block: 128 and 64 bytes, which lie at multiples of 64
    assert report.threads == 144 and report.barriers == 0 and report.bytes == 2 * 144 * 4
    assert report.requests == 2 * 3 * 2 and report.sectors == 2 * 3 * (4 + 2)
    assert report.bank_conflicts == 0


def square(x, y):
    s = cuda.shared.array((32, 32), float32)
    i, j = cuda.threadIdx.x, cuda.threadIdx.y
    s[j, i] = x[j, i]
    cuda.syncthreads()
    y[j, i] = s[i, j]


def padded(x, y):
    s = cuda.shared.array((32, 33), float32)
    i, j = cuda.threadIdx.x, cuda.threadIdx.y
    s[j, i] = x[j, i]
    cuda.syncthreads()
    y[j, i] = s[i, j]


def of_eight_bytes(x, y):
    s = cuda.shared.array((32, 32), float64)
    i, j = cuda.threadIdx.x, cuda.threadIdx.y
    s[j, i] = x[j, i]
    cuda.syncthreads()
    y[j, i] = s[j, 0]


@pytest.mark.parametrize(
    "kernel, turns, conflicts",
    [
        (square, 32 * 32, 32 * 31),  # a column lies in one bank
        (padded, 32, 0),
        (of_eight_bytes, 64, 0),  # in two halves, each of which all have one word
    ],
)
def test_bank_conflicts(kernel, turns, conflicts):
    report = sanitize(kernel, 2, (32, 32), ones(32, 32), ones(32, 32))
    (line,) = (line for line in report.lines if line.shared and line.does == "read")
    assert (line.requests, line.turns) == (2 * 32, 2 * turns)
    assert report.bank_conflicts == 2 * conflicts
    assert report.barriers == 2 and report.threads == 2048


def test_lanes_that_are_not_together_ask_alone():
    def some(x, y):
        i = cuda.grid(1)
        total = float32(0)
        for k in range(i % 4):
            total += x[32 * k + i]
        y[i] = total

    line = of_reads(sanitize(some, 1, 32, ones(96), ones(32)))
    # 8 lanes have no turn, 8 one, 8 two, 8 three; each time some in each of four sectors
    assert (line.accesses, line.requests, line.sectors) == (48, 3, 12)


def test_what_was_moved_out_of_a_loop_has_its_line():
    def some(x, y):
        for k in range(cuda.threadIdx.x, x.size, 8):
            y[0] += x[k]

    report = sanitize(some, 1, 8, ones(64), ones(1))
    assert {line.line for line in report.lines} == {some.__code__.co_firstlineno + 2}


# What findings say.


def test_a_finding_says_all():
    def shift(x, y):
        s = cuda.shared.array((4, 16), float32)
        t = cuda.threadIdx.x
        s[t // 16, t % 16] = x[t]
        y[t] = s[t // 16, 15 - t % 16]

    report = sanitize(shift, 1, 64, ones(64), ones(64))
    (race,) = report.findings  # one, whichever thread is first
    assert race.array == "s" and len(race.index) == 2 and race.count == 64
    row, column = race.index
    assert {16 * row + column, 16 * row + 15 - column} == {*race.threads}
    assert race.block == (0, 0, 0) and [p.line - race.line for p in race.places] in (
        [0, 1],
        [0, -1],
    )
    assert "syncwarp()" in str(race) and "s[t // 16, t % 16] = x[t]" in str(race)


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
def test_a_race_in_and_between_warps_asks_for_a_barrier_of_the_block(order):
    def turn(x, y):
        s = cuda.shared.array(64, float32)
        t = cuda.threadIdx.x
        s[t] = x[t]
        y[t] = s[(t + 1) % 64] + s[(t + 2) % 64]

    with schedule(order):
        (race,) = sanitize(turn, 1, 64, ones(64), ones(64)).findings  # one line reads twice
    assert race.hint == "syncthreads() in between would make them wait"
    assert race.count == 128


@pytest.mark.parametrize(
    "x, index",
    [
        (ones(4, 8), (4, 0)),
        (ones(4, 8)[::-1], (4, 0)),
        (ones(8, 8)[:4], (4, 0)),
        (ones(8, 8)[:4, :4], (4, 0)),
    ],
)
def test_an_index_outside(x, index):
    def below(x):
        x[cuda.threadIdx.x + 1, 0] = 3

    (found,) = sanitize(below, 1, 4, x).findings
    assert (found.kind, found.array, found.index) == ("out of bounds", "x", index)
    assert found.threads == (3,)


def test_what_sanitize_does_not_take():
    with pytest.raises(TypeError, match="got 1 arguments for"):
        sanitize(copy, 1, 1, ones(1))
    with pytest.raises(ValueError, match="fresh names \\['z'\\], not an array of it"):
        sanitize(copy, 1, 1, ones(1), ones(1), fresh=("z",))
    with pytest.raises(TypeError, match="x is complex64; kernels take bool, int and float"):
        sanitize(copy, 1, 1, ones(1, dtype=np.complex64), ones(1))
    with pytest.raises(TypeError, match="a kernel is a function"):
        sanitize(3, 1, 1)


def test_arrays_are_written_as_by_a_launch():
    x, y = count(64), ones(64)
    assert sanitize(cuda.jit(copy), np.int64(2), 32, x, y)
    assert np.array_equal(x, y)
