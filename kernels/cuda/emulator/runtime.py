"""What a kernel calls on a GPU and finds nowhere else, for one thread at a time, in LLVM IR.

A kernel asks "which thread am I", waits at barriers, trades values with the other lanes of its
warp. Here these are functions over one record, `STATE`, which NumPy owns and the scheduler shares.
"""

import numpy as np

MAX_THREADS = 1024  # of a block, as on every GPU since 2010
MAX_SHARED_ARRAYS = 64
READY, BARRIER, WARP, DONE = range(4)  # what a thread of a block is doing; WARP: waits for lanes
SHUFFLE, VOTE, MATCH_ANY, MATCH_ALL, SYNC, MMA = 0, 4, 8, 9, 10, 11  # SHUFFLE + mode, VOTE + mode

STATE = np.dtype(
    [
        ("thread", "i4"),  # the thread that runs: its number in the block, and threadIdx
        ("tid", "i4", 3),
        ("ntid", "i4", 3),  # blockDim, blockIdx, gridDim; x y z each
        ("ctaid", "i4", 3),
        ("nctaid", "i4", 3),
        ("dynamic", "i4"),  # bytes of dynamic shared memory
        ("misaligned", "i8"),  # the first 128-bit access at a wrong address; 0 if there was none
        ("by", "i8"),  # the thread that made it
        ("threads", "i8"),  # how many a block has, and the order they run in: number, x, y, z
        ("order", "i4", (MAX_THREADS, 4)),
        ("args", "i8", 512),  # of the kernel, flattened as in numba-cuda's ABI
        # per thread: what it is doing, and what it asks of its block or warp:
        # mask (of a warp), operation, value, lane, clamp
        ("ask", "i8", (MAX_THREADS, 6)),
        ("answer", "i8", (MAX_THREADS, 2)),  # a value, and a yes or no
        ("fragment", "i4", (MAX_THREADS, 10)),  # of the matrices of an mma: a, b, c
        ("product", "f4", (MAX_THREADS, 4)),
        ("tops", "i8", MAX_THREADS + 1),  # stack pointers; the last one is the scheduler's
        ("guards", "i8", MAX_SHARED_ARRAYS + 2),  # where the gaps between shared arrays are
    ],
    align=True,
)


def _place(name: str) -> str:
    """Address of a field of the record."""
    return f"getelementptr (i8, ptr @nv_state, i64 {STATE.fields[name][1]})"  # type: ignore[index]


def _register(name: str, place: str, low: int = 0, high: int = 2**31 - 1) -> str:
    # the range tells LLVM that indices are not negative
    return f"""
define i32 @"nv.read.ptx.sreg.{name}"() alwaysinline {{
  %v = load i32, ptr {place}, !range !{{i32 {low}, i32 {high}}}
  ret i32 %v
}}"""


_REGISTERS = "".join(
    _register(
        f"{name}.{axis}",
        f"getelementptr (i32, ptr {_place(name)}, i64 {i})",
        int(name.startswith("n")),
        MAX_THREADS + 1 if name.endswith("tid") else 2**31 - 1,
    )
    for name in ("tid", "ntid", "ctaid", "nctaid")
    for i, axis in enumerate("xyz")
)

_SAVED = ("rbp", "rbx", "r12", "r13", "r14", "r15")  # what a called function must preserve
FRAME = len(_SAVED) + 1  # words that a thread leaves on its stack; the last is where it goes on
_SWITCH = r"\0A".join(
    [f"pushq %{r}" for r in _SAVED]
    + ["movq %rsp, (%rdi)", "movq %rsi, %rsp"]  # here one stack is left for the other
    + [f"popq %{r}" for r in reversed(_SAVED)]
    + ["retq"]
)

