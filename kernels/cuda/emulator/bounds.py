"""Each access to memory is looked at before it is made.

This is what guards around arrays cannot do: it sees reads, and writes that jump over a guard. An
access outside all arrays goes nowhere, so it does not crash the process, and the launch is an
error. Time it takes: that of the kernel once or twice more.
"""

import re
from collections.abc import Iterator

import numpy as np

READS, WRITES, UPDATES = ACCESSES = "reads", "writes", "reads and writes"
_BYTES = {"i1": 1, "i8": 1, "i16": 2, "half": 2, "i32": 4, "float": 4, "i64": 8, "double": 8}
_KIND = r"(?P<kind><\d+ x \w+>|\w+)"
_ACCESS = re.compile(
    rf"^ +(?:%\S+ = load (?:atomic |volatile )*{_KIND}"
    rf"|store (?:atomic |volatile )*{_KIND.replace('?P<kind>', '?P<stored>')} [^,]+"
    r"|%\S+ = (?:atomicrmw (?:volatile )?\w+|cmpxchg(?: weak| volatile)*))"
    rf",? ptr (?P<place>%[\w.\"]+)(?:, {_KIND.replace('?P<kind>', '?P<swapped>')})?"
)
_POINTER = re.compile(
    r"^ +(%\S+) = (?:alloca|getelementptr|phi ptr|select|(?:tail )?call[^@]*@nv_ask)\b(.*)"
)


def instrument(text: str) -> str:
    """IR in which each access goes through `nv_check`, but for a thread's own and constants."""
    functions = re.split(r"(?m)^(?=define )", text)
    return "".join(f if "@nv_check(" in f else "".join(_checked(f)) for f in functions)


def _checked(function: str) -> Iterator[str]:
    own = own_pointers(function)
    for number, line in enumerate(function.splitlines(keepends=True)):
        access = _ACCESS.match(line)
        if not access or access["place"] in own:
            yield line
            continue
        kind = access["kind"] or access["stored"] or access["swapped"]
        place, start = access["place"], access.start("place")
        does = WRITES if access["stored"] else READS if access["kind"] else UPDATES
        what = f"i64 {size_of(kind)}, i64 {ACCESSES.index(does)}"
        yield f"  %nv.{number} = call ptr @nv_check(ptr {place}, {what})\n"
        yield f"{line[:start]}%nv.{number}{line[access.end('place') :]}"


def size_of(kind: str) -> int:
    vector = re.fullmatch(r"<(\d+) x (\w+)>", kind)
    return int(vector[1]) * _BYTES[vector[2]] if vector else _BYTES.get(kind, 8)


def own_pointers(function: str) -> set[str]:
    """Names of pointers to a thread's own memory, to constants and to the emulator's state."""
    own: set[str] = set()
    lines = [m.groups() for m in map(_POINTER.match, function.splitlines()) if m]
    origins = set(re.findall(r"(%\S+) = (?:alloca|.*@nv_ask)\b", function))
    while True:
        found = {
            name
            for name, operands in lines
            if name in origins
            or re.search("@(?!nv_shared)", operands)  # constants, tables of a switch
            or own & set(re.findall(r"%[\w.]+", operands))
        }
        if found == own:
            return own
        own = found


def extent(a: np.ndarray) -> tuple[int, int]:
    """Address of an array's first byte in memory, and the one behind its last."""
    start = a.ctypes.data
    if a.flags.c_contiguous:
        return start, start + a.nbytes
    reach = [(n - 1) * s for n, s in zip(a.shape, a.strides)]
    last = start + sum(r for r in reach if r > 0) + a.itemsize
    return start + sum(r for r in reach if r < 0), last


def describe(first: int, size: int, regions: dict[str, tuple[int, int]]) -> str:
    """Where bytes lie that are not all in one region, told by the nearest one."""
    nearest = []
    for name, (start, stop) in regions.items():
        past, before = first + size - stop, start - first
        where = f"past the end of {name}" if past >= before else f"before the start of {name}"
        nearest.append((max(past, before), where))
    if not nearest:
        return f"at {first:#x}, outside all arrays"
    distance, where = min(nearest)
    return f"{where}, by {distance} bytes"
