"""Who runs next: the part of a GPU that lets threads go on, in Python that Numba compiles.

`run` takes a worker through its blocks. A thread that waits has written into `ask` what it waits
for; the functions below find out who can go on and give each lane of a warp its answer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, from_dtype, njit, types
from numba.extending import intrinsic

from .runtime import BARRIER, DONE, MATCH_ALL, MATCH_ANY, MMA, READY, STATE, SYNC, VOTE, WARP

FINISHED, STUCK, OUTSIDE, MISALIGNED, WILD = range(5)  # how a run ended, all but the first badly
GUARD = 64  # bytes between two arrays in shared memory
DOING, MASK, OP, VALUE, LANE, CLAMP = range(6)  # the columns of ask; MASK: a barrier's number

_POINTER = types.CPointer(types.int64)
SIGNATURE = types.int64(
    types.CPointer(from_dtype(STATE)),
    *(_POINTER, types.int64),  # shared memory
    *(_POINTER, types.int64, types.int64, types.int64),  # the blocks' numbers: first, step, count
    *(types.int64, types.int64),  # what to call, and whether threads are fibers
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
        if not active and s.silent == 0:
            s.silent, s.silent_by = first + source + 1, t
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
def _run_warp(s, place, first, count, resume):
    """Run a warp, at `place` in the order of threads, until none of it can go on by itself.

    It runs ahead of the warps that did not have their turn yet, as it may on a GPU.
    """
    released = 1
    while released:
        asked = False
        for i in range(place, place + count):
            t = s.order[i, 0]
            if s.ask[t, DOING] == READY:
                s.thread = t
                s.tid[0], s.tid[1], s.tid[2] = (s.order[i, 1], s.order[i, 2], s.order[i, 3])
                _call(resume)
                asked |= s.ask[t, DOING] == WARP
        released = _exchange(s, first, count) if asked else 0


@njit
def _release(s):
    """Let the threads of a block pass the barrier. Returns READY, DONE, or WARP: nobody can."""
    done = waiting = 0
    for t in range(s.threads):
        done += s.ask[t, DOING] == DONE
        waiting += s.ask[t, DOING] == BARRIER
    if done == s.threads:
        return DONE
    if waiting + done < s.threads or (s.watched and done):
        return WARP  # a GPU's barrier does not wait for threads that returned, but CUDA forbids it
    return READY if _barrier(s, waiting) else WARP


@njit
def _run_fibers(s, resume):
    """Run a block whose threads wait for each other. Whether all of them came to their end."""
    for t in range(s.threads):
        s.ask[t, DOING] = READY
    state = READY
    while state == READY:
        place = 0
        while place < s.threads:  # the order keeps the threads of a warp together
            first = s.order[place, 0] // 32 * 32
            count = min(32, s.threads - first)
            _run_warp(s, place, first, count, resume)
            place += count
        state = _release(s)
    return state == DONE


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


def run(state, shared, size, blocks, first, step, count, code, fibers):
    """Run blocks first, first + step ... of a list. How that ended; if badly, s.ctaid says where.

    Shared memory is filled with NaN before each block: a GPU promises nothing about it.
    """
    s = carray(state, 1)[0]
    memory = carray(shared, size // 8)
    numbers = carray(blocks, count)
    gx, gy = s.nctaid[0], s.nctaid[1]
    for i in range((count - first + step - 1) // step):
        block = numbers[first + i * step]
        s.ctaid[0], s.ctaid[1], s.ctaid[2] = (block % gx, block // gx % gy, block // (gx * gy))
        s.now += 1
        s.block, s.began = block, s.now
        for word in range(size // 8):
            memory[word] = -1
        if not fibers:
            _call(code)
        elif not _run_fibers(s, code):
            return STUCK
        if s.misaligned:
            return MISALIGNED
        if s.wild:
            return WILD
        if not _untouched(s, memory):
            return OUTSIDE
    return FINISHED
