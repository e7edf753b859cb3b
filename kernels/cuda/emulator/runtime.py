"""What a kernel calls on a GPU and finds nowhere else, for one thread at a time, in LLVM IR.

A kernel asks "which thread am I", waits at barriers, trades values with the other lanes of its
warp. Here these are functions over one record, `STATE`, which NumPy owns and the scheduler shares.
"""

import itertools
import re

import numpy as np

MAX_THREADS = 1024  # of a block, as on every GPU since 2010
MAX_SHARED_ARRAYS = 64
LOCAL = 32 * 1024  # bytes of local arrays of one thread, at most
STACK = 2 * LOCAL  # bytes of its own stack; memory that is never touched costs nothing
MAX_REGIONS = 128  # arrays that one launch may touch
# What a thread of a block is doing. WARP: waits for lanes; TURN: goes round in a loop; GRID: waits
# for all threads of the launch
READY, BARRIER, WARP, DONE, TURN, GRID = range(6)
# What lanes of a warp ask each other: 0 to 3 are the modes of a shuffle, VOTE to VOTE + 3 of a vote
VOTE, MATCH_ANY, MATCH_ALL, SYNC, MMA = 4, 8, 9, 10, 11

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
        ("does", "i8"),  # and what it does: a place in bounds.ACCESSES
        ("wild", "i8"),  # the same of an access outside all arrays; its bytes
        ("wild_by", "i8"),
        ("wild_size", "i8"),
        ("wild_does", "i8"),
        ("printed", "i8"),  # bytes of what was printed
        ("raised", "i8"),  # the code of the first exception, its thread
        ("raised_by", "i8"),
        ("regions", "i8", (MAX_REGIONS, 2)),  # memory a kernel may touch: first byte, one behind
        ("nowhere", "i8", 16),  # what a wild access touches instead
        ("threads", "i8"),  # how many a block has, and the order they run in: number, x, y, z
        ("order", "i4", (MAX_THREADS, 4)),
        ("args", "i8", 512),  # of the kernel, flattened as in numba-cuda's ABI
        # per thread: what it is doing, and what it asks of its block or warp:
        # mask of a warp, number of a barrier, or whether nothing leaves its loop; operation, value,
        # lane, clamp
        ("ask", "i8", (MAX_THREADS, 6)),
        ("answer", "i8", (MAX_THREADS, 2)),  # a value, and a yes or no
        ("fragment", "i4", (MAX_THREADS, 10)),  # of the matrices of an mma: a, b, c
        ("product", "f4", (MAX_THREADS, 4)),
        ("tops", "i8", MAX_THREADS + 1),  # stack pointers; the last one is the scheduler's
        ("stacks", "i8"),  # where the stacks are, what begins on one, how many are ready for it
        ("entry", "i8"),
        ("laid", "i8"),
        ("free", "i8", MAX_THREADS),  # pointers of stacks that nobody uses, and their number
        ("frees", "i8"),
        ("next", "i8"),  # of the order: who has not begun
        ("queue", "i4", MAX_THREADS),  # threads that have, and that wait
        ("queued", "i8"),
        # how far a launch has come: its blocks, whether one has begun, its threads; threads that
        # came to their end; when, by the processor's clock, Python has its turn
        ("position", "i8"),
        ("inside", "i8"),
        ("place", "i8"),
        ("ended", "i8"),
        ("until", "i8"),
        # rounds of loops until somebody else has a turn; rounds since all was looked at; what was
        # seen of each thread, and of all; a thread that will never leave its loop, plus 1; whether
        # the sanitizer has seen an access outside all arrays
        ("turns", "i8"),
        ("rounds", "i8"),
        ("mark", "i8", (MAX_THREADS + 1, 3)),
        ("digest", "i8"),
        ("lost", "i8"),
        ("astray", "i8"),
        ("guards", "i8", MAX_SHARED_ARRAYS + 2),  # where the gaps between shared arrays are
        # what the sanitizer needs to know: when, in a count that goes on at each barrier and block
        ("watched", "i8"),
        ("block", "i8"),  # its number, and when it began
        ("began", "i8"),
        ("now", "i8"),
        ("barriers", "i8"),
        # when, in a count of a thread's own that goes on at each syncwarp; what a thread knows of
        # that count of the other lanes; where it waits
        ("clock", "i8", MAX_THREADS),
        ("met", "i8", (MAX_THREADS, 32)),
        ("at", "i8", MAX_THREADS),
        # a lane that was asked by a thread's last shuffle and takes no part in it, plus 1; the
        # first of these whose answer was used, by a thread of a block, and where that shuffle is
        ("unanswered", "i8", MAX_THREADS),
        ("silent", "i8"),
        ("silent_by", "i8"),
        ("silent_in", "i8"),
        ("silent_at", "i8"),
    ],
    align=True,
)


