"""Who reads and who writes the memory of a recorded step: what a rewrite has to know."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ..kernels.roles import roles
from .record import Entry, Ref


class Flow:
    """The entries of a step, in which some may be replaced by others that do the same.

    results: the arrays that the step returns.
    """

    def __init__(self, entries: Sequence[Entry], results: Sequence[Ref]):
        self.entries, self.results = list(entries), results

    def calls(self, name: str) -> Iterator[Entry]:
        """Each entry of a kernel that is there when its turn comes."""
        for entry in [e for e in self.entries if e.name == name and not e.host]:
            if entry in self.entries:
                yield entry

    def writer(self, ref: Ref) -> Entry | None:
        """The entry that writes an array of the step's own, where one alone writes it, as it is."""
        found = [e for e in self.entries if any(overlap(ref, w) for w in writes(e))]
        if ref.storage is None or ref.storage.kind == "input" or len(found) != 1:
            return None
        return found[0] if any(same(ref, w) for w in writes(found[0])) else None

    def readers(self, ref: Ref) -> list[Entry]:
        """The entries that read an array, or a part of it."""
        return [e for e in self.entries if any(overlap(ref, r) for r in reads(e))]

    def only_readers(self, ref: Ref) -> list[Entry]:
        """All entries that read an array, where they read it as it is, and the step's caller not.

        None of them where it is not an array of the step's own, written by one entry.
        """
        found = self.readers(ref)
        alone = all(same(ref, r) for e in found for r in reads(e) if overlap(ref, r))
        returned = any(overlap(ref, r) for r in self.results)
        return found if alone and not returned and self.writer(ref) else []

    def only_reader(self, ref: Ref) -> Entry | None:
        """The entry that reads an array, where there is one alone: see `only_readers`."""
        found = self.only_readers(ref)
        return found[0] if len(found) == 1 else None

    def replace(self, old: Sequence[Entry], at: Entry, new: Entry) -> bool:
        """Put new in the place of `at`, one of the old entries, and take out the others.

        False, and nothing is done, where another one between them writes what they read or write,
        or reads what they write: then they cannot move there. What only the old ones touch is
        theirs to do without.
        """
        numbers = [self.entries.index(e) for e in old]
        place = self.entries.index(at)
        for e, n in zip(old, numbers):
            between = self.entries[min(n, place) : max(n, place)]
            if any(other not in old and conflict(e, other) for other in between):
                return False
        self.entries[place] = new
        self.entries = [e for e in self.entries if e not in old]
        return True


def arguments(entry: Entry) -> dict[str, Any]:
    """What an entry is called with, by the names of the kernel's parameters."""
    return dict(zip(roles(entry.call), entry.args))


def call(name: str, like: Entry, note: str, **named: Any) -> Entry:
    """An entry that calls another kernel of a device, with arguments by the parameters' names."""
    device = next(ref.device for _, ref in like.refs())
    kernel = getattr(device.kernels, name)
    kinds = roles(kernel)
    args = tuple(named[parameter] for parameter in kinds)
    return Entry(name, kernel, args, tuple(kinds.values()), like.op, like.place, note=note)


def writes(entry: Entry) -> list[Ref]:
    """What an entry writes; on the host it may be any of its arrays."""
    return [ref for kind, ref in entry.refs() if kind != "in" or entry.host]


def reads(entry: Entry) -> list[Ref]:
    """What an entry reads: an output, too, where it adds to it."""
    if entry.host:
        return writes(entry)
    add = arguments(entry).get("add", False)
    outs = [arg for kind, arg in zip(entry.kinds, entry.args) if kind == "out"]
    adds = add if isinstance(add, tuple) else len(outs) * (add,)
    others = [ref for kind, ref in entry.refs() if kind != "out"]
    return others + [out for out, yes in zip(outs, adds) if yes and out is not None]


def conflict(a: Entry, b: Entry) -> bool:
    """Whether two entries cannot change places."""
    apart = any(overlap(x, y) for x in writes(a) for y in (*reads(b), *writes(b)))
    return a.host or b.host or apart or any(overlap(x, y) for x in reads(a) for y in writes(b))


def whole(ref: Ref) -> bool:
    """Whether an array fills memory of the step's own."""
    return ref.storage is not None and ref.nbytes == ref.storage.nbytes


def resized(ref: Ref, shape: tuple[int, ...]) -> Ref:
    """A new array for one that fills its storage: of another shape, in the same memory order."""
    (_, dtype, before), strides, step = ref.like, [0] * len(shape), ref.like[1].itemsize
    for a in sorted(range(len(shape)), key=lambda a: before[a]):
        strides[a], step = step, step * shape[a]
    storage: Any = copy.copy(ref.storage)
    storage.nbytes = step
    return dataclasses.replace(ref, storage=storage, like=(shape, dtype, tuple(strides)))


def same(a: Ref, b: Ref) -> bool:
    """Whether two refs are one array."""
    return (a.storage, a.offset, a.like) == (b.storage, b.offset, b.like)


def overlap(a: Ref, b: Ref) -> bool:
    """Whether two arrays may have memory in common."""
    if a.storage is not b.storage or a.device is not b.device or not a.nbytes or not b.nbytes:
        return False
    (start, stop), (first, last) = _reach(a), _reach(b)
    return start < last and first < stop


def _reach(ref: Ref) -> tuple[int, int]:
    """Where an array begins and ends in its storage, or in the device's memory."""
    shape, dtype, strides = ref.like
    steps = [(n - 1) * stride for n, stride in zip(shape, strides)]
    start = ref.offset + sum(min(step, 0) for step in steps)
    return start, ref.offset + sum(max(step, 0) for step in steps) + dtype.itemsize
