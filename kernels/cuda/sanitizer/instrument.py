"""IR of a kernel in which each access to memory, and each place to wait, tells where it stands."""

import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from ..emulator.bounds import own_pointers, size_of
from ..emulator.machine import Instrument
from ..emulator.runtime import LOCAL, STATE, place
from . import silent
from .watch import ATOMIC, MAX_SITES, READ, UPDATE, VALUED, WATCH, WRITE

_KIND = r"(?P<kind><\d+ x \w+>|\w+)"
_VOLATILE = "(?P<atomic>atomic )?(?:volatile )?"
_ACCESSES = (
    (READ, re.compile(rf"^ +%\S+ = load {_VOLATILE}{_KIND}, ptr ")),
    (WRITE, re.compile(rf"^ +store {_VOLATILE}{_KIND} (?P<value>[^,]+), ptr ")),
    (
        UPDATE,
        re.compile(r"^ +%\S+ = (?P<atomic>atomicrmw|cmpxchg) (?:volatile |weak )*(?:\w+ )?ptr "),
    ),
)
_WAIT = re.compile(
    r'^ +(?:%\S+ = )?(?:tail )?call [^@]*@"?nv\.(?P<name>'
    r'barrier0|shfl|vote|match|bar\.warp)[\w.]*"?\('
)
_WAITS = {
    "barrier0": "syncthreads", "bar.warp": "syncwarp", "shfl": "shuffle", "vote": "vote",
    "match": "match",
}  # fmt: skip
# a function of numba-cuda's, which has no line: where it is called
_GRID = re.compile(r'^ +(?:%\S+ = )?(?:tail )?call [^@]*@"?\w*_ol_grid_group_sync')
_FENCE = re.compile(r'^ +(?:tail )?call void @"?nv\.membar\.(?P<for>gl|sys|cta)"?\(')
_TURN = re.compile(r"^ +call void @nv_turn\(i64 (?P<site>0),")
LOOP = "loop"  # what is done where a round of a loop ends
_DEFINE = re.compile(r"^(define [^{!]*?)( !dbg !\d+)? \{$", re.M)
# a view of any strides is reached by arithmetic on addresses
_MADE = "load ptr, |getelementptr |addrspacecast |bitcast |ptrtoint |inttoptr |add "
_GIVEN = re.compile(rf"^ +(%\S+) = (?:{_MADE})(.*)")
_CHOICE = re.compile(r"^ +(%\S+) = (?:phi|select i1 \S+) (.*)")
_CHOSEN = re.compile(r"(?:\[|ptr|i64) (%[\w.\"]+)")  # by a phi [%value, %from], or by a select
_FIRST_ARGUMENT = STATE.fields["args"][1]  # type: ignore[index]


class Site(NamedTuple):
    """A place in a kernel: its file and line, what it does, and the array it is sure to mean.

    array: the number of a word of the arguments; or, less 1 and negative, of a byte of shared
    memory; None where it is not known.
    """

    file: str
    line: int
    does: str
    array: int | None
    size: int  # bytes of an access

    @property
    def writes(self) -> bool:
        """Whether it changes memory."""
        return self.does in ("written", "updated")


def _of_watch(name: str) -> str:
    return f"getelementptr (i8, ptr @nv_watch, i64 {WATCH.fields[name][1]})"  # type: ignore[index]


_BEFORE = f"""
@nv_watch = external global i8
define void @nv_at(i64 %site) alwaysinline {{              ; before a thread waits
  %t = load i32, ptr {place("thread")}
  %p = getelementptr i64, ptr {place("at")}, i32 %t
  store i64 %site, ptr %p
  ret void
}}

define void @nv_fence(i1 %wide) alwaysinline {{            ; what it wrote, all others can see
  %t = load i32, ptr {place("thread")}
  %b = load i64, ptr {place("block")}
  %n = add i64 %b, 1
  %p = getelementptr i64, ptr {_of_watch("fence")}, i32 %t
  %before = load i64, ptr %p
  %m = select i1 %wide, i64 %n, i64 %before
  store i64 %m, ptr %p
  %near = getelementptr i64, ptr {_of_watch("near_fence")}, i32 %t
  store i64 %n, ptr %near
  ret void
}}
"""
_AFTER = f"""
declare i64 @nv_access(ptr, ptr, i64, i64, i64)
define ptr @nv_seen(ptr %p, i64 %what, i64 %value) alwaysinline {{
  %first = ptrtoint ptr %p to i64
  %at = call i64 @nv_access(ptr @nv_state, ptr @nv_watch, i64 %first, i64 %what, i64 %value)
  %q = inttoptr i64 %at to ptr
  ret ptr %q
}}

define ptr @nv_seen_or_own(ptr %p, i64 %what, i64 %value) noinline {{
  %first = ptrtoint ptr %p to i64
  %frame = call ptr @llvm.frameaddress.p0(i32 0)
  %here = ptrtoint ptr %frame to i64
  %off = sub i64 %first, %here
  %far = add i64 %off, {LOCAL}
  %near = icmp ult i64 %far, {2 * LOCAL}
  br i1 %near, label %mine, label %look
mine:                                                      ; a local array, on its stack
  ret ptr %p
look:
  %q = call ptr @nv_seen(ptr %p, i64 %what, i64 %value)
  ret ptr %q
}}
"""


