"""Runs compiled CUDA kernels on the CPU, without a GPU.

How it works, from top to bottom:

1. numba-cuda types a kernel and lowers it to LLVM IR, exactly as it does for a GPU (`compile_ir`).
2. `_Compiled` retargets that text to this CPU. What is left of the GPU are calls to intrinsics:
   "which thread am I", "wait at the barrier", "give me the value of another lane". `RUNTIME`
   defines them over a few arrays that NumPy owns, and llvmlite compiles the whole to machine code.
3. A kernel without barriers or shuffles is a plain function: `_run` calls it once per thread.
4. A kernel with barriers runs every thread of a block as a *fiber*: a stack of its own, and
   fifteen instructions (`nv_switch`) that leave one stack and continue on another. A thread
   runs until it must wait; it writes down what it waits for and switches back to the scheduler.
5. The scheduler is `_run`, below, in Python (compiled by Numba). It resumes every thread that is
   ready, then looks at who waits: all at the barrier, the block goes on; all lanes of a warp at
   the same shuffle, their values are exchanged; neither, the barrier is divergent, an error.

So one thread runs at a time, in an order we choose: `with schedule("reverse"): ...`. A correct
kernel gives the same bits in every order; a kernel that forgot a barrier does not. Shared memory
is filled with NaN before each block, as a GPU promises nothing about it either.

What this cannot see: the code after NVVM's optimiser and ptxas, the GPU's memory model, timing.
"""

import contextlib
import ctypes
import functools
import platform
import re
import threading
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as ll
import numpy as np
from numba import njit, types

from ._numba import Kernel, compile_ir
from .arguments import signature

if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    raise RuntimeError(
        "the CUDA emulator runs on Linux x86-64 only (its thread switch is written in that "
        f"machine's instructions), and this is {platform.system()} {platform.machine()}"
    )

MAX_THREADS = 1024  # of a block, as on every GPU since 2010
MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_SHARED = 48 * 1024  # bytes a kernel may have without asking the driver for more
STACK = 64 * 1024  # bytes per fiber; memory that is never touched costs nothing
CC = (9, 0)  # the compute capability numba-cuda compiles for

# ---- the state that compiled code and scheduler share: NumPy arrays, seen from the IR by name

