"""What is remembered of each granule of memory, and what each access is held against.

Two accesses of one granule are a race if one of them writes, not both are atomic, they are of two
threads, and neither thread has waited for the other in between (`order.py`):

    barriers    all threads of a block, for all that they did before
    syncwarp    the lanes in its mask, for all that they did and had waited for before
    atomics     a thread that comes by where another one came by, if that one had a fence

Plain stores of the value that is already there are no race, as in GPUVerify: whoever is last, the
memory is the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, from_dtype, njit, types
from numba.extending import intrinsic

from ..emulator.progress import octets, words
from ..emulator.runtime import STATE
from .order import bare, by_barrier, come_by, waited
from .requests import log, row_of, settle
from .watch import (
    ADDRESS,
    ARRAY,
    AT,
    ATOMIC,
    ATOMIC_BIT,
    BLOCK_BIT,
    BY,
    CELL,
    CELLS,
    CLOCK_BITS,
    COUNT,
    FENCED,
    FIXED,
    FRESH,
    FROM,
    GAPS,
    IN,
    KIND,
    MAX_FOUND,
    MISALIGNED,
    MORE_BIT,
    OTHER_AT,
    OTHER_BY,
    OTHER_IN,
    OUTSIDE,
    RACE,
    REACH,
    READ,
    ROWS,
    SEEN,
    SHARED,
    SHIFT,
    SITE_BITS,
    START,
    STOP,
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

SIGNATURE = types.int64(
    types.CPointer(from_dtype(STATE)),
    types.CPointer(from_dtype(WATCH)),
    *(types.int64, types.int64, types.int64),  # no more: what is not in a register takes longer
)


@njit
def _cells(w, second=False):
    """What is remembered of granules, or the second of each in `more`."""
    return carray(words(w.more if second else w.cells), (1 << 40, CELL))


@njit
def _array(w, first, size, site):
    """The array that an access lies in, or -1. Mostly that of the last one from this site."""
    i = w.near[site]
    if w.array[i, START] <= first and first + size <= w.array[i, STOP]:
        return i
    if w.origin[site] >= 0:
        return -1
    for i in range(w.arrays):
        if w.array[i, START] <= first and first + size <= w.array[i, STOP]:
            w.near[site] = i
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
    s.astray |= kind == OUTSIDE
    if w.finds == MAX_FOUND:
        return -1
    i = w.finds
    w.finds += 1
    w.found[i, KIND], w.found[i, AT], w.found[i, ARRAY] = kind, site, array
    w.found[i, ADDRESS] = first
    w.found[i, BY], w.found[i, IN], w.found[i, COUNT] = s.thread, s.block, 1
    w.found[i, OTHER_AT] = w.found[i, OTHER_BY] = w.found[i, OTHER_IN] = -1
    w.found[i, FENCED], w.found[i, REACH] = 1, 0
    return i


@njit
def _of(cells, cell, slot):
    """Block, thread and site of what is remembered."""
    who = cells[cell, slot + WHO]
    thread = who >> SITE_BITS & (1 << THREAD_BITS) - 1
    return who >> BLOCK_BIT, thread, who & (1 << SITE_BITS) - 1


@njit
def _race(s, w, cells, cell, slot, site, array, first):
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
    w.found[row, FENCED] = not bare(s, w, block, thread, cells[cell, slot + WHEN])


@njit
def _waited(s, w, cells, cell, slot):
    """Whether this thread has waited for an access before, or made it itself."""
    block, thread, _ = _of(cells, cell, slot)
    return waited(s, w, block, thread, cells[cell, slot + WHEN])


@njit
def _same(first, size, does, value):
    """Whether a value is what lies at its place already."""
    if not does & VALUED:
        return False
    memory = carray(octets(first), size)
    same = True
    for i in range(size):
        same &= memory[i] == value >> 8 * i & 255
    return same


@njit
def _since(cells, cell, slot, since):
    """Whether there was an access since."""
    return cells[cell, slot + WHEN] >> CLOCK_BITS >= since


@njit
def _more(cells, cell, slot):
    """Whether there is a second one."""
    return cells[cell, slot + WHO] >> MORE_BIT & 1


@njit
def _own(s, cells, cell, slot, shared):
    """Whether this thread made what accesses there were, or waited for them at a barrier."""
    who = cells[cell, slot + WHO]
    mine = who >> SITE_BITS & (1 << THREAD_BITS) - 1 == s.thread
    before = cells[cell, slot + WHEN] >> CLOCK_BITS < s.now
    if who >> MORE_BIT & 1:  # in shared memory, the second is not later than the first
        mine, before = False, before and shared
    return who >> BLOCK_BIT == s.block and (mine or before)


@njit
def _write_down(s, cells, cell, slot, more, atomic, site):
    cells[cell, slot + WHEN] = s.now << CLOCK_BITS | s.clock[s.thread]
    who = ((s.block << 1 | more) << 1 | atomic) << THREAD_BITS | s.thread
    cells[cell, slot + WHO] = who << SITE_BITS | site


@njit
def _behind_writes(s, w, cell, array, first, size, does, site, value, since):
    """Hold an access against the writes before. Whether it has not waited for the last of them."""
    atomic, beside = does & ATOMIC != 0, False
    for second in range(1 + _more(_cells(w), cell, WRITTEN)):
        cells = _cells(w, second)
        if not _since(cells, cell, WRITTEN, since) or _waited(s, w, cells, cell, WRITTEN):
            continue
        both = atomic and cells[cell, WRITTEN + WHO] >> ATOMIC_BIT & 1
        if not both and not (does & 3 == WRITE and _same(first, size, does, value)):
            _race(s, w, cells, cell, WRITTEN, site, array, first)
        beside |= second == 0
    return beside


@njit
def _behind_reads(s, w, cell, array, first, site, since):
    """Hold a write against the reads before."""
    for second in range(1 + _more(_cells(w), cell, SEEN)):
        cells = _cells(w, second)
        if _since(cells, cell, SEEN, since) and not _waited(s, w, cells, cell, SEEN):
            _race(s, w, cells, cell, SEEN, site, array, first)


@njit
def _read(s, w, cell, site, seen, after):
    """Remember a read: in the place of one that it has waited for, `after` it, or beside it."""
    cells = _cells(w)
    if not seen:
        _write_down(s, cells, cell, SEEN, 0, 0, site)
    elif after:
        _write_down(s, cells, cell, SEEN, _more(cells, cell, SEEN), 0, site)
    else:
        cells[cell, SEEN + WHO] |= 1 << MORE_BIT
        _write_down(s, _cells(w, True), cell, SEEN, 0, 0, site)


@njit
def _touch(s, w, cell, array, first, size, does, site, value):
    """One granule of an access."""
    cells = _cells(w)
    shared = w.array[array, SHARED]
    since = s.began if shared else w.start  # what is older belongs to others
    written, beside = _since(cells, cell, WRITTEN, since), False
    if written:
        plain = not cells[cell, WRITTEN + WHO] >> ATOMIC_BIT & 1
        beside = does & ATOMIC and plain
        if not _own(s, cells, cell, WRITTEN, shared):
            beside |= _behind_writes(s, w, cell, array, first, size, does, site, value, since)
    elif does & 3 != WRITE and (shared or w.array[array, FRESH]):
        _note(s, w, UNINITIALISED, site, array, first)
    seen = _since(cells, cell, SEEN, since)
    if does & 3 == READ:
        if not does & ATOMIC:
            _read(s, w, cell, site, seen, seen and _waited(s, w, cells, cell, SEEN))
        return
    if seen:
        if not _own(s, cells, cell, SEEN, shared):
            _behind_reads(s, w, cell, array, first, site, since)
        if not does & ATOMIC:  # else what follows may be atomic as well: no race but with these
            cells[cell, SEEN + WHEN] = 0
    if beside:
        more = _cells(w, True)
        more[cell, WRITTEN + WHEN] = cells[cell, WRITTEN + WHEN]
        more[cell, WRITTEN + WHO] = cells[cell, WRITTEN + WHO]
    others = beside or (written and _more(cells, cell, WRITTEN))
    _write_down(s, cells, cell, WRITTEN, others, does & ATOMIC != 0, site)


@njit
def _write_unfenced(s, w, shared):
    """A thread has written: its fences before are none for that."""
    w.near_fence[s.thread] = 0
    if not shared:
        w.fence[s.thread] = 0


@njit
def _cell(w, array, address):
    """The number of an address's cell."""
    return (address >> w.array[array, SHIFT]) + w.array[array, CELLS]


