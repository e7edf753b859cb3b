"""examples/puzzles and their notebook: right is right, and wrong is told as the files promise."""

import inspect
import json
import linecache
import math
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numba import cuda, float32

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import puzzles  # noqa: E402

from minidl.kernels import sanitize  # noqa: E402
from minidl.kernels.cuda._numba import kernel_of  # noqa: E402

pytestmark = pytest.mark.emulator

NAMES = [*puzzles.PUZZLES]
KERNELS = [
    (name, made, kernel)
    for name in NAMES
    for made, kernel in vars(vars(puzzles)[name]).items()
    if hasattr(kernel, "py_func")
]
WRONG = [row for row in KERNELS if row[1] != "solution"]
CELLS = json.loads((ROOT / "notebooks" / "03_gpu_puzzles.ipynb").read_text(encoding="utf-8"))[
    "cells"
]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
PROSE = "\n".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")


def test_there_are_ten_puzzles_with_a_solution_and_two_wrong_ones():
    assert len(NAMES) == 10
    for name in NAMES:
        assert [made == "solution" for n, made, _ in KERNELS if n == name] == [True, False, False]


@pytest.mark.parametrize("name", NAMES)
def test_a_solution_is_right(name):
    verdict = puzzles.judge(vars(puzzles)[name].solution, name)
    assert verdict, verdict
    assert verdict.message.startswith("Right")


def test_what_is_told_first_does_not_hang_on_what_was_watched_before():
    """A race between blocks, in the second row of what was found, went before the rest once."""

    @cuda.jit
    def races(x, y):
        x[cuda.blockIdx.x] = cuda.grid(1)
        y[0] = cuda.grid(1)

    edge = puzzles.product.edge_forgotten
    told = puzzles.judge(edge, "product").message
    assert len(sanitize(races, 2, 2, np.zeros(2), np.zeros(1)).findings) == 2
    assert puzzles.judge(edge, "product").message == told


@pytest.mark.parametrize("name, made, kernel", WRONG, ids=lambda v: v if type(v) is str else "")
def test_a_wrong_solution_is_told_what_its_file_promises(name, made, kernel):
    verdict = puzzles.judge(kernel, name)
    promised, message = inspect.getdoc(kernel).split("\n\n", 1)
    assert not verdict
    assert verdict.message == message
    assert promised.startswith(f"{verdict.kind}: ")
    source, first = inspect.getsourcelines(kernel.py_func)
    if verdict.kind in ("not written", "wrong value"):
        assert verdict.line == 0
    else:
        line = source[verdict.line - first].strip()
        assert line in map(str.strip, message.splitlines())


def test_the_wrong_ones_are_wrong_in_many_ways():
    kinds = {inspect.getdoc(kernel).partition(":")[0] for _, _, kernel in WRONG}
    assert kinds == {
        "out of bounds", "race", "not written", "uninitialised read", "divergent barrier",
        "wrong value",
    }  # fmt: skip


@pytest.mark.parametrize("name, made, kernel", WRONG, ids=lambda v: v if type(v) is str else "")
def test_the_smallest_size_that_fails_is_told(name, made, kernel):
    puzzle = puzzles.PUZZLES[name]
    verdict = puzzle.judge(kernel_of(kernel))
    before = puzzle.sizes[: puzzle.sizes.index(verdict.sizes)]
    assert all(np.prod(a) <= np.prod(b) for a, b in zip(puzzle.sizes, puzzle.sizes[1:]))
    for sizes in before:
        alone = puzzles.Puzzle(
            puzzle.definition, puzzle.shapes, puzzle.launch, (sizes,), puzzle.reads
        )
        assert alone._tried(kernel_of(kernel)) is None


# --- the notebook


def skeleton(name):
    """The kernel of a cell of the notebook that is to be filled in."""
    (source,) = [c for c in CODE if re.search(rf"^def {name}\(", c, re.M)]
    file = f"<{name} in the notebook>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    space = {"cuda": cuda, "float32": float32, "judge": puzzles.judge}
    exec(compile(source, file, "exec"), space)
    assert source.rstrip().endswith(f"judge({name})")
    return space[name]


@pytest.mark.parametrize("name", NAMES)
def test_an_unfilled_kernel_is_told_so(name):
    verdict = puzzles.judge(skeleton(name))
    assert not verdict
    assert verdict.kind == "not written"
    assert "Is the kernel filled in?" in verdict.message


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_states_each_puzzle_as_its_file_does(name):
    kernel = skeleton(name)
    puzzle = puzzles.PUZZLES[name]
    body = inspect.getsource(puzzle.definition).split("\n", 1)[1]
    assert textwrap.dedent(body).strip() in PROSE
    assert [*inspect.signature(kernel.py_func).parameters] == [
        *inspect.signature(puzzle.definition).parameters
    ]


# --- what else attempts are told