def place(name: str) -> str:
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
        f"getelementptr (i32, ptr {place(name)}, i64 {i})",
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
declare ptr @llvm.frameaddress.p0(i32)
@nv_state = external global [{STATE.itemsize} x i8], align 16
@nv_shared = external addrspace(3) global [0 x i8], align 16

define void @nv_switch(ptr %save, i64 %to) naked noinline {{
  call void asm sideeffect "{_SWITCH}", ""()
  unreachable
}}

define void @nv_resume() noinline {{                 ; the scheduler calls this
  %t = load i32, ptr {place("thread")}
  %mine = getelementptr i64, ptr {place("tops")}, i64 {MAX_THREADS}
  %theirs = getelementptr i64, ptr {place("tops")}, i32 %t
  %to = load i64, ptr %theirs
  call void @nv_switch(ptr %mine, i64 %to)
  ret void
}}

define void @nv_wait(i64 %state) noinline {{         ; a thread calls this
  %t = load i32, ptr {place("thread")}
  %ask = getelementptr [6 x i64], ptr {place("ask")}, i32 %t
  store i64 %state, ptr %ask
  %mine = getelementptr i64, ptr {place("tops")}, i32 %t
  %to = load i64, ptr getelementptr (i64, ptr {place("tops")}, i64 {MAX_THREADS})
  call void @nv_switch(ptr %mine, i64 %to)
  ret void
}}

define void @nv_ended() alwaysinline {{
  %n = load i64, ptr {place("ended")}
  %more = add i64 %n, 1
  store i64 %more, ptr {place("ended")}
  ret void
}}

define void @nv_fiber() {{                           ; where each fiber starts
  br label %again
again:                                               ; the next block uses the same fibers
  call void @nv_thread()
  call void @nv_ended()
  call void @nv_wait(i64 {DONE})
  br label %again
}}

define void @nv_carrier() {{                         ; where a fiber for thread after thread starts
  br label %again
again:
  call void @nv_thread()
  call void @nv_ended()
  %t = load i32, ptr {place("thread")}
  %ask = getelementptr [6 x i64], ptr {place("ask")}, i32 %t
  store i64 {DONE}, ptr %ask
  %i = load i64, ptr {place("next")}
  %n = load i64, ptr {place("threads")}
  %more = icmp ult i64 %i, %n
  br i1 %more, label %take, label %rest
take:
  %next = add i64 %i, 1
  store i64 %next, ptr {place("next")}
  %place = getelementptr [4 x i32], ptr {place("order")}, i64 %i
  %who = load <4 x i32>, ptr %place, align 4
  store <4 x i32> %who, ptr {place("thread")}, align 4
  br label %again
rest:
  call void @nv_wait(i64 {DONE})
  br label %again
}}

define void @nv_turn(i64 %site, i64 %hopeless) alwaysinline {{  ; after a round of a loop
  %n = load i64, ptr {place("turns")}
  %left = sub i64 %n, 1
  store i64 %left, ptr {place("turns")}
  %over = icmp sle i64 %left, 0
  br i1 %over, label %wait, label %end
wait:
  call void @nv_yield(i64 %site, i64 %hopeless)
  br label %end
end:
  ret void
}}

define void @nv_yield(i64 %site, i64 %hopeless) noinline {{
  %t = load i32, ptr {place("thread")}
  %at = getelementptr i64, ptr {place("at")}, i32 %t
  store i64 %site, ptr %at
  %mask = getelementptr [6 x i64], ptr {place("ask")}, i32 %t, i64 1
  store i64 %hopeless, ptr %mask
  call void @nv_wait(i64 {TURN})
  ret void
}}

define void @nv_block() {{                           ; all threads of a block without barriers
  %n = load i64, ptr {place("threads")}
  br label %loop
loop:
  %i = phi i64 [0, %0], [%next, %loop]
  %place = getelementptr [4 x i32], ptr {place("order")}, i64 %i
  %who = load <4 x i32>, ptr %place, align 4
  store <4 x i32> %who, ptr {place("thread")}, align 4
  call void @nv_thread()
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}}

