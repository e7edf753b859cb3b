"""Arithmetic in float16, in LLVM IR: what numba-cuda calls of CUDA's cuda_fp16.h.

A half is computed as a float and rounded once, which gives the bits of an addition, subtraction,
product, quotient or square root that is rounded by itself: a float has more than twice its digits.
A fused multiply-add goes through a double that remembers by its last bit what was cut off. What a
GPU only approximates (exp, log, sin ...) is the C library's float here, rounded.
"""

import re

_NAN = 32767  # the NaN that a GPU makes

# Every half here is its 16 bits: what LLVM does of itself with `half` needs no library then.
_ROUNDING = """
define float @nv_wide(i16 %a) alwaysinline {
  %h = bitcast i16 %a to half
  %r = fpext half %h to float
  ret float %r
}

define i16 @nv_narrow(float %x) alwaysinline {
  %h = fptrunc float %x to half
  %bits = bitcast half %h to i16
  %nan = fcmp uno float %x, %x
  %r = select i1 %nan, i16 32767, i16 %bits
  ret i16 %r
}

define i16 @nv_narrow_to(float %x, i1 %down, i1 %up) alwaysinline {  ; down: of what is too large
  %near = call i16 @nv_narrow(float %x)
  %wide = call float @nv_wide(i16 %near)
  %above = fcmp ogt float %wide, %x
  %below = fcmp olt float %wide, %x
  %lower = and i1 %above, %down
  %higher = and i1 %below, %up
  %negative = fcmp olt float %x, 0.0
  %by = select i1 %negative, i16 -1, i16 1                ; bits go on away from 0
  %less = sub i16 %near, %by
  %more = add i16 %near, %by
  %a = select i1 %lower, i16 %less, i16 %near
  %r = select i1 %higher, i16 %more, i16 %a
  ret i16 %r
}

define double @nv_odd(double %s, double %cut) alwaysinline {  ; s, its last bit set where s + cut is
  %bits = bitcast double %s to i64                            ; not s
  %exact = fcmp oeq double %cut, 0.0
  %odd = trunc i64 %bits to i1
  %finite = fcmp ord double %cut, %cut
  %fine = or i1 %exact, %odd
  %change = xor i1 %fine, true
  %do = and i1 %change, %finite
  %p = fcmp ogt double %cut, 0.0
  %q = fcmp ogt double %s, 0.0
  %same = icmp eq i1 %p, %q
  %by = select i1 %same, i64 1, i64 -1
  %moved = add i64 %bits, %by
  %r = select i1 %do, i64 %moved, i64 %bits
  %x = bitcast i64 %r to double
  ret double %x
}

define i16 @nv_narrow_double(double %x) alwaysinline {  ; by a float, odd if inexact
  %f = fptrunc double %x to float
  %g = fpext float %f to double
  %bits = bitcast float %f to i32
  %exact = fcmp ueq double %g, %x
  %odd = trunc i32 %bits to i1
  %huge = fcmp oeq float %f, 0x7FF0000000000000
  %tiny = fcmp oeq float %f, 0xFFF0000000000000
  %a = or i1 %exact, %odd
  %b = or i1 %huge, %tiny
  %fine = or i1 %a, %b
  %p = fcmp olt double %g, %x
  %negative = fcmp olt double %x, 0.0
  %out = xor i1 %p, %negative
  %by = select i1 %out, i32 1, i32 -1
  %moved = add i32 %bits, %by
  %c = select i1 %fine, i32 %bits, i32 %moved
  %y = bitcast i32 %c to float
  %r = call i16 @nv_narrow(float %y)
  ret i16 %r
}

define i16 @nv_fma(i16 %a, i16 %b, i16 %c) alwaysinline {
  %x = call float @nv_wide(i16 %a)
  %y = call float @nv_wide(i16 %b)
  %z = call float @nv_wide(i16 %c)
  %product = fmul float %x, %y                            ; exact
  %p = fpext float %product to double
  %q = fpext float %z to double
  %s = fadd double %p, %q
  %u = fsub double %s, %p                                 ; what the sum lost, as Knuth has it
  %v = fsub double %s, %u
  %w = fsub double %p, %v
  %d = fsub double %q, %u
  %cut = fadd double %w, %d
  %sum = call double @nv_odd(double %s, double %cut)
  %r = call i16 @nv_narrow_double(double %sum)
  ret i16 %r
}
"""

