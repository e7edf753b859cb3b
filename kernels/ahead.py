"""What happens while kernels are compiled: a line that says so, and helpers that compile ahead.

The first step of a network meets one kernel after another that is not on disk. Names are the
protocol here, so it is known what follows: after `conv2d(x, w, b, y, ...)` every kernel whose name
begins with conv2d_grad, whose dx is like x and whose dy is like y. While this process compiles what
the forward pass needs, helpers run those on zeros, each a process of its own; what they compile is
found on disk, and `disk.claim` keeps two processes from compiling one thing. Nothing depends on
helpers: what none of them has begun, or what one leaves unfinished, is compiled here.
"""

import atexit
import contextlib
import inspect
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from types import FrameType
from typing import Any

import numpy as np

from .roles import roles

NOTICEABLE = 1.0  # seconds of compiling from which a line says so
LULL = 1.5  # seconds without a kernel to compile, after which there are none for now
STUCK = 60.0  # seconds, after which a kernel is taken not to compile at all
FEW = 2  # kernels in a row, below which there is nothing to share
MOST = 3  # helpers: there is not enough to share for more
LARGEST = 1 << 28  # bytes of arrays that a helper makes to run a kernel
# What a gradient takes besides kernels of its own name: of a bias, of what ends in relu.
ALSO = {"b": "sum_rows", "relu": "relu_grad"}
# Whose path is the parent's: it finds the same minidl, and no file that only lies where it starts.
PROGRAM = """
import sys, json
sys.path[:] = json.loads(sys.argv[1])
from importlib import import_module
import_module(sys.argv[2]).serve()
"""


def processes() -> int:
    """How many compile at once: MINIDL_COMPILERS, else one for each core that this one may use."""
    asked = os.environ.get("MINIDL_COMPILERS", "")
    if asked:
        if not asked.isdecimal() or not int(asked):
            raise RuntimeError(f"MINIDL_COMPILERS is a number of processes, 1 or more, not {asked}")
        return int(asked)
    able = getattr(os, "sched_getaffinity", None)
    return len(able(0)) if able else os.cpu_count() or 1


class Spell:
    """A time of compiling, from one kernel that is missed until none has been for a while."""

    def __init__(self) -> None:
        self.kernels = self.inside = self.kept = 0  # missed; not compiled yet; on disk now
        self.seconds, self.since = 0.0, time.monotonic()  # spent on it; since it began or ended
        self.told, self.over = False, False
        # without claims, which Windows has none of, two would compile the same things
        self.most = min(processes() - 1, MOST) if sys.platform != "win32" else 0
        self.helpers: list[Helper] | None = None  # not started
        self.tasks: dict[str, None] = {}  # in the order in which they are found
        self.lock = threading.Lock()
        threading.Thread(target=self._watch, name="minidl compiling", daemon=True).start()

    def begun(self, frame: FrameType | None) -> None:
        """A kernel is not on disk; frame: what asks for it."""
        with self.lock:
            if not self.inside:
                self.since = time.monotonic()
            self.inside += 1
            self.kernels += 1
        if self.most:
            self._share(frame)
        self._tell()

    def ended(self, kept: bool) -> None:
        """It is compiled; kept: and on disk."""
        with self.lock:
            self.inside -= 1
            self.kept += kept
            if not self.inside:
                now = time.monotonic()
                self.seconds, self.since = self.seconds + now - self.since, now

    def end(self) -> None:
        """Say how long it took, if it was said that it would; let the helpers go."""
        global _spell
        with self.lock:
            if self.over:
                return
            self.over, _spell = True, None
        for helper in self.helpers or ():
            helper.end()
        if self.told:
            many = f"{self.kernels} kernel" + "s" * (self.kernels > 1)
            cached = ", cached for next time" if self.kept == self.kernels else ""
            say(f"compiled {many} in {self.seconds:.1f} s{cached}")

    def _share(self, frame: FrameType | None) -> None:
        """Let helpers compile what follows."""
        new = [task for task in map(json.dumps, following(frame)) if task not in self.tasks]
        self.tasks |= dict.fromkeys(new)
        if self.helpers is None and self.kernels >= FEW and self.tasks:
            self.helpers, new = started(self.most), list(self.tasks)
        self._hand_out(new)

    def _hand_out(self, tasks: list[str]) -> None:
        helpers = [helper for helper in self.helpers or () if helper.alive()]
        for task, helper in zip(tasks, itertools.cycle(helpers)):
            helper.take(task)

    def _tell(self) -> None:
        with self.lock:
            spent = self.seconds + (time.monotonic() - self.since) * bool(self.inside)
            first = spent >= NOTICEABLE and not self.told
            self.told |= first
        if first:
            say("compiling kernels for this machine, once ...")

    def _watch(self) -> None:
        while not self.over:
            time.sleep(min(0.1, LULL))
            idle = time.monotonic() - self.since
            if idle > (STUCK if self.inside else LULL):
                self.end()
            elif self.inside:
                self._tell()


_spell: Spell | None = None


