"""Who runs next: the part of a GPU that lets threads go on, in Python that Numba compiles.

`run` takes a worker through its blocks. A thread that waits has written into `ask` what it waits
for; the functions below find out who can go on and give each lane of a warp its answer. A thread
that goes round in a loop has its turn again and again, until `progress.py` knows that it will not
leave it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, from_dtype, njit, types
from numba.extending import intrinsic

from .progress import GLANCE, QUANTUM, cycles, forget, hopeless, waits, words
from .runtime import (
    BARRIER,
    DONE,
    FRAME,
    GRID,
    MATCH_ALL,
    MATCH_ANY,
    MAX_THREADS,
    MMA,
    READY,
    STACK,
    STATE,
    SYNC,
    TURN,
    VOTE,
    WARP,
)

# How a run ended; the last three can be taken up again. MET: all threads of its block wait for the
# grid's.
FINISHED, STUCK, OUTSIDE, MISALIGNED, WILD, RAISED, GIVEN_UP, ENDLESS, PAUSED, MET = range(10)
# Threads of a kernel run one after the other; so, but may have to wait; or each on its own stack.
ALONE, CARRIED, FIBERS = range(3)
PATIENCE = 64  # times QUANTUM rounds by a thread that gets on, before others have their turn
LAPS = 1 << 14  # shuffles of a warp, likewise
SLICE = 1 << 28  # of the processor's clock, a tenth of a second, between looks at the keyboard
GUARD = 64  # bytes between two arrays in shared memory
DOING, MASK, OP, VALUE, LANE, CLAMP = range(6)  # the columns of ask; MASK: a barrier's number

_POINTER = types.CPointer(types.int64)
SIGNATURE = types.int64(
    types.CPointer(from_dtype(STATE)),
    *(_POINTER, types.int64),  # shared memory
    *(_POINTER, types.int64, types.int64, types.int64),  # the blocks' numbers: first, step, count
    *(types.int64, types.int64),  # what to call, and how threads run
)


@intrinsic
def _call(typing: Any, address: types.Type) -> tuple[Any, Callable]:
    """Call machine code that takes nothing and returns nothing."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), lower


@njit
def _shuffle(s, first, count, mask):
    """Give each lane the value of another one: the formula of PTX ISA, shfl.sync."""
    for u in range(count):
        if not mask >> u & 1:
            continue
        t = first + u
        mode, lane, clamp = s.ask[t, OP], s.ask[t, LANE] & 31, s.ask[t, CLAMP]
        segment, last = clamp >> 8 & 31, clamp & 31
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
        s.answer[t, 0] = s.ask[first + source, VALUE] if active else -1
        s.unanswered[t] = 0 if active else first + source + 1
        s.answer[t, 1] = found


@njit
def _vote(s, first, count, mask):
    """Tell every lane for which lanes the value is true, and whether that is all, some, none."""
    here = mask & (1 << count) - 1
    yes = 0
    for u in range(count):
        if mask >> u & 1:
            yes |= s.ask[first + u, VALUE] << u
    for u in range(count):
        if mask >> u & 1:
            question = s.ask[first + u, OP] - VOTE
            s.answer[first + u, 0] = yes
            if question == 0:
                s.answer[first + u, 1] = yes == here
            elif question == 1:
                s.answer[first + u, 1] = yes != 0
            else:
                s.answer[first + u, 1] = yes == here or yes == 0


@njit
def _match(s, first, count, mask):
    """Tell every lane which lanes have its value; match_all: all of them, or none."""
    here = mask & (1 << count) - 1
    for u in range(count):
        if mask >> u & 1:
            same = 0
            for v in range(count):
                if mask >> v & 1 and s.ask[first + v, VALUE] == s.ask[first + u, VALUE]:
                    same |= 1 << v
            if s.ask[first + u, OP] == MATCH_ALL:
                same = here if same == here else 0
            s.answer[first + u, 0] = same
            s.answer[first + u, 1] = same == here


@njit
def _tf32(bits):
    """A tensor core does not look at the last 13 bits."""
    return np.float64(np.int32(bits & ~0x1FFF).view(np.float32))