class Watcher(Instrument):
    """Tells `nv_access` of each access, with its line; notes where threads wait."""

    lines = True
    runtime = _BEFORE + silent.RUNTIME

    def __init__(self) -> None:
        self.sites: list[Site] = []

    def before(self, text: str) -> str:
        """IR that notes where a thread will wait, and its fences."""
        text = re.sub(r"^  call void @nv_aligned\(.*\n", "", text, flags=re.M)
        # or LLVM would make one call of a loop that fills memory
        text = _DEFINE.sub(r'\1 "no-builtins"\2 {', text)
        lines = _Lines(text)

        def told() -> Iterator[str]:
            for line in text.splitlines(keepends=True):
                if wait := _WAIT.match(line):
                    yield f"  call void @nv_at(i64 {self._site(lines, line, _WAITS[wait['name']])})"
                    yield f"{lines.debug(line)}\n"
                elif _GRID.match(line):
                    yield f"  call void @nv_at(i64 {self._site(lines, line, 'grid.sync')})"
                    yield f"{lines.debug(line)}\n"
                elif fence := _FENCE.match(line):
                    wide = str(fence["for"] != "cta").lower()
                    yield f"  call void @nv_fence(i1 {wide}){lines.debug(line)}\n"
                elif turn := _TURN.match(line):
                    line = line[: turn.start("site")] + str(self._site(lines, line, LOOP))
                    line += turn.string[turn.end("site") :]
                yield line

        declared = "declare void @nv_at(i64)\ndeclare void @nv_fence(i1)\n"
        return silent.traced("".join(told())) + declared

    def after(self, text: str) -> str:
        """IR in which each access goes through `nv_seen`."""
        lines = _Lines(text)
        functions = re.split(r"(?m)^(?=define )", text)
        told = (f if "@nv_check(" in f else "".join(self._seen(lines, f)) for f in functions)
        watch = "" if "@nv_watch = " in text else "@nv_watch = external global i8\n"
        return "".join(told) + watch + _AFTER

    def _seen(self, lines: "_Lines", function: str) -> Iterator[str]:
        own, arrays = own_pointers(function), _arrays(function)
        code = function.splitlines(keepends=True)
        for number, line in enumerate(code):
            does, access = next(
                ((d, m) for d, pattern in _ACCESSES if (m := pattern.match(line))), (READ, None)
            )
            if access is None:
                yield line
                continue
            pointer = _operand(line, access.end())
            if pointer in own or (pointer[0] != "%" and "@nv_shared" not in pointer):
                yield line
                continue
            rest = line[access.end() + len(pointer) :]
            kind = access["kind"] if does != UPDATE else rest.split()[1]
            name = ("read", "written", "updated")[does]
            atomic = ATOMIC if access["atomic"] else 0
            size = size_of(kind)
            # what was moved out of a loop has no line: that of the same memory's next access is it
            near = chain(
                [line], (n for n in code[number:] if f"ptr {pointer}," in n), code[number:]
            )
            told = next((n for n in near if lines.of(n)[1]), line)
            array = _array_of(pointer, arrays)
            site = self._site(lines, told, name, array, size)
            seen = "nv_seen" if array is not None else "nv_seen_or_own"
            value = "0"
            if does == WRITE and (made := _bits(access["value"], kind, number, lines.debug(line))):
                yield made
                does, value = does | VALUED, f"%nv.value.{number}"
            what = f"i64 {site << 16 | size << 8 | does | atomic}, i64 {value}"
            yield f"  %nv.{number} = call ptr @{seen}(ptr {pointer}, {what}){lines.debug(line)}\n"
            yield f"{line[: access.end()]}%nv.{number}{rest}"

    def _site(
        self, lines: "_Lines", line: str, does: str, array: int | None = None, size: int = 0
    ) -> int:
        if len(self.sites) == MAX_SITES:
            raise ValueError(f"sanitize: more than {MAX_SITES} places in a kernel touch memory")
        self.sites.append(Site(*lines.of(line), does, array, size))
        return len(self.sites) - 1