@njit
def _in_gap(w, cell):
    """Whether a granule lies between the elements of a view."""
    return carray(octets(w.gaps), 1 << 40)[cell] != 0


def look(state, watch, first, what, value):
    """Look at an access before it is made. Returns where it may be made.

    what: its site, bytes, and what it does, in 16, 8 and 8 bits.
    """
    s, w = carray(state, 1)[0], carray(watch, 1)[0]
    site, size, does = what >> 16, what >> 8 & 255, what & 255
    array = _array(w, first, size, site)
    outside = array < 0
    if array >= 0 and w.array[array, GAPS]:
        for cell in range(_cell(w, array, first), _cell(w, array, first + size - 1) + 1):
            outside |= _in_gap(w, cell)
    if outside:
        _note(s, w, OUTSIDE, site, w.origin[site] if array < 0 else array, first)
        return w.nowhere
    where = first - w.array[array, FROM]
    wrong = where & size - 1 and size in (2, 4, 8, 16)
    if wrong:
        _note(s, w, MISALIGNED, site, array, first)
    log(s, w, carray(words(w.work), (ROWS, WORK)), where, what & ~255 | w.array[array, SHARED])
    if wrong or w.array[array, FIXED]:  # a GPU stops at a wrong address
        return first
    for cell in range(_cell(w, array, first), _cell(w, array, first + size - 1) + 1):
        _touch(s, w, cell, array, first, size, does, site, value)
    if does & ATOMIC:
        come_by(s, w, first, w.array[array, SHARED])
    elif does & 3 != READ:
        _write_unfenced(s, w, w.array[array, SHARED])
    return first


