"""What the lanes of a warp ask of memory at once: how many sectors, and how many turns, that takes.

Lanes are emulated one after the other, so what they ask is put together as it comes: the n-th time
that a lane is at a place of the code goes with the n-th time of each other lane. When the next warp
has its turn, the requests are counted.
"""

from numba import njit

from .watch import (
    ACCESSES,
    BANKS,
    BYTES,
    NEXT,
    REQUESTS,
    ROWS,
    SECTORS,
    TURNS,
    WHAT,
)


@njit
def log(s, w, work, where, what):
    """Write an access down. what: its site, its bytes, and whether it is of shared memory."""
    warp, lane, site = s.block << 5 | s.thread >> 5, s.thread & 31, what >> 16
    if warp != w.warp or w.rows == ROWS - 1:
        settle(w, work)
        w.warp = warp
    before = w.cursor[site, lane]
    row = work[before, NEXT] if before else w.head[site]
    if row == 0:
        w.rows += 1
        row = w.rows
        for i in range(32):
            work[row, i] = 0
        work[row, WHAT], work[row, NEXT] = what, 0
        if before:
            work[before, NEXT] = row
        else:
            w.head[site] = row
            w.used[w.uses] = site
            w.uses += 1
    work[row, lane] = where
    w.cursor[site, lane] = row


@njit
def settle(w, work):
    """Count the requests of what was written down, and begin anew."""
    for row in range(1, w.rows + 1):
        _count(w, work, row)
    for i in range(w.uses):
        site = w.used[i]
        w.head[site] = 0
        for lane in range(32):
            w.cursor[site, lane] = 0
    w.rows = w.uses = 0


@njit
def _count(w, work, row):
    """Count one request: addresses of 32 lanes, 0 where one asks nothing, and what it is."""
    what = work[row, WHAT]
    site, size, shared = what >> 16, what >> 8 & 255, what & 1
    lanes = 0
    for i in range(32):
        lanes += work[row, i] != 0
    w.counts[site, ACCESSES] += lanes
    w.counts[site, BYTES] += lanes * size
    w.counts[site, REQUESTS] += 1
    if not shared:
        w.counts[site, SECTORS] += _units(w, work, row, 0, 32, size, 5)
        return
    # lanes that ask for more than 4 bytes take turns: halves of a warp, or quarters
    part = 32 if size <= 4 else 16 if size == 8 else 8
    for first in range(0, 32, part):
        for bank in range(BANKS):
            w.busy[bank] = 0
        _units(w, work, row, first, first + part, size, 2)
        turns = 0
        for bank in range(BANKS):
            turns = max(turns, w.busy[bank])
        w.counts[site, TURNS] += turns


@njit
def _units(w, work, row, first, last, size, shift):
    """How many different units of 1 << shift bytes some lanes touch; w.busy has them by bank."""
    found, top = 0, -1
    for i in range(first, last):
        here = work[row, i]
        if not here:
            continue
        for n in range(here >> shift, (here + size - 1 >> shift) + 1):
            new = n > top
            if n < top:  # no order: has a lane before touched it?
                new = True
                for j in range(first, i):
                    other = work[row, j]
                    if other and other >> shift <= n <= other + size - 1 >> shift:
                        new = False
                        break
            if new:
                found += 1
                top = max(top, n)
                w.busy[n & BANKS - 1] += 1
    return found
