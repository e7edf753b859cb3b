"""What is remembered of each granule of memory, and what each access is held against.

Two accesses of one granule are a race if one of them writes, not both are atomic, they are of two
threads, and neither thread has waited for the other in between. Who waits for whom:

    barriers    all threads of a block, for all that they did before
    syncwarp    the lanes in its mask, for all that they did and had waited for before
    atomics     a block that reads what another has written by an atomic, if that one had a fence

The first two are exact. Of atomics it is taken that a block that comes by an address has seen all
that was done there before, for blocks are emulated one after the other. Plain stores of the value
that is already there are no race, as in GPUVerify: whoever is last, the memory is the same.
"""

from numba import carray, from_dtype, njit, types

from ..emulator.runtime import STATE
from .requests import log, settle
from .watch import (
    ACCESSES,
    ADDRESS,
    ARRAY,
    AT,
    ATOMIC,
    ATOMICALLY,
    BLOCK,
    BY,
    BYTES,
    CELL,
    CLOCK,
    COUNT,
    FENCED,
    FIRST_CELL,
    FIRST_READ,
    FRESH,
    IN,
    KIND,
    LOG,
    LOGGED,
    MAX_FOUND,
    MISALIGNED,
    NOW,
    OTHER_AT,
    OTHER_BY,
    OTHER_IN,
    OTHER_READ,
    OUTSIDE,
    RACE,
    READ,
    SHARED,
    SITE,
    SIZE,
    START,
    STOP,
    SYNCS,
    THREAD,
    UNINITIALISED,
    VALUED,
    WATCH,
    WRITE,
    WRITTEN,
)  # fmt: skip

_POINTER = types.CPointer(types.int64)
SIGNATURE = types.int64(
    types.CPointer(from_dtype(STATE)),
    types.CPointer(from_dtype(WATCH)),
    *(_POINTER, _POINTER, _POINTER, _POINTER),  # cells, log, work, releases
    types.CPointer(types.uint8),  # what is accessed
    *(types.int64, types.int64, types.int64, types.int64, types.int64),
)


@njit
def _array(w, first, size, site):
    """The array that an access lies in, or -1."""
    i = w.origin[site]
    if i >= 0:
        return i if w.array[i, START] <= first and first + size <= w.array[i, STOP] else -1
    for i in range(w.arrays):
        if w.array[i, START] <= first and first + size <= w.array[i, STOP]:
            return i
    return -1


@njit
def _note(s, w, kind, site, array, first, size):
    """The row of a finding, a new one unless there is one of this kind, line and array."""
    for i in range(w.finds):
        same = w.found[i, KIND] == kind and w.found[i, AT] == site and w.found[i, ARRAY] == array
        if same and kind != RACE:
            w.found[i, COUNT] += 1
            return -1
    if w.finds == MAX_FOUND:
        return -1
    i = w.finds
    w.finds += 1
    w.found[i, KIND], w.found[i, AT], w.found[i, ARRAY] = kind, site, array
    w.found[i, ADDRESS], w.found[i, SIZE] = first, size
    w.found[i, BY], w.found[i, IN], w.found[i, COUNT] = s.thread, s.block, 1
    w.found[i, OTHER_AT] = w.found[i, OTHER_BY] = w.found[i, OTHER_IN] = -1
    w.found[i, FENCED] = 1
    return i


@njit
def _race(s, w, cells, releases, cell, before, site, array, first, size):
    """Note a race with the access before."""
    other, block = cells[cell, before + SITE], cells[cell, before + BLOCK]
    for i in range(w.finds):
        same = w.found[i, KIND] == RACE and w.found[i, AT] == site
        if same and w.found[i, OTHER_AT] == other and w.found[i, ARRAY] == array:
            w.found[i, COUNT] += 1
            return
    i = _note(s, w, RACE, site, array, first, size)
    if i >= 0:
        w.found[i, OTHER_AT], w.found[i, OTHER_IN] = other, block
        w.found[i, OTHER_BY] = cells[cell, before + THREAD]
        if block != s.block:
            w.found[i, FENCED] = not _released(s, w, releases, cells, cell, before, -1)


@njit
def _released(s, w, releases, cells, cell, before, sign):
    """Whether this block came by an atomic after the one of the access before had been there.

    sign: 1 where that one had a fence before, -1 where it had none.
    """
    block, now = cells[cell, before + BLOCK], cells[cell, before + NOW]
    for i in range(w.syncs):
        here = w.sync[i, 1]
        if here < s.began or (here == s.now and w.sync[i, 2] != s.thread):
            continue
        then = releases[i, block, 0] * sign
        same = releases[i, block, 1] == cells[cell, before + THREAD]
        if then > 0 and (now < then or (now == then and same)):
            return True
    return False


