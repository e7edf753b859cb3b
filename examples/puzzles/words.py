"""What is wrong with a kernel, in plain words."""

import linecache
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl.kernels.cuda.sanitizer import Finding, Place
from minidl.kernels.cuda.sanitizer.advice import extent

# Where several things are wrong, the first of these tells most: a race may come from an index that
# ran out of its array, and what has not been written yet may be so because of a race.
ORDER = (
    "launch", "out of bounds", "misaligned access", "divergent barrier", "divergent shuffle",
    "endless loop", "race", "uninitialised read",
)  # fmt: skip
FEW = 24  # numbers that are shown one by one
NOTHING = np.uint32(0x7FC0DEAD).view(np.float32)  # a NaN that no arithmetic makes


class Launch(NamedTuple):
    """A kernel by name, its arrays by name, its grid and block as they are written."""

    kernel: str
    arrays: dict[str, np.ndarray]
    grid: int | tuple[int, ...]
    block: int | tuple[int, ...]

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in self.arrays.items())
        return f"Shapes: {shapes}. Launch: {self.kernel}[{self.grid}, {self.block}].\n"


def first(findings: Sequence[Finding]) -> Finding:
    """The finding that tells most."""
    return min(findings, key=lambda f: ORDER.index(f.kind) if f.kind in ORDER else len(ORDER))


def in_words(found: Finding, launch: Launch) -> str:
    """A finding of the sanitizer, for somebody who has never seen one."""
    said = _WORDS.get(found.kind)
    return said(found, launch) if said else str(found)


def _prose(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), 92)


def _code(place: Place) -> str:
    """The line of a place, to be put below what is said of it."""
    return f"\n    {place.code}\n" if place.code else "\n"


def _does(place: Place) -> str:
    return place.does.removesuffix(" it")


def _outside(found: Finding, launch: Launch) -> str:
    place, array = found.places[0], launch.arrays.get(found.array)
    what = found.cell or "outside of all arrays"
    size = f", but {extent(found.array, array.shape)}" if array is not None else ""
    return f"{place.where.capitalize()} {_does(place)} {what}{size}.{_code(place)}" + _prose(
        "Only a thread whose index is in the array may go there: `if i < x.size:`, say. If this",
        "thread should have work, its index is off.",
    )


def _race(found: Finding, launch: Launch) -> str:
    one, other = found.places
    # of one block, then it is named once
    first, second = one.where.capitalize(), other.who if one.block == other.block else other.where
    if one.line == other.line or not (one.line and other.line):
        does = f"both {_does(one)[:-1]} {found.cell}"
        if one.does != other.does:
            does = f"meet at {found.cell}: one {_does(one)} it, the other {_does(other)} it"
        said = f"{first} and {second} {does}.{_code(one if one.line else other)}"
    else:
        said = f"{first} {_does(one)} {found.cell}:{_code(one)}"
        said += f"{second.capitalize()} {_does(other)} it:{_code(other)}"
    if one.block != other.block or found.array in launch.arrays:
        return said + _prose(
            "Nobody knows which comes first, and one may undo what the other did. Give each",
            "thread a place of its own, or let one thread do it when all others are ready.",
        )
    if one.line != other.line:
        return said + _prose(
            "Nobody knows which comes first. A cuda.syncthreads() between the two lines makes",
            "all threads of the block wait for each other.",
        )
    return said + _prose(
        "Nobody knows which comes first. All must have read before somebody writes, and all must",
        "have written before somebody reads again: cuda.syncthreads() waits for that.",
    )


def _unwritten(found: Finding, launch: Launch) -> str:
    place = found.places[0]
    said = f"{place.where.capitalize()} reads {found.cell}, which nobody has written."
    if found.array in launch.arrays:
        why = f"{found.array} is the output: there is nothing in it when the kernel begins."
    else:
        why = (
            "In shared memory is what others left there. Either some thread must write to this "
            "place, if only a 0, or nobody may read it."
        )
    return f"{said}{_code(place)}{_prose(why)}"