class _Lines:
    """What a module's metadata tell of the source."""

    def __init__(self, text: str) -> None:
        self.nodes = dict(re.findall(r"^!(\d+) = (?:distinct )?(!DI\w+\(.*\))$", text, re.M))

    def debug(self, line: str) -> str:
        """The reference to a place, to be put behind an instruction that is added there."""
        found = re.search(r", !dbg !\d+", line)
        return found[0] if found else ""

    def of(self, line: str) -> tuple[str, int]:
        """File and line of an instruction; "" and 0 where it has none."""
        found = re.search(r", !dbg !(\d+)", line)
        node = self.nodes.get(found[1], "") if found else ""
        number = re.search(r"\bline: (\d+)", node)
        while node and "file: " not in node:
            scope = re.search(r"\bscope: !(\d+)", node)
            node = self.nodes.get(scope[1], "") if scope else ""
        file = re.search(r"\bfile: !(\d+)", node)
        where = self.nodes.get(file[1], "") if file else ""
        parts = dict(re.findall(r'(filename|directory): "([^"]*)"', where))
        name = f"{parts.get('directory', '')}/{parts['filename']}" if "filename" in parts else ""
        return _unescaped(name), int(number[1]) if number else 0


def _unescaped(text: str) -> str:
    """What a string of LLVM's says, where a byte that is not plain ASCII is \\ and two digits."""
    code = re.sub(rb"\\([0-9A-F]{2})", lambda byte: bytes.fromhex(byte[1].decode()), text.encode())
    return code.decode(errors="replace")


def _operand(line: str, start: int) -> str:
    """A pointer that begins at a place of a line: a name, or an expression in parentheses."""
    depth = 0
    for end in range(start, len(line)):
        if line[end] in "(":
            depth += 1
        elif line[end] == ")":
            depth -= 1
        elif line[end] in " ,\n" and depth == 0 and line[start:end] not in (
            "getelementptr", "addrspacecast", "getelementptr inbounds",
            "getelementptr inbounds nuw", "getelementptr nuw",
        ):  # fmt: skip
            return line[start:end]
    return line[start:].rstrip()


def _bits(value: str, kind: str, number: int, debug: str) -> str:
    """IR of %nv.value.<number>, a value as 64 bits; "" where it has more, or is no number."""
    name = f"%nv.value.{number}"
    if kind == "i64":
        return f"  {name} = add i64 {value}, 0{debug}\n"
    if kind == "double":
        return f"  {name} = bitcast double {value} to i64{debug}\n"
    if re.fullmatch(r"i\d+", kind) and int(kind[1:]) < 64:
        return f"  {name} = zext {kind} {value} to i64{debug}\n"
    if kind in ("float", "half"):
        bits = "i32" if kind == "float" else "i16"
        first = f"  {name}.0 = bitcast {kind} {value} to {bits}{debug}\n"
        return f"{first}  {name} = zext {bits} {name}.0 to i64{debug}\n"
    return ""


def _array_of(pointer: str, known: dict[str, int | None]) -> int | None:
    """The array that a pointer is sure to lie in."""
    if "@nv_shared" in pointer:
        offsets = re.findall(r"i64 (\d+)", pointer.split("@nv_shared", 1)[1])
        return -1 - sum(map(int, offsets))
    return known.get(pointer)


def _first(name: str, bases: dict[str, list[str]], end: str) -> str:
    """The value that a pointer is made of, step by step, at most back to `end`."""
    while name != end and bases.get(name):
        name = bases[name][0]
    return name


def _arrays(function: str) -> dict[str, int | None]:
    """The array that each pointer in a function is sure to lie in."""
    given, choices = {}, {}
    for line in function.splitlines():
        if found := _GIVEN.match(line):
            given[found[1]] = found[2], " = load ptr" in line
        elif found := _CHOICE.match(line):
            choices[found[1]] = _CHOSEN.findall(found[2])
    known: dict[str, int | None] = {}
    for name, (rest, loaded) in given.items():
        if loaded:
            offset = re.search(r"@nv_state, i64 (\d+)", rest)
            at = int(offset[1]) - _FIRST_ARGUMENT if offset else -1
            if 0 <= at < 8 * 512:
                known[name] = at // 8
        elif "@nv_shared" in rest:
            known[name] = _array_of(rest.split("@", 1)[0] + "@" + rest.split("@", 1)[1], {})
    bases = {
        name: re.findall(r"%[\w.\"]+", rest) for name, (rest, loaded) in given.items() if not loaded
    }
    while True:
        more = {}
        for name, operands in bases.items():
            origins = {known[o] for o in operands if o in known}
            if name not in known and len(origins) == 1:
                more[name] = origins.pop()
        for name, operands in choices.items():
            # what a loop makes of a pointer, step by step, lies where the pointer does
            others = [o for o in operands if _first(o, bases, name) != name]
            origins = {known[o] for o in others if o in known}
            if name not in known and len(origins) == 1 and all(o in known for o in others):
                more[name] = origins.pop()
        if not more:
            return known
        known |= more
