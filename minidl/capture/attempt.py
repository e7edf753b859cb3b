"""One eager call of a step, recorded: what it did, and whether a replay can do the same."""

import gc
import zlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..backend import Array, device
from ..tensor import Tensor
from .arrays import plain
from .program import Program, Room, copier, fresh, leaves, mapped, restore, saved, written
from .record import Recorder, Recording, Ref
from .watch import Watch

PROVEN = 1 << 26  # bytes of parameters and states up to which a new program is tried on a copy


class Attempt:
    """Runs a step once under a recorder."""

    result: Any
    inputs: Sequence[Any]
    before: list[tuple[Ref, Array]] | None  # what was there before the call
    sums: list[tuple[str, Array, int]]  # of arrays that it only reads

    def __init__(self, function: Callable[..., Any], others: Sequence[Any]):
        self.function, self.recorder = function, Recorder()
        self.recording: Recording = self.recorder.recording
        self.watch = Watch(function, *others)
        self.forget()
        for tensor, _ in self.watch.tensors:  # a gradient needs a place that stays the same
            node = tensor.node
            if node is not None and node.leaf and node.home is None:
                node.home = tensor.device.kernels.empty(*node.like)

    def run(self, args: tuple, named: dict, inputs: Sequence[Any], rival: Recording | None) -> Any:
        """The step's result. rival: what an earlier call did, which this one may repeat."""
        if rival is not None:
            self._remember(rival)
        versions = [(t.version, t.version[0]) for t, _ in self.watch.tensors]
        copies: list[Array] = []
        self.result = self._run(args, named, copies)
        for ref, given, copy in zip(self.recording.inputs, map(_data, inputs), copies):
            if self.recording.problem and _host(given) != _host(copy):
                copier(ref.device)(given, copy)  # it was changed in place, and should be
        del copies
        self.inputs = inputs
        self.grads = [(node, node.grad) for node, _ in self.watch.grads]
        self.bumps = [(cell, cell[0] - n) for cell, n in versions if cell[0] != n]
        self._look_back()
        return self.result

    def _run(self, args: tuple, named: dict, copies: list[Array]) -> Any:
        recorder = self.recorder

        def private(value: Any) -> Any:
            if isinstance(value, Tensor):
                copies.append(recorder.given(value.device, value.data))
                return Tensor(copies[-1], device=value.device)
            if isinstance(value, np.ndarray):
                copies.append(recorder.given(device("cpu"), value))
                return copies[-1]
            return value

        mine, options = mapped(args, private), mapped(named, private)
        copies[:] = map(plain, copies)
        with recorder:
            result = self.function(*mine, **options)
            recorder.paused = 1
            self.recording.outputs = mapped(result, recorder.output)
            return fresh(result)

    def forget(self) -> None:
        """Keep what the call did, but no values."""
        self.result, self.inputs, self.before, self.sums = None, (), None, []

    # --- whether a replay could do the same

    def _look_back(self) -> None:
        """Note what the call left behind that a replay would not."""
        refuse, watch = self.recorder.refuse, self.watch
        if watch.iterator:
            refuse(f"the step can draw from {watch.iterator}, an iterator", "")
        if watch.drawn():
            refuse(f"the step draws from `{watch.drawn()}`: minidl.rand and Generator replay", "")
        change = next(watch.changes(), "")
        if change:
            refuse(f"the step itself changes what it reads of Python: {change}", "")
        stays = next(filter(self._alive, self.recorder.storages), None)
        if stays is not None and gc.collect() is not None:
            stays = next(filter(self._alive, self.recorder.storages), None)
            if stays is not None:
                refuse("an array that the step made is kept after it", stays.place)
        for path, array, sum_before in self.sums:
            if _sum(array) != sum_before:
                refuse(f"something else than a kernel changes {path}", "")

    @staticmethod
    def _alive(storage: Any) -> bool:
        return storage.kind == "temporary" and storage.owner() is not None

    def _remember(self, rival: Recording) -> None:
        """Copy what the step is about to change, so that its program can be tried there."""
        refs = written(rival)
        if sum(ref.nbytes for ref in refs) <= PROVEN and not _repeated(rival):
            self.before = list(zip(refs, saved(refs)))
        self.sums = [(path, array, _sum(array)) for path, array in self._others(rival, refs)]

    def _others(self, rival: Recording, changed: Sequence[Ref]) -> list[tuple[str, Array]]:
        """Arrays from outside that the step reads but does not write, by name."""
        spans = [(ref.offset, ref.offset + ref.nbytes) for ref in changed]
        found = {t.data.ctypes.data: (path, t.data) for t, path in self.watch.tensors if _here(t)}
        for entry in rival.entries:
            for _, ref in entry.refs():
                if ref.storage is None and ref.nbytes and ref.device.name == "cpu":
                    if entry.host:
                        spans.append((ref.offset, ref.offset + ref.nbytes))
                    elif not ref.literal:
                        found.setdefault(ref.offset, (f"an input of {entry}", ref.array))
        return [
            (path, array)
            for start, (path, array) in found.items()
            if all(stop <= start or start + array.nbytes <= first for first, stop in spans)
        ]

    def program(self, room: Room, fuse: bool) -> Program:
        """What this call did, as a program."""
        return Program(self.recording, self.watch, room, fuse, self.grads, self.bumps)

    def proof(self) -> str:
        """Replay the call where it began, and compare: what came out otherwise, or "".

        Without rewrites, so that it does the same bit for bit.
        """
        if self.before is None:
            return ""
        program = self.program(Room(), False)
        refs = [ref for ref, _ in self.before]
        if {_where(ref) for ref in written(self.recording)} - set(map(_where, refs)):
            return ""
        after = saved(refs)
        restore(refs, [copy for _, copy in self.before])
        program.feed([_data(i) for i in self.inputs])
        program.run(program.kernels())
        pairs = chain(
            zip((ref.array for ref in refs), after), _arrays(fresh(program.outputs), self.result)
        )
        wrong = [i for i, (a, b) in enumerate(pairs) if _host(a) != _host(b)]
        restore(refs, after)
        if not wrong:
            return ""
        if wrong[0] >= len(refs):
            return "a replay of the step returned something else: NumPy inside it?"
        at = refs[wrong[0]].offset
        writer = next(e for e in program.entries for _, ref in e.refs() if ref.offset == at)
        return (
            f"a replay of the step left other values in what {writer} writes: does something else "
            "than a kernel change it?"
        )


def _where(ref: Ref) -> tuple:
    return ref.offset, ref.like


def _repeated(recording: Recording) -> bool:
    """Whether the host brings a number into one array twice, which a trial would not repeat."""
    refs = (ref for e in recording.entries if e.host for _, ref in e.refs())
    places = [ref.offset for ref in refs if ref.array is not None]
    return len(places) != len(set(places))


def _arrays(a: Any, b: Any) -> list[tuple[Array, Array]]:
    """What two results hold, in pairs."""
    arrays = (Tensor, np.ndarray)
    return [(_data(x), _data(y)) for x, y in zip(leaves(a), leaves(b)) if isinstance(x, arrays)]


def _data(value: Any) -> Array:
    return value.data if isinstance(value, Tensor) else value


def _host(array: Array) -> bytes:
    here = isinstance(array.device, str) and array.device == "cpu"
    return device("cpu" if here else "cuda").numpy(array).tobytes()


def _here(tensor: Tensor) -> bool:
    return tensor.device.name == "cpu" and tensor.size > 0


def _sum(array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
