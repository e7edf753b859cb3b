"""A worker: python -m benchmarks.workers NAME VARIANT CORES.

Reads one JSON command a line, answers each with one JSON line:

    {"do": "check", "file": F}      the losses of the first steps of the task in F, without dropout
    {"do": "start", "file": F}      be ready to take its steps; with "memory": what they need
    {"do": "steps", "seconds": s}   milliseconds of each of the steps that fit into so much time,
                                    and which part of these cores' time others took meanwhile
    {"do": "profile", "file": F}    where a step's time goes (in_minidl alone can tell)

NAME is a file beside this one, with a function start. An answer with "error" says what went wrong,
with "missing" which package is not installed. CORES, as in 0,1, are those it may run on.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from . import task as tasks

CHECKED = 3  # steps whose losses are compared
MOST = 500  # steps in a turn
FEW = 2  # images in the batch that loads the libraries before memory is measured


class Worker:
    """A framework, and the task that it is at."""

    def __init__(self, name: str, variant: str, cores: set[int]):
        self.framework: Any = importlib.import_module(f"benchmarks.workers.{name}")
        self.variant, self.cores = variant, cores
        self.taken = 0
        self.step: Callable[[int], float] = lambda i: 0.0

    def check(self, file: str) -> dict[str, Any]:
        """The losses of the first steps."""
        task = tasks.load(file)
        task |= {"layers": tasks.without_dropout(task["layers"]), "dropout": False}
        step = self.framework.start(task, self.variant)
        return {"losses": [step(i) for i in range(CHECKED)], "versions": self.framework.VERSIONS}

    def start(self, file: str, memory: bool) -> dict[str, Any]:
        """Get ready; with memory: megabytes that steps need, libraries and batches not counted."""
        task = tasks.load(file)
        before = self.settled(task) if memory else None
        self.step, self.taken = self.framework.start(task, self.variant), 0
        self.take()
        if before is None:
            return {"peak_mb": None}
        while self.taken <= CHECKED:
            self.take()
        forget_peak()
        self.take()
        return {"peak_mb": (status("VmHWM") - status("RssFile") - before) / 1024}

    def settled(self, task: tasks.Task) -> int | None:
        """Kilobytes in use when the libraries are loaded and their code is compiled."""
        if not forget_peak():
            return None
        few = task | {"x": task["x"][:, :FEW], "y": task["y"][:, :FEW]}
        self.framework.start(few, self.variant)(0)
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        return status("RssAnon")

    def steps(self, seconds: float) -> dict[str, Any]:
        """Milliseconds of steps; one before is not counted: the caches hold another's data."""
        self.take()
        before, own, begin = busy(self.cores), time.process_time(), time.perf_counter()
        times: list[float] = []
        while not times or (time.perf_counter() < begin + seconds and len(times) < MOST):
            start = time.perf_counter()
            self.take()
            times.append((time.perf_counter() - start) * 1e3)
        taken = busy(self.cores) - before - (time.process_time() - own)
        whole = len(self.cores) * (time.perf_counter() - begin)
        return {"ms": times, "others": max(0.0, taken / whole) if before else None}

    def profile(self, file: str) -> dict[str, Any]:
        """Time by kernel."""
        step = self.framework.start(tasks.load(file), self.variant)
        step(0)
        start = time.perf_counter()
        step(1)
        steps = max(2, min(MOST, int(1 / (time.perf_counter() - start))))
        return {"kernels": self.framework.kernel_times(step, steps)}

    def take(self) -> float:
        """The next step."""
        self.taken += 1
        return self.step(self.taken - 1)


def status(name: str) -> int:
    """Kilobytes, by Linux's name for them."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))


def busy(cores: set[int]) -> float:
    """Seconds of work that some cores have done since the machine started; 0 where none can tell.

    In Linux's hundredths: user, nice, system, then idle and waiting, then interrupts and what other
    virtual machines had.
    """
    try:
        with open("/proc/stat") as file:
            lines = [line.split() for line in file if line.startswith("cpu")]
    except OSError:
        return 0.0
    mine = [line[1:9] for line in lines if line[0] in {f"cpu{core}" for core in cores}]
    return sum(int(n) for line in mine for n in line[:3] + line[5:]) / os.sysconf("SC_CLK_TCK")


def forget_peak() -> bool:
    """Let the high-water mark start again from what is resident now; False where none can."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return True
    except OSError:
        return False


def main(name: str, variant: str, numbers: str) -> None:
    """Answer until there are no more commands."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    cores = {int(core) for core in numbers.split(",")}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    worker = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            worker = worker or Worker(name, variant, cores)
            answer = getattr(worker, command.pop("do"))(**command)
        except ModuleNotFoundError as error:
            answer = {"missing": error.name, "error": str(error)}
        except Exception as error:  # the others go on
            text = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {text}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
