"""A launch that is watched."""

import ctypes
import functools
import threading
from dataclasses import replace
from typing import Any

import numpy as np

from .._numba import Kernel, kernel_of, triple
from ..arguments import checked, flatten, is_array, leaves, signature
from ..emulator import machine, told, workers
from ..emulator.bounds import describe
from ..emulator.scheduler import ENDLESS, GIVEN_UP, RAISED, STUCK
from . import advice, shadow
from .endless import Stopped
from .instrument import Site, Watcher
from .layout import Shadow, lay_out, owner
from .order import Tables
from .report import Extent, Finding, Line, Place, Report, merged, named, shared_names
from .seats import watch_together
from .watch import (
    ACCESSES,
    ADDRESS,
    ARRAY,
    AT,
    BY,
    BYTES,
    CELLS,
    COUNT,
    FENCED,
    FRESH,
    FROM,
    GAPS,
    IN,
    KIND,
    KINDS,
    MAX_ORDERED,
    MISALIGNED,
    OTHER_AT,
    OTHER_BY,
    OTHER_IN,
    OUTSIDE,
    RACE,
    REACH,
    REQUESTS,
    ROWS,
    SECTORS,
    SHARED,
    SHIFT,
    START,
    STOP,
    TURNS,
    UNINITIALISED,
    WATCH,
    WORK,
)  # fmt: skip

LATE = 1 << 30  # a count for which a shadow has no room if a launch goes on from there
_SITES = [AT, OTHER_AT]
_DOES = {"read": "reads it", "written": "writes it", "updated": "updates it"}


def sanitize(
    kernel: Any,
    grid: Any,
    block: Any,
    *args: Any,
    shared: int = 0,
    fresh: tuple[str, ...] = (),
    limit: float = workers.LIMIT,
) -> Report:
    """Run a kernel on NumPy arrays, in the emulator, and tell what is wrong with it.

    kernel: of `cuda.jit`, of minidl.kernels.cuda's `jit`, or a plain function. shared: bytes of
    dynamic shared memory. fresh: names of arrays in which nothing is yet: to read there before
    something was written is a mistake. limit: seconds in which no thread comes to its end, after
    which the launch is given up; a loop that is sure to have no end is told at once. The arrays are
    written, as by a launch. What a kernel under debug=True raises is raised, with the report in a
    note where something was found.
    """
    kernel = kernel_of(kernel)
    grid, block = triple(grid), triple(block)
    args = checked(kernel, args)
    arrays = {n: a for n, a in leaves(kernel, args).items() if is_array(a)}
    if strangers := [n for n, a in arrays.items() if not isinstance(a, np.ndarray)]:
        raise TypeError(f"{kernel.__name__}: {', '.join(strangers)}: sanitize takes NumPy arrays")
    if unknown := set(fresh) - {*arrays}:
        raise ValueError(f"{kernel.__name__}: fresh names {sorted(unknown)}, not an array of it")
    with workers.lock:
        try:
            workers.check_limits(kernel, grid, block)
            code = _code(kernel, signature(kernel, args))
            workers.check_shared(kernel, code, shared)
            if code.together:
                workers.check_room(kernel, code, grid, block, shared)
            arrays = workers.arrays_of(kernel, code, args)
        except machine.LaunchError as error:
            return Report(kernel.__name__, (Finding("launch", hint=str(error)),), 0, 0)
        watched = _Watched(kernel, code, grid, block, shared, args, arrays, fresh, limit)
        report = watched.report()
        if watched.ended == RAISED:
            raised = told.exception(code.raises, watched.worker.record[0], block)
            if not report:
                raised.add_note(str(report))
            raise raised
        return report


@functools.cache
def _code(kernel: Kernel, kinds: tuple[Any, ...]) -> machine.Code:
    """A kernel's code: of its first launch, whose globals it keeps, as on a GPU."""
    return machine.code(kernel, kinds, Watcher)


