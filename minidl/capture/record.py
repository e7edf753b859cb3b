"""Writing down what a step does: every kernel call, its arrays as places in memory.

While a Recorder is on, the devices hand out kernels that are run and noted, and what leads past
them (a value read on the host, NumPy at work, memory from elsewhere) is noted as a problem, with
the line of the user's code where it happened.
"""

import inspect
import linecache
import sys
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from .. import backend
from ..backend import Array, Device
from ..kernels.roles import roles
from ..tensor import Tensor
from .arrays import Recorded, address, is_array, plain

# whose code is not the user's
OURS = tuple(
    str(Path(file).parent)
    for file in (backend.__file__, sys.modules[roles.__module__].__file__, np.__file__)
    if file
)


class Storage:
    """Memory that the step took: an input's, or what `k.empty` gave out."""

    def __init__(self, device: Device, array: Array, kind: str, place: str):
        self.device, self.kind, self.place, self.nbytes = device, kind, place, array.nbytes
        self.start, self.written = address(device, array), kind == "input"
        self.owner = weakref.ref(owner_of(array))


@dataclass(slots=True, eq=False)
class Ref:
    """An array as an argument: a view of a storage, or else an array from outside, kept as it is.

    like: shape, dtype, strides. offset: bytes from the storage's start, or the address.
    """

    storage: Storage | None
    offset: int
    like: tuple
    device: Device
    array: Array | None = None
    literal: bool = False  # made from a Python number: its value counts, not its place
    tensor: bool = False  # was given as a Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return int(np.prod(self.like[0], dtype=np.int64)) * self.like[1].itemsize


@dataclass(slots=True, eq=False)
class Entry:
    """One call: a kernel, or what `every_step` does on the host."""

    name: str
    call: Callable[..., Any]
    args: tuple
    kinds: tuple[str, ...]  # the role of each argument
    op: str  # that called it
    place: str  # file, line and text of the user's code
    host: bool = False
    note: str = ""  # what a rewrite did

    def refs(self) -> Iterator[tuple[str, Ref]]:
        """(role, array) for each array among the arguments."""
        for kind, arg in zip(self.kinds, self.args):
            for part in arg if isinstance(arg, tuple | list) else (arg,):
                if isinstance(part, Ref):
                    yield kind, part

    def __str__(self) -> str:
        return f"{self.name!r} ({self.place})" if self.place else repr(self.name)


@dataclass(eq=False)
class Recording:
    """What one call of a step did."""

    entries: list[Entry] = field(default_factory=list)
    inputs: list[Ref] = field(default_factory=list)
    outputs: Any = None  # what it returned, a Ref for each tensor
    problem: str = ""  # why it cannot be replayed


class Kernels:
    """A device's kernels, each of which is run and noted."""

    def __init__(self, recorder: "Recorder", device: Device, raw: Any):
        self._recorder, self._device, self._raw = recorder, device, raw

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._raw, name)
        if name.startswith("_") or isinstance(found, type | ModuleType) or not callable(found):
            return found
        kinds = tuple(roles(found).values())
        if not {"out", "inout"} & set(kinds):
            return found
        recorder, device = self._recorder, self._device

        def launch(*args: Any, **named: Any) -> Any:
            return recorder.launch(device, name, found, kinds, args, named)

        vars(self)[name] = launch
        return launch

    def empty(self, *spec: Any) -> Array:
        """As of the backend; the memory is one of the program's."""
        return self._recorder.allocated(self._device, self._raw.empty(*spec))

    def empty_like(self, x: Array) -> Array:
        """As of the backend; the memory is one of the program's."""
        return self._recorder.allocated(self._device, self._raw.empty_like(plain(x)))

    def empty_image(self, *spec: Any) -> Array:
        """As of the backend; the memory is one of the program's."""
        return self._recorder.allocated(self._device, self._raw.empty_image(*spec))

    def contiguous(self, x: Array) -> Array:
        """x in C order: itself where it is, else a copy, by a kernel."""
        if x.flags.c_contiguous:
            return x
        return self.copy(x, self.empty(x.shape, x.dtype), False)