@njit
def _mma(s, first):
    """D = A B + C, of matrices that are spread over a warp (PTX ISA, fragments of mma.m16n8k8).

    a, b and c are columns 0 to 3, 4 and 5, 6 to 9 of a lane's fragment. Products are exact and
    the sum is rounded once; a tensor core, which cuts the sum here and there, is not more exact.
    """
    lanes = s.fragment
    for row in range(16):
        for column in range(8):
            holder, place = first + row % 8 * 4 + column // 2, row // 8 * 2 + column % 2
            total = np.float64(np.int32(lanes[holder, 6 + place]).view(np.float32))
            for k in range(8):
                a = lanes[first + row % 8 * 4 + k % 4, row // 8 + k // 4 * 2]
                b = lanes[first + column * 4 + k % 4, 4 + k // 4]
                total += _tf32(a) * _tf32(b)
            s.product[holder, place] = total


@njit
def _meet(s, first, count, mask):
    """Lanes that met at a syncwarp know of all that each of them has done, and knew."""
    for lane in range(count):
        latest = s.clock[first + lane] if mask >> lane & 1 else 0
        for u in range(count):
            if mask >> u & 1:
                latest = max(latest, s.met[first + u, lane])
        for u in range(count):
            if mask >> u & 1:
                s.met[first + u, lane] = latest
    for u in range(count):
        if mask >> u & 1:
            s.clock[first + u] += 1


@njit
def _together(s, first, count, mask, op):
    """Whether all lanes of a mask wait, with this mask, for this operation.

    A GPU's syncwarp does not wait for lanes that have returned; CUDA asks that they had by then.
    """
    for u in range(count):
        if mask >> u & 1:
            t = first + u
            if op == SYNC and s.ask[t, DOING] == DONE and not s.watched:
                continue
            if s.ask[t, DOING] != WARP or s.ask[t, MASK] != mask or s.ask[t, OP] != op:
                return False
    return True


@njit
def _exchange(s, first, count):
    """Answer each group of lanes of a warp that wait together. Returns how many lanes go on."""
    released = 0
    for t in range(count):
        mask, op = s.ask[first + t, MASK], s.ask[first + t, OP]
        waits = s.ask[first + t, DOING] == WARP and mask >> t & 1
        if not waits or not _together(s, first, count, mask, op):
            continue
        if op < VOTE:
            _shuffle(s, first, count, mask)
        elif op < MATCH_ANY:
            _vote(s, first, count, mask)
        elif op < SYNC:
            _match(s, first, count, mask)
        elif op == MMA:
            if count < 32:
                continue
            _mma(s, first)
        elif s.watched:
            _meet(s, first, count, mask)
        for u in range(count):
            if mask >> u & 1 and s.ask[first + u, DOING] == WARP:
                s.ask[first + u, DOING] = READY
                released += 1
    return released


@njit
def _barrier(s, waiting):
    """Let the threads at a barrier go on, if it is the same one, and tell how many said yes."""
    first = -1
    true = 0
    for t in range(s.threads):
        if s.ask[t, DOING] == BARRIER:
            first = t if first < 0 else first
            if s.ask[t, MASK] != s.ask[first, MASK]:
                return False
            true += s.ask[t, VALUE]
    for t in range(s.threads):
        if s.ask[t, DOING] == BARRIER:
            op = s.ask[t, OP]
            s.answer[t, 0] = true if op == 1 else true == waiting if op == 2 else true > 0
            s.ask[t, DOING] = READY
    s.now += 1
    s.barriers += 1
    return True


@njit
def _go_round(s, resume):
    """A thread is in a loop: let it go on as long as it has something to show for it."""
    for turn in range(PATIENCE):
        t = s.thread  # where one comes to its end, a carrier takes the next
        if s.ask[t, DOING] != TURN:
            forget(s, t)
            break
        s.turns = QUANTUM
        s.rounds += GLANCE
        # who is outside all arrays and goes on may do so for long, and to no end
        if s.ask[t, MASK] or (turn and (s.wild or s.misaligned or s.astray)):
            s.lost = t + 1
            break
        if waits(s, t):
            s.turns = GLANCE  # who is next will wait as well, as a rule
            break
        _call(resume)


@njit
def _run_warp(s, place, first, count, resume):
    """Run a warp, at `place` in the order of threads, until none of it can go on by itself.

    It runs ahead of the warps that did not have their turn yet, as it may on a GPU.
    """
    for t in range(first, first + count):
        if s.ask[t, DOING] == TURN:
            s.ask[t, DOING] = READY
    for _ in range(LAPS):
        asked = False
        for i in range(place, place + count):
            t = s.order[i, 0]
            if s.ask[t, DOING] == READY:
                s.thread = t
                s.tid[0], s.tid[1], s.tid[2] = (s.order[i, 1], s.order[i, 2], s.order[i, 3])
                _call(resume)
                if s.ask[t, DOING] == TURN:
                    _go_round(s, resume)
                    if s.lost:
                        return
                asked |= s.ask[t, DOING] == WARP
        if not asked or not _exchange(s, first, count):
            break


@njit
def _release(s):
    """Let a block's threads pass the barrier. Returns READY, DONE, GRID, or WARP: nobody can."""
    done = waiting = going = grid = 0
    for t in range(s.threads):
        done += s.ask[t, DOING] == DONE
        waiting += s.ask[t, DOING] == BARRIER
        going += s.ask[t, DOING] in (READY, TURN)
        grid += s.ask[t, DOING] == GRID
    if done == s.threads:
        return DONE
    if going:
        return READY
    if grid and grid + done == s.threads:  # thread 0 tells the other blocks
        return GRID if s.ask[0, DOING] == GRID and not (s.watched and done) else WARP
    if waiting + done < s.threads or (s.watched and done):
        return WARP  # a GPU's barrier does not wait for threads that returned, but CUDA forbids it
    return READY if _barrier(s, waiting) else WARP


@njit
def _lay(s, stack):
    """Make a stack such that the first switch to it "returns" into the entry; its pointer."""
    # the ABI wants the stack pointer at 8 past a multiple of 16 on entry to a function
    top = s.stacks + stack * STACK + STACK - 24 - s.stacks % 16 - 8 * FRAME
    frame = carray(words(top), FRAME)
    frame[:] = 0
    frame[FRAME - 1] = s.entry
    return top


@njit
def _run_fibers(s, resume):
    """Run a block whose threads are fibers: DONE at their end, WARP where they are stuck, TURN in a
    loop without end, READY where time is up."""
    for t in range(s.laid, s.threads):
        s.tops[t] = _lay(s, t)
    s.laid = max(s.laid, s.threads)
    while True:
        while s.place < s.threads:  # the order keeps the threads of a warp together
            first = s.order[s.place, 0] // 32 * 32
            count = min(32, s.threads - first)
            _run_warp(s, s.place, first, count, resume)
            if s.lost:
                return TURN
            s.place += count
            if cycles() > s.until:
                return READY
        s.place = 0
        if hopeless(s):
            return TURN
        state = _release(s)
        if state != READY:
            return state


@njit
def _run_carried(s, resume):
    """The same of threads that run one after the other, unless they must wait."""
    while s.next < s.threads:
        t = s.order[s.next, 0]
        if s.frees == 0:
            s.free[0] = _lay(s, s.laid)
            s.frees = 1
            s.laid += 1
        s.frees -= 1
        s.tops[t] = s.free[s.frees]
        s.next += 1
        if _carried(s, t, resume, s.queued):
            s.queued += 1
        if s.lost:
            return TURN
        if cycles() > s.until:
            return READY
    while s.queued:
        while s.place < s.queued:
            t = s.queue[s.place]
            if t >= 0 and not _carried(s, t, resume, s.place):
                s.queue[s.place] = -1
            if s.lost:
                return TURN
            s.place += 1
            if cycles() > s.until:
                return READY
        s.place = left = 0
        for i in range(s.queued):
            if s.queue[i] >= 0:
                s.queue[left] = s.queue[i]
                left += 1
        s.queued = left
        if left and hopeless(s):
            return TURN
    return DONE


@njit
def _carried(s, t, resume, place):
    """Let a thread go on, and those that have not begun. Whether one waits: it is in the queue."""
    nx, ny = s.ntid[0], s.ntid[1]
    s.thread = t
    s.tid[0], s.tid[1], s.tid[2] = t % nx, t // nx % ny, t // (nx * ny)
    _call(resume)
    _go_round(s, resume)
    if s.ask[s.thread, DOING] == TURN:
        s.queue[place] = s.thread
        return True
    s.free[s.frees] = s.tops[s.thread]
    s.frees += 1
    return False


@njit
def _untouched(s, shared):
    """Whether nobody wrote into the gaps between the arrays of shared memory."""
    for at in s.guards:
        if at < 0:
            break
        for i in range(at // 8, (at + GUARD) // 8):
            if shared[i] != -1:
                return False
    return True


@njit
def _begin(s, block, memory):
    """Begin a block. Its shared memory is filled with NaN: a GPU promises nothing about it."""
    gx, gy = s.nctaid[0], s.nctaid[1]
    s.ctaid[0], s.ctaid[1], s.ctaid[2] = (block % gx, block // gx % gy, block // (gx * gy))
    s.now += 1
    s.block, s.began = block, s.now
    memory[:] = -1
    s.inside, s.place, s.next, s.queued = 1, 0, 0, 0
    forget(s, MAX_THREADS)


def run(state, shared, size, blocks, first, step, count, code, kind):
    """Run blocks first, first + step ... of a list, for a while: from where the last run ended.

    How this one ended; if badly, s.ctaid says where.
    """
    s = carray(state, 1)[0]
    memory = carray(shared, size // 8)
    numbers = carray(blocks, count)
    s.until = cycles() + SLICE
    while first + s.position * step < count:
        if not s.inside:
            _begin(s, numbers[first + s.position * step], memory)
            for t in range(s.threads if kind != ALONE else 0):
                s.ask[t, DOING] = READY
        ended = DONE
        if kind == ALONE:
            _call(code)
        else:
            ended = _run_fibers(s, code) if kind == FIBERS else _run_carried(s, code)
        if ended == READY:
            return PAUSED
        if ended == GRID:
            return MET
        if s.raised:
            return RAISED
        if s.misaligned:
            return MISALIGNED
        if s.wild or (ended == TURN and s.astray):
            return WILD
        if ended != DONE:
            return ENDLESS if ended == TURN else STUCK
        if not _untouched(s, memory):
            return OUTSIDE
        s.inside = 0
        s.position += 1
        if cycles() > s.until and first + s.position * step < count:
            return PAUSED
    return FINISHED