READY, BARRIER, WARP, DONE = range(4)
INDEX = np.zeros(12, np.int32)  # threadIdx, blockDim, blockIdx, gridDim: x y z each
ARGS = np.zeros(512, np.int64)  # the kernel's arguments, flattened as in numba-cuda's ABI
CURRENT = np.zeros(1, np.int32)  # the thread that runs
# per thread: state, then what it asks of its warp: mask, mode, value, lane, clamp
ASK = np.zeros((MAX_THREADS, 6), np.int32)
ANSWER = np.zeros((MAX_THREADS, 2), np.int32)  # value, and whether the lane was in range
STACKS = np.zeros((MAX_THREADS, STACK // 8), np.int64)
TOPS = np.zeros(MAX_THREADS + 1, np.int64)  # stack pointers; the last one is the scheduler's

_SHARED_STATE: dict[str, np.ndarray] = {
    "index": INDEX, "args": ARGS, "current": CURRENT, "ask": ASK, "answer": ANSWER, "tops": TOPS
}  # fmt: skip

_STATE = "\n".join(
    f"@nv_{name} = external global [{a.nbytes} x i8], align 8" for name, a in _SHARED_STATE.items()
)
_REGISTERS = "".join(
    f"""
define i32 @"nv.read.ptx.sreg.{name}.{axis}"() alwaysinline {{
  %v = load i32, ptr getelementptr (i32, ptr @nv_index, i64 {3 * i + j})
  ret i32 %v
}}"""
    for i, name in enumerate(("tid", "ntid", "ctaid", "nctaid"))
    for j, axis in enumerate("xyz")
)

_SAVED = ("rbp", "rbx", "r12", "r13", "r14", "r15")  # what a called function must preserve
_SWITCH = r"\0A".join(
    [f"pushq %{r}" for r in _SAVED]
    + ["movq %rsp, (%rdi)", "movq %rsi, %rsp"]  # here one stack is left for the other
    + [f"popq %{r}" for r in reversed(_SAVED)]
    + ["retq"]
)
_ASKED = "".join(
    f"  %p{i} = getelementptr i32, ptr %ask, i32 {i}\n  store i32 %{word}, ptr %p{i}\n"
    for i, word in enumerate(("mask", "mode", "value", "lane", "clamp"), 1)
)

_SUMS = "".join(
    f'define {kind} @"nv.add.rn.{letter}"({kind} %a, {kind} %b) alwaysinline {{\n'
    f"  %r = fadd {kind} %a, %b\n  ret {kind} %r\n}}\n"
    for kind, letter in (("float", "f"), ("double", "d"))
)

RUNTIME = f"""
{_STATE}
{_REGISTERS}
{_SUMS}

define void @nv_switch(ptr %save, i64 %to) naked noinline {{
  call void asm sideeffect "{_SWITCH}", ""()
  unreachable
}}

define void @nv_resume(i32 %thread) noinline {{      ; the scheduler calls this
  store i32 %thread, ptr @nv_current
  %mine = getelementptr i64, ptr @nv_tops, i64 {MAX_THREADS}
  %theirs = getelementptr i64, ptr @nv_tops, i32 %thread
  %to = load i64, ptr %theirs
  call void @nv_switch(ptr %mine, i64 %to)
  ret void
}}

define void @nv_wait(i32 %state) noinline {{         ; a thread calls this
  %t = load i32, ptr @nv_current
  %ask = getelementptr [6 x i32], ptr @nv_ask, i32 %t
  store i32 %state, ptr %ask
  %mine = getelementptr i64, ptr @nv_tops, i32 %t
  %to = load i64, ptr getelementptr (i64, ptr @nv_tops, i64 {MAX_THREADS})
  call void @nv_switch(ptr %mine, i64 %to)
  ret void
}}

define void @nv_fiber() {{                           ; where each fiber starts
  br label %again
again:                                               ; the next block uses the same fibers
  call void @nv_thread()
  call void @nv_wait(i32 {DONE})
  br label %again
}}

define void @"nv.barrier0"() {{
  call void @nv_wait(i32 {BARRIER})
  ret void
}}

define void @"nv.bar.warp.sync"(i32 %mask) {{
  %r = call {{i32, i1}} @"nv.shfl.sync.i32"(i32 %mask, i32 0, i32 0, i32 0, i32 31)
  ret void
}}

define {{i32, i1}} @"nv.shfl.sync.i32"(i32 %mask, i32 %mode, i32 %value, i32 %lane, i32 %clamp) {{
  %t = load i32, ptr @nv_current
  %ask = getelementptr [6 x i32], ptr @nv_ask, i32 %t
{_ASKED}  call void @nv_wait(i32 {WARP})
  %answer = getelementptr {{i32, i1}}, ptr @nv_answer, i32 %t
  %r = load {{i32, i1}}, ptr %answer
  ret {{i32, i1}} %r
}}
"""

# ---- the scheduler ----


@njit
def _exchange(ask, answer, first, count):
    """Serve one warp: release each group of lanes that all wait under the same mask.

    The lane a value comes from is PTX's own formula (PTX ISA, shfl.sync). Returns how many lanes
    were released.
    """
    released = 0
    for t in range(count):
        mask = ask[first + t, 1]
        complete = ask[first + t, 0] == WARP and mask >> t & 1
        for u in range(count):
            if mask >> u & 1 and (ask[first + u, 0] != WARP or ask[first + u, 1] != mask):
                complete = False
        if not complete:
            continue
        for u in range(count):
            if not mask >> u & 1:
                continue
            _, _, mode, _, lane, clamp = ask[first + u]
            segment, lane, last = clamp >> 8 & 31, lane & 31, clamp & 31
            last = u & segment | last & ~segment
            if mode == 1:
                source, found = u - lane, u - lane >= last
            else:
                source = u + lane if mode == 2 else u ^ lane
                if mode == 0:
                    source = u & segment | lane & ~segment
                found = source <= last
            source = source if found else u
            active = source < count and mask >> source & 1
            # a lane that takes no part has no value to give: all bits set, a NaN
            answer[first + u, 0] = ask[first + source, 3] if active else -1
            answer[first + u, 1] = found
        for u in range(count):
            if mask >> u & 1:
                ask[first + u, 0] = READY
                released += 1
    return released


@njit
def _release(ask, answer, n):
    """Let the waiting threads of a block go on. Returns READY, DONE, or WARP: nobody can."""
    done = barrier = 0
    for t in range(n):
        done += ask[t, 0] == DONE
        barrier += ask[t, 0] == BARRIER
    if done == n:
        return DONE
    if barrier + done == n:  # as on the GPU, the barrier does not wait for threads that returned
        for t in range(n):
            if ask[t, 0] == BARRIER:
                ask[t, 0] = READY
        return READY
    released = 0
    for first in range(0, n, 32):
        released += _exchange(ask, answer, first, min(32, n - first))
    return READY if released else WARP


@njit
def _run(thread, resume, poison, fibers, blocks, threads, index, ask, answer):
    """Run every block of a grid, in the order of `blocks` and `threads`.

    Returns the block that got stuck, or -1.
    """
    bx, by, gx, gy = index[3], index[4], index[9], index[10]
    for block in blocks:
        index[6], index[7], index[8] = block % gx, block // gx % gy, block // (gx * gy)
        poison()
        ask[: len(threads), 0] = READY
        state = READY
        while state == READY:
            for t in threads:
                if ask[t, 0] == READY:
                    index[0], index[1], index[2] = t % bx, t // bx % by, t // (bx * by)
                    if fibers:
                        resume(t)
                    else:
                        thread()
            state = _release(ask, answer, len(threads)) if fibers else DONE
        if state != DONE:
            return block
    return -1


# ---- from a kernel to machine code ----

_LIBM = {"isfinited": "finite", "isinfd": "isinf", "isnand": "isnan"}  # where the names differ
_VOID = ctypes.CFUNCTYPE(None)
_RESUME = ctypes.CFUNCTYPE(None, ctypes.c_int32)


@functools.cache
def _machine() -> ll.TargetMachine:
    ll.initialize_native_target()
    ll.initialize_native_asmprinter()
    ll.initialize_native_asmparser()
    for name, array in _SHARED_STATE.items():
        ll.add_symbol(f"nv_{name}", array.ctypes.data)
    return ll.Target.from_default_triple().create_target_machine(
        cpu=ll.get_host_cpu_name(),
        features=ll.get_host_cpu_features().flatten(),
        opt=2,
        jit=True,
        codemodel="large",
    )


def _retarget(text: str) -> ll.ModuleRef:
    """Parse the IR of a kernel as if it had been made for this CPU."""
    text = re.sub("target triple.*", f'target triple = "{ll.get_default_triple()}"', text)
    text = re.sub("target datalayout.*", f'target datalayout = "{_machine().target_data}"', text)
    text = re.sub("^!nvvm.*", "", text, flags=re.M)  # or LLVM gives it a GPU's calling convention
    text = text.replace('@"llvm.nvvm.', '@"nv.')  # LLVM reserves llvm.*; ours can have a body
    return ll.parse_assembly(text)


def _shared_memory(module: ll.ModuleRef) -> list[tuple[str, int]]:
    """Name and bytes of each array in shared memory."""
    data = _machine().target_data
    found = [v for v in module.global_variables if "_cudapy_smem" in v.name]
    return [(v.name, data.get_abi_size(v.global_value_type)) for v in found]


class _Compiled:
    """One kernel for one set of argument types, as machine code for this CPU."""

    def __init__(self, kernel: Kernel, signature: tuple[types.Type, ...]) -> None:
        module = _retarget(compile_ir(kernel.function, signature, CC))
        names = {f.name for f in module.functions if f.is_declaration}
        self.fibers = any(n.startswith(("nv.barrier", "nv.bar.", "nv.shfl")) for n in names)
        defined = (f for f in module.functions if not f.is_declaration)
        (entry,) = (f for f in defined if not f.name.startswith("minidl"))  # intrinsics
        if " asm " in str(entry):
            raise NotImplementedError(f"{kernel.__name__}: the emulator cannot run inline PTX")
        if 8 * sum(map(int, re.findall(r" alloca \[(\d+) x ", str(entry)))) > STACK // 2:
            raise ValueError(f"{kernel.__name__}: local arrays beyond {STACK // 2} bytes a thread")
        shared = _shared_memory(module)
        if sum(size for _, size in shared) > MAX_SHARED:
            raise ValueError(f"{kernel.__name__}: more than {MAX_SHARED} bytes of shared memory")
        module.link_in(ll.parse_assembly(RUNTIME + _wrapper(entry, shared)))
        _resolve(kernel, module)
        builder = ll.create_pass_builder(_machine(), ll.create_pipeline_tuning_options(2))
        builder.getModulePassManager().run(module, builder)
        self.engine = ll.create_mcjit_compiler(module, _machine())
        self.engine.finalize_object()
        address = self.engine.get_function_address
        self.thread, self.poison = _VOID(address("nv_thread")), _VOID(address("nv_poison"))
        self.resume, self.start = _RESUME(address("nv_resume")), address("nv_fiber")


def _wrapper(entry: ll.ValueRef, shared: list[tuple[str, int]]) -> str:
    """IR of `nv_thread`, which calls the kernel with what is in ARGS, and of `nv_poison`."""
    kinds = [str(a.type) for a in entry.arguments]
    loads = "".join(
        f"  %a{i} = load {kind}, ptr getelementptr (i64, ptr @nv_args, i64 {i})\n"
        for i, kind in enumerate(kinds)
    )
    passed = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(kinds))
    declared = "".join(f'@"{n}" = external addrspace(3) global i8\n' for n, _ in shared)
    fills = "".join(
        f'  call void @llvm.memset.p3.i64(ptr addrspace(3) @"{n}", i8 -1, i64 {size}, i1 false)\n'
        for n, size in shared
    )
    return f"""
declare void @llvm.memset.p3.i64(ptr addrspace(3), i8, i64, i1)
declare void @"{entry.name}"({", ".join(kinds)})
{declared}
define void @nv_thread() {{
{loads}  call void @"{entry.name}"({passed})
  ret void
}}
define void @nv_poison() {{
{fills}  ret void
}}
"""


def _resolve(kernel: Kernel, module: ll.ModuleRef) -> None:
    """Give every function that the kernel calls a body: CUDA's `__nv_expf` is libm's `expf`."""
    libm = ctypes.CDLL("libm.so.6")
    unknown = []
    for name in (f.name for f in module.functions if f.is_declaration):
        same = re.sub("^__nv_(fast_)?", "", name)
        same = _LIBM.get(same, same)
        if name.startswith("__nv_") and hasattr(libm, same):
            ll.add_symbol(name, ctypes.cast(getattr(libm, same), ctypes.c_void_p).value)
        # MCJIT would leave an unresolved call at address 0
        if not name.startswith("llvm.") and not ll.address_of_symbol(name):
            unknown.append(name.replace("nv.", "llvm.nvvm.", 1))
    if unknown:
        raise NotImplementedError(
            f"{kernel.__name__}: the emulator does not know {', '.join(unknown)} "
            "(add it to RUNTIME in kernels/cuda/emulator.py)"
        )


# ---- a launch ----

_compiled: dict[tuple[Kernel, tuple[types.Type, ...]], _Compiled] = {}
_lock = threading.RLock()  # the arrays above serve one launch at a time
_order: list[tuple[str, int]] = [("forward", 0)]


@contextlib.contextmanager
def schedule(order: str, seed: int = 0) -> Iterator[None]:
    """Run launches inside this block "forward", "reverse" or "shuffled" (by the seed)."""
    if order not in ("forward", "reverse", "shuffled"):
        raise ValueError(f"schedule: {order!r}; it can be 'forward', 'reverse' or 'shuffled'")
    _order.append((order, seed))
    try:
        yield
    finally:
        _order.pop()


def _ordered(n: int) -> np.ndarray:
    order, seed = _order[-1]
    line = np.arange(n)
    if order == "shuffled":
        return np.random.default_rng(seed).permutation(line)
    return line[::-1].copy() if order == "reverse" else line


def specialisations(kernel: Kernel) -> list[tuple[types.Type, ...]]:
    """The argument types under which a kernel has run in this process."""
    return [kinds for k, kinds in _compiled if k is kernel]


def _flatten(args: tuple[Any, ...]) -> None:
    """Write the arguments to ARGS: an array is meminfo, parent, size, itemsize, data, shape,
    strides; a scalar lies at the start of its 8 bytes."""
    flat: list[int] = []
    for a in args:
        if isinstance(a, np.ndarray):
            flat += [0, 0, a.size, a.itemsize, a.ctypes.data, *a.shape, *a.strides]
        else:
            raw = np.asarray(a).tobytes()
            flat.append(int.from_bytes(raw, "little", signed=len(raw) == 8))
    ARGS[: len(flat)] = flat


def _start_fibers(n: int, entry: int) -> None:
    """Lay out n stacks such that the first switch to each of them "returns" into `entry`."""
    frame = len(_SAVED) + 1
    # the ABI wants the stack pointer at 8 past a multiple of 16 on entry to a function
    top = STACKS.shape[1] - 3 - (STACKS.ctypes.data // 8) % 2
    STACKS[:n, top - frame : top] = [0] * len(_SAVED) + [entry]
    TOPS[:n] = STACKS.ctypes.data + np.arange(n) * STACK + 8 * (top - frame)


def launch(
    kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], shared: int, args: Any
) -> None:
    """Run a kernel on NumPy arrays. Raises RuntimeError where its threads wait for ever."""
    for what, size, limit in (("grid", grid, MAX_GRID), ("block", block, MAX_BLOCK)):
        if any(not 1 <= n <= most for n, most in zip(size, limit)):
            raise ValueError(f"{kernel.__name__}: {what} {size} is not within {limit}")
    n = block[0] * block[1] * block[2]
    if n > MAX_THREADS:
        raise ValueError(f"{kernel.__name__}: {n} threads in a block; a GPU runs {MAX_THREADS}")
    kinds = signature(kernel, args)
    with _lock:
        code = _compiled.get((kernel, kinds))
        if code is None:
            code = _compiled[kernel, kinds] = _Compiled(kernel, kinds)
        _flatten(args)
        INDEX[3:6], INDEX[9:12] = block, grid
        if code.fibers:
            _start_fibers(n, code.start)
        blocks, threads = _ordered(grid[0] * grid[1] * grid[2]), _ordered(n)
        stuck = _run(
            code.thread, code.resume, code.poison, code.fibers, blocks, threads, INDEX, ASK, ANSWER
        )
        if stuck >= 0:
            raise RuntimeError(_where(kernel, n))


def _where(kernel: Kernel, n: int) -> str:
    """Say which threads wait for what, after a block got stuck."""
    block = tuple(int(i) for i in INDEX[6:9])
    names = {BARRIER: "at syncthreads", WARP: "at a shuffle or syncwarp", DONE: "returned"}
    groups = []
    for state, name in names.items():
        if len(which := np.flatnonzero(ASK[:n, 0] == state)):
            groups.append(f"{len(which)} threads {name} ({which[0]} to {which[-1]})")
    return f"{kernel.__name__}: divergent barrier in block {block}: {'; '.join(groups)}"