define void @nv_aligned(ptr %p, i64 %does) alwaysinline {{  ; before a 128-bit access
  %address = ptrtoint ptr %p to i64
  %off = and i64 %address, 15
  %wrong = icmp ne i64 %off, 0
  br i1 %wrong, label %report, label %end
report:
  %t = load i32, ptr {place("thread")}
  %by = zext i32 %t to i64
  store i64 %address, ptr {place("misaligned")}
  store i64 %by, ptr {place("by")}
  store i64 %does, ptr {place("does")}
  br label %end
end:
  ret void
}}
"""

_CHECK = f"""
define ptr @nv_check(ptr %p, i64 %size, i64 %does) {{  ; p if all its bytes lie in one region
  %first = ptrtoint ptr %p to i64
  %last = add i64 %first, %size
  br label %look
look:
  %i = phi i64 [0, %0], [%next, %go]
  %region = getelementptr [2 x i64], ptr {place("regions")}, i64 %i
  %start = load i64, ptr %region
  %none = icmp eq i64 %start, 0
  br i1 %none, label %other, label %go
go:
  %q = getelementptr i64, ptr %region, i64 1
  %stop = load i64, ptr %q
  %after = icmp uge i64 %first, %start
  %before = icmp ule i64 %last, %stop
  %inside = and i1 %after, %before
  %next = add i64 %i, 1
  br i1 %inside, label %fine, label %look
fine:
  ret ptr %p
other:                                               ; a local array, on the thread's stack?
  %frame = call ptr @llvm.frameaddress.p0(i32 0)
  %here = ptrtoint ptr %frame to i64
  %off = sub i64 %first, %here
  %far = add i64 %off, {LOCAL}
  %near = icmp ult i64 %far, {2 * LOCAL}
  br i1 %near, label %fine, label %wild
wild:
  %known = load i64, ptr {place("wild")}
  %new = icmp eq i64 %known, 0
  br i1 %new, label %report, label %end
report:
  %t = load i32, ptr {place("thread")}
  %by = zext i32 %t to i64
  store i64 %first, ptr {place("wild")}
  store i64 %by, ptr {place("wild_by")}
  store i64 %size, ptr {place("wild_size")}
  store i64 %does, ptr {place("wild_does")}
  br label %end
end:
  ret ptr {place("nowhere")}
}}
"""

# A thread writes down its question, waits until the scheduler has answered it, reads the answer.
_COLLECTIVE = f"""
define ptr @nv_ask(i64 %state, i32 %mask, i64 %op, i64 %value, i32 %lane, i32 %clamp) noinline {{
  %t = load i32, ptr {place("thread")}
  %ask = getelementptr [6 x i64], ptr {place("ask")}, i32 %t
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
  %answer = getelementptr [2 x i64], ptr {place("answer")}, i32 %t
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

# Inlined, so that `numbered` finds each place where a kernel waits.
_BARRIERS = f"""
define void @"nv.barrier0"() alwaysinline {{
  %p = call ptr @nv_ask(i64 {BARRIER}, i32 0, i64 0, i64 0, i32 0, i32 0)
  ret void
}}

define i64 @"nv.grid.handle"(i32 %what) alwaysinline {{
  ret i64 1
}}

define i32 @"nv.grid.sync"(i64 %handle, i32 %flags) alwaysinline {{
  %p = call ptr @nv_ask(i64 {GRID}, i32 0, i64 0, i64 0, i32 0, i32 0)
  ret i32 0
}}
""" + "".join(
    f"""
define i32 @"nv.barrier0.{name}"(i32 %value) alwaysinline {{
  %yes = icmp ne i32 %value, 0
  %value64 = zext i1 %yes to i64
  %p = call ptr @nv_ask(i64 {BARRIER}, i32 0, i64 {op}, i64 %value64, i32 0, i32 0)
  %r = load i32, ptr %p
  ret i32 %r
}}
"""
    for op, name in enumerate(("popc", "and", "or"), 1)
)


def numbered(text: str) -> str:
    """IR in which each barrier has a number: threads that meet must wait at the same one."""
    numbers = itertools.count(1)
    return re.sub(rf"(@nv_ask\(i64 {BARRIER}, i32) 0", lambda m: f"{m[1]} {next(numbers)}", text)


RUNTIME = "".join((_THREADS, _CHECK, _REGISTERS, _COLLECTIVE, _BARRIERS))
