"""What one instruction of a GPU does here, in LLVM IR: numbers, bits, atomics, tensor cores."""

import re

from . import halves
from .runtime import MMA, WARP, place

# The functions of intrinsics.py that have PTX inside. Half of an mma is in the scheduler.
_TENSOR_CORES = f"""
define i32 @minidl_round_tf32(float %x) {{
  %bits = bitcast float %x to i32
  %up = add i32 %bits, 4096
  %cut = and i32 %up, -8192
  %nan = fcmp uno float %x, %x
  %r = select i1 %nan, i32 2147483647, i32 %cut
  ret i32 %r
}}

define {{float, float, float, float}} @minidl_mma_m16n8k8_tf32({
    ", ".join(f"{'float' if i >= 6 else 'i32'} %x{i}" for i in range(10))
}) {{
  %t = load i32, ptr {place("thread")}
  %mine = getelementptr [10 x i32], ptr {place("fragment")}, i32 %t
{
    "".join(
        f'''  %p{i} = getelementptr i32, ptr %mine, i32 {i}
  store {"float" if i >= 6 else "i32"} %x{i}, ptr %p{i}
'''
        for i in range(10)
    )
}  %p = call ptr @nv_ask(i64 {WARP}, i32 -1, i64 {MMA}, i64 0, i32 0, i32 0)
  %d = getelementptr [4 x float], ptr {place("product")}, i32 %t
  %r = load {{float, float, float, float}}, ptr %d
  ret {{float, float, float, float}} %r
}}
"""


# cuda.atomic.max leaves a NaN that is there, nanmax replaces it; both ignore a NaN that is given.
_EXTREMES = "".join(
    f"""
define {kind} @___numba_atomic_{kind}_{nan}{op}(ptr %p, {kind} %v) {{
  %given = fcmp ord {kind} %v, %v
  %first = load atomic {bits}, ptr %p monotonic, align {size}
  br label %look
look:
  %old = phi {bits} [%first, %0], [%now, %swap]
  %x = bitcast {bits} %old to {kind}
  %less = fcmp {"u" if nan else "o"}{"lt" if op == "max" else "gt"} {kind} %x, %v
  %go = and i1 %less, %given
  br i1 %go, label %swap, label %end
swap:
  %new = bitcast {kind} %v to {bits}
  %pair = cmpxchg ptr %p, {bits} %old, {bits} %new monotonic monotonic
  %now = extractvalue {{{bits}, i1}} %pair, 0
  %done = extractvalue {{{bits}, i1}} %pair, 1
  br i1 %done, label %end, label %look
end:
  ret {kind} %x
}}
"""
    for kind, bits, size in (("float", "i32", 4), ("double", "i64", 8))
    for nan in ("", "nan")
    for op in ("max", "min")
)


def _one_line(result: str, name: str, params: str, line: str) -> str:
    kinds = [f"{kind} %{letter}" for kind, letter in zip(params.split(), "abc")]
    body = line if line.endswith("void") else f"{line}\n  ret {result} %r"
    return f'\ndefine {result} @"{name}"({", ".join(kinds)}) alwaysinline {{\n  {body}\n}}\n'


