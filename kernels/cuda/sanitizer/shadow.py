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

from collections.abc import Callable, Sequence
from typing import Any

from numba import carray, from_dtype, njit, types
from numba.extending import intrinsic

from ..emulator.runtime import STATE
from .requests import log, settle
from .watch import (
    ADDRESS,
    ALSO_WRITTEN,
    ARRAY,
    AT,
    ATOMIC,
    BY,
    CELL,
    CELLS,
    CLOCK_BITS,
    COUNT,
    FENCED,
    FIRST_READ,
    FIXED,
    FRESH,
    FROM,
    GAP,
    GAPS,
    IN,
    KIND,
    MAX_FOUND,
    MISALIGNED,
    OTHER_AT,
    OTHER_BY,
    OTHER_IN,
    OTHER_READ,
    OUTSIDE,
    RACE,
    REACH,
    READ,
    ROWS,
    SHARED,
    SITE_BITS,
    START,
    STOP,
    SYNCS,
    THREAD_BITS,
    UNINITIALISED,
    VALUED,
    WATCH,
    WHEN,
    WHO,
    WORK,
    WRITE,
    WRITTEN,
)  # fmt: skip

_POINTER = types.CPointer(types.int64)
_BYTE = types.CPointer(types.uint8)
SIGNATURE = types.int64(
    types.CPointer(from_dtype(STATE)),
    types.CPointer(from_dtype(WATCH)),
    *(types.int64, types.int64, types.int64),  # no more: what is not in a register takes longer
)


def _pointer(kind: types.Type) -> Callable[[int], Any]:
    """A function that makes an address a pointer to what is of a kind."""

    def typed(typing: Any, address: types.Type) -> tuple[Any, Callable]:
        def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.int64), lower

    return intrinsic(typed)


_words, _bytes = _pointer(_POINTER), _pointer(_BYTE)


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
def _note(s, w, kind, site, array, first):
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
    w.found[i, ADDRESS] = first
    w.found[i, BY], w.found[i, IN], w.found[i, COUNT] = s.thread, s.block, 1
    w.found[i, OTHER_AT] = w.found[i, OTHER_BY] = w.found[i, OTHER_IN] = -1
    w.found[i, FENCED] = 1
    return i


@njit
def _of(cells, cell, slot):
    """Block, thread and site of what is remembered."""
    who = cells[cell, slot + WHO]
    thread = who >> SITE_BITS & (1 << THREAD_BITS) - 1
    return who >> SITE_BITS + THREAD_BITS + 1, thread, who & (1 << SITE_BITS) - 1


@njit
def _race(s, w, cells, releases, cell, slot, site, array, first):
    """Note a race with an access before; of two lines one is, the first of those that go farthest.

    Whoever is told of two lanes of a warp might put a syncwarp where a syncthreads is due.
    """
    block, thread, other = _of(cells, cell, slot)
    reach = 2 if block != s.block else int(thread >> 5 != s.thread >> 5)
    row = -1
    for i in range(w.finds):
        if w.found[i, KIND] == RACE and w.found[i, ARRAY] == array:
            one, two = w.found[i, AT], w.found[i, OTHER_AT]
            if (one == site and two == other) or (one == other and two == site):
                w.found[i, COUNT] += 1
                if w.found[i, REACH] >= reach:
                    return
                row = i
    if row < 0:
        row = _note(s, w, RACE, site, array, first)
    if row < 0:
        return
    w.found[row, AT], w.found[row, ADDRESS], w.found[row, REACH] = site, first, reach
    w.found[row, BY], w.found[row, IN] = s.thread, s.block
    w.found[row, OTHER_AT], w.found[row, OTHER_IN], w.found[row, OTHER_BY] = other, block, thread
    if reach == 2:
        now = cells[cell, slot + WHEN] >> CLOCK_BITS
        w.found[row, FENCED] = not _released(s, w, releases, now, block, thread, -1)


@njit
def _released(s, w, releases, now, block, thread, sign):
    """Whether this block came by an atomic after a thread of another had been there.

    sign: 1 where that one had a fence before, -1 where it had none.
    """
    for i in range(w.syncs):
        here = w.sync[i, 1]
        if here < s.began or (here == s.now and w.sync[i, 2] != s.thread):
            continue
        then = releases[i, block, 0] * sign
        if then > 0 and (now < then or (now == then and releases[i, block, 1] == thread)):
            return True
    return False


@njit
def _waited(s, w, releases, cells, cell, slot):
    """Whether this thread has waited for an access before, or made it itself."""
    block, thread, _ = _of(cells, cell, slot)
    when = cells[cell, slot + WHEN]
    now = when >> CLOCK_BITS
    if block == s.block:
        if now < s.now or thread == s.thread:
            return True
        same = thread // 32 == s.thread // 32
        return same and s.met[s.thread, thread % 32] >= when & (1 << CLOCK_BITS) - 1
    if w.blocks == 0 and w.syncs:
        return True
    return w.syncs > 0 and _released(s, w, releases, now, block, thread, 1)


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
def _same(first, size, does, value):
    """Whether a value is what lies at its place already."""
    if not does & VALUED:
        return False
    memory = carray(_bytes(first), size)
    same = True
    for i in range(size):
        same &= memory[i] == value >> 8 * i & 255
    return same