_WIDE = {  # of two floats %x and %y, or of one: what is computed
    **{name: f"%z = f{op} float %x, %y" for name, op in (
        ("hadd", "add"), ("hsub", "sub"), ("hmul", "mul"), ("hdiv", "div"),
    )},
    "hsqrt": "%z = call float @llvm.sqrt.f32(float %x)",
    "hrcp": "%z = fdiv float 1.0, %x",
    "hrsqrt": "%s = call float @llvm.sqrt.f32(float %x)\n  %z = fdiv float 1.0, %s",
    **{f"h{op}": f"%z = call float @llvm.{name}.f32(float %x)" for op, name in (
        ("trunc", "trunc"), ("ceil", "ceil"), ("floor", "floor"), ("rint", "roundeven"),
    )},
    **{f"h{name}": f"%z = call float @__nv_{name}f(float %x)" for name in (
        "log", "log2", "log10", "exp", "exp2", "exp10", "cos", "sin", "tanh",
    )},
}  # fmt: skip
_WIDE["htanh_approx"] = _WIDE["htanh"]
_OPERATORS = {"pl": "hadd", "mi": "hsub", "ml": "hmul", "dv": "hdiv", "ng": "hneg", "ps": "pos"}
_OPERATORS |= {"ne": "hneu"} | {name: f"h{name}" for name in ("eq", "gt", "lt", "ge", "le")}
_CUT = {  # of what was computed, %z
    "_sat": "%more = fcmp ogt float %z, 0.0\n  %f = select i1 %more, float %z, float 0.0\n"
    "  %much = fcmp ogt float %f, 1.0\n  %k = select i1 %much, float 1.0, float %f",
    "_relu": "%less = fcmp olt float %z, 0.0\n  %k = select i1 %less, float 0.0, float %z",
}
_BITS = {"hneg": "%r = xor i16 %a, -32768", "habs": "%r = and i16 %a, 32767"}
_KINDS = {
    "char": (8, "s"), "uchar": (8, "u"), "short": (16, "s"), "ushort": (16, "u"),
    "int": (32, "s"), "uint": (32, "u"), "ll": (64, "s"), "ull": (64, "u"),
}  # fmt: skip
_LETTERS = dict(zip("stijlmxy", ("short", "ushort", "int", "uint", "ll", "ull", "ll", "ull")))
_TOWARDS = {"n": "roundeven", "z": "trunc", "d": "floor", "u": "ceil"}
_LARGEST = 1 << 17  # of whole numbers: all from here on are infinite
_KNOWN = re.compile(
    r"_ZL(?P<length>\d+)(?P<called>[a-z_]\w*)_nbst"
    r"|_Z(?P<operator>[a-zA-Z]{2})RK?6__half\w*_nbst|_ZN6__halfC1E(?P<made>\w)_nbst"
)


def _result(kind: str, value: str) -> str:
    return f"  store {kind} {value}, ptr %r0\n"


def _loaded(*names: str) -> str:
    """Operands as halves, %a and %b, and as floats, %x and %y."""
    return "".join(
        f"  %{a} = load i16, ptr %p{a}\n  %{x} = call float @nv_wide(i16 %{a})\n"
        for a, x in zip("abc", "xyw")
        if a in names
    )


def _computed(name: str) -> str | None:
    """Arithmetic and functions."""
    name = name.removesuffix("_rn")
    base = re.sub("_(sat|relu)$", "", name)
    cut = _CUT.get(name[len(base) :], "")
    if base == "hfma":
        made = _loaded("a", "b", "c") + "  %m = call i16 @nv_fma(i16 %a, i16 %b, i16 %c)\n"
        if not cut:
            return made + _result("i16", "%m")
        made += f"  %z = call float @nv_wide(i16 %m)\n  {cut}\n"
        return made + "  %h = call i16 @nv_narrow(float %k)\n" + _result("i16", "%h")
    if base not in _WIDE:
        return None
    made = f"{_loaded('a', 'b') if '%y' in _WIDE[base] else _loaded('a')}  {_WIDE[base]}\n"
    if not cut:
        return made + "  %h = call i16 @nv_narrow(float %z)\n" + _result("i16", "%h")
    # rounded first, as on a GPU
    made += "  %n = call i16 @nv_narrow(float %z)\n  %zn = call float @nv_wide(i16 %n)\n"
    made += f"  {cut.replace('%z', '%zn')}\n  %h = call i16 @nv_narrow(float %k)\n"
    return made + _result("i16", "%h")


