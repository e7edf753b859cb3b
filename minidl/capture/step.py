"""A captured step: which program a call replays, and what is recorded where there is none."""

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import mode
from ..tensor import Tensor
from . import CaptureWarning
from .attempt import Attempt
from .program import Program, Room, difference, fresh, leaves, release
from .watch import Overgrown

ATTEMPTS = 3  # calls that cannot be replayed, after which inputs of their kind stay eager
FRUITLESS = 8  # recordings in a row that lead to no program, after which all do
PENDING = 4  # recordings of one kind of inputs that wait for an equal one
KINDS = 64  # kinds of inputs that have such


class _Inside(threading.local):
    step: Any = None  # the captured step that this thread runs eagerly now


_inside = _Inside()
_recording = threading.Lock()


class Captured:
    """A step under capture: call it as the function that it was made of."""

    def __init__(self, function: Callable[..., Any], fuse: bool, check_every: int, tell: Any):
        functools.update_wrapper(self, function)
        self.function, self.fuse, self.check_every = function, fuse, check_every
        self.programs: dict[tuple, list[Program]] = {}
        self.reason = ""  # why the last call that could not be replayed ran eagerly
        self.replayed = False  # whether the last call was
        self._pending: dict[tuple, list[Attempt]] = {}
        self._failures: dict[tuple, int] = {}
        self._fruitless = self._calls = 0
        self._room = Room()
        self._last: Program | None = None
        self._unsaid: str | None = ""  # what to tell; None: it is told, and once is enough
        self._tell, self._lock = tell or self._warn, threading.RLock()

    @property
    def program(self) -> Program:
        """The program of the last call. RuntimeError where there is none yet, with the reason."""
        if self._last is None:
            why = self.reason or "a program is made of the first two calls that do the same"
            raise RuntimeError(f"{self._name()}: there is no program: {why}")
        return self._last

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: the step of an object."""
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """One step: replayed, or run eagerly."""
        if _inside.step is not None:  # within another: a part of that one
            return self.function(*args, **named)
        parts: list[Any] = [mode.recording]
        inputs: list[Any] = []
        others: list[Any] = []
        for value in args:
            _describe(value, parts, inputs, others)
        if named:
            _describe(named, parts, inputs, others)
        key = tuple(parts)
        with self._lock:
            self._calls += 1
            if not self.check_every or self._calls % self.check_every:
                for program in self.programs.get(key, ()):
                    if program.watch.holds():
                        self.replayed, self._last, self._fruitless = True, program, 0
                        return program(inputs)
            self.replayed, _inside.step = False, self
            try:
                result = self._eager(key, args, named, others)
            finally:
                _inside.step = None
            if self._unsaid:
                self._tell(self._unsaid)
                self._unsaid = None
            return result

    def _name(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))

    def _warn(self, why: str) -> None:
        text = f"{self._name()} is not replayed, it runs eagerly: {why}"
        warnings.warn(text, CaptureWarning, stacklevel=3)

    # --- calls that are not replayed

    def _eager(self, key: tuple, args: tuple, named: dict, others: list) -> Any:
        """Run the step, and note what it does, but where that has led to nothing so far."""
        inputs = [v for v in leaves((args, named)) if isinstance(v, Tensor | np.ndarray)]
        if any(isinstance(v, Tensor) and v.node is not None for v in inputs):
            self._failed(key, "an input requires gradients", ATTEMPTS)
        given_up = self._failures.get(key, 0) >= ATTEMPTS or self._fruitless >= FRUITLESS
        if given_up or not _recording.acquire(blocking=False):  # another thread records
            return fresh(self.function(*args, **named))
        try:
            attempt = Attempt(self.function, others)
            return self._recorded(key, attempt, args, named, inputs)
        except Overgrown as error:
            self._failed(key, str(error), ATTEMPTS)
            return fresh(self.function(*args, **named))
        finally:
            _recording.release()

    def _recorded(
        self, key: tuple, attempt: Attempt, args: tuple, named: dict, inputs: list
    ) -> Any:
        """Run the step, and make a program of what it did if an earlier call did the same."""
        self._fruitless += 1
        known: list = [*self._pending.pop(key, ()), *self.programs.get(key, ())]
        alike = [old for old in known if old.watch.holds(grads=False)]
        exact = [old for old in alike if old.watch.holds()]
        rival = alike[-1].recording if alike else None
        result = attempt.run(args, named, inputs, rival)
        pending = [old for old in known if isinstance(old, Attempt)]
        problem = attempt.recording.problem or self._matched(key, attempt, alike, exact, pending)
        attempt.forget()
        release()
        self._pending[key] = pending[-PENDING:]  # the latest last, the oldest kind first
        if len(self._pending) > KINDS:
            del self._pending[next(iter(self._pending))]
        if problem:
            self._failed(key, problem)
        return result

    def _matched(
        self, key: tuple, attempt: Attempt, alike: list, exact: list, pending: list
    ) -> str:
        """Find what did the same before, and make a program of it; else say how they differ."""
        differences = {}
        for old in alike:
            differences[old] = difference(old.recording, attempt.recording)
            if not differences[old] and isinstance(old, Program):
                old.watch.relax(attempt.watch)  # it began with other gradients: all the same
                self._fruitless = 0
                return ""
            if not differences[old]:
                pending.remove(old)
                return self._made(key, attempt, old)
        pending.append(attempt)
        for old in exact:
            if isinstance(old, Program):
                self.programs[key].remove(old)
                missed = f"the replays since the last check, {self.check_every} calls, missed it"
                return f"{differences[old]}; {missed}"
            pending.remove(old)
            return differences[old]
        if self._fruitless < FRUITLESS:
            return ""
        change = next(pending[0].watch.changes(), "its arguments are others")
        return f"every call finds another state: {change}"

    def _made(self, key: tuple, attempt: Attempt, old: Attempt) -> str:
        """Make a program of two equal calls, if it proves right."""
        release()  # the activations of this call, before a program takes as much
        problem = attempt.proof()
        if not problem:
            program = attempt.program(self._room, self.fuse)
            program.watch.relax(old.watch)
            self.programs.setdefault(key, []).insert(0, program)
            self._last, self._fruitless = program, 0
        return problem

    def _failed(self, key: tuple, problem: str, weight: int = 1) -> None:
        """Note why a call cannot be replayed, and say so when it is given up."""
        self.reason = problem
        before = self._failures.get(key, 0)
        self._failures[key] = before + weight
        given_up = before < ATTEMPTS <= self._failures[key] or self._fruitless == FRUITLESS
        if given_up and self._unsaid is not None:
            self._unsaid = problem


def _describe(value: Any, parts: list, inputs: list, others: list) -> None:
    """Append to parts what tells kinds of inputs apart: of arrays, which go to inputs, the form."""
    if isinstance(value, Tensor):
        parts.append(value.device.name)
        value = value.data
    elif not isinstance(value, np.ndarray):
        _describe_other(value, parts, inputs, others)
        return
    inputs.append(value)
    parts += value.shape, value.dtype
    if not value.flags.c_contiguous:
        order = sorted(range(value.ndim), key=lambda a: -abs(value.strides[a]))
        parts.append(tuple(order))


def _describe_other(value: Any, parts: list, inputs: list, others: list) -> None:
    """Nests by what is in them, plain values by value, all else by place."""
    if isinstance(value, tuple | list):
        parts += type(value), len(value)
        for part in value:
            _describe(part, parts, inputs, others)
    elif isinstance(value, dict):
        parts += dict, *value
        for part in value.values():
            _describe(part, parts, inputs, others)
    elif isinstance(value, bool | int | float | str | None):
        parts += type(value), value
    else:
        others.append(value)
        parts.append(id(value))