def begun(frame: FrameType | None) -> None:
    """A kernel is not on disk and will be compiled; frame: what asks for it."""
    global _spell
    if _spell is None:
        _spell = Spell()
    _spell.begun(frame)


def ended(kept: bool) -> None:
    """A kernel is compiled, here or elsewhere; kept: and on disk."""
    if _spell is not None:
        _spell.ended(kept)


@atexit.register
def _leave() -> None:
    if _spell is not None:
        _spell.end()


def say(what: str) -> None:
    """A line on stderr. MINIDL_QUIET=1 keeps it silent."""
    if os.environ.get("MINIDL_QUIET", "0") in ("", "0"):
        print(f"minidl: {what}", file=sys.stderr, flush=True)


# --- what follows


def following(frame: FrameType | None) -> Iterator[list]:
    """The kernels, with descriptions of their arguments, that follow the one that frame is in."""
    codes, name = _launchers() if frame else {}, ""
    while frame is not None:  # the outermost: kernels call each other
        if frame.f_code in codes:
            name, given = codes[frame.f_code], frame.f_locals
        frame = frame.f_back
    if not name:
        return
    kernels = vars(sys.modules["minidl.kernels.cpu"])
    given = {parameter: given[parameter] for parameter in roles(kernels[name])}
    names = [n for n in kernels if n.startswith(f"{name}_grad")]
    names += [n for parameter, n in ALSO.items() if not _missing(given.get(parameter))]
    for gradient in sorted(names):
        arguments = arguments_of(kernels[gradient], given)
        if arguments and sum(map(_size, arguments)) <= LARGEST:
            yield [gradient, arguments]


def arguments_of(gradient: Callable[..., Any], given: dict[str, Any]) -> list:
    """Descriptions of a gradient's arguments, those of its op given by name; none if some lack."""
    kinds = roles(gradient)
    known = {f"d{name}": value for name, value in given.items()} | given
    known |= {"add": False, "adds": [False] * [*kinds.values()].count("out")}
    if not known.keys() >= kinds.keys():
        return []
    return [_described(known[parameter]) for parameter in kinds]


def _missing(value: Any) -> bool:
    return value is None or value is False


def _described(value: Any) -> Any:
    """An array as its shape, dtype and memory order."""
    if not isinstance(value, np.ndarray):
        return value
    order = sorted(range(value.ndim), key=lambda a: -abs(value.strides[a]))
    return {"shape": value.shape, "dtype": value.dtype.str, "order": order}


def _size(described: Any) -> int:
    if not isinstance(described, dict):
        return 0
    return int(np.prod(described["shape"])) * np.dtype(described["dtype"]).itemsize


def _made(described: Any) -> Any:
    """An argument of a description: zeros in the place of an array."""
    if isinstance(described, list):
        return tuple(map(_made, described))
    if not isinstance(described, dict):
        return described
    order = described["order"]
    outward = np.zeros([described["shape"][a] for a in order], described["dtype"])
    return outward.transpose(np.argsort(order)) if order else outward


def _launchers() -> dict[Any, str]:
    """Names of the CPU's kernels by their code."""
    if not _codes:
        for name, kernel in vars(sys.modules["minidl.kernels.cpu"]).items():
            if inspect.isfunction(kernel):
                _codes[inspect.unwrap(kernel).__code__] = name
    return _codes


_codes: dict[Any, str] = {}


# --- helpers


class Helper:
    """Another process that does tasks, a line each, until there are no more lines."""

    def __init__(self, module: str, answers: bool = False):
        self.process: Any = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(sys.path), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if answers else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"MINIDL_COMPILERS": "1", "MINIDL_QUIET": "1"},
        )

    @property
    def pipe(self) -> int:
        """Where it reads its tasks."""
        return self.process.stdin.fileno()

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def take(self, task: str) -> None:
        """Hand it a task without waiting; it gets none if it is gone, or has too many."""
        os.set_blocking(self.pipe, False)
        with contextlib.suppress(OSError):
            os.write(self.pipe, task.encode() + b"\n")

    def ask(self, task: str) -> bool:
        """Hand it a task and wait until it is done. False where it did not get so far."""
        try:
            os.write(self.pipe, task.encode() + b"\n")
        except OSError:
            return False
        return bool(self.process.stdout.readline())

    def end(self) -> None:
        """Stop it, wherever it is: what is on disk stays whole."""
        self.process.kill()
        with self.process:  # waits for it and closes the pipes
            pass


def started(count: int, module: str = __name__, answers: bool = False) -> list[Helper]:
    """Helpers, fewer where the system refuses, none in a program that is no Python interpreter."""
    helpers: list[Helper] = []
    if sys.executable and not getattr(sys, "frozen", False):
        with contextlib.suppress(OSError):
            for _ in range(count):
                helpers.append(Helper(module, answers))
    return helpers


def serve() -> None:
    """What a helper does: run the kernels that it is told to, on zeros."""
    kernels = import_module("minidl.kernels.cpu")
    for line in sys.stdin:
        name, arguments = json.loads(line)
        with contextlib.suppress(Exception):  # whoever needs it meets the error himself
            getattr(kernels, name)(*map(_made, arguments))
