"""Compiled loops shared by threads that are there at once: no lock of Python's, no call into it.

The threads of `_threads.share` are woken through the interpreter, which takes longer than the loops
of a small network. Members of the team wait in compiled code instead: for a while they look for
work again and again, then they sleep. As there, tasks are claimed one at a time, the caller works
too, and it waits for nobody who has not begun, so that busy neighbours cost it nothing.

What all look at are words of an array, each in a line of the cache of its own. GATE says in one
number which job is there, whether it is open, and how many members are in it, so that to come in
and to close it exclude each other:

    caller    opens GATE, claims tasks until there are none, closes GATE, waits until all are out
    member    sees an open job that it does not know, comes in, claims tasks, goes out
"""

import atexit
import os
import platform
import queue
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ._numba import jit
from ._threads import threads

LINE = 64  # bytes from word to word
OWNER, GATE, LIMIT, CLAIMED, LAST, PARTS, TASK, FRAME, STOP = (LINE * n for n in range(9))
OPEN, JOB = 1 << 15, 1 << 16  # of GATE: below them, how many members are in
# Looks for work before a member sleeps: about two milliseconds. Every so many, whoever else wants
# its core goes first: NumPy's BLAS, another program.
LOOKS, POLITE = 1 << 16, 16
_YIELD = hasattr(os, "sched_yield")
_X86 = platform.machine().lower() in ("x86_64", "amd64")
_WORD, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()


def shared(kernel: Any) -> Callable[..., None]:
    """run(parts, n, *args): kernel(start, stop, *args) on `parts` parts of range(n)."""
    codes: dict[tuple, int] = {}

    def run(parts: int, n: int, *args: Any) -> None:
        key = tuple(map(_kind, args))
        code = codes.get(key)
        if code is None:
            code = codes[key] = _code(kernel, args)
        words = _words()
        while _asleep:
            try:
                _asleep.pop().put(None)
            except IndexError:  # another caller woke it
                break
        _share(words, threads() - 1, code, parts, n, *args)

    return run


def _kind(x: Any) -> Any:
    """What Numba's type of an argument depends on."""
    if isinstance(x, np.ndarray):
        return x.ndim, x.dtype.char, x.flags.carray
    return tuple(map(_kind, x)) if isinstance(x, tuple) else type(x)


def _code(kernel: Any, args: tuple) -> int:
    """Address of a kernel's code for arguments of these types."""
    kinds = types.int64, types.int64, *map(numba.typeof, args)
    kernel.compile(kinds)
    code = kernel.overloads[kinds]
    return code.library.get_pointer_to_function(code.fndesc.llvm_func_name)


# --- threads


def _words() -> int:
    """Where the words are, with as many members there as may help."""
    while len(_members) < threads() - 1:
        member = threading.Thread(target=_wait, args=(_state,), name="minidl team", daemon=True)
        _members.append(member)
        member.start()
    return _state.ctypes.data


