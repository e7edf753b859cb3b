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
from sanitized import (  # noqa: F401  # they fill KERNELS
    KERNELS,
    Labelled,
    barriers,
    blocks,
    count,
    memory,
    ones,
    races,
    values,
    waits,
    warps,
)

from minidl.kernels import sanitize
from minidl.kernels.cuda.emulator import schedule
from minidl.kernels.cuda.sanitizer import launch

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
        assert times <= 15


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


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
@pytest.mark.parametrize("span", [8, 40, 500])
def test_what_lanes_ask_in_any_order(shared, dtype, span):
    def of_global(order, x, y):
        i = cuda.threadIdx.x
        if order[i] >= 0:
            y[i] = x[order[i]]

    def of_shared(order, x, y):
        s, i = cuda.shared.array(500, x.dtype), cuda.threadIdx.x
        for k in range(i, 500, 64):
            s[k] = x[k]
        cuda.syncthreads()
        if order[i] >= 0:
            y[i] = s[order[i]]

    order = np.random.default_rng(span).integers(-1, span, 64)
    x = np.ones(500, dtype)
    report = sanitize(of_shared if shared else of_global, 1, 64, order, x, np.ones(64, dtype))
    first = (of_shared if shared else of_global).__code__.co_firstlineno
    (line,) = (
        line
        for line in report.lines
        if (line.line, line.does, line.shared) == (first + (6 if shared else 3), "read", shared)
        and line.bytes == (order >= 0).sum() * x.itemsize
    )
    sectors, turns, lanes = 0, 0, 128 // max(x.itemsize, 4)  # which have their turn together
    for part in order.reshape(2, -1, min(lanes, 32)):
        sectors += len({i * x.itemsize // 32 for i in part.flat if i >= 0})
        for some in part:
            bytes_ = {i * x.itemsize + k for i in some if i >= 0 for k in range(x.itemsize)}
            words = {b // 4 for b in bytes_}
            turns += max([sum(w % 32 == b for w in words) for b in range(32)], default=0)
    assert (line.turns if shared else line.sectors) == (turns if shared else sectors)


def test_nothing_is_left_of_the_launch_before():
    def fill(x):
        x[cuda.grid(1)] = cuda.grid(1)

    def turn(x):
        x[cuda.grid(1)] += x[x.size - 1 - cuda.grid(1)]

    x = ones(128)
    assert sanitize(fill, 2, 64, x, fresh=("x",))
    (found,) = sanitize(turn, 1, 1, x, fresh=("x",)).findings  # one finding for both reads' line
    assert found.kind == "uninitialised read"
    assert not sanitize(turn, 2, 64, x)
    assert sanitize(fill, 2, 64, x[::-1])
    assert [f.kind for f in sanitize(fill, 1, 128, x[:64]).findings] == ["out of bounds"]


def test_a_count_that_is_full_begins_anew(monkeypatch):
    monkeypatch.setattr(launch, "LATE", 5)
    x = ones(128)
    for _ in range(3):  # each has six blocks and more
        assert sanitize(copy, 6, 16, ones(96), x)
        assert not sanitize(take_largest, 1, 64, x, ones(1, 2))


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
    assert race.hint == "cuda.syncthreads() in between would make them wait"
    assert race.count == 128


def add_all(x, sums):
    i = cuda.grid(1)
    if i < x.size:
        sums[0, 0] += x[i]


def take_largest(x, sums):
    for i in range(cuda.threadIdx.x, x.size, cuda.blockDim.x):
        sums[0, 1] = max(x[i], sums[0, 1])


def shift_down(x, sums):
    i = cuda.threadIdx.x
    x[i] += x[i + 1]


def number(x, sums):
    i = cuda.threadIdx.x
    sums[0, 0] = i


@pytest.mark.parametrize(
    "kernel, grid, block, hint",
    [
        (add_all, 2, 64, "use cuda.atomic.add(sums, (0, 0), x[i]): here others come in between"),
        (add_all, 1, 32, "use cuda.atomic.add(sums, (0, 0), x[i]): here others come in between"),
        (take_largest, 1, 64, "use cuda.atomic.max(sums, (0, 1), x[i]): here others come"),
        (shift_down, 1, 64, "cuda.syncthreads() between reading and writing, and in each turn"),
        (shift_down, 1, 32, "cuda.syncwarp() between reading and writing, and in each turn"),
        (number, 2, 64, "each thread needs an element of its own to write to"),
    ],
)
def test_advice_for_a_race_of_one_line(kernel, grid, block, hint):
    findings = sanitize(kernel, grid, block, count(129), ones(1, 2)).findings
    assert findings and findings[0].hint.startswith(hint), findings


def test_a_syncwarp_is_not_advised_where_others_may_race():
    def total(y):
        s = cuda.shared.array(1, float32)
        if cuda.threadIdx.x == 0:
            s[0] = 0
        cuda.atomic.add(s, 0, 1)
        cuda.syncthreads()
        y[0] = s[0]

    # all race with the first; once there was an atomic, the sanitizer remembers that
    for threads, barrier in (64, "cuda.syncthreads()"), (32, "cuda.syncwarp()"):
        (race,) = sanitize(total, 1, threads, ones(1)).findings
        assert race.hint == f"{barrier} in between would make them wait"


def test_threads_and_blocks_are_named_by_their_axes():
    def rows(x):
        i, j = cuda.grid(2)
        x[j, i] = 1

    (found,) = sanitize(rows, (2, 1), (4, 4), ones(4, 7)).findings
    (place,) = found.places
    assert (place.index, place.position) == ((3, 3, 0), (7, 3, 0))
    assert found.index == (3, 7)  # not (4, 0), which is the same place
    who, above, line, hint = str(found).splitlines()[1:]
    first = rows.__code__.co_firstlineno
    said = "thread (3, 3) of block 1 (cuda.grid(2) = (7, 3)) writes it"
    assert who == f"  {said}, line {first + 2}"
    assert above == f"    {first + 1:>4}  i, j = cuda.grid(2)"
    assert line == f"    {first + 2:>4}  x[j, i] = 1"
    assert hint.startswith("  x has the shape (4, 7), so its last index is [3, 6]; `if i < x.shape")


def write_at(x, i):
    x[i] = 1


@pytest.mark.parametrize(
    "x, i, hint",
    [
        (ones(500), 500, "x has 500 elements, so its last index is 499"),
        (ones(1), 1, "x has one element, x[0]"),
        (ones(0), 3, "x has no elements"),
        (ones(4), -6, "this is before the first element; a negative index counts from the end"),
    ],
)
def test_how_large_an_array_is(x, i, hint):
    (found,) = sanitize(write_at, 1, 1, x, i).findings
    assert (found.kind, found.array) == ("out of bounds", "x")
    assert found.hint.startswith(hint) and "keeps other threads out" not in found.hint


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
    with pytest.raises(TypeError, match="x is object; Numba has no such type"):
        sanitize(copy, 1, 1, ones(1, dtype=object), ones(1))
    with pytest.raises(TypeError, match="y is a str; kernels take arrays, numbers, records and"):
        sanitize(copy, 1, 1, ones(1), "one")
    with pytest.raises(TypeError, match="a kernel is a function"):
        sanitize(3, 1, 1)


def test_arrays_are_written_as_by_a_launch():
    x, y = count(64), ones(64)
    assert sanitize(cuda.jit(copy), np.int64(2), 32, x, y)
    assert np.array_equal(x, y)