_THREADS = f"""
declare float @llvm.sqrt.f32(float)
declare double @llvm.sqrt.f64(double)
declare i32 @llvm.bitreverse.i32(i32)
declare i64 @llvm.bitreverse.i64(i64)
declare i32 @llvm.cttz.i32(i32, i1)
declare i64 @llvm.cttz.i64(i64, i1)
@nv_state = external global [{STATE.itemsize} x i8], align 16
@nv_shared = external addrspace(3) global [0 x i8], align 16

define void @nv_switch(ptr %save, i64 %to) naked noinline {{
  call void asm sideeffect "{_SWITCH}", ""()
  unreachable
}}

define void @nv_resume() noinline {{                 ; the scheduler calls this
  %t = load i32, ptr {_place("thread")}
  %mine = getelementptr i64, ptr {_place("tops")}, i64 {MAX_THREADS}
  %theirs = getelementptr i64, ptr {_place("tops")}, i32 %t
  %to = load i64, ptr %theirs
  call void @nv_switch(ptr %mine, i64 %to)
  ret void
}}

define void @nv_wait(i64 %state) noinline {{         ; a thread calls this
  %t = load i32, ptr {_place("thread")}
  %ask = getelementptr [6 x i64], ptr {_place("ask")}, i32 %t
  store i64 %state, ptr %ask
  %mine = getelementptr i64, ptr {_place("tops")}, i32 %t
  %to = load i64, ptr getelementptr (i64, ptr {_place("tops")}, i64 {MAX_THREADS})
  call void @nv_switch(ptr %mine, i64 %to)
  ret void
}}

define void @nv_fiber() {{                           ; where each fiber starts
  br label %again
again:                                               ; the next block uses the same fibers
  call void @nv_thread()
  call void @nv_wait(i64 {DONE})
  br label %again
}}

define void @nv_block() {{                           ; all threads of a block without barriers
  %n = load i64, ptr {_place("threads")}
  br label %loop
loop:
  %i = phi i64 [0, %0], [%next, %loop]
  %place = getelementptr [4 x i32], ptr {_place("order")}, i64 %i
  %who = load <4 x i32>, ptr %place, align 4
  store <4 x i32> %who, ptr {_place("thread")}, align 4
  call void @nv_thread()
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}}

define void @nv_aligned(ptr %p) alwaysinline {{      ; called before each 128-bit load or store
  %address = ptrtoint ptr %p to i64
  %off = and i64 %address, 15
  %wrong = icmp ne i64 %off, 0
  br i1 %wrong, label %report, label %end
report:
  %t = load i32, ptr {_place("thread")}
  %by = zext i32 %t to i64
  store i64 %address, ptr {_place("misaligned")}
  store i64 %by, ptr {_place("by")}
  br label %end
end:
  ret void
}}
"""

# A thread writes down its question, waits until the scheduler has answered it, reads the answer.
_COLLECTIVE = f"""
define ptr @nv_ask(i64 %state, i32 %mask, i64 %op, i64 %value, i32 %lane, i32 %clamp) noinline {{
  %t = load i32, ptr {_place("thread")}
  %ask = getelementptr [6 x i64], ptr {_place("ask")}, i32 %t
  %mask64 = zext i32 %mask to i64
  %lane64 = zext i32 %lane to i64
  %clamp64 = zext i32 %clamp to i64
{
    "".join(
        f'''  %p{i} = getelementptr i64, ptr %ask, i32 {i}
  store i64 {word}, ptr %p{i}
'''
        for i, word in enumerate(("%mask64", "%op", "%value", "%lane64", "%clamp64"), 1)
    )
}  call void @nv_wait(i64 %state)
  %answer = getelementptr [2 x i64], ptr {_place("answer")}, i32 %t
  ret ptr %answer
}}

define {{i32, i1}} @nv_warp(i32 %mask, i64 %op, i64 %value, i32 %lane, i32 %clamp) {{
  %p = call ptr @nv_ask(i64 {WARP}, i32 %mask, i64 %op, i64 %value, i32 %lane, i32 %clamp)
  %v = load i32, ptr %p
  %q = getelementptr i64, ptr %p, i32 1
  %yes = load i1, ptr %q
  %r = insertvalue {{i32, i1}} undef, i32 %v, 0
  %s = insertvalue {{i32, i1}} %r, i1 %yes, 1
  ret {{i32, i1}} %s
}}

define {{i32, i1}} @"nv.shfl.sync.i32"(i32 %mask, i32 %mode, i32 %value, i32 %lane, i32 %clamp) {{
  %op = zext i32 %mode to i64
  %value64 = zext i32 %value to i64
  %r = call {{i32, i1}} @nv_warp(i32 %mask, i64 %op, i64 %value64, i32 %lane, i32 %clamp)
  ret {{i32, i1}} %r
}}

define {{i32, i1}} @"nv.vote.sync"(i32 %mask, i32 %mode, i1 %value) {{
  %mode64 = zext i32 %mode to i64
  %op = add i64 %mode64, {VOTE}
  %value64 = zext i1 %value to i64
  %r = call {{i32, i1}} @nv_warp(i32 %mask, i64 %op, i64 %value64, i32 0, i32 0)
  ret {{i32, i1}} %r
}}

define void @"nv.bar.warp.sync"(i32 %mask) {{
  %p = call ptr @nv_ask(i64 {WARP}, i32 %mask, i64 {SYNC}, i64 0, i32 0, i32 0)
  ret void
}}
""" + "".join(
    f"""
define i32 @"nv.match.any.sync.i{bits}"(i32 %mask, i{bits} %value) {{
  %value64 = zext i{bits} %value to i64
  %r = call {{i32, i1}} @nv_warp(i32 %mask, i64 {MATCH_ANY}, i64 %value64, i32 0, i32 0)
  %v = extractvalue {{i32, i1}} %r, 0
  ret i32 %v
}}

define {{i32, i1}} @"nv.match.all.sync.i{bits}"(i32 %mask, i{bits} %value) {{
  %value64 = zext i{bits} %value to i64
  %r = call {{i32, i1}} @nv_warp(i32 %mask, i64 {MATCH_ALL}, i64 %value64, i32 0, i32 0)
  ret {{i32, i1}} %r
}}
""".replace("zext i64 %value to i64", "add i64 %value, 0")
    for bits in (32, 64)
)