@intrinsic
def _call(
    typing: Any,
    address: types.Type,
    state: types.Type,
    watch: types.Type,
    first: types.Type,
    what: types.Type,
    value: types.Type,
) -> tuple[Any, Callable]:
    """Call a function of `SIGNATURE` by its address: it is not to be put in here."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        kind = ir.FunctionType(context.get_value_type(types.int64), [a.type for a in args[1:]])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(address, state, watch, first, what, value), lower


@njit(forceinline=True)
def _is_easy(s, w, cell, array, does, site):
    """Whether barriers alone say that an access of a granule is no race; then remember it."""
    cells, shared = _cells(w), w.array[array, SHARED]
    since = s.began if shared else w.start
    written, seen = _since(cells, cell, WRITTEN, since), _since(cells, cell, SEEN, since)
    if written:
        easy = _own(s, cells, cell, WRITTEN, shared)
    else:
        easy = does == WRITE or not (shared or w.array[array, FRESH])
    if not easy:
        return False
    if does == READ:
        block, thread, _ = _of(cells, cell, SEEN)
        if seen and (block != s.block or w.syncs):
            return False
        _read(s, w, cell, site, seen, by_barrier(s, thread, cells[cell, SEEN + WHEN]))
        return True
    if seen and not _own(s, cells, cell, SEEN, shared):
        return False
    cells[cell, SEEN + WHEN] = 0
    _write_down(s, cells, cell, WRITTEN, 0, 0, site)
    _write_unfenced(s, w, shared)
    return True


def access(state, watch, first, what, value):
    """What `look` does, of the accesses that are most of all, in a tenth of its code.

    It knows the array from the last time, and the request from another lane of the warp.
    """
    s, w = carray(state, 1)[0], carray(watch, 1)[0]
    work = carray(words(w.work), (ROWS, WORK))
    site, size, does = np.uint32(what >> 16), what >> 8 & 255, what & 3
    array, lane = np.uint32(w.near[site]), np.uint32(s.thread & 31)
    where = first - w.array[array, FROM]
    inside = w.array[array, START] <= first and first + size <= w.array[array, STOP]
    row = np.uint32(row_of(s, w, work, site, lane))
    easy = inside and row and not (what & ATOMIC or where & size - 1)
    if easy and (w.array[array, GAPS] or not w.array[array, FIXED]):
        cell = np.uint64(_cell(w, array, first))
        easy = cell == np.uint64(_cell(w, array, first + size - 1))
        if easy and w.array[array, GAPS]:
            easy = not _in_gap(w, cell)
        if easy and not w.array[array, FIXED]:
            easy = _is_easy(s, w, cell, array, does, site)
    if not easy:
        return _call(w.look, state, watch, first, what, value)
    work[row, lane], w.cursor[site, lane] = where, row
    return first


FINISH = types.void(types.CPointer(from_dtype(WATCH)))


def finish(watch):
    """Count what the last warp asked."""
    w = carray(watch, 1)[0]
    settle(w, carray(words(w.work), (ROWS, WORK)))
