"""Work shared by threads, where its tasks are calls of Python's: products by BLAS.

Compiled loops have threads that are there sooner: see `team.py`.

Threads of Python's own claim tasks one at a time; compiled code and BLAS run without the
interpreter's lock. Whoever calls works too, and waits for no helper that has not begun: where the
other cores are busy, it does the most itself. That is why neither Numba's OpenMP threads nor
OpenBLAS's own are used: both split the work beforehand and then wait for their last thread, and
each takes the other's cores while it spins. Measured with two busy neighbours on two cores, a
convolution took 12 to 46 ms with them, 3.5 ms this way, and the same as this where all was quiet.
"""

import contextlib
import ctypes
import os
import queue
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numba
import numpy as np


class Job:
    """Tasks 0 to n - 1, each claimed by one of the threads that take part."""

    def __init__(self, n: int, task: Callable[[int], object]):
        self.numbers = iter(range(n))  # to take the next one is atomic under the lock
        self.task = task
        self.helpers: list[threading.Lock] = []
        self.errors: list[BaseException] = []

    def help(self) -> None:
        """Do tasks until there are none. A helper that comes late finds none."""
        busy = threading.Lock()
        with busy:
            self.helpers.append(busy)
            try:
                for number in self.numbers:
                    self.task(number)
            except BaseException as error:
                self.errors.append(error)

    def run(self) -> None:
        """Do tasks, then wait for helpers to end theirs, whatever happens."""
        try:
            for number in self.numbers:
                self.task(number)
        finally:
            for _ in self.numbers:  # after an error or Ctrl-C nobody begins another one
                pass
            for busy in self.helpers:
                busy.acquire()
        if self.errors:
            raise self.errors[0]


def share(n: int, task: Callable[[int], object]) -> None:
    """Run task(0) to task(n - 1) on the threads that may share work: see `threads`.

    What a task does must depend on its number alone; then the bits do not depend on the threads.
    """
    helpers = min(threads(), n) - 1
    if helpers < 1:
        for number in range(n):
            task(number)
        return
    while len(_helpers) < helpers:
        _helpers.append(threading.Thread(target=_serve, name="minidl", daemon=True))
        _helpers[-1].start()
    job = Job(n, task)
    for _ in range(helpers):
        _jobs.put(job)
    job.run()


def threads() -> int:
    """Threads that share work: what `set_threads` said, else NUMBA_NUM_THREADS, else all cores."""
    return _chosen or numba.config.NUMBA_NUM_THREADS


def set_threads(n: int) -> None:
    """From now on n threads share work, those of NumPy's BLAS among them."""
    global _chosen, _outside
    _chosen = n
    if _blas is not None:
        with _entry:
            _outside = n
            if not _inside:
                _blas[1](n)


def _serve() -> None:
    np.seterr(all="ignore")  # inf and NaN are results; what the caller said does not reach here
    while True:
        _jobs.get().help()  # in no variable: it would keep the arrays of the last job alive


def _forget() -> None:
    """In a forked child the helpers are gone; it starts its own when it needs some."""
    global _jobs
    _jobs = queue.SimpleQueue()
    _helpers.clear()


_jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
_helpers: list[threading.Thread] = []
_chosen = 0
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


_OPENBLAS = (  # as NumPy's wheels name it, then as distributions do
    "scipy_openblas_{}_num_threads64_",
    "scipy_openblas_{}_num_threads",
    "openblas_{}_num_threads64_",
    "openblas_{}_num_threads",
)


@contextlib.contextmanager
def single_blas() -> Iterator[bool]:
    """Inside, NumPy's BLAS uses the calling thread alone. False where it cannot be told to."""
    global _inside, _outside
    if _blas is None:
        yield False
        return
    count, limit = _blas
    with _entry:
        if not _inside:
            _outside = count()
            limit(1)
        _inside += 1
    try:
        yield True
    finally:
        with _entry:
            _inside -= 1
            if not _inside:
                limit(_outside)


def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """How many threads NumPy's OpenBLAS uses, and how to set it; None for another BLAS."""
    core = Path(import_module("numpy._core._multiarray_umath").__file__ or "")
    bundled = [core.parents[2] / "numpy.libs", core.parents[1] / ".dylibs"]
    for file in [core, *(f for folder in bundled for f in folder.glob("*openblas*"))]:
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(file))
            for name in _OPENBLAS:
                with contextlib.suppress(AttributeError):
                    get, set_ = (getattr(library, name.format(verb)) for verb in ("get", "set"))
                    return get, set_
    return None


_blas = _openblas()
_entry = threading.Lock()  # two threads may be inside at once
_inside = _outside = 0
