"""What a puzzle is, and how an attempt at it is judged.

1. The sizes that the puzzle lists, the smallest first: the sanitizer watches every access to
   memory, and the result is compared with the definition.
2. `check` draws arrays, with NaN and infinity in some and gaps in memory, and runs the threads in
   three orders, which must give the same bits.
3. The numbers that the kernel reads from global memory are counted.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.kernels import sanitize
from minidl.kernels.cases import Blank
from minidl.kernels.cuda import Kernel
from minidl.kernels.cuda.sanitizer import Report
from minidl.kernels.roles import roles
from minidl.kernels.testing import Mismatch, check

from .words import NOTHING, Launch, different, first, in_words, too_many, uncompiled, unequal

EXAMPLES = 10  # arrays that Hypothesis draws, beside the twenty that `check` always takes
SECONDS = 10.0  # in which some thread should come to its end
LARGEST = 20  # of a size that is drawn; `check` triples it for a few


@dataclass(frozen=True)
class Verdict:
    """What became of an attempt: true if it is right, and a text when printed.

    kind: in a word or two what is wrong, "" if nothing is. line: where it shows, 0 if no line is to
    blame. sizes: the first with which it failed.
    """

    message: str
    kind: str = ""
    line: int = 0
    sizes: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return not self.kind

    def __repr__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Puzzle:
    """What a kernel should compute, and how it is launched.

    definition: fills its outputs (annotated `Out`). shapes: of its arrays, from some sizes. launch:
    grid and block, from its arrays. sizes: to try, the smallest first. reads: how many numbers a
    kernel need read from global memory, from the sizes.
    """

    definition: Callable[..., None]
    shapes: Callable[..., dict[str, tuple[int, ...]]]
    launch: Callable[..., tuple[Any, Any]]
    sizes: tuple[tuple[int, ...], ...]
    reads: Callable[..., int]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays that a kernel fills."""
        return tuple(name for name, role in roles(self.definition).items() if role == "out")

    def arrays(self, sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Small whole numbers, none 0, for the inputs; in the outputs there is nothing yet."""
        shapes, rng = self.shapes(*sizes), np.random.default_rng(0)
        some = np.array([*range(-9, 0), *range(1, 10)], "f4")
        made = {name: rng.choice(some, shape) for name, shape in shapes.items()}
        return made | {name: np.full(shapes[name], NOTHING) for name in self.outputs}

    def draw(self, d: Any) -> dict[str, Any]:
        """Arguments for `check`."""
        shapes = self.shapes(*(d.size(1, LARGEST) for _ in self.sizes[0]))
        return {n: Blank(s) if n in self.outputs else d.array(s) for n, s in shapes.items()}

    def judge(self, kernel: Kernel) -> Verdict:
        """Say whether a kernel is right, and if not, what is wrong with it."""
        needs, takes = ", ".join(roles(self.definition)), ", ".join(kernel.parameters)
        if takes != needs:
            return Verdict(f"The kernel should take ({needs}), not ({takes}).", "arguments")
        try:
            self._watched(kernel, self.sizes[0])
        except Exception as error:  # Numba has many, Python's own among them
            return Verdict(uncompiled(error), "does not compile")
        for step in (self._tried, self._drawn):
            if (wrong := step(kernel)) is not None:
                return wrong
        return self._counted(kernel)

    def _watched(self, kernel: Kernel, sizes: tuple[int, ...]) -> tuple[Launch, Report]:
        """A launch, and what the sanitizer says of it."""
        arrays = self.arrays(sizes)
        launch = Launch(kernel.__name__, arrays, *self.launch(**arrays))
        report = sanitize(
            kernel, launch.grid, launch.block, *arrays.values(), fresh=self.outputs, limit=SECONDS
        )
        return launch, report

    def _tried(self, kernel: Kernel) -> Verdict | None:
        """The first size with which something is wrong."""
        for sizes in self.sizes:
            launch, report = self._watched(kernel, sizes)
            if report.findings:
                found = first(report.findings)
                line = next((place.line for place in found.places if place.line), 0)
                return Verdict(f"{launch}{in_words(found, launch)}", found.kind, line, sizes)
            want = self.arrays(sizes)
            self.definition(**want)
            if unlike := different(launch.arrays, want, self.outputs):
                kind, said = unlike
                return Verdict(f"{launch}{said}", kind, 0, sizes)
        return None

    def _drawn(self, kernel: Kernel) -> Verdict | None:
        """What `check` has against it."""

        def launcher(**arrays: np.ndarray) -> tuple[np.ndarray, ...]:
            kernel[self.launch(**arrays)](*arrays.values())
            return tuple(arrays[name] for name in self.outputs)

        launcher.__name__ = kernel.__name__
        launcher.__signature__ = inspect.signature(self.definition)  # type: ignore[attr-defined]
        try:
            check(launcher, self.definition, dtype="float32", examples=EXAMPLES, draw=self.draw)
        except Mismatch as error:
            return Verdict(unequal(error), error.property)
        return None

    def _counted(self, kernel: Kernel) -> Verdict:
        """It is right; but does it read global memory more often than it need?"""
        sizes = self.sizes[-1]
        launch, report = self._watched(kernel, sizes)
        rows = [row for row in report.lines if row.does == "read" and not row.shared]
        reads, least = sum(row.accesses for row in rows), self.reads(*sizes)
        if reads > least:
            most = max(rows, key=lambda row: row.accesses)
            return Verdict(f"{launch}{too_many(reads, least)}", "too many reads", most.line, sizes)
        return Verdict(
            f"Right, in every order of the threads.\n{launch}"
            f"{reads:,} numbers read from global memory, {report.barriers} barriers."
        )
