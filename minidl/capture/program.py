"""A recorded step as a flat list of bound calls in planned memory, and how two records differ."""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, Device, devices
from ..kernels.roles import roles
from ..tensor import Tensor, _wrap
from . import plan
from .arrays import address, place, plain
from .record import Entry, Recording, Ref, Storage
from .watch import Watch, same

if TYPE_CHECKING:
    from .table import Profile


class Room:
    """The memory of all programs of one step: only one of them runs at a time."""

    def __init__(self) -> None:
        self.blocks: dict[Device, Array] = {}
        self.scratch: dict[Any, Any] = {}

    def block(self, device: Device, nbytes: int) -> Array:
        """At least nbytes bytes, aligned."""
        held = self.blocks.get(device)
        if held is None or held.size < nbytes:
            whole = device.kernels.empty((nbytes + plan.ALIGNMENT,), np.dtype("uint8"))
            skip = -address(device, whole) % plan.ALIGNMENT
            held = self.blocks[device] = whole[skip : skip + nbytes]
        return held


class Program:
    """A step for inputs of one kind, in one state of the world: call it with their arrays.

    entries: what it runs, in order. nbytes: of its memory, that of parameters, gradients, states
    and buffers apart.
    """

    def __init__(
        self,
        recording: Recording,
        watch: Watch,
        room: Room,
        fuse: bool,
        grads: list[tuple[Any, Array | None]],
        bumps: list[tuple[list[int], int]],
    ):
        self.recording, self.watch, self.room = recording, watch, room
        self.grads, self.bumps = grads, bumps
        results = [ref for ref in leaves(recording.outputs) if isinstance(ref, Ref)]
        self.entries = _rewritten(recording.entries, results) if fuse else list(recording.entries)
        self.spans = plan.spans(self.entries, recording.inputs, results)
        sizes = plan.place(self.spans)
        self.blocks = {device: room.block(device, size) for device, size in sizes.items()}
        self.nbytes = sum(sizes.values())
        self.calls = [functools.partial(e.call, *map(self._bound, e.args)) for e in self.entries]
        self.inputs = [(copier(ref.device), self._bound(ref)) for ref in recording.inputs]
        self.readers = [_readers(ref, self.entries, results) for ref in recording.inputs]
        self.lent: list[Array | None] = [None] * len(self.inputs)
        self.outputs = mapped(recording.outputs, self._bound)
        kernels = (device.kernels for device in self.blocks)
        self.use_arena = next((k.use_arena for k in kernels if hasattr(k, "use_arena")), _unused)

    def __call__(self, arrays: Sequence[Array]) -> Any:
        """Run the step on inputs; its results, in new memory."""
        self.feed(arrays)
        self.run(self.calls)
        for cell, n in self.bumps:
            cell[0] += n
        for node, grad in self.grads:
            node.grad = grad
        return fresh(self.outputs)

    def feed(self, arrays: Sequence[Array]) -> None:
        """Copy inputs to where the program reads them, or let it read a large one where it lies."""
        for n, ((copy, to), readers, array) in enumerate(zip(self.inputs, self.readers, arrays)):
            plain_array = readers and array.flags.carray
            if not plain_array:
                copy(to, array)
            source = array if plain_array else None
            if source is not self.lent[n]:
                self._lend(n, source)

    def _lend(self, n: int, source: Array | None) -> None:
        """Bind the kernels that read input n to another array of its kind; None: to the copy."""
        self.lent[n] = source
        at, own = (self.inputs[n][1] if source is None else source), self.recording.inputs[n]
        block = at.reshape(-1).view(np.uint8)
        for i, positions in self.readers[n]:
            args = list(self.calls[i].args)
            for p in positions:
                ref = self.entries[i].args[p]
                args[p] = place(ref.device, block, ref.offset - own.offset, ref.like)
            self.calls[i] = functools.partial(self.entries[i].call, *args)

    def run(self, calls: Sequence[Callable[[], Any]]) -> None:
        """Make calls one after the other, with this program's working space."""
        before = self.use_arena(self.room.scratch)
        try:
            for call in calls:
                call()
        finally:
            self.use_arena(before)

    def kernels(self) -> list[Callable[[], Any]]:
        """The calls but for those on the host."""
        return [call for call, entry in zip(self.calls, self.entries) if not entry.host]

    def _bound(self, arg: Any) -> Any:
        """An argument as it is given in every replay: arrays in the planned memory."""
        if isinstance(arg, tuple | list):
            return mapped(arg, self._bound)
        if not isinstance(arg, Ref):
            return arg
        array = arg.array
        if arg.storage is not None:
            span, device = self.spans[arg.storage], arg.storage.device
            array = place(device, self.blocks[device], span.offset + arg.offset, arg.like)
        return Tensor(array, device=arg.device) if arg.tensor else array

    # --- to look at

    def __str__(self) -> str:
        from .table import text

        return text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from .table import html

        return html(self)

    def profile(self, repeats: int = 10) -> "Profile":
        """Time every kernel, on the inputs of the last call; nothing that is trained changes."""
        from .table import profiled

        return profiled(self, repeats)


def _rewritten(entries: Sequence[Entry], results: Sequence[Ref]) -> list[Entry]:
    from . import rewrite

    return rewrite.applied(entries, results)


def _unused(arena: dict | None) -> None:
    """A GPU's scratch is in its pool."""


LENT = 1 << 16  # bytes of an input from which to copy it takes longer than to bind its readers