class Recorder:
    """Within `with Recorder():` this thread's kernel calls are noted in `recording`."""

    def __init__(self) -> None:
        self.recording = Recording()
        self.storages: list[Storage] = []  # that are alive, by address
        self.starts: list[int] = []
        self.literals: dict[int, Array] = {}  # by id, kept alive
        self.thread, self.paused, self.saved = threading.get_ident(), 1, list[tuple]()

    def __enter__(self) -> "Recorder":
        for where in backend.devices():
            self.saved.append((where, where.kernels))
            patches: dict[str, Any] = {"kernels": Kernels(self, where, where.kernels)}
            for name in ("numpy", "array", "assign"):
                patches[name] = self._bound(where, name)
            vars(where).update(patches)
        backend.recorder, self.paused = self, 0
        return self

    def __exit__(self, *error: object) -> None:
        backend.recorder, self.paused = None, 1
        for where, kernels in self.saved:
            for name in ("numpy", "array", "assign"):
                del vars(where)[name]
            vars(where)["kernels"] = kernels

    def _bound(self, where: Device, name: str) -> Callable[..., Any]:
        """A method of a device that goes by way of the recorder while it is on."""
        own, mine = getattr(type(where), name), getattr(self, f"_{name}")

        def method(*args: Any) -> Any:
            return mine(where, *args) if self.on() else own(where, *map(plain, args))

        return method

    def on(self) -> bool:
        """Whether calls are noted now: in this thread, and not within on_host."""
        return not self.paused and threading.get_ident() == self.thread

    def refuse(self, why: str, place: str | None = None) -> None:
        """Note why the step cannot be replayed; the first reason stays."""
        if not self.recording.problem:
            place = where()[1] if place is None else place
            self.recording.problem = f"{why} ({place})" if place else why

    # --- memory

    def allocated(self, device: Device, array: Array, kind: str = "temporary") -> Array:
        """Note new memory, and return the array in the form that ops see."""
        if not self.on() and kind != "input":
            return array
        if array.size:
            storage = Storage(device, array, kind, where()[1])
            at = bisect_right(self.starts, storage.start)
            self.starts.insert(at, storage.start)
            self.storages.insert(at, storage)
            storage.owner = weakref.ref(owner_of(array), lambda _: self._forget(storage))
        return array.view(Recorded) if type(array) is np.ndarray else array

    def _forget(self, storage: Storage) -> None:
        at = self.storages.index(storage)
        del self.starts[at], self.storages[at]

    def given(self, device: Device, array: Array) -> Array:
        """A copy of an array that the step is called with; the program has room for it."""
        raw = device.kernels.empty_like(array)
        device.kernels.copy(array, raw, False)
        copy = self.allocated(device, raw, "input")
        self.recording.inputs.append(self.ref(copy, device))
        return copy

    def ref(self, array: Array, device: Device | None = None) -> Ref:
        """An array as a place in memory."""
        like = array.shape, array.dtype, array.strides
        device = device or backend.device(array.device if isinstance(array.device, str) else "cuda")
        if array.size:
            start = address(device, array)
            at = bisect_right(self.starts, start) - 1
            if at >= 0 and start < self.starts[at] + self.storages[at].nbytes:
                return Ref(self.storages[at], start - self.starts[at], like, device)
            literal = id(owner_of(array)) in self.literals
            return Ref(None, start, like, device, plain(array), literal)
        return Ref(None, 0, like, device, plain(array))

    def output(self, value: Any) -> Any:
        """What the step returns: a Ref in the place of each tensor or array."""
        return self._arg(value, None) if isinstance(value, Tensor) or is_array(value) else value

    def _arg(self, arg: Any, device: Device | None) -> Any:
        if is_array(arg):
            return self.ref(arg, device)
        if isinstance(arg, Tensor):
            ref = self.ref(arg.data, arg.device)
            ref.tensor = True
            return ref
        if isinstance(arg, tuple | list) and any(map(is_array, arg)):
            return type(arg)(self._arg(part, device) for part in arg)
        return arg

    # --- calls

    def launch(
        self, device: Device, name: str, kernel: Any, kinds: tuple, args: tuple, named: dict
    ) -> Any:
        """Run a kernel and note it. Returns what it returns, as the arrays that it was given."""
        if named:
            args = inspect.signature(kernel).bind(*args, **named).args
        raw = tuple(map(plain, args))
        if not self.on():
            return kernel(*raw)
        op, place = where()
        refs = tuple(self._arg(arg, device) for arg in args)
        entry = Entry(name, kernel, refs, kinds[: len(refs)], op, place)
        self._check(entry)
        result = kernel(*raw)
        self.recording.entries.append(entry)
        given = {id(r): a for r, a in zip(raw, args)}
        if isinstance(result, tuple):
            return tuple(given.get(id(r), r) for r in result)
        return given.get(id(result), result)

    def _check(self, entry: Entry) -> None:
        """Inputs come from kernels, and the caller's arrays stay as they are."""
        adds = entry.args[-1] is True and [*roles(entry.call)][len(entry.args) - 1] == "add"
        for kind, ref in entry.refs():
            storage = ref.storage
            if storage is None:
                continue
            if not storage.written and (kind in ("in", "inout") or adds):
                made = f", made at {storage.place}" if storage.place else ""
                self.refuse(
                    f"{entry.name} reads an array that no kernel wrote{made}: NumPy inside an op?",
                    entry.place,
                )
            if kind != "in" and storage.kind == "input":
                self.refuse(f"{entry.name} changes an argument of the step in place", entry.place)
            storage.written = storage.written or kind != "in"

    def on_host(self, function: Callable[..., Any], args: tuple) -> Any:
        """Run what belongs to the host, note it, but nothing that it does."""
        if not self.on():
            return function(*args)
        op, place = where()
        refs = tuple(self._arg(arg, None) for arg in args)
        name = getattr(function, "__qualname__", repr(function))
        kinds = ("in",) * len(refs)
        self.recording.entries.append(Entry(name, function, refs, kinds, op, place, host=True))
        self.paused += 1
        try:
            return function(*map(_unwrapped, args))
        finally:
            self.paused -= 1

    # --- what devices do for tensors

    def _numpy(self, device: Device, array: Array) -> np.ndarray:
        self.refuse("a value is read back from a tensor")
        return type(device).numpy(device, plain(array))

    def _array(self, device: Device, data: Any, dtype: Any = None) -> Array:
        if isinstance(data, Recorded) and device.name == "cpu":
            if dtype in (None, data.dtype):
                return data
            return device.kernels.copy(data, device.kernels.empty(data.shape, dtype), False)
        array = type(device).array(device, data, dtype)
        if isinstance(data, np.generic) or not hasattr(data, "dtype"):
            owner = owner_of(array)
            self.literals[id(owner)] = owner
        return array

    def _assign(self, device: Device, array: Array, key: Any, value: Any) -> None:
        parts = key if isinstance(key, tuple) else (key,)
        simple = all(p is None or p is ... or isinstance(p, slice | int) for p in parts)
        if not simple:
            self.refuse("elements picked by an array are assigned")
        if device.name != "cpu" or not simple:
            type(device).assign(device, plain(array), key, plain(value))
            return
        place = array[parts if ... in parts else (*parts, ...)]
        if not is_array(value):
            value = self._array(device, np.asarray(value, place.dtype)[()])
        while value.ndim > place.ndim and len(value) == 1:
            value = value[0]
        value = np.broadcast_to(plain(value), place.shape)
        device.kernels.copy(value, place, False)


def owner_of(array: Array) -> Array:
    """The array that array is, at last, a view of."""
    while hasattr(getattr(array, "base", None), "strides"):
        array = array.base
    return array


def _unwrapped(arg: Any) -> Any:
    if not isinstance(arg, Tensor):
        return plain(arg)
    return Tensor(plain(arg.data), device=arg.device)


def where() -> tuple[str, str]:
    """The op that is at work, and the line of the user's code that called for it."""
    frame: FrameType | None = sys._getframe(1)
    op = ""
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(OURS):
            break
        family = code.co_filename.rpartition("minidl")[2][1:4]
        if not op and family in ("ops", "opt"):
            op = code.co_qualname.split(".")[0]
        frame = frame.f_back
    if frame is None:
        return op, ""
    file, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, line).strip()
    return op, f"{Path(file).name}:{line}" + (f": {text}" if text else "")
