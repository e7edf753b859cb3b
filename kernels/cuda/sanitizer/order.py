"""Who has waited for whom: by barriers, by syncwarp, by atomics.

A thread that comes by an address with an atomic has seen what others did before they came by there,
if they had a fence in between: that is how locks are taken and handed on, how flags are raised, how
blocks count who is last. Threads are emulated one after the other, so who came first is known.

What a thread of this block knows of each other one is a count of that one's, as in a vector clock;
it is handed on from thread to thread at each address. Of other blocks, which have ended, a thread
knows what they left at the addresses that it, or who let it go on, came by.
"""

import numpy as np
from numba import carray, njit, types

from ..emulator.progress import pointer
from .watch import CLOCK_BITS, MAX_ORDERED, MAX_RELEASED, SYNCS, THREADS

_counts = pointer(types.CPointer(types.int32))
# what begins anew with each launch
FIELDS = (
    "fence", "near_fence", "syncs", "sync", "handed", "lenient", "rows_left", "latest", "giver",
    "took", "seen", "seen_of", "seen_in", "before", "within", "seen_now", "bare", "bare_block",
    "came", "grid",
)  # fmt: skip


class Tables:
    """The memory of what threads and blocks have left, from launch to launch."""

    def __init__(self, watch: np.ndarray) -> None:
        self.watch = watch
        self.known = np.zeros((THREADS, THREADS), np.int32)
        self.released = np.zeros((MAX_RELEASED, THREADS), np.int32)
        self.row = np.zeros((SYNCS, MAX_ORDERED), np.int32)
        for name in ("known", "released", "row"):
            watch[name] = getattr(self, name).ctypes.data

    def clear(self) -> None:
        """Forget the launch before."""
        watch = self.watch
        if watch["rows_left"]:
            self.known.fill(0)
            self.released[: watch["rows_left"] + 1] = 0
            self.row[: watch["syncs"]] = 0
        for name in FIELDS:
            watch[name] = 0


@njit
def _known(w):
    """What each thread knows of the count of each other one."""
    return carray(_counts(w.known), (THREADS, THREADS))


@njit
def _released(w):
    """The counts that were left at an address by the threads of a block."""
    return carray(_counts(w.released), (MAX_RELEASED, THREADS))


@njit
def _row(w):
    """Which row of these an address and a block have; 0: none."""
    return carray(_counts(w.row), (SYNCS, MAX_ORDERED))


@njit
def by_barrier(s, thread, when):
    """Whether this thread has waited for one of its block by syncthreads or syncwarp, or is it."""
    if when >> CLOCK_BITS < s.now or thread == s.thread:
        return True
    count = when & (1 << CLOCK_BITS) - 1
    return thread // 32 == s.thread // 32 and s.met[s.thread, thread % 32] >= count


@njit
def waited(s, w, block, thread, when):
    """Whether this thread has waited for an access before, or made it itself."""
    now, count = when >> CLOCK_BITS, when & (1 << CLOCK_BITS) - 1
    if now < w.grid:
        return True
    if block != s.block:
        return w.syncs > 0 and (w.lenient != 0 or _left(s, w, block, thread, now, count))
    if by_barrier(s, thread, when):
        return True
    if w.syncs == 0:
        return False
    known, first = _known(w), s.thread // 32 * 32
    if w.lenient or known[s.thread, thread] >= count:
        return True
    for lane in range(32):  # a lane that met this one may have known
        took = w.took[first + lane]
        if took and s.met[s.thread, lane] >= took and known[first + lane, thread] >= count:
            return True
    return False


@njit
def _left(s, w, block, thread, now, count):
    """Whether another block left what it did at an address that this thread knows of."""
    seen, row, released = _seen(s, w), _row(w), _released(w)
    for i in range(w.syncs):
        at = row[i, block]
        if seen >> i & 1 and at and (now < w.latest[at] or released[at, thread] >= count):
            return True
    return False