def _wait(state: np.ndarray) -> None:
    """The life of a member."""
    bell: queue.SimpleQueue[None] = queue.SimpleQueue()
    while not state[STOP // 8]:
        _look(state.ctypes.data, LOOKS)
        _asleep.append(bell)
        try:
            if state[GATE // 8] & OPEN:  # opened just now, by a caller that saw nobody asleep
                _asleep.remove(bell)
                continue
        except ValueError:  # the bell rings already
            pass
        bell.get()


def _closed() -> np.ndarray:
    """Words that say that there is no job."""
    return np.zeros((STOP + LINE) // 8, np.int64)


def _fresh() -> None:
    """Begin with no members, as a forked child has none."""
    global _state
    _state = _closed()
    _members.clear()
    _asleep.clear()


def _stop() -> None:
    """Send members out of compiled code, which the end of the process takes away."""
    _state[STOP // 8] = 1


_state = _closed()
_members: list[threading.Thread] = []
_asleep: list[queue.SimpleQueue[None]] = []
atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh)


# --- compiled: words by their addresses


def _place(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _WORD.as_pointer())


@intrinsic
def _read(typing, address):
    """A word, and after it whatever was written before it."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_place(builder, args[0]), "acquire", 8)

    return types.int64(types.int64), lower


@intrinsic
def _write(typing, address, value):
    """Set a word, after whatever was written before."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _place(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), lower


@intrinsic
def _plus(typing, address, value):
    """Add to a word; what it was before."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _place(builder, args[0]), args[1], "acq_rel")

    return types.int64(types.int64, types.int64), lower


@intrinsic
def _swapped(typing, address, old, new):
    """Set a word to new where it is old, and whether it was."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(builder, args[0])
        pair = builder.cmpxchg(place, args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), lower


@intrinsic
def _pause(typing):
    """Tell the core that this is a loop that waits."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _X86:
            module, name = builder.module, "llvm.x86.sse2.pause"
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(module.globals.get(name) or ir.Function(module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), lower


@intrinsic
def _give_way(typing):
    """Let another thread have the core."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _YIELD:
            module, kind = builder.module, ir.FunctionType(ir.IntType(32), [])
            found = module.globals.get("sched_yield") or ir.Function(module, kind, "sched_yield")
            builder.call(found, [])
        return context.get_dummy_value()

    return types.void(), lower


# --- compiled: a job


@intrinsic
def _frame(typing, code, parts, n, args):
    """Put a job's arguments down in this function's frame; the address."""

    def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole = context.make_tuple(builder, types.Tuple(signature.args), values)
        with builder.goto_entry_block():
            place = builder.alloca(whole.type)
        builder.store(whole, place)
        return builder.ptrtoint(place, _WORD)

    return types.int64(code, parts, n, args), lower


@intrinsic
def _task(typing, code, parts, n, args):
    """Address of a function (frame, number) that runs one part of a job put down by `_frame`."""
    whole = types.Tuple((code, parts, n, args))

    def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_WORD, _WORD])
        task = ir.Function(builder.module, kind, builder.module.get_unique_name("task"))
        task.linkage = "internal"
        build = ir.IRBuilder(task.append_basic_block())
        frame, number = task.args
        held = build.load(build.inttoptr(frame, context.get_value_type(whole).as_pointer()))
        address, parts, n, given = (build.extract_value(held, i) for i in range(4))
        ends = (build.sdiv(build.mul(i, n), parts) for i in (number, build.add(number, _WORD(1))))
        each = (build.extract_value(given, i) for i in range(len(args)))
        kinds = types.int64, types.int64, *args
        function = context.call_conv.get_function_type(types.none, kinds)
        kernel = build.inttoptr(address, function.as_pointer())
        context.call_conv.call_function(build, kernel, types.none, kinds, [*ends, *each])
        build.ret_void()
        return builder.ptrtoint(task, _WORD)

    return types.int64(code, parts, n, args), lower


@intrinsic
def _do(typing, task, frame, number):
    """Run one part of a job."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_WORD, _WORD])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), lower


@jit
def _work(words, member):
    """Claim tasks of the open job until there are none.

    The caller begins at the first, members at the last, so that each finds in its own cache what it
    wrote in the job before.
    """
    parts, task, frame, number = _read(words + PARTS), _read(words + TASK), _read(words + FRAME), 0
    while _plus(words + CLAIMED, 1) < parts:
        _do(task, frame, _plus(words + LAST, -1) if member else number)
        number += 1


@jit
def _share(words, most, code, parts, n, *args):
    """Do all parts of a job, with up to `most` members; alone where another thread has them."""
    frame, task = _frame(code, parts, n, args), _task(code, parts, n, args)
    if not _swapped(words + OWNER, 0, 1):
        for number in range(parts):
            _do(task, frame, number)
        return
    _write(words + LIMIT, most)
    _write(words + CLAIMED, 0)
    _write(words + LAST, parts - 1)
    _write(words + PARTS, parts)
    _write(words + TASK, task)
    _write(words + FRAME, frame)
    _plus(words + GATE, JOB + OPEN)
    _work(words, False)
    inside = _plus(words + GATE, -OPEN) - OPEN
    looks = 0
    while inside % OPEN:
        _rest(looks)
        looks += 1
        inside = _read(words + GATE)
    _write(words + OWNER, 0)


@jit
def _look(words, most):
    """Help with jobs until there was none for `most` looks."""
    known, looks = 0, 0
    while looks < most and not _read(words + STOP):
        gate = _read(words + GATE)
        job, inside = gate // JOB, gate % OPEN
        if gate & OPEN and job != known and inside < _read(words + LIMIT):
            if _swapped(words + GATE, gate, gate + 1):
                _work(words, True)
                _plus(words + GATE, -1)
                known, looks = job, 0
            continue
        _rest(looks)
        looks += 1


@jit
def _rest(looks):
    _pause()
    if looks % POLITE == POLITE - 1:
        _give_way()