def test_right_in_another_way():
    @cuda.jit
    def running(x, y):  # two tiles in turn: no second barrier is needed
        tiles = cuda.shared.array((2, 8), float32)
        i, t = cuda.grid(1), cuda.threadIdx.x
        now, step = 0, 1
        tiles[0, t] = x[i] if i < x.size else float32(0)
        while step < 8:
            cuda.syncthreads()
            tiles[1 - now, t] = tiles[now, t]
            if t >= step:
                tiles[1 - now, t] += tiles[now, t - step]
            now, step = 1 - now, step * 2
        if i < x.size:
            y[i] = tiles[now, t]

    @cuda.jit
    def dot(a, b, y):  # lanes hand each other their sums
        t = cuda.threadIdx.x
        total = float32(0)
        for i in range(t, a.size, 8):
            total += a[i] * b[i]
        for half in (4, 2, 1):
            total += cuda.shfl_xor_sync(0xFF, total, half)
        if t == 0:
            y[0] = total

    @cuda.jit
    def rows(x, y):  # one thread does it all
        if cuda.threadIdx.x == 0:
            total = float32(0)
            for j in range(x.shape[1]):
                total += x[cuda.blockIdx.x, j]
            y[cuda.blockIdx.x] = total

    for kernel in (running, dot, rows):
        verdict = puzzles.judge(kernel)
        assert verdict, verdict


def test_two_barriers_where_one_is_needed():
    @cuda.jit
    def flip(x, y):
        tile = cuda.shared.array(8, float32)
        i, t = cuda.grid(1), cuda.threadIdx.x
        if i < x.size:
            tile[t] = x[i]
            cuda.syncthreads()
            y[i] = tile[min(8, x.size - i + t) - 1 - t]
        else:
            tile[t] = 0
            cuda.syncthreads()
            tile[t] = 1

    verdict = puzzles.judge(flip)
    assert verdict.kind == "divergent barrier"
    assert "waits for all threads of its block" in verdict.message
    assert "waits elsewhere" in verdict.message


def test_a_loop_that_never_ends():
    @cuda.jit
    def dot(a, b, y):
        sums = cuda.shared.array(8, float32)
        t = cuda.threadIdx.x
        sums[t] = 0
        for i in range(t, a.size, 8):
            sums[t] += a[i] * b[i]
        step = 4
        while step > 0:
            cuda.syncthreads()
            if t < step:
                sums[t] += sums[t + step]
        if t == 0:
            y[0] = sums[0]

    verdict = puzzles.judge(dot)
    assert (verdict.kind, linecache.getline(__file__, verdict.line).strip()) == (
        "endless loop",
        "while step > 0:",
    )
    assert "of block 0 never leaves this loop:" in verdict.message
    assert "does each round change it, as `step //= 2` does?" in " ".join(verdict.message.split())


def test_a_flag_that_nobody_raises():
    @cuda.jit
    def double(x, y):
        flags = cuda.shared.array(8, float32)
        i, t = cuda.grid(1), cuda.threadIdx.x
        flags[t] = 0
        cuda.syncthreads()
        while t > 0 and cuda.atomic.add(flags, t - 1, 0) == 0:
            pass
        if i < x.size:
            y[i] = 2 * x[i]

    verdict = puzzles.judge(double)
    assert verdict.kind == "endless loop"
    assert verdict.message.endswith(
        "It waits for flags to change, and no thread is left to do that."
    )


def test_a_kernel_is_known_by_its_name():
    @cuda.jit
    def triple(x, y):
        y[0] = x[0]

    with pytest.raises(ValueError, match=r"no puzzle is called 'triple'; there are double, square"):
        puzzles.judge(triple)
    assert puzzles.judge(puzzles.double.solution, "double")


def test_other_arguments():
    @cuda.jit
    def double(x):
        x[0] = 1

    verdict = puzzles.judge(double)
    assert verdict.kind == "arguments"
    assert verdict.message == "The kernel should take (x, y), not (x)."


def test_a_kernel_that_does_not_compile():
    @cuda.jit
    def double(x, y):
        i = cuda.gird(1)
        y[i] = 2 * x[i]

    verdict = puzzles.judge(double)
    assert verdict.kind == "does not compile"
    assert "has no attribute 'gird'" in verdict.message


def test_a_kernel_that_changes_its_input():
    @cuda.jit
    def double(x, y):
        i = cuda.threadIdx.x
        x[i] *= 2
        y[i] = x[i]

    assert puzzles.judge(double).kind == "changed input"


def test_right_for_the_sizes_and_wrong_for_drawn_arrays():
    @cuda.jit
    def square(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = x[i] * x[i] if x[i] > -math.inf else 0

    verdict = puzzles.judge(square)
    assert verdict.kind == "inf and NaN"
    assert verdict.message.startswith("It is right for small whole numbers")


def test_floats_added_by_atomics_depend_on_the_order():
    @cuda.jit
    def dot(a, b, y):
        t = cuda.threadIdx.x
        if t == 0:
            y[0] = 0
        cuda.syncthreads()
        for i in range(t, a.size, 8):
            cuda.atomic.add(y, 0, a[i] * b[i])

    verdict = puzzles.judge(dot)
    assert verdict.kind == "repeat"
    assert "the order in which the threads run" in " ".join(verdict.message.split())


def test_right_but_from_global_memory():
    @cuda.jit
    def smooth(x, y):
        i = cuda.grid(1)
        if i < y.size:
            y[i] = (x[i] + x[i + 1] + x[i + 2]) / 3

    verdict = puzzles.judge(smooth)
    assert verdict.kind == "too many reads"
    assert "300 numbers are read from global memory, and 126 would do" in verdict.message


def test_more_shared_memory_than_a_block_has():
    @cuda.jit
    def flip(x, y):
        tile = cuda.shared.array(100_000, float32)
        tile[0] = x[0]
        y[0] = tile[0]

    verdict = puzzles.judge(flip)
    assert verdict.kind == "launch"
    assert "49152 bytes of shared memory" in verdict.message
