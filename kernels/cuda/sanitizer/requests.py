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
    SPREAD,
    TABLE,
    TURNS,
    WHAT,
)


@njit
def row_of(s, w, work, site, lane):
    """The row of the request that an access belongs to, 0 where it is the first one of it."""
    if s.block << 5 | s.thread >> 5 != w.warp:
        return 0
    before = w.cursor[site, lane]
    return work[before, NEXT] if before else w.head[site]


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
    lanes, last, astray, first = 0, 0, 0, work[row, 0]
    for i in range(32):
        here = work[row, i]
        lanes += here != 0
        last = max(last, here)
        astray += here != 0 and here != first + i * size
    w.counts[site, ACCESSES] += lanes
    w.counts[site, BYTES] += lanes * size
    w.counts[site, REQUESTS] += 1
    if not astray and last == first + (lanes - 1) * size and not first & size - 1:
        # the first lanes, one element after the other: most requests are so
        if shared:
            w.counts[site, TURNS] += lanes * size + 127 >> 7
        else:
            w.counts[site, SECTORS] += (last + size - 1 >> 5) - (first >> 5) + 1
        return
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
    found = before = 0
    for i in range(TABLE):
        w.table[i] = 0
    for i in range(first, last):
        here = work[row, i]
        if not here:
            continue
        for unit in range(here >> shift, (here + size - 1 >> shift) + 1):
            if unit == before:
                continue
            before = unit
            at = unit * SPREAD >> 32 & TABLE - 1
            while w.table[at] and w.table[at] != unit:
                at = at + 1 & TABLE - 1
            if not w.table[at]:
                w.table[at] = unit
                found += 1
                w.busy[unit & BANKS - 1] += 1
    return found
