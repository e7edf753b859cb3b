"""Where the value of a shuffle is used: that of a lane which takes no part does no harm until then.

    other = cuda.shfl_down_sync(mask, total, step)
    if t + step < n:
        total += other

A lane near the end asks one that is not there, and does not look at the answer.
"""

import re
from collections.abc import Iterator

from ..emulator.runtime import place

_SHUFFLE = re.compile(r'^ +(%\S+) = (?:tail )?call [^@]*@"?nv\.shfl\.sync')
_AT = re.compile(r"^ +call void @nv_at\(i64 (\d+)\)")
_MADE = re.compile(r"^ +(%\S+) = (\w+) ")
_PASSED_ON = {"bitcast", "zext", "sext", "trunc", "shl", "or"}  # 64 bits are two shuffles
_STORED = re.compile(r"^ +store [^,]*? (\S+), ptr (%[^, ]+),")
_LOADED = re.compile(r"^ +(%\S+) = load [^,]+, ptr (%[^, ]+),")
_ALLOCATED = re.compile(r"^ +(%\S+) = alloca ")
_NAME = re.compile(r'%(?:"[^"]*"|[\w.$-]+)')

RUNTIME = f"""
define i64 @nv_silent() alwaysinline {{                    ; which lane gave this one no answer
  %t = load i32, ptr {place("thread")}
  %p = getelementptr i64, ptr {place("unanswered")}, i32 %t
  %lane = load i64, ptr %p
  ret i64 %lane
}}

define void @nv_used(ptr %flag, i64 %site) {{              ; where its answer is looked at
  %lane = load i64, ptr %flag
  %new = load i64, ptr {place("silent")}
  %first = icmp eq i64 %new, 0
  %some = icmp ne i64 %lane, 0
  %tell = and i1 %first, %some
  br i1 %tell, label %note, label %end
note:
  %t = load i32, ptr {place("thread")}
  %by = zext i32 %t to i64
  %block = load i64, ptr {place("block")}
  store i64 %lane, ptr {place("silent")}
  store i64 %by, ptr {place("silent_by")}
  store i64 %block, ptr {place("silent_in")}
  store i64 %site, ptr {place("silent_at")}
  br label %end
end:
  ret void
}}
"""
_DECLARED = "declare i64 @nv_silent()\ndeclare void @nv_used(ptr, i64)\n"


def traced(text: str) -> str:
    """IR that tells where a thread looks at what it got from a lane that takes no part."""
    functions = re.split(r"(?m)^(?=define )", text)
    return "".join("".join(_traced(f)) for f in functions) + _DECLARED


def _traced(function: str) -> Iterator[str]:
    lines = function.splitlines(keepends=True)
    shuffles = {n: m[1] for n, line in enumerate(lines) if (m := _SHUFFLE.match(line))}
    users: dict[str, list[int]] = {}
    for number, line in enumerate(lines if shuffles else ()):
        for name in {*_NAME.findall(line)} if not line.lstrip().startswith("#dbg") else ():
            users.setdefault(name, []).append(number)
    before: dict[int, str] = {}
    after: dict[int, str] = {}
    first = next((n for n, line in enumerate(lines) if line.startswith("define ")), 0) + 1
    if shuffles and lines[first].startswith(" "):  # no label
        first -= 1
    for number, name in shuffles.items():
        site, debug = _AT.match(lines[number - 1]), re.search(r", !dbg !\d+", lines[number])
        flag, at = f"%nv.flag.{number}", debug[0] if debug else ""
        made = f"  {flag} = alloca i64\n  store i64 0, ptr {flag}\n"
        after[first] = after.get(first, "") + made
        asked = f"  {flag}.now = call i64 @nv_silent(){at}\n  store i64 {flag}.now, ptr {flag}\n"
        told = f"  call void @nv_used(ptr {flag}, i64 {site[1] if site else 0}){at}\n"
        used, lost = _uses(lines, users, name, number)
        after[number] = after.get(number, "") + asked + told * (number in used)
        for n in used - {number}:
            before[n] = before.get(n, "") + told
        for n in lost:
            after[n] = after.get(n, "") + f"  store i64 0, ptr {flag}\n"
    for number, line in enumerate(lines):
        yield before.get(number, "") + line + after.get(number, "")


def _uses(
    lines: list[str], users: dict[str, list[int]], name: str, shuffle: int
) -> tuple[set[int], set[int]]:
    """Lines that use a value, and those that put another one in the place of its variable."""
    used: set[int] = set()
    stores: set[int] = set()
    names, variable, seen = [name], "", {shuffle}
    while names:
        for number in {*users.get(names.pop(), ())} - seen:
            line = lines[number]
            seen.add(number)
            made, stored = _MADE.match(line), _STORED.match(line)
            if made and made[2] == "extractvalue":  # 1: whether the lane is in range, which is sure
                names += [made[1]] * bool(re.search(r", 0(?:, !dbg|$)", line))
            elif made and made[2] in _PASSED_ON:
                names.append(made[1])
            elif stored and variable in ("", stored[2]) and _is_variable(lines, users, stored[2]):
                variable = stored[2]
                for n in users[variable]:
                    if load := _LOADED.match(lines[n]):
                        seen.add(n)
                        names.append(load[1])
                stores = {n for n in users[variable] if _STORED.match(lines[n])}
            else:  # a copy in a second variable may be anywhere, and before a phi nothing can stand
                used.add(shuffle if made and made[2] == "phi" else number)
    return used, stores - seen


def _is_variable(lines: list[str], users: dict[str, list[int]], name: str) -> bool:
    """Whether a pointer is to a variable, which is loaded and stored and nothing else."""
    kinds = [
        next(
            (k for k, m in ((_ALLOCATED, 1), (_LOADED, 2), (_STORED, 2))
             if (found := k.match(lines[n])) and found[m] == name),
            None,
        )
        for n in users[name]
    ]  # fmt: skip
    return _ALLOCATED in kinds and None not in kinds
