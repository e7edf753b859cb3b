"""A launch: its arguments, its workers, the order of its threads, and what went wrong in it."""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from numba import config, types

from .. import memory
from .._numba import Kernel
from ..arguments import Pointer, as_array, flatten, leaves, signature
from . import grid as grids
from . import machine, told
from .bounds import ACCESSES, describe, extent
from .runtime import (
    BARRIER,
    DONE,
    GRID,
    MAX_SHARED_ARRAYS,
    MAX_THREADS,
    READY,
    STACK,
    STATE,
    TURN,
    WARP,
)  # fmt: skip
from .scheduler import (
    ENDLESS,
    FINISHED,
    GIVEN_UP,
    GUARD,
    MISALIGNED,
    OUTSIDE,
    PAUSED,
    RAISED,
    WILD,
)  # fmt: skip

MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
# Seconds in which no thread of a launch comes to its end, and it is given up. A sum of 10**8
# numbers by one thread takes a tenth of one, and three under the sanitizer.
LIMIT = 600.0
# Seconds of work from which a second worker pays: to start its thread takes a tenth of that.
WORTH = 5e-4
_PACE = 1e-7  # seconds per thread, before a kernel's own pace is known


class Schedule(NamedTuple):
    """In what order threads and blocks run, and on how many workers."""

    order: str = "forward"
    seed: int = 0
    workers: int | None = None  # None: as many as pay


_FORWARD = Schedule()
_schedule: ContextVar[Schedule] = ContextVar("schedule", default=_FORWARD)


@contextlib.contextmanager
def schedule(order: str, seed: int = 0, workers: int = 1) -> Iterator[None]:
    """Run launches inside this block "forward", "reverse" or "shuffled" (by the seed).

    One worker: nothing but the order decides what happens. More: each of n takes every n-th block.
    """
    if order not in ("forward", "reverse", "shuffled"):
        raise ValueError(f"schedule: {order!r}; it can be 'forward', 'reverse' or 'shuffled'")
    token = _schedule.set(Schedule(order, seed, workers))
    try:
        yield
    finally:
        _schedule.reset(token)


@functools.lru_cache(maxsize=16)
def _line(n: int, order: str, seed: int) -> np.ndarray:
    """The numbers below n in an order."""
    line = np.arange(n)
    if order == "shuffled":
        return np.random.default_rng(seed).permutation(line)
    return line[::-1].copy() if order == "reverse" else line