def _compared(name: str) -> str | None:
    """Comparisons, the larger and the smaller."""
    if found := re.fullmatch("h(eq|ne|lt|le|gt|ge)(u?)", name):
        made = f"  %t = fcmp {'u' if found[2] else 'o'}{found[1]} float %x, %y\n"
        return _loaded("a", "b") + made + "  %r = zext i1 %t to i8\n" + _result("i8", "%r")
    if name == "hisnan":
        made = "  %t = fcmp uno float %x, %x\n  %r = zext i1 %t to i8\n"
        return _loaded("a") + made + _result("i8", "%r")
    if name == "hisinf":
        made = "".join(
            f"  %{t} = fcmp oeq float %x, 0x{bits}000000000000\n"
            for t, bits in (("p", "7FF0"), ("n", "FFF0"))
        )
        made += "  %s = select i1 %n, i32 -1, i32 0\n  %r = select i1 %p, i32 1, i32 %s\n"
        return _loaded("a") + made + _result("i32", "%r")
    if found := re.fullmatch("h(max|min)(_nan)?", name):
        more, zero = ("ogt", "and") if found[1] == "max" else ("olt", "or")
        lone = ("%b", "%a") if not found[2] else (str(_NAN), str(_NAN))
        return (
            _loaded("a", "b")
            + (
                f"  %t = fcmp {more} float %x, %y\n  %m = select i1 %t, i16 %a, i16 %b\n"
                "  %same = fcmp oeq float %x, %y\n"
                f"  %zero = {zero} i16 %a, %b\n"  # -0 is less than 0
                "  %o = select i1 %same, i16 %zero, i16 %m\n"
                "  %q = fcmp uno float %y, %y\n"
                f"  %s = select i1 %q, i16 {lone[1]}, i16 %o\n"
                "  %p = fcmp uno float %x, %x\n"
                f"  %r = select i1 %p, i16 {lone[0]}, i16 %s\n"
                "  %both = and i1 %p, %q\n"
                f"  %h = select i1 %both, i16 {_NAN}, i16 %r\n"
            )
            + _result("i16", "%h")
        )
    return None


def _from_whole(kind: str, towards: str) -> str:
    """A half of a whole number."""
    bits, sign = _KINDS[kind]
    made = f"  %i = load i{bits}, ptr %pa\n  %w = {sign}ext i{bits} %i to i128\n".replace(
        "uext", "zext"
    )
    for op, limit in (("smin", _LARGEST), ("smax", -_LARGEST)):
        given = "%w" if op == "smin" else "%smin"
        made += f"  %{op} = call i128 @llvm.{op}.i128(i128 {given}, i128 {limit})\n"
    made += "  %small = trunc i128 %smax to i32\n  %x = sitofp i32 %small to float\n"
    return made + _rounded(towards)


def _rounded(towards: str) -> str:
    """A float %x as a half: to the nearest, to 0, down or up."""
    negative = "  %negative = fcmp olt float %x, 0.0\n  %positive = xor i1 %negative, true\n"
    down = {"n": "false", "z": "%positive", "d": "true", "u": "false"}[towards]
    up = {"n": "false", "z": "%negative", "d": "false", "u": "true"}[towards]
    called = f"  %h = call i16 @nv_narrow_to(float %x, i1 {down}, i1 {up})\n"
    return negative + called + _result("i16", "%h")


def _to_whole(kind: str, towards: str) -> str:
    """A whole number of a half: the nearest that there is, 0 of a NaN, of 64 bits only the first
    one set."""
    bits, sign = _KINDS[kind]
    made = f"  %z = call float @llvm.{_TOWARDS[towards]}.f32(float %x)\n"
    made += f"  %i = call i{bits} @llvm.fpto{sign}i.sat.i{bits}.f32(float %z)\n"
    made += "  %nan = fcmp uno float %x, %x\n"
    wrong = -(1 << 63) if bits == 64 else 0
    made += f"  %r = select i1 %nan, i{bits} {wrong}, i{bits} %i\n"
    return _loaded("a") + made + _result(f"i{bits}", "%r")


def _converted(name: str) -> str | None:
    """Conversions."""
    if name in ("half_as_short", "half_as_ushort", "short_as_half", "ushort_as_half", "pos"):
        return "  %a = load i16, ptr %pa\n" + _result("i16", "%a")
    if name == "half2float":
        return _loaded("a") + _result("float", "%x")
    if name == "half2double":
        return _loaded("a") + "  %r = fpext float %x to double\n" + _result("double", "%r")
    if found := re.fullmatch("float2half(?:_r([nzdu]))?", name):
        return "  %x = load float, ptr %pa\n" + _rounded(found[1] or "n")
    if name == "double2half":
        made = "  %x = load double, ptr %pa\n  %h = call i16 @nv_narrow_double(double %x)\n"
        return made + _result("i16", "%h")
    if (found := re.fullmatch("(u?[a-z]+)2half_r([nzdu])", name)) and found[1] in _KINDS:
        return _from_whole(found[1], found[2])
    if (found := re.fullmatch("half2(u?[a-z]+)_r([nzdu])", name)) and found[1] in _KINDS:
        return _to_whole(found[1], found[2])
    return None


