"""Threads that wait for ever: for others at a barrier, for memory in a loop, or for nothing."""

import ast
import functools
import linecache
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ..emulator.runtime import BARRIER, DONE, GRID, READY, TURN, WARP
from ..emulator.workers import Worker, waiting
from . import advice
from .instrument import Site
from .report import Finding, Place

_AGAIN = "is a line missing that changes what it goes round for, or a break?"


class Stopped(NamedTuple):
    """A block that cannot go on.

    at: makes a Place. threads: how many it has. later: how many blocks have not begun.
    """

    worker: Worker
    sites: list[Site]
    at: Callable[[int, tuple[int, int, int], str, Site | None], Place]
    block: tuple[int, int, int]
    threads: int
    later: int

    def place(self, thread: int, does: str) -> Place:
        """A thread where it waits."""
        site = self.sites[int(self.worker.state["at"][thread])]
        return self.at(thread, self.block, does.format(site.does), site)

    def groups(self) -> list[tuple[int, Place]]:
        """What threads are doing, with one of those that do it."""
        doing, at = self.worker.state["ask"][: self.threads, 0], self.worker.state["at"]
        found: dict[tuple[int, int], tuple[int, Place]] = {}
        for t, does in enumerate(map(int, doing)):
            key = does, int(at[t]) if does in (BARRIER, WARP, TURN, GRID) else -1
            if does == DONE:
                found.setdefault(key, (does, self.at(t, self.block, "has returned", None)))
            elif key[1] >= 0:
                said = "goes round for ever" if does == TURN else "waits at a {}"
                found.setdefault(key, (does, self.place(t, said)))
        return [found[key] for key in sorted(found)]

    def stuck(self) -> Finding:
        """A barrier, shuffle or syncwarp that not all threads came to."""
        ask = self.worker.state["ask"][: self.threads]
        shuffle = (ask[:, 0] == WARP).any()
        kind = "divergent shuffle" if shuffle else "divergent barrier"
        hint = f"{waiting(ask)}\n  {advice.SHUFFLE if shuffle else advice.BARRIER}"
        return Finding(kind, places=tuple(p for _, p in self.groups()), hint=hint)

    def endless(self, limit: float | None, name_of: Callable[[Site], str]) -> Finding:
        """A loop that threads do not leave. limit: the seconds that it had, where that is all that
        is known of it."""
        groups = [(does, place) for does, place in self.groups() if does != DONE]
        if lost := int(self.worker.record["lost"][0]):
            groups = [(TURN, self.place(lost - 1, "goes round for ever"))]
        groups.sort(key=lambda group: group[0] != TURN)
        if not groups:  # lanes that have met at a shuffle, and go on
            ready = self.worker.state["ask"][: self.threads, 0] == READY
            groups = [(TURN, self.place(int(ready.argmax()), "goes round for ever"))]
        if groups[0][0] != TURN:  # a barrier in a loop
            groups.insert(0, (TURN, replace(groups[0][1], does="goes round for ever")))
        first = groups[0][1]
        loop = loop_around(first.file, first.line)
        inside = [s for s in self.sites if s.file == first.file and s.line in loop]
        names = {name_of(s) for s in inside if s.does in ("read", "updated")}
        hint = self.hint(groups, lost, limit, sorted(names))
        places = [replace(p, line=_start(p)) if d == TURN else p for d, p in groups]
        array = names.pop() if len(names) == 1 and not lost and limit is None else ""
        return Finding("endless loop", array, places=tuple(places), hint=hint)

    def hint(
        self, groups: list[tuple[int, Place]], lost: int, limit: float | None, names: list[str]
    ) -> str:
        """What it waits for."""
        if limit is not None:
            said = f"no thread came to its end for {limit:g} s"
            return f"{said}: the loop has no end, or sanitize needs a higher limit for it"
        if lost:
            return f"nothing in the loop can end it: {_AGAIN}"
        if not names:
            return f"each round leaves all as it was: {_AGAIN}"
        what = f"it waits for {' or '.join(filter(None, names)) or 'memory'} to change, but "
        others = [place for does, place in groups if does != TURN]
        why = "all others have ended or wait as well"
        if others and len(others) < len(groups):
            why = f"{others[0].who} {others[0].does} and cannot change it"
        if self.later:
            rest = f"{self.later} blocks have" if self.later > 1 else "one block has"
            why += f"; {rest} not begun: CUDA does not promise that blocks run beside each other"
        return what + why


@functools.cache
def _loops(file: str, text: tuple[str, ...]) -> list[range]:
    """The lines of each `while` of a source."""
    try:
        tree = ast.parse("".join(text))
    except SyntaxError:  # of a notebook's magic, say
        return []
    found = [node for node in ast.walk(tree) if isinstance(node, ast.While)]
    return [range(node.lineno, (node.end_lineno or node.lineno) + 1) for node in found]


def loop_around(file: str, line: int) -> range:
    """The lines of the innermost `while` around a line."""
    around = [loop for loop in _loops(file, tuple(linecache.getlines(file))) if line in loop]
    return min(around, key=len, default=range(line, line + 1))


def _start(place: Place) -> int:
    return loop_around(place.file, place.line).start