def _readers(
    given: Ref, entries: Sequence[Entry], results: Sequence[Ref]
) -> list[tuple[int, list[int]]]:
    """Entries that read an input, and as which arguments; none where it has to be copied."""
    if given.device.name != "cpu" or given.nbytes < LENT or given.like[2] != _dense(given.like):
        return []
    found = []
    for i, entry in enumerate(entries):
        mine = [kind for kind, ref in entry.refs() if ref.storage is given.storage]
        at = [p for p, a in enumerate(entry.args) if _is_of(a, given.storage)]
        if mine and (entry.host or set(mine) != {"in"} or len(at) != len(mine)):
            return []
        if mine:
            found.append((i, at))
    return [] if any(ref.storage is given.storage for ref in results) else found


def _is_of(arg: Any, storage: Storage | None) -> bool:
    return isinstance(arg, Ref) and arg.storage is storage and not arg.tensor


def _dense(like: tuple) -> tuple[int, ...]:
    """The strides of C order."""
    shape, dtype, _ = like
    steps = itertools.accumulate(reversed(shape[1:]), operator.mul, initial=dtype.itemsize)
    return tuple(steps)[::-1]


def release() -> None:
    """Let every device give memory that is free back to the system, where it would keep it."""
    for where in devices():
        getattr(where.kernels, "release", list)()


def copier(device: Device) -> Callable[[Array, Array], Any]:
    """A function (to, array) that copies array into to, of the same shape."""
    if device.name == "cpu":
        return np.copyto
    return lambda to, array: device.kernels.copy(array, to, False)


def leaves(tree: Any) -> Iterator[Any]:
    """What a nest of tuples, lists and dicts holds."""
    if isinstance(tree, tuple | list | dict):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(part)
    else:
        yield tree


def mapped(tree: Any, function: Callable[[Any], Any]) -> Any:
    """A nest of tuples, lists and dicts like tree, of what function makes of each part."""
    if isinstance(tree, dict):
        return {key: mapped(part, function) for key, part in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(part, function) for part in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(mapped(part, function) for part in tree)
    return function(tree)


def fresh(tree: Any) -> Any:
    """What a step returns: tensors without history, in memory of their own."""
    if isinstance(tree, Tensor):
        return _wrap(_copied(tree.data, tree.device), tree.device)
    if isinstance(tree, tuple | list | dict):
        return mapped(tree, fresh)
    return plain(tree).copy() if isinstance(tree, np.ndarray) else tree


def _copied(array: Array, device: Device) -> Array:
    if device.name == "cpu":
        return plain(array).copy("K")
    return device.kernels.copy(array, device.kernels.empty_like(array), False)


# --- what changes outside the program's memory


def written(recording: Recording) -> list[Ref]:
    """Arrays from outside that kernels write, each once."""
    found = {
        (ref.offset, ref.like): ref
        for entry in recording.entries
        for kind, ref in entry.refs()
        if ref.storage is None and ref.nbytes and kind != "in" and not entry.host
    }
    return list(found.values())


def saved(refs: Sequence[Ref]) -> list[Array]:
    """Copies of arrays from outside."""
    return [_copied(ref.array, ref.device) for ref in refs]


def restore(refs: Sequence[Ref], copies: Sequence[Array]) -> None:
    """Bring back what `saved` copied."""
    for ref, copy in zip(refs, copies):
        copier(ref.device)(ref.array, copy)


# --- how two recordings differ


def difference(a: Recording, b: Recording) -> str:
    """The first thing in which two recordings of a step differ, in words; "" for none."""
    numbers: dict[Storage, Storage] = {}

    def differs(x: Any, y: Any) -> str:
        if isinstance(x, Ref) and isinstance(y, Ref):
            return _moved(x, y, numbers)
        if isinstance(x, tuple | list) and isinstance(y, tuple | list) and len(x) == len(y):
            return next(filter(None, map(differs, x, y)), "")
        return "" if x is y or same(x, y) else f"was {_told(x)} and is {_told(y)}"

    for ea, eb in zip(a.entries, b.entries):
        if ea.call is not eb.call and not (ea.host and ea.call == eb.call):
            return f"{eb} ran where {ea} ran the step before"
        if len(ea.args) != len(eb.args):
            return f"{eb} got {len(eb.args)} arguments, and {len(ea.args)} the step before"
        for n, (x, y) in enumerate(zip(ea.args, eb.args)):
            found = differs(x, y)
            if found:
                return f"{_argument(eb, n)} of {eb} {found}"
    if len(a.entries) != len(b.entries):
        longer = a if len(a.entries) > len(b.entries) else b
        extra = longer.entries[min(len(a.entries), len(b.entries))]
        return f"{extra} ran in one step, but not in the next"
    found = differs(_flat(a.outputs), _flat(b.outputs))
    return f"what the step returns {found}" if found else ""


def _moved(x: Ref, y: Ref, numbers: dict[Storage, Storage]) -> str:
    if x.like != y.like:
        return f"was {_told(x)} and is {_told(y)}"
    if x.literal or y.literal:
        if x.literal and y.literal and _value(x) == _value(y):
            return ""
        return f"was {_told(x)} and is {_told(y)}"
    if x.storage is None or y.storage is None:
        if x.storage is y.storage and x.offset == y.offset:
            return ""
        return "is an array from outside, another one in every step: make it once, before the steps"
    if numbers.setdefault(x.storage, y.storage) is y.storage and x.offset == y.offset:
        return ""
    return "is another array of the step"


def _value(ref: Ref) -> bytes:
    return ref.device.numpy(ref.array).tobytes()


def _told(x: Any) -> str:
    if isinstance(x, Ref):
        if x.literal:
            return str(x.device.numpy(x.array))
        return f"{x.like[1]} {x.like[0]}"
    return repr(x)


def _argument(entry: Entry, n: int) -> str:
    if entry.host:
        return f"argument {n}"
    return f"`{list(roles(entry.call))[n]}`"


def _flat(tree: Any) -> list:
    return [tuple(sorted(tree)) if isinstance(tree, dict) else None, *leaves(tree)]