class _Worker(workers.Worker):
    """A worker whose code tells of each access."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = np.zeros(1, WATCH)
        self.work = np.zeros((ROWS, WORK), np.int64)
        self.watch["look"] = machine.native(shadow.look, shadow.SIGNATURE)
        self.shadow, self.tables = Shadow(), Tables(self.watch[0])

    def places(self) -> dict[str, int]:
        """Addresses of what its code refers to."""
        access = machine.native(shadow.access, shadow.SIGNATURE)
        return super().places() | {"nv_watch": self.watch.ctypes.data, "nv_access": access}


@functools.cache
def _worker() -> _Worker:
    return _Worker()


class _Watched:
    """One launch: its memory, and what is noted of it."""

    def __init__(self, kernel, code, grid, block, shared, args, arrays, fresh, limit) -> None:
        self.kernel, self.grid, self.block, self.arrays = kernel, grid, block, arrays
        self.sites = [Site(*site) for site in code.sites]
        self.worker = worker = _worker()
        self.work = workers.work_of(code, grid, block, shared, args, arrays)
        run = worker.prepare(self.work)
        self.regions = worker.regions(self.work)
        self.shared = [*code.arrays, *([(code.dynamic, shared)] if code.dynamic else [])]
        if worker.record["now"] > LATE:
            worker.shadow.clear()
            worker.record["now"] = 0
        worker.tables.clear()
        self.fill(worker.watch[0], args, fresh)
        self.start()
        self.args, self.limit = args, limit
        try:
            self.ended = self.run(code, run, limit)
        finally:  # after Ctrl-C, too: the next launch counts from the beginning
            _finish()(worker.watch.ctypes.data)
        worker.show()

    def run(self, code, run, limit) -> int:
        """Let all blocks run; how that ended."""
        stop, n = threading.Event(), len(self.work.blocks)

        def part(first: int, step: int) -> int:
            return self.worker.last(functools.partial(run, first, step), limit, stop)

        if not code.together:
            return part(0, 1)
        shadows = self.shadows()
        return watch_together(self.worker, n, shadows, lambda i: part(i, n), self.met)

    def fill(self, watch, args, fresh) -> None:
        """Say where which memory is."""
        count = len(self.sites)
        words = self.words = [i for i, (_, begins) in enumerate(flatten(args)) if begins]
        watch["array"].fill(0)
        watch["counts"][:count] = 0
        watch["finds"] = 0
        origins = [self.array_of(site, words) for site in self.sites]
        watch["origin"][:count] = origins
        watch["near"][:count] = np.maximum(origins, 0)
        rows = watch["array"][: len(self.regions)]
        names = [*self.arrays, *[""] * len(self.shared)]
        for i, (name, (start, stop)) in enumerate(zip(names, self.regions)):
            a = self.arrays.get(name)
            origin = 0 if a is None else owner(a) - (i + 1 << 40)
            rows[i, [START, STOP, FROM]] = start, stop, origin
            rows[i, GAPS] = a is not None and stop - start > a.nbytes
            rows[i, SHARED], rows[i, FRESH] = a is None, name in fresh
        least = [
            min((s.size for s, o in zip(self.sites, origins) if s.size and o in (i, -1)), default=4)
            for i in range(len(rows))
        ]
        written = {o for o, site in zip(origins, self.sites) if site.writes}
        size, gaps = lay_out(rows, [*self.arrays.values()], least, written)
        blocks = len(self.work.blocks)
        watch["blocks"] = blocks if blocks <= MAX_ORDERED else 0
        cells, more = self.worker.shadow.of(size)
        self.memory = {
            "cells": cells, "more": more, "gaps": gaps, "work": self.worker.work,
            "nowhere": np.zeros(32, np.int64),
        }  # fmt: skip
        for name, a in self.memory.items():
            watch[name] = a.ctypes.data
        watch["arrays"], watch["warp"] = len(rows), -1

    def shadows(self) -> list[np.ndarray]:
        """What is remembered of shared memory, both halves."""
        rows = self.worker.watch["array"][0, len(self.arrays) : len(self.regions)]
        first = (rows[:, START] >> rows[:, SHIFT]) + rows[:, CELLS]
        last = (rows[:, STOP] - 1 >> rows[:, SHIFT]) + rows[:, CELLS]
        halves = self.memory["cells"], self.memory["more"]
        return [half[a : b + 1] for a, b in zip(first, last) for half in halves]

    def met(self) -> None:
        """All threads came to a grid.sync(): what each has done, the others know."""
        watch, record = self.worker.watch, self.worker.record
        record["now"] += 1
        record["barriers"] += 1
        watch["grid"] = record["now"]
        watch["seen_in"], watch["seen_of"] = 0, 0

    def array_of(self, site: Site, words: list[int]) -> int:
        """The number of the array that a site is sure to mean, or -1."""
        if site.array is None:
            return -1
        if site.array >= 0:
            return words.index(site.array) if site.array in words else -1
        before = [i for i, (at, _) in enumerate(self.shared) if at <= -1 - site.array]
        return len(self.arrays) + max(before, key=lambda i: self.shared[i][0]) if before else -1

    def start(self) -> None:
        """Begin to count."""
        state, record = self.worker.state, self.worker.record
        state["clock"][:], state["met"][:] = 1, 0
        record["watched"], record["barriers"], record["silent"] = 1, 0, 0
        self.worker.watch["start"] = record["now"] + 1

    # --- what was found

    def report(self) -> Report:
        """All of it in words."""
        watch, record = self.worker.watch[0], self.worker.record[0]
        rows = watch["found"][: watch["finds"]]
        raced = [row for row in rows if row[KIND] == RACE]
        races = {(row[ARRAY], site) for row in raced for site in row[_SITES]}
        found = merged(
            self.finding(row, raced)
            for row in sorted(rows, key=lambda row: -row[REACH])
            # who races with the first write reads too early, which is one mistake
            if row[KIND] != UNINITIALISED or (row[ARRAY], row[AT]) not in races
        )
        if self.ended in (ENDLESS, GIVEN_UP):
            limit = self.limit if self.ended == GIVEN_UP else None
            found.append(self.stopped().endless(limit, self.name_of))
        elif self.ended == STUCK:
            found.append(self.stopped().stuck())
        if record["silent"]:
            by, site = int(record["silent_by"]), self.sites[int(record["silent_at"])]
            place = self.at(by, self.block_of(int(record["silent_in"])), "shuffles", site)
            asked = int(record["silent"]) - 1
            lane, n = asked % 32, len(self.work.order)
            why = f"lane {lane} is not in the mask"
            if asked >= n:
                why = f"there is no lane {lane} in this warp, as the block has {n} threads"
            hint = f"{why}: what comes is undefined"
            found.append(Finding("shuffle of a silent lane", places=(place,), hint=hint))
        record["watched"] = 0
        threads = len(self.work.blocks) * len(self.work.order)
        return Report(
            self.kernel.__name__, tuple(found), threads, int(record["barriers"]), self.lines()
        )

    def lines(self) -> tuple[Line, ...]:
        """What each line did."""
        found: dict[tuple[int, str, bool], np.ndarray] = {}
        for site, row in zip(self.sites, self.worker.watch[0]["counts"]):
            if row[ACCESSES]:
                key = site.line, site.does, bool(row[TURNS])
                found[key] = row + found.get(key, 0)
        return tuple(
            Line(*key, *(int(row[i]) for i in (ACCESSES, BYTES, REQUESTS, SECTORS, TURNS)))
            for key, row in sorted(found.items())
        )

    def finding(self, row: np.ndarray, races: list[np.ndarray]) -> Finding:
        """A row of `found` in words."""
        kind, number, address = int(row[KIND]), int(row[ARRAY]), int(row[ADDRESS])
        here, site = self.place(row[BY], row[IN], row[AT]), self.sites[row[AT]]
        if number < 0:
            names = [*self.arrays, *(f"shared array {i + 1}" for i in range(len(self.shared)))]
            hint = describe(address, site.size, dict(zip(names, self.regions)))
            return Finding(KINDS[kind], "", (), (here,), hint, int(row[COUNT]))
        name, array = self.named(number)
        offset = address - array.start
        index, places = array.index(offset), [here]
        if kind == RACE:
            places.append(self.place(row[OTHER_BY], row[OTHER_IN], row[OTHER_AT]))
            hint = self.advice(row, races)
        elif kind == OUTSIDE:
            there = array.at(here.position, offset)
            if there and here.position != here.index:
                grid = here.position[: len(there)]
                note = f"cuda.grid({len(there)}) = {named(grid, (2,) * len(grid))}"
                places = [replace(here, note=note)]
            index = there or index
            many = site.size // array.itemsize
            hint = advice.of_outside(name, index, array.shape, many, bool(there))
        elif kind == MISALIGNED:
            off = (address - int(self.worker.watch["array"][0, number, FROM])) % site.size
            hint = f"{site.size} bytes at once must begin at a multiple of {site.size} bytes"
            hint += f"; this is {off} further"
        elif number < len(self.arrays):
            hint = f"{name} was given as fresh: nothing is in it until somebody writes"
        else:
            hint = "when a block begins, shared memory is not 0: what others left is in it"
        return Finding(KINDS[kind], name, index, tuple(places), hint, int(row[COUNT]))

    def advice(self, row: np.ndarray, races: list[np.ndarray]) -> str:
        """What the threads of a race could have waited by."""
        one, other = (self.sites[site] for site in row[_SITES])
        same = [r for r in races if r[ARRAY] == row[ARRAY] and {*r[_SITES]} & {*row[_SITES]}]
        # of accesses beside atomics some are not remembered, so others may be of other warps
        sure = "updated" not in (one.does, other.does) and all(r[REACH] == 0 for r in same)
        return advice.of_race(
            *(advice.Access(site.file, site.line, site.does) for site in (one, other)),
            blocks=row[IN] != row[OTHER_IN],
            together=self.work.code.together,
            fenced=bool(row[FENCED]),
            warp=sure or len(self.work.order) <= 32,
        )

    def place(self, thread: int, block: int, site: int) -> Place:
        """A thread and where it was."""
        here = self.sites[site]
        return self.at(int(thread), self.block_of(int(block)), _DOES[here.does], here)

    def block_of(self, number: int) -> tuple[int, int, int]:
        """Where a block is in the grid."""
        x, y, _ = self.grid
        return number % x, number // x % y, number // (x * y)

    def at(self, thread: int, block: tuple[int, int, int], does: str, site: Site | None) -> Place:
        """A thread that does something, at a site if there is one."""
        file, line = (site.file, site.line) if site else ("", 0)
        return Place(thread, block, does, file, line, self.block, self.grid)

    def stopped(self) -> Stopped:
        """The block that runs, or ran last."""
        x, y, z = map(int, self.worker.state["ctaid"])
        later = len(self.work.blocks) - int(self.worker.record["position"][0]) - 1
        return Stopped(self.worker, self.sites, self.at, (x, y, z), len(self.work.order), later)

    def name_of(self, site: Site) -> str:
        """The array that a place is sure to mean, "" where it is not known."""
        array = self.array_of(site, self.words)
        return self.named(array)[0] if array >= 0 else ""

    def named(self, number: int) -> tuple[str, Extent]:
        """The name of an array, and how it lies in memory."""
        if number < len(self.arrays):
            name, a = [*self.arrays.items()][number]
            return name, Extent(a.ctypes.data, a.itemsize, a.shape, a.strides)
        i = number - len(self.arrays)
        names = shared_names(self.kernel.function)
        name, shape = names[i] if len(names) == len(self.shared) else (f"shared array {i + 1}", ())
        start, stop = self.regions[number]
        count = int(np.prod(shape)) if shape else 0
        item = (stop - start) // count if count and (stop - start) % count == 0 else 4
        shape = shape if count else ((stop - start) // item,)
        strides = item * np.cumprod([1, *shape[:0:-1]])[::-1]
        return name, Extent(start, item, shape, tuple(map(int, strides)))


@functools.cache
def _finish() -> Any:
    address = machine.native(shadow.finish, shadow.FINISH)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
