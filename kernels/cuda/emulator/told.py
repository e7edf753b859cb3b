"""What threads tell: what they print, shown when the launch is over, and what they raise."""

import ctypes
import os
import re
from typing import Any

import numpy as np

from .runtime import place

ROOM = 1 << 20  # bytes of a worker's blocks, a GPU's default; what is beyond is lost there, too
_SPECIFIER = re.compile(r"%(?:%|(lld|llu|d|f|s))")
_READ: dict[str, Any] = {
    "lld": ctypes.c_int64, "llu": ctypes.c_uint64, "d": ctypes.c_int32,
    "f": ctypes.c_double, "s": ctypes.c_char_p,
}  # fmt: skip
_PRINT = re.compile(r'call i32 @vprintf\(ptr (.+), ptr (%[\w.$"]+)\)')


_PRINTS = f"""
@nv_printed = external global [{ROOM} x i8], align 16
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define i32 @nv_print(ptr %format, ptr %values, i64 %size) noinline {{
  %at = load i64, ptr {place("printed")}
  %round = add i64 %size, 7
  %whole = and i64 %round, -8
  %more = add i64 %whole, 16
  %end = add i64 %at, %more
  %lost = icmp ugt i64 %end, {ROOM}
  br i1 %lost, label %full, label %fits
fits:
  %entry = getelementptr i8, ptr @nv_printed, i64 %at
  store i64 %whole, ptr %entry
  %second = getelementptr i8, ptr %entry, i64 8
  store ptr %format, ptr %second
  %third = getelementptr i8, ptr %entry, i64 16
  call void @llvm.memcpy.p0.p0.i64(ptr %third, ptr %values, i64 %size, i1 false)
  store i64 %end, ptr {place("printed")}
  ret i32 1
full:
  ret i32 -1
}}
"""

# An exception, of which numba-cuda has made a code, 0 and less where there is none.
_RAISES = f"""
define void @nv_raise(i32 %code) {{
  %known = load i64, ptr {place("raised")}
  %new = icmp eq i64 %known, 0
  %user = icmp sgt i32 %code, 0
  %first = and i1 %new, %user
  br i1 %first, label %note, label %end
note:
  %t = load i32, ptr {place("thread")}
  %by = zext i32 %t to i64
  %code64 = zext i32 %code to i64
  store i64 %code64, ptr {place("raised")}
  store i64 %by, ptr {place("raised_by")}
  br label %end
end:
  ret void
}}
"""

TOLD = _PRINTS + _RAISES


_HELPER = re.compile(r'^define void (@"?[\w$.]*__exc_helper__"?)\(i32 [^{]*\{.*?^\}', re.M | re.S)
_RAISING = r"""define void \1(i32 %code) {
  call void @nv_raise(i32 %code)
  ret void
}
declare void @nv_raise(i32)"""


def noted(text: str) -> str:
    """IR in which exceptions are noted here, and calls that print tell how many bytes they have."""
    text = _HELPER.sub(_RAISING, text)  # on a GPU they are noted in variables of the module
    return "".join(map(_counted, re.split(r"(?m)^(?=define )", text)))


def _counted(function: str) -> str:
    def call(m: re.Match[str]) -> str:
        name = m[2]
        while cast := re.search(
            rf"^ +{re.escape(name)} = bitcast ptr (\S+) to ptr", function, re.M
        ):
            name = cast[1]
        made = re.search(rf"^ +{re.escape(name)} = alloca (\{{[^}}]*\}})", function, re.M)
        if made is None:
            raise NotImplementedError("the emulator does not know what is printed here")
        kind = made[1]
        size = f"ptrtoint (ptr getelementptr ({kind}, ptr null, i64 1) to i64)"
        return f"call i32 @nv_print(ptr {m[1]}, ptr {m[2]}, i64 {size})"

    found = _PRINT.sub(call, function)
    return found.replace("declare i32 @vprintf(ptr, ptr)", "declare i32 @nv_print(ptr, ptr, i64)")


def shown(buffer: np.ndarray, used: int) -> str:
    """The text that was printed: of each call there are its bytes, its format, its values."""
    at, text, start = 0, [], buffer.ctypes.data
    while at < used:
        size, form = (int(word) for word in buffer[at : at + 16].view(np.int64))
        told = ctypes.string_at(form).decode()
        text.append(_filled(told, start + at + 16))
        at += 16 + size
    return "".join(text)


def _filled(form: str, at: int) -> str:
    """A format with its values, which lie in memory as in a struct of C."""

    def value(m: re.Match[str]) -> str:
        nonlocal at
        if m[1] is None:
            return "%"
        kind = _READ[m[1]]
        size = ctypes.sizeof(kind)
        at += -at % size
        found = kind.from_address(at).value
        at += size
        return f"{found:f}" if m[1] == "f" else found.decode() if m[1] == "s" else str(found)

    return _SPECIFIER.sub(value, form)


def exception(raises: dict[int, Any] | None, record: np.void, block: tuple[int, ...]) -> Exception:
    """What a thread has raised, in the words of numba-cuda.

    raises: class, arguments, and function, file and line, of each code. block: its size.
    """
    (x, y, _), t = block, int(record["raised_by"])
    told = (raises or {}).get(int(record["raised"]))
    kind, args, where = told or (SystemError, (f"unknown error {record['raised']}",), None)
    what = f"tid={[t // (x * y), t // x % y, t % x]} ctaid={record['ctaid'][::-1].tolist()}"
    if where is not None:
        name, file, line = where
        what = f"In function {name!r}, file {os.path.abspath(file)}, line {line}, {what}"
    return kind(*((f"{what}: {args[0]}", *args[1:]) if args else (what,)))