_BARRIERS = f"""
define void @"nv.barrier0"() {{
  %p = call ptr @nv_ask(i64 {BARRIER}, i32 0, i64 0, i64 0, i32 0, i32 0)
  ret void
}}
""" + "".join(
    f"""
define i32 @"nv.barrier0.{name}"(i32 %value) {{
  %yes = icmp ne i32 %value, 0
  %value64 = zext i1 %yes to i64
  %p = call ptr @nv_ask(i64 {BARRIER}, i32 0, i64 {op}, i64 %value64, i32 0, i32 0)
  %r = load i32, ptr %p
  ret i32 %r
}}
"""
    for op, name in enumerate(("popc", "and", "or"), 1)
)

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
  %t = load i32, ptr {_place("thread")}
  %mine = getelementptr [10 x i32], ptr {_place("fragment")}, i32 %t
{
    "".join(
        f'''  %p{i} = getelementptr i32, ptr %mine, i32 {i}
  store {"float" if i >= 6 else "i32"} %x{i}, ptr %p{i}
'''
        for i in range(10)
    )
}  %p = call ptr @nv_ask(i64 {WARP}, i32 -1, i64 {MMA}, i64 0, i32 0, i32 0)
  %d = getelementptr [4 x float], ptr {_place("product")}, i32 %t
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
    ("i32", "nv.laneid", "", f"%t = load i32, ptr {_place('thread')}\n  %r = and i32 %t, 31"),
    ("i32", "nv.read.ptx.sreg.laneid", "", "%r = call i32 @nv.laneid()"),
    ("i32", "nv.read.ptx.sreg.warpsize", "", "%r = add i32 32, 0"),
    ("i32", "nv.dynamic_smem_size", "", f"%r = load i32, ptr {_place('dynamic')}"),
    # one thread runs at a time: what it wrote, the others see
    *(("void", f"nv.membar.{scope}", "", "ret void") for scope in ("gl", "cta", "sys")),
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

RUNTIME = "".join(
    (
        _THREADS,
        _REGISTERS,
        _COLLECTIVE,
        _BARRIERS,
        _TENSOR_CORES,
        _EXTREMES,
        *(_one_line(*small) for small in _SMALL),
    )
)

# Inline PTX that numba-cuda writes, and what stands in for it.
PTX = {
    "activemask.b32 $0;": "nv.activemask",
    "mov.u32 $0, %lanemask_lt;": "nv.lanemask_lt",
    "mov.u32 $0, %dynamic_smem_size;": "nv.dynamic_smem_size",
    "nanosleep.u32 $0;": "nv.nanosleep",
    "cvt.f32.f16 $0, $1;": "nv.f32.f16",
    "cvt.rn.f16.f32 $0, $1;": "nv.f16.f32",
}