@functools.lru_cache(maxsize=64)
def threads(block: tuple[int, int, int], order: str, seed: int) -> np.ndarray:
    """The threads of a block in an order, those of a warp together: number, x, y, z."""
    n = block[0] * block[1] * block[2]
    t, warps = _line(n, order, seed), _line(-(-n // 32), order, seed)
    t = t[np.argsort(warps[t // 32], kind="stable")]
    x, y = t % block[0], t // block[0] % block[1]
    return np.stack([t, x, y, t // (block[0] * block[1])], axis=1).astype(np.int32)


class Work(NamedTuple):
    """All of a launch that its workers need to know."""

    code: machine.Code
    grid: tuple[int, ...]
    block: tuple[int, ...]
    dynamic: int  # bytes of dynamic shared memory
    args: list[int]
    blocks: np.ndarray
    order: np.ndarray  # of the threads of a block: number, x, y, z
    regions: list[tuple[int, int]]  # first byte and one behind the last, of each array given


def work_of(
    code: machine.Code,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    dynamic: int,
    args: Any,
    arrays: dict[str, np.ndarray],
) -> Work:
    """A launch in the order of the schedule."""
    order, seed, _ = _schedule.get()
    return Work(
        *(code, grid, block, dynamic, [word for word, _ in flatten(args)]),
        *(_line(grid[0] * grid[1] * grid[2], order, seed), threads(block, order, seed)),
        [extent(a) for a in arrays.values()],
    )


class Worker:
    """One that runs blocks: a state and shared memory of its own, and a stack for each thread."""

    def __init__(self) -> None:
        self.record = np.zeros(1, STATE)
        self.state = {name: self.record[name][0] for name in STATE.names or () if STATE[name].shape}
        room = machine.MAX_SHARED + 2 * GUARD * (MAX_SHARED_ARRAYS + 3)
        memory = np.zeros(room // 8, np.int64)
        self.shared = memory[-memory.ctypes.data % GUARD // 8 :]
        self.printed = np.zeros(told.ROOM, np.uint8)
        self.stacks = np.zeros((MAX_THREADS, STACK // 8), np.int64)
        self.loaded: dict[machine.Code, machine.Loaded] = {}
        self.record["stacks"] = self.stacks.ctypes.data

    def prepare(self, work: Work) -> Callable[[int, int], int]:
        """What runs blocks first, first + step ... for a while; it returns how that ended."""
        code, n = self._loaded(work.code), len(work.order)
        state, record = self.state, self.record
        state["ntid"][:], state["nctaid"][:] = work.block, work.grid
        state["order"][:n] = work.order
        state["args"][: len(work.args)] = work.args
        record["threads"], record["dynamic"] = n, work.dynamic
        for field in ("misaligned", "wild", "raised", "lost", "astray"):
            record[field] = 0
        regions = self.regions(work)
        state["regions"][: len(regions) + 1] = [*regions, (0, 0)]
        size = self._guard(work)
        if record["entry"] != code.fiber or record["inside"]:  # other stacks, or left in the middle
            record["entry"], record["laid"], record["frees"] = code.fiber, 0, 0
        record["position"] = record["inside"] = record["rounds"] = 0
        compiled, blocks = machine.scheduler_code(), work.blocks

        def run(first: int, step: int) -> int:
            return compiled(
                *(record.ctypes.data, self.shared.ctypes.data, size),
                *(blocks.ctypes.data, first, step, len(blocks), code.entry, work.code.threads),
            )

        return run

    def last(self, run: Callable[[], int], limit: float, stop: threading.Event) -> int:
        """How a run ended that has all the time it needs; between its parts Python hears Ctrl-C."""
        record, since, before = self.record, time.monotonic(), -1
        while (ended := run()) == PAUSED and not stop.is_set():
            if (now := int(record["ended"][0] + record["position"][0])) != before:
                since, before = time.monotonic(), now
            elif time.monotonic() - since > limit:
                return GIVEN_UP
        return ended

    def _loaded(self, code: machine.Code) -> machine.Loaded:
        """Code in memory, tied to this worker."""
        if code not in self.loaded:
            self.loaded[code] = machine.Loaded(code, **self.places())
        return self.loaded[code]

    def places(self) -> dict[str, int]:
        """Addresses of what its code refers to."""
        places = {"state": self.record, "shared": self.shared, "printed": self.printed}
        return {f"nv_{name}": a.ctypes.data for name, a in places.items()}

    def show(self) -> None:
        """Print what its blocks have printed."""
        if used := int(self.record["printed"][0]):
            self.record["printed"] = 0
            print(told.shown(self.printed, used), end="", flush=True)

    def _guard(self, work: Work) -> int:
        """Note where the gaps between arrays in shared memory are. Returns the bytes in use."""
        arrays = [(0, 0), *work.code.arrays]
        if work.code.dynamic:
            arrays.append((work.code.dynamic, work.dynamic))
        if len(arrays) == 1:
            self.state["guards"][0] = -1
            return 0
        gaps = [place + -(-size // 8) * 8 for place, size in arrays]
        self.state["guards"][: len(gaps) + 1] = [*gaps, -1]
        return gaps[-1] + GUARD

    def regions(self, work: Work) -> list[tuple[int, int]]:
        """The memory that a kernel may touch: its arguments, and its shared arrays."""
        arrays = [*work.code.arrays, (work.code.dynamic, work.dynamic)]
        base = self.shared.ctypes.data
        return [*work.regions, *((base + at, base + at + size) for at, size in arrays if at)]


_workers: list[Worker] = []
lock = threading.Lock()  # workers serve one launch at a time
_codes: dict[tuple[Kernel, tuple[types.Type, ...]], machine.Code] = {}
_known: dict[Any, machine.Code] = {}  # the same, by what is quick to ask of arguments
_pace: dict[machine.Code, float] = {}  # seconds per block that a kernel took last


def specialisations(kernel: Kernel) -> list[tuple[types.Type, ...]]:
    """The argument types under which a kernel has run in this process."""
    return [kinds for k, kinds in _codes if k is kernel]


def _kind(a: Any) -> Any:
    """What the type of an argument depends on."""
    if isinstance(a, np.ndarray):
        return a.dtype, a.ndim, a.flags.c_contiguous, a.flags.aligned
    if isinstance(a, tuple):
        return type(a), *map(_kind, a)
    return type(a), getattr(a, "dtype", None) or getattr(a, "kind", None)


def _code(kernel: Kernel, args: tuple[Any, ...]) -> machine.Code:
    key = kernel, *map(_kind, args)
    if (code := _known.get(key)) is None:
        kinds = signature(kernel, args)
        if (code := _codes.get((kernel, kinds))) is None:
            code = _codes[kernel, kinds] = machine.code(kernel, kinds)
        _known[key] = code
    return code


def launch(
    kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], shared: int, args: Any
) -> None:
    """Run a kernel on NumPy arrays.

    RuntimeError where its threads wait for ever, and where it wrote outside an array or read 128
    bits at a wrong address: the arrays may then hold anything.
    """
    check_limits(kernel, grid, block)
    with lock:
        code = _code(kernel, args)
        arrays = arrays_of(kernel, code, args)
        check_shared(kernel, code, shared)
        work = work_of(code, grid, block, shared, args, arrays)
        if code.together:
            check_room(kernel, code, grid, block, shared)
            runs = [_together(work)]
        else:
            runs = _share(work, _schedule.get().workers or _worth(work))
        for worker, _ in runs:
            worker.show()
        for worker, ended in runs:
            if ended == RAISED:
                raise told.exception(code.raises, worker.record[0], block)
            if ended != FINISHED:
                what = _report(worker, ended, work, arrays)
                raise RuntimeError(f"{kernel.__name__}: {what}")
    for name, a in arrays.items():
        if not memory.intact(a):
            raise RuntimeError(f"{kernel.__name__}: a thread wrote outside {name} {a.shape}")


def arrays_of(kernel: Kernel, code: machine.Code, args: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """The arrays that a launch may touch, by name: its arguments', and those in its code."""
    given = leaves(kernel, args).items()
    parts = {n: a.memory if isinstance(a, Pointer) else a for n, a in given}
    arrays = {n: a for n, a in parts.items() if isinstance(a, np.ndarray)}
    return arrays | {n: as_array(a) for n, a in code.captured.items()}


def check_shared(kernel: Kernel, code: machine.Code, dynamic: int) -> None:
    """Raise LaunchError for more shared memory than a block may have."""
    used = sum(size for _, size in code.arrays) + dynamic
    if used > machine.MAX_SHARED:
        limit = f"a block has {machine.MAX_SHARED}"
        raise machine.LaunchError(f"{kernel.__name__}: {used} bytes of shared memory; {limit}")


def check_limits(kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...]) -> None:
    """Raise LaunchError, a ValueError, for a launch that no GPU would take."""
    for what, size, limit in (("grid", grid, MAX_GRID), ("block", block, MAX_BLOCK)):
        if any(not 1 <= n <= most for n, most in zip(size, limit)):
            raise machine.LaunchError(f"{kernel.__name__}: {what} {size} is not within {limit}")
    if (n := block[0] * block[1] * block[2]) > MAX_THREADS:
        message = f"{n} threads in a block; a GPU runs {MAX_THREADS}"
        raise machine.LaunchError(f"{kernel.__name__}: {message}")


def check_room(
    kernel: Kernel,
    code: machine.Code,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    dynamic: int,
) -> None:
    """Raise LaunchError for more blocks that wait for each other than are on a GPU at once."""
    shared = sum(size for _, size in code.arrays) + dynamic
    if (n := math.prod(grid)) > (most := grids.resident(math.prod(block), shared)):
        raise machine.LaunchError(
            f"{kernel.__name__}: {n} blocks that wait for each other by grid.sync(); a GPU with "
            f"{grids.MULTIPROCESSORS} multiprocessors has room for {most} of this size at once"
        )


def _together(work: Work) -> tuple[Worker, int]:
    """Run all blocks of a launch at once; how that ended, and where."""
    while len(_workers) < len(work.blocks):
        _workers.append(Worker())
    each = _workers[: len(work.blocks)]
    stop = threading.Event()
    runs = {
        worker: functools.partial(
            worker.prepare(work._replace(blocks=work.blocks[i : i + 1])), 0, 1
        )
        for i, worker in enumerate(each)
    }
    return grids.together(each, lambda worker: worker.last(runs[worker], LIMIT, stop))


def _worth(work: Work) -> int:
    """How many workers pay for a launch, by what its kernel took last time."""
    pace = _pace.get(work.code, _PACE * len(work.order))
    return min(config.NUMBA_NUM_THREADS, 1 + int(pace * len(work.blocks) / WORTH))


def _share(work: Work, workers: int) -> list[tuple[Worker, int]]:
    """Run the blocks of a launch: each of n workers takes every n-th one. How each ended."""
    n = min(workers, len(work.blocks))
    while len(_workers) < n:
        _workers.append(Worker())
    # in one thread: to compile and to link is not for several at once
    runs = [functools.partial(w.prepare(work), i, n) for i, w in enumerate(_workers[:n])]
    stop = threading.Event()
    start = time.perf_counter()
    if n == 1:
        ended = [_workers[0].last(runs[0], LIMIT, stop)]
    else:
        with ThreadPoolExecutor(n - 1) as pool:
            try:
                pairs = zip(_workers[1:], runs[1:])
                others = [pool.submit(w.last, run, LIMIT, stop) for w, run in pairs]
                ended = [_workers[0].last(runs[0], LIMIT, stop), *(o.result() for o in others)]
            except BaseException:  # Ctrl-C
                stop.set()
                raise
        _wait_for_others(runs, ended)
    _pace[work.code] = (time.perf_counter() - start) * n / len(work.blocks)
    return list(zip(_workers, ended))


def _wait_for_others(runs: Sequence[Callable[[], int]], ended: list[int]) -> None:
    """Let blocks go on that waited for those of other workers, as long as that helps."""
    stop = threading.Event()
    before: list[tuple[int, int]] = []
    while {*ended} <= {FINISHED, ENDLESS} and ENDLESS in ended:
        waiting = [i for i, how in enumerate(ended) if how == ENDLESS]
        records = [_workers[i].record[0] for i in waiting]
        now = [(int(r["position"]), int(r["digest"])) for r in records]
        if now == before or any(r["lost"] for r in records):
            return
        before = now
        for i in waiting:
            ended[i] = _workers[i].last(runs[i], LIMIT, stop)


def _report(worker: Worker, ended: int, work: Work, arrays: dict[str, np.ndarray]) -> str:
    """What went wrong in the block that a worker stopped in."""
    state, record = worker.state, worker.record[0]
    block = tuple(int(i) for i in state["ctaid"])
    if ended == MISALIGNED:
        address = f"128 bits at address {record['misaligned']:#x}, not a multiple of 16"
        return f"thread {record['by']} of block {block} {ACCESSES[record['does']]} {address}"
    if ended == WILD:
        names = [f"{name} {a.shape}" for name, a in arrays.items()]
        sizes = [*(size for _, size in work.code.arrays), work.dynamic]
        names += [f"shared array {i} of {size} bytes" for i, size in enumerate(sizes, 1)]
        regions = dict(zip(names, worker.regions(work)))
        where = describe(int(record["wild"]), int(record["wild_size"]), regions)
        does = ACCESSES[record["wild_does"]]
        return f"thread {record['wild_by']} of block {block} {does} {where}"
    if ended == OUTSIDE:
        return f"a thread of block {block} wrote outside an array in shared memory"
    who = waiting(state["ask"][: len(work.order)])
    if ended == GIVEN_UP:
        return f"no thread of block {block} came to its end for {LIMIT:g} s: {who}"
    if ended == ENDLESS:
        return f"endless loop in block {block}: {who}; minidl.kernels.sanitize tells the line"
    return f"divergent barrier in block {block}: {who}"


def waiting(ask: np.ndarray) -> str:
    """What the threads of a block were doing when none of them could go on."""
    doing, number = ask[:, 0], ask[:, 1]
    groups = [
        ("at another syncthreads" if i else "at syncthreads", (doing == BARRIER) & (number == n))
        for i, n in enumerate(np.unique(number[doing == BARRIER]))
    ]
    groups += [("at grid.sync()", doing == GRID)]
    groups += [("at a shuffle, vote or syncwarp", doing == WARP), ("in a loop", doing == TURN)]
    groups += [("about to go on", doing == READY), ("returned", doing == DONE)]
    found = [(name, np.flatnonzero(which)) for name, which in groups if which.any()]
    return "; ".join(f"{len(t)} threads {name} ({t[0]} to {t[-1]})" for name, t in found)