@njit
def _seen(s, w):
    """The addresses that this thread, or who let it go on, came by: a bit for each."""
    if w.seen_in != s.block + 1:
        return 0
    t = s.thread
    seen = w.before | (w.within if w.seen_now < s.now else 0)
    seen |= w.seen[t] if w.seen_of[t] == s.block + 1 else 0
    for lane in range(32):
        u = t // 32 * 32 + lane
        if w.seen_of[u] == s.block + 1 and s.met[t, lane] >= w.took[u]:
            seen |= w.seen[u]
    return seen


@njit
def _find(w, address):
    for i in range(w.syncs):
        if w.sync[i] == address:
            return i
    return -1


@njit
def come_by(s, w, address, shared):
    """An atomic: what was left here is seen, and what this thread has done is left.

    An address with its bits turned over stands for one at which nothing is left for other blocks.
    """
    t, wide = s.thread, not shared and w.fence[s.thread] == s.block + 1
    if w.syncs:
        for place in (address, ~address):
            i = _find(w, place)
            if i >= 0:
                _take(s, w, i, place == address)
    if wide or w.near_fence[t] == s.block + 1:
        _leave(s, w, address if wide else ~address)
    else:
        w.bare[t, 0], w.bare[t, 1] = address, s.now << CLOCK_BITS | s.clock[t]
        if w.blocks:
            w.bare_block[s.block, 0], w.bare_block[s.block, 1] = address, s.now
    w.came[t] = address


@njit
def _take(s, w, i, wide):
    """See what was left at an address."""
    t = s.thread
    if w.blocks:
        at, known, released = _row(w)[i, s.block], _known(w), _released(w)
        if at:
            giver = w.giver[at]  # who knows how much it left knows the rest
            if giver != t and known[t, giver] < released[at, giver]:
                for u in range(s.threads):
                    known[t, u] = max(known[t, u], released[at, u])
                w.took[t] = s.clock[t]
    if not wide:
        return
    if w.seen_in != s.block + 1:
        w.seen_in, w.before, w.within, w.seen_now = s.block + 1, 0, 0, s.now
    if w.seen_now < s.now:
        w.before, w.within, w.seen_now = w.before | w.within, 0, s.now
    if w.seen_of[t] != s.block + 1:
        w.seen_of[t], w.seen[t] = s.block + 1, 0
    new = (1 << i | w.handed[i]) & ~w.seen[t]
    if new:
        w.within |= new
        w.seen[t] |= new
        w.took[t] = s.clock[t]


@njit
def _leave(s, w, address):
    """Leave all that this thread did and knows for those who come by."""
    i, t = _find(w, address), s.thread
    if i < 0 and w.syncs < SYNCS:
        i = w.syncs
        w.syncs += 1
        w.sync[i] = address
    if i < 0 or not w.blocks:
        w.syncs, w.lenient = max(w.syncs, 1), 1
        return
    row, known, released = _row(w), _known(w), _released(w)
    at = row[i, s.block]
    if at == 0:
        if w.rows_left == MAX_RELEASED - 1:
            w.lenient = 1
            return
        w.rows_left += 1
        at = row[i, s.block] = w.rows_left
    released[at, t] = s.clock[t]
    first = t // 32 * 32
    for lane in range(min(32, s.threads - first)):
        released[at, first + lane] = max(released[at, first + lane], s.met[t, lane])
    if w.took[t]:
        for u in range(s.threads):
            released[at, u] = max(released[at, u], known[t, u])
    w.latest[at], w.giver[at] = s.now, t
    w.handed[i] |= _seen(s, w)
    s.clock[t] += 1  # what it does from now on was not left


@njit
def bare(s, w, block, thread, when):
    """Whether only a fence was missing: both came by an address, one after the access."""
    if block == s.block:
        return w.bare[thread, 1] >= when and w.bare[thread, 0] == w.came[s.thread]
    if not w.blocks or w.bare_block[block, 1] < when >> CLOCK_BITS:
        return False
    came = False
    for t in range(s.threads):  # one of this block, for all
        came |= w.came[t] == w.bare_block[block, 0]
    return came