def _in_memory(name: str) -> str | None:
    """Loads, stores and the addition to what is in memory, for which an address is given."""
    made = "  %at = load ptr, ptr %pa\n"
    if re.fullmatch("ld(g|cg|ca|cs|lu|cv)", name):
        return made + "  %a = load i16, ptr %at\n" + _result("i16", "%a")
    if re.fullmatch("st(wb|cg|cs|wt)", name):
        return made + "  %b = load i16, ptr %pb\n  store i16 %b, ptr %at\n"
    if name == "atomicAdd":
        made += "  %h = load half, ptr %pb\n"
        made += "  %old = atomicrmw fadd ptr %at, half %h monotonic\n"
        return made + _result("half", "%old")
    return None


def _body(symbol: str) -> str | None:
    """What a function of cuda_fp16.h does, in IR; None where it is not known."""
    if not (found := _KNOWN.fullmatch(symbol)):
        return None
    if made := found["made"]:  # a constructor: its result is where a function's would be
        if made == "v":
            return _result("i16", "0")
        name = {"f": "float2half", "d": "double2half"}.get(made) or f"{_LETTERS[made]}2half_rn"
        return _converted(name)
    if operator := found["operator"]:
        name = _OPERATORS.get(operator.lower(), "")
    else:
        length = int(found["length"])
        name, kinds = found["called"][:length].removeprefix("__"), found["called"][length:]
        if "half" not in name + kinds:
            return None
    if name in _BITS:
        return "  %a = load i16, ptr %pa\n  " + _BITS[name] + "\n" + _result("i16", "%r")
    for what in (_computed, _compared, _converted, _in_memory):
        if body := what(name):
            return body
    return None


_DECLARED = (
    *((f"llvm.{name}.f32", "float", "float") for name in ("sqrt", *_TOWARDS.values())),
    *((f"llvm.{op}.i128", "i128", "i128, i128") for op in ("smin", "smax")),
    *((f"llvm.fpto{sign}i.sat.i{bits}.f32", f"i{bits}", "float") for bits, sign in _KINDS.values()),
    *(
        (f"__nv_{name}f", "float", "float")
        for name in ("log", "log2", "log10", "exp", "exp2", "exp10", "cos", "sin", "tanh")
    ),
)


# Inline PTX that numba-cuda writes for conversions, what stands in for it, and what that does.
_CASTS = {
    "cvt.f64.f16 $0, $1;": ("nv.f64.f16", _converted("half2double")),
    "cvt.rn.f16.f64 $0, $1;": ("nv.f16.f64", _converted("double2half")),
    **{
        f"cvt.{ptx} $0, $1;": (f"nv.cvt.{ptx}", body)
        for kind, (bits, sign) in _KINDS.items()
        for ptx, body in (
            (f"rni.{sign}{bits}.f16", _to_whole(kind, "n")),
            (f"rn.f16.{sign}{bits}", _from_whole(kind, "n")),
        )
    },
}
PTX = {ptx: name for ptx, (name, _) in _CASTS.items()}
_BY_VALUE = {name: body for name, body in _CASTS.values() if body}


def _function(result: str, name: str, kinds: str) -> str:
    """A function that is declared and known, in IR; "" if it is not known."""
    if body := _BY_VALUE.get(name):
        return (
            f"\ndefine {result} @{name}({kinds} %v) alwaysinline {{\n  %r0 = alloca {result}\n"
            f"  %pa = alloca {kinds}\n  store {kinds} %v, ptr %pa\n{body}"
            f"  %out = load {result}, ptr %r0\n  ret {result} %out\n}}\n"
        )
    if (body := _body(name)) is None:
        return ""
    given = ", ".join(f"ptr %{n}" for n in ("r0", "pa", "pb", "pc")[: kinds.count("ptr")])
    return f"\ndefine i32 @{name}({given}) alwaysinline {{\n{body}  ret i32 0\n}}\n"


def definitions(text: str) -> str:
    """IR of those functions on halves that a kernel's IR declares."""
    declared = set(re.findall(r'^declare (\w+) @"?([\w.]+)"?\(([^)]*)\)', text, re.M))
    written = "".join(_function(*each) for each in sorted(declared))
    if not written:
        return ""
    used = [d for d in _DECLARED if f"@{d[0]}(" in written + _ROUNDING]
    return "".join(f"declare {r} @{n}({a})\n" for n, r, a in used) + _ROUNDING + written
