"""Which loops of a kernel may go round for ever: `while` loops, in LLVM IR.

A `for` loop comes to an end by itself. At the end of each round of a `while` loop a call is put by
which a thread that has gone round often lets others have their turn: they may be whom it waits for.
"""

import re
from collections.abc import Iterator

from .runtime import DONE

_NAME = r'(?:"[^"]*"|[\w.$-]+)'
_LABEL = re.compile(rf"^({_NAME}):")
_JUMP = re.compile(r"^ +(?:br|switch) ", re.M)
_TARGET = re.compile(rf"\blabel %({_NAME})")
# what Numba calls the answer to whether a `for` loop has another element
_FOR = re.compile(r'(%\S+) = load i1, ptr %"?\$[^"\n]*for_iter[^\n]*\n(?:[^\n]*\n)*? +br i1 \1,')
_HOPE = re.compile(r"(call void @nv_yield\(i64 [^,]+, i64) 0")
RESTS = f"@nv_wait(i64 {DONE})"  # in the emulator's own loop, in which fibers live


def polled(text: str) -> str:
    """IR in which each round of a `while` loop ends with a call of `nv_turn`."""
    parts = re.split(r"(?m)^(?=define )", text)
    return parts[0] + "".join(map(_polled, parts[1:])) + "declare void @nv_turn(i64, i64)\n"


def _polled(function: str) -> str:
    blocks = _blocks(function)
    # a loop of the source begins where Numba's names have a number alone
    jumps = [(end, start) for end, start in _rounds(blocks) if re.fullmatch(r"B\d+", start)]
    ends = {end for end, start in jumps if not _FOR.search(_whole(blocks, start))}
    for name in ends:
        at = [m.start() for m in _JUMP.finditer(blocks[name])][-1]
        debug = re.search(r", !dbg !\d+", blocks[name][at:])
        call = f"  call void @nv_turn(i64 0, i64 0){debug[0] if debug else ''}\n"
        blocks[name] = blocks[name][:at] + call + blocks[name][at:]
    return "".join(blocks.values())


def _whole(blocks: dict[str, str], start: str) -> str:
    """A block of Numba's, which may have come to be several."""
    return "".join(b for name, b in blocks.items() if (name + ".").startswith(start + "."))


def hopeless(text: str) -> str:
    """IR in which `nv_yield` is told, by its second number, which loops nothing leaves."""
    parts = re.split(r"(?m)^(?=define )", text)
    return parts[0] + "".join(map(_hopeless, parts[1:]))


def _hopeless(function: str) -> str:
    if "@nv_yield(" not in function:
        return function
    blocks = _blocks(function)
    for name, block in blocks.items():
        if "@nv_yield(" in block and not any(_ends(blocks[to]) for to in _reached(blocks, name)):
            blocks[name] = _HOPE.sub(r"\1 1", block)
    return "".join(blocks.values())


def _ends(block: str) -> bool:
    """Whether a thread that is here comes to its end."""
    return RESTS in block or next(_targets(block), None) is None


def _blocks(function: str) -> dict[str, str]:
    """The text of a function in basic blocks by name; the first has the head, the last the end."""
    head, *lines = function.splitlines(keepends=True)
    label = _LABEL.match(lines[0]) if lines else None
    name = label[1].strip('"') if label else ""
    blocks = {name: head}
    for line in lines:
        if label := _LABEL.match(line):
            name = label[1].strip('"')
        blocks[name] = blocks.get(name, "") + line
    return blocks


def _targets(block: str) -> Iterator[str]:
    return (m[1].strip('"') for m in _TARGET.finditer(block))


def _reached(blocks: dict[str, str], start: str) -> set[str]:
    """All blocks that may follow upon one."""
    found, left = {start}, [start]
    while left:
        new = {*_targets(blocks[left.pop()])} - found
        found |= new
        left += new
    return found


def _rounds(blocks: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Jumps back: the block at the end of each round of a loop, and the one it begins with."""
    first = next(iter(blocks))
    seen, path = {first}, {first: _targets(blocks[first])}  # from the first block to this one
    while path:
        name, targets = next(reversed(path.items()))
        to = next(targets, None)
        if to is None:
            del path[name]
        elif to in path:
            yield name, to
        elif to not in seen:
            seen.add(to)
            path[to] = _targets(blocks[to])