@njit
def _meets(s, w, cells, releases, cell, slot, since):
    """Whether there is an access before, in this slot, that this thread has not waited for."""
    if cells[cell, slot + WHEN] >> CLOCK_BITS < since:
        return False
    return not _waited(s, w, releases, cells, cell, slot)


@njit
def _write_down(s, cells, cell, slot, atomic, site):
    cells[cell, slot + WHEN] = s.now << CLOCK_BITS | s.clock[s.thread]
    who = (s.block << 1 | atomic) << THREAD_BITS | s.thread
    cells[cell, slot + WHO] = who << SITE_BITS | site


@njit
def _touch(s, w, cells, releases, cell, array, first, size, does, site, value):
    """One granule of an access."""
    since = s.began if w.array[array, SHARED] else 1  # what is older belongs to another block
    atomic, writes = does & ATOMIC != 0, does & 3 != READ
    written = cells[cell, WRITTEN + WHEN] >> CLOCK_BITS >= since
    if not written and does & 3 != WRITE and (w.array[array, SHARED] or w.array[array, FRESH]):
        _note(s, w, UNINITIALISED, site, array, first)
    plain = not cells[cell, WRITTEN + WHO] >> SITE_BITS + THREAD_BITS & 1
    beside = written and atomic and plain
    for slot in (WRITTEN, ALSO_WRITTEN):
        if written and _meets(s, w, cells, releases, cell, slot, since):
            both = atomic and cells[cell, slot + WHO] >> SITE_BITS + THREAD_BITS & 1
            if not both and not (does & 3 == WRITE and _same(first, size, does, value)):
                _race(s, w, cells, releases, cell, slot, site, array, first)
            beside |= slot == WRITTEN
    if writes:
        for slot in (FIRST_READ, OTHER_READ):
            if _meets(s, w, cells, releases, cell, slot, since):
                _race(s, w, cells, releases, cell, slot, site, array, first)
            if not atomic:  # else one that follows may be atomic as well: no race but with these
                cells[cell, slot + WHEN] = 0
        if beside:
            cells[cell, ALSO_WRITTEN + WHEN] = cells[cell, WRITTEN + WHEN]
            cells[cell, ALSO_WRITTEN + WHO] = cells[cell, WRITTEN + WHO]
        _write_down(s, cells, cell, WRITTEN, atomic, site)
    elif not atomic:
        free = not _meets(s, w, cells, releases, cell, FIRST_READ, since)
        _write_down(s, cells, cell, FIRST_READ if free else OTHER_READ, atomic, site)


@njit
def _in_gap(w, cells, array, first, size):
    """Whether a part of an access lies between the elements of a view."""
    if w.array[array, GAPS]:
        for granule in range(first >> w.shift, (first + size - 1 >> w.shift) + 1):
            if cells[w.array[array, CELLS] + granule, WRITTEN + WHEN] == GAP:
                return True
    return False


def access(state, watch, first, what, value):
    """Look at an access before it is made. Returns where it may be made.

    what: its site, bytes, and what it does, in 16, 8 and 8 bits.
    """
    s, w = carray(state, 1)[0], carray(watch, 1)[0]
    site, size, does = what >> 16, what >> 8 & 255, what & 255
    memory = carray(_words(w.cells), (1 << 40, CELL))
    array = _array(w, first, size, site)
    if array < 0 or _in_gap(w, memory, array, first, size):
        _note(s, w, OUTSIDE, site, w.origin[site] if array < 0 else array, first)
        return w.nowhere
    where = first - w.array[array, FROM]
    wrong = where & size - 1 and size in (2, 4, 8, 16)
    if wrong:
        _note(s, w, MISALIGNED, site, array, first)
    what = what & ~255 | w.array[array, SHARED]
    log(s, w, carray(_words(w.work), (ROWS, WORK)), where, what)
    if wrong or w.array[array, FIXED]:  # a GPU stops at a wrong address
        return first
    released = carray(_words(w.releases), (SYNCS, max(w.blocks, 1), 2))
    cell = w.array[array, CELLS]
    for granule in range(first >> w.shift, (first + size - 1 >> w.shift) + 1):
        _touch(s, w, memory, released, cell + granule, array, first, size, does, site, value)
    if does & 3 != READ and not w.array[array, SHARED]:
        if does & ATOMIC:
            _come_by(s, w, released, first)
        else:
            w.fence[s.thread] = 0
    return first


FINISH = types.void(types.CPointer(from_dtype(WATCH)))


def finish(watch):
    """Count what the last warp asked."""
    w = carray(watch, 1)[0]
    settle(w, carray(_words(w.work), (ROWS, WORK)))
