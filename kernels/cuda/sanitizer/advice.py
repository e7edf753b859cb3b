"""What helps against a mistake, in a sentence."""

import ast
import linecache
from collections.abc import Sequence
from typing import NamedTuple

_ATOMIC = {
    ast.Add: "add", ast.Sub: "sub", ast.BitAnd: "and_", ast.BitOr: "or_", ast.BitXor: "xor",
}  # fmt: skip
BARRIER = (
    "all threads of the block must come to the same one: not in an `if`, and no return before it"
)
SHUFFLE = "all lanes that the mask names must come: not in an `if`, or with a mask of those in it"


class Access(NamedTuple):
    """One of the two accesses of a race: `place` of the report, and what it does there."""

    file: str
    line: int
    does: str  # "read", "written", "updated"


def of_race(
    one: Access, other: Access, *, blocks: bool, fenced: bool, warp: bool, together: bool
) -> str:
    """What the threads of a race could have waited by.

    blocks: they are of two blocks. fenced: the one before had a fence before its atomic. warp: all
    that race there are lanes of one warp. together: the kernel knows grid.sync().
    """
    if not fenced:
        other_one = "block" if blocks else "thread"
        return f"cuda.threadfence() is missing before the atomic that tells the other {other_one}"
    here = (one.file, one.line) == (other.file, other.line)
    if here and (call := atomic(linecache.getline(one.file, one.line))):
        return f"use {call}: here others come in between reading and writing"
    if here and one.does == other.does:
        return "each thread needs an element of its own to write to, or only one may write"
    if blocks and together:
        return "grid.sync() in between would make them wait"
    if blocks:
        return "blocks do not wait for each other: use another array, atomics, or two launches"
    wait = "cuda.syncwarp()" if warp else "cuda.syncthreads()"
    if here:
        return f"{wait} between reading and writing, and in each turn of a loop, makes them wait"
    return f"{wait} in between would make them wait"


def atomic(code: str) -> str:
    """The atomic that does what a line does to one element of an array; "" if none does."""
    try:
        (line,) = ast.parse(code.strip()).body
    except (SyntaxError, ValueError):  # a part of a statement, or none
        return ""
    target: ast.expr
    if isinstance(line, ast.AugAssign):
        target, value, does = line.target, line.value, _ATOMIC.get(type(line.op), "")
    elif isinstance(line, ast.Assign) and isinstance(line.value, ast.Call):
        target, called = line.targets[0], line.value
        does = ast.unparse(called.func)
        others = [a for a in called.args if ast.unparse(a) != ast.unparse(target)]
        if does not in ("max", "min") or len(called.args) != 2 or len(others) != 1:
            return ""
        value = others[0]
    else:
        return ""
    if not does or not isinstance(target, ast.Subscript):
        return ""
    array = ast.unparse(target.value)
    # where others' elements are read as well, an atomic would not do
    if array in {ast.unparse(n) for part in (value, target.slice) for n in ast.walk(part)}:
        return ""
    return f"cuda.atomic.{does}({array}, {ast.unparse(target.slice)}, {ast.unparse(value)})"


def extent(array: str, shape: Sequence[int]) -> str:
    """How large an array is, and so its last index."""
    if 0 in shape:
        return f"{array} has no elements"
    if len(shape) != 1:
        last = ", ".join(str(n - 1) for n in shape)
        return f"{array} has the shape {tuple(shape)}, so its last index is [{last}]"
    if shape[0] == 1:
        return f"{array} has one element, {array}[0]"
    return f"{array} has {shape[0]:,} elements, so its last index is {shape[0] - 1}"


def of_outside(
    array: str, index: Sequence[int], shape: Sequence[int], many: int, direct: bool
) -> str:
    """Why an index is outside. many: elements that are accessed at once. direct: it is the position
    of the thread in the grid."""
    size = extent(array, shape)
    if any(i < 0 for i in index):
        return f"this is before the first element; a negative index counts from the end of {array}"
    if all(i < n for i, n in zip(index, shape)):
        if many > 1:
            return f"{size}; {many} elements at once are more than are left"
        return f"{size}; this is between the elements of the view"
    if not direct:
        return size
    test = f"i < {array}.size" if len(shape) == 1 else f"i < {array}.shape[0] and ..."
    return f"{size}; `if {test}:` keeps other threads out"