def _divergent(found: Finding, launch: Launch) -> str:
    waits = next(place for place in found.places if place.line)
    said = f"{waits.where.capitalize()} waits for all threads of its block:{_code(waits)}"
    for other in found.places:
        if other is not waits:
            does = "waits elsewhere:" if other.line else "has ended, and will never come."
            said += f"{other.who.capitalize()} {does}{_code(other)}"
    return said + _prose(
        "On a GPU this may hang for ever. Every thread of a block must come to every barrier,",
        "those without work too: put it outside of the `if`, and no `return` before it.",
    )


def _endless(found: Finding, launch: Launch) -> str:
    place = found.places[0]
    said = f"{place.where.capitalize()} never leaves this loop:{_code(place)}"
    if found.hint.startswith("it waits for"):
        return said + _prose(
            f"It waits for {found.array or 'memory'} to change, and no thread is left to do that."
        )
    return said + _prose(
        "What the loop goes on for stays true: does each round change it, as `step //= 2` does?",
        "A loop with a fixed number of rounds is safer as a `for`.",
    )


_WORDS = {
    "out of bounds": _outside, "race": _race, "uninitialised read": _unwritten,
    "divergent barrier": _divergent, "endless loop": _endless,
    "launch": lambda found, _: found.hint,
}  # fmt: skip


def different(
    got: dict[str, np.ndarray], want: dict[str, np.ndarray], outputs: Sequence[str]
) -> tuple[str, str] | None:
    """In which way arrays are not what they should be: a kind, and what to say."""
    for name, a in got.items():
        wrong = ~np.isclose(a, want[name], rtol=1e-4, atol=1e-5)
        if not wrong.any():
            continue
        if name not in outputs:
            return "changed input", f"It changed {name}, which it should only read."
        kind, text = _wrong(name, a, want[name], wrong)
        if kind == "wrong value":
            few = {n: x for n, x in got.items() if n not in outputs and x.size <= FEW}
            text += "".join(f"\n    {n} = {x.tolist()}" for n, x in few.items())
        return kind, text
    return None


def _wrong(name: str, got: np.ndarray, want: np.ndarray, wrong: np.ndarray) -> tuple[str, str]:
    """What is wrong with an output."""
    missing = got.view(np.uint32) == NOTHING.view(np.uint32)
    if missing.all():
        return "not written", f"Nothing was written into {name} yet. Is the kernel filled in?"
    at = tuple(int(i) for i in np.argwhere(missing if missing.any() else wrong)[0])
    cell = f"{name}[{', '.join(map(str, at))}]"
    if left := int(missing.sum()):
        more = f", nor were {left - 1} others" if left > 1 else ""
        return "not written", _prose(
            f"{cell} was never written{more}. Which thread should do it, and what are its index",
            "and that of its block?",
        )
    text = f"{cell} is {got[at]:g}, but should be {want[at]:g}"
    text += f" ({int(wrong.sum())} of {wrong.size} numbers are wrong)." if wrong.size > 1 else "."
    if wrong.size <= FEW:
        text += f"\n    {name} = {got.tolist()}\n    should be {want.tolist()}"
    return "wrong value", text


def too_many(reads: int, least: int) -> str:
    """That a kernel which is right reads global memory too often."""
    return _prose(
        f"The result is right. But {reads:,} numbers are read from global memory, and {least:,}",
        "would do. Global memory is far away: let the block bring each number into shared memory",
        "once, and read it there.",
    )


_PROPERTIES = {
    "repeat": "The result depends on the order in which the threads run. Floats that are added up "
    "in another order have other last digits: let the size alone say in which order.",
    "inf and NaN": "Some of these numbers are infinite, or NaN, and so is what comes of them.",
    "strides": "Here the arrays have gaps in memory.",
}


def unequal(error: Any) -> str:
    """What `check` says, and what it means."""
    why = _PROPERTIES.get(error.property, "With these numbers the result is another one.")
    said = _prose("It is right for small whole numbers, but not for all arrays.", why)
    return "\n    ".join([said, *(line[:200] for line in str(error).splitlines()[:6])])


def uncompiled(error: Exception) -> str:
    """What of an error of Numba's tells what and where."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Failed in", "- "))]
    told = [line for line in lines if line.startswith((">>>", "NumbaTypeError"))]
    loc = getattr(error, "loc", None)
    code = linecache.getline(loc.filename, loc.line).strip() if loc else ""
    said = [code] * bool(code) + lines[:1] + told[:2]
    return "\n    ".join([f"Numba cannot compile it ({type(error).__name__}):", *said])