_SMALL = (
    # the one set of lanes that is surely together: a lane alone
    ("i32", "nv.activemask", "", "%l = call i32 @nv.laneid()\n  %r = shl i32 1, %l"),
    (
        "i32",
        "nv.lanemask_lt",
        "",
        "%l = call i32 @nv.laneid()\n  %m = shl i32 1, %l\n  %r = sub i32 %m, 1",
    ),
    ("i32", "nv.laneid", "", f"%t = load i32, ptr {place('thread')}\n  %r = and i32 %t, 31"),
    ("i32", "nv.read.ptx.sreg.laneid", "", "%r = call i32 @nv.laneid()"),
    ("i32", "nv.read.ptx.sreg.warpsize", "", "%r = add i32 32, 0"),
    ("i32", "nv.dynamic_smem_size", "", f"%r = load i32, ptr {place('dynamic')}"),
    # this CPU keeps the order of stores, and LLVM is told to
    *(
        (
            "void",
            f"nv.membar.{scope}",
            "",
            'fence syncscope("singlethread") seq_cst\n  ret void',
        )
        for scope in ("gl", "cta", "sys")
    ),
    ("void", "nv.nanosleep", "i32", "ret void"),
    ("float", "nv.f32.f16", "i16", "%h = bitcast i16 %a to half\n  %r = fpext half %h to float"),
    ("i16", "nv.f16.f32", "float", "%h = fptrunc float %a to half\n  %r = bitcast half %h to i16"),
    ("i32", "__nv_brev", "i32", "%r = call i32 @llvm.bitreverse.i32(i32 %a)"),
    ("i64", "__nv_brevll", "i64", "%r = call i64 @llvm.bitreverse.i64(i64 %a)"),
    *(
        (
            "i32",
            name,
            kind,
            f"%z = call {kind} @llvm.cttz.{kind}({kind} %a, i1 false)\n"
            f"  %n = icmp eq {kind} %a, 0\n  %s = add {kind} %z, 1\n"
            f"  %w = select i1 %n, {kind} 0, {kind} %s\n  %r = {cut}",
        )
        for name, kind, cut in (
            ("__nv_ffs", "i32", "add i32 %w, 0"),
            ("__nv_ffsll", "i64", "trunc i64 %w to i32"),
        )
    ),
    *(
        (
            kind,
            name,
            kind,
            f"%s = call {kind} @llvm.sqrt.{f}({kind} %a)\n  %r = fdiv {kind} 1.0, %s",
        )
        for kind, name, f in (("float", "__nv_rsqrtf", "f32"), ("double", "__nv_rsqrt", "f64"))
    ),
    *(
        (
            kind,
            name,
            f"{kind} i32",
            f"%n = sitofp i32 %b to {kind}\n  %r = call {kind} @llvm.pow.{f}({kind} %a, {kind} %n)",
        )
        for kind, name, f in (("float", "__nv_powif", "f32"), ("double", "__nv_powi", "f64"))
    ),
    ("float", "__nv_fast_fdividef", "float float", "%r = fdiv float %a, %b"),
    ("float", "__nv_int_as_float", "i32", "%r = bitcast i32 %a to float"),
    ("i32", "__nv_float_as_int", "float", "%r = bitcast float %a to i32"),
    *(
        (
            kind,
            f"nv.atomic.load.{op}.{suffix}",
            f"ptr {kind}",
            f"%r = atomicrmw {llvm} ptr %a, {kind} %b monotonic",
        )
        for kind, op, suffix, llvm in (
            ("float", "add", "f32.p0f32", "fadd"),
            ("double", "add", "f64.p0f64", "fadd"),
            ("i32", "inc", "32.p0i32", "uinc_wrap"),
            ("i32", "dec", "32.p0i32", "udec_wrap"),
        )
    ),
    *(
        (
            kind,
            f"___numba_atomic_{name}_{op}",
            f"ptr {kind}",
            f"%r = atomicrmw {llvm} ptr %a, {kind} %b monotonic",
        )
        for kind, name, op, llvm in (
            ("float", "float", "sub", "fsub"),
            ("double", "double", "sub", "fsub"),
            ("i64", "u64", "inc", "uinc_wrap"),
            ("i64", "u64", "dec", "udec_wrap"),
        )
    ),
    # rounded by themselves, as everything is here: this CPU code fuses nothing
    *(
        (kind, f"nv.{op}.rn.{kind[0]}", f"{kind} {kind}", f"%r = f{op} {kind} %a, %b")
        for kind in ("float", "double")
        for op in ("add", "mul")
    ),
)

_DECLARED = """
declare float @llvm.sqrt.f32(float)
declare double @llvm.sqrt.f64(double)
declare float @llvm.pow.f32(float, float)
declare double @llvm.pow.f64(double, double)
declare i32 @llvm.bitreverse.i32(i32)
declare i64 @llvm.bitreverse.i64(i64)
declare i32 @llvm.cttz.i32(i32, i1)
declare i64 @llvm.cttz.i64(i64, i1)
"""

INSTRUCTIONS = "".join(
    (_DECLARED, _TENSOR_CORES, _EXTREMES, *(_one_line(*small) for small in _SMALL))
)

_HINTED = re.compile(
    r'call (\w+) asm (?:sideeffect )?"(ld|st)\.global\.\w\w\.b\d+ [^"]*", "[^"]*"\((.*)\)'
)


def without_hints(text: str) -> str:
    """IR in which loads and stores that tell how a cache is to be used are plain ones."""

    def plain(m: re.Match[str]) -> str:
        kind, does, given = m.groups()
        if does == "ld":
            return f"load {kind}, {given}"
        where, value = given.split(", ", 1)
        return f"store {value}, {where}"

    return _HINTED.sub(plain, text)


# Inline PTX that numba-cuda writes, and what stands in for it.
PTX = {
    "activemask.b32 $0;": "nv.activemask",
    "mov.u32 $0, %lanemask_lt;": "nv.lanemask_lt",
    "mov.u32 $0, %dynamic_smem_size;": "nv.dynamic_smem_size",
    "nanosleep.u32 $0;": "nv.nanosleep",
    "cvt.f32.f16 $0, $1;": "nv.f32.f16",
    "cvt.rn.f16.f32 $0, $1;": "nv.f16.f32",
    **halves.PTX,
}