@njit
def _waited(s, w, releases, cells, cell, before):
    """Whether this thread has waited for the access before, or made it itself."""
    thread = cells[cell, before + THREAD]
    if cells[cell, before + BLOCK] == s.block:
        if cells[cell, before + NOW] < s.now or thread == s.thread:
            return True
        same = thread // 32 == s.thread // 32
        return same and s.met[s.thread, thread % 32] >= cells[cell, before + CLOCK]
    if w.blocks == 0 and w.syncs:
        return True
    return w.syncs > 0 and _released(s, w, releases, cells, cell, before, 1)


@njit
def _come_by(s, w, releases, first):
    """An atomic: what was let go here before is seen, and what this thread has done is let go."""
    i = 0
    while i < w.syncs and w.sync[i, 0] != first:
        i += 1
    if i == SYNCS:
        return
    if i == w.syncs:
        w.syncs += 1
        w.sync[i, 0] = first
    if w.sync[i, 1] < s.began:
        w.sync[i, 1], w.sync[i, 2] = s.now, s.thread
    if w.blocks:
        fenced = w.fence[s.thread] == s.block + 1
        releases[i, s.block, 0] = s.now if fenced else -s.now
        releases[i, s.block, 1] = s.thread


@njit
def _same(place, size, does, value):
    """Whether a value is what lies at its place already."""
    if not does & VALUED:
        return False
    memory = carray(place, size)
    same = True
    for i in range(size):
        same &= memory[i] == value >> 8 * i & 255
    return same


@njit
def _write_down(s, cells, cell, slot, site):
    cells[cell, slot + NOW], cells[cell, slot + CLOCK] = s.now, s.clock[s.thread]
    cells[cell, slot + BLOCK], cells[cell, slot + THREAD] = s.block, s.thread
    cells[cell, slot + SITE] = site


@njit
def _touch(s, w, cells, releases, cell, array, place, first, size, does, site, value):
    """One granule of an access."""
    since = s.began if w.array[array, SHARED] else 1  # what is older belongs to another block
    atomic, writes = does & ATOMIC != 0, does & 3 != READ
    written = cells[cell, WRITTEN + NOW] >= since
    if not written and does & 3 != WRITE and (w.array[array, SHARED] or w.array[array, FRESH]):
        _note(s, w, UNINITIALISED, site, array, first, size)
    if (
        written
        and not (atomic and cells[cell, ATOMICALLY])
        and not _waited(s, w, releases, cells, cell, WRITTEN)
        and not (does & 3 == WRITE and _same(place, size, does, value))
    ):
        _race(s, w, cells, releases, cell, WRITTEN, site, array, first, size)
    if writes:
        for slot in (FIRST_READ, OTHER_READ):
            if cells[cell, slot + NOW] >= since:
                if not _waited(s, w, releases, cells, cell, slot):
                    _race(s, w, cells, releases, cell, slot, site, array, first, size)
                cells[cell, slot + NOW] = 0
        _write_down(s, cells, cell, WRITTEN, site)
        cells[cell, ATOMICALLY] = atomic
    elif not atomic:
        old = cells[cell, FIRST_READ + NOW] < since
        free = old or _waited(s, w, releases, cells, cell, FIRST_READ)
        _write_down(s, cells, cell, FIRST_READ if free else OTHER_READ, site)


def access(state, watch, cells, entries, work, releases, place, first, size, does, site, value):
    """Look at an access before it is made. Returns where it may be made."""
    s, w = carray(state, 1)[0], carray(watch, 1)[0]
    memory = carray(cells, (1 << 40, CELL))
    released = carray(releases, (SYNCS, max(w.blocks, 1), 2))
    array = _array(w, first, size, site)
    if array < 0:
        _note(s, w, OUTSIDE, site, w.origin[site], first, size)
        return w.nowhere
    if size in (2, 4, 8, 16) and first % size:
        _note(s, w, MISALIGNED, site, array, first, size)
    w.counts[site, ACCESSES] += 1
    w.counts[site, BYTES] += size
    if size <= 16:
        what = site << 16 | size << 8 | w.array[array, SHARED]
        log(s, w, carray(entries, (LOG, LOGGED)), carray(work, (LOG, 33)), first, what)
    cell = w.array[array, FIRST_CELL]
    start = w.array[array, START]
    for granule in range((first - start) >> w.shift, ((first + size - 1 - start) >> w.shift) + 1):
        _touch(s, w, memory, released, cell + granule, array, place, first, size, does, site, value)
    if does & 3 != READ:
        if does & ATOMIC:
            if not w.array[array, SHARED]:
                _come_by(s, w, released, first)
        elif not w.array[array, SHARED]:
            w.fence[s.thread] = 0
    return first


FINISH = types.void(types.CPointer(from_dtype(WATCH)), _POINTER, _POINTER)


def finish(watch, entries, work):
    """Count what the last warp asked."""
    settle(carray(watch, 1)[0], carray(entries, (LOG, LOGGED)), carray(work, (LOG, 33)))
