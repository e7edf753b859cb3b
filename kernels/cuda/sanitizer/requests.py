"""What the lanes of a warp ask of memory at once: how many sectors, and how many turns, that takes.

Lanes are emulated one after the other, so what they ask is written down, and put together when the
next warp has its turn: the n-th time that a lane is at a place of the code goes with the n-th time
of each other lane.
"""

from numba import njit

from .watch import (
    BANKS,
    LANE,
    LOG,
    REQUESTS,
    SECTOR,
    SECTORS,
    TIMES,
    TURNS,
    WHAT,
    WHERE,
    WORD,
)  # fmt: skip


@njit
def log(s, w, entries, work, first, what):
    """Write an access down. what: its site, its bytes, and whether it is of shared memory."""
    warp = s.block * 32 + s.thread // 32
    if warp != w.warp or w.logged == LOG:
        settle(w, entries, work)
        w.warp = warp
    lane, site, n = s.thread % 32, what >> 16, w.logged
    entries[n, WHERE], entries[n, TIMES] = first, w.times[lane, site]
    entries[n, LANE], entries[n, WHAT] = lane, what
    w.times[lane, site] += 1
    w.logged += 1


@njit
def settle(w, entries, work):
    """Count the requests of what was written down, and begin anew."""
    if not w.logged:
        return
    requests = 0
    for site in range(w.sites):
        most = 0
        for lane in range(32):
            most = max(most, w.times[lane, site])
            w.times[lane, site] = 0
        w.base[site] = requests
        requests += most
    for request in range(requests):
        for lane in range(32):
            work[request, lane] = 0
    for i in range(w.logged):
        what = entries[i, WHAT]
        request = w.base[what >> 16] + entries[i, TIMES]
        work[request, entries[i, LANE]], work[request, 32] = entries[i, WHERE], what
    for request in range(requests):
        _count(w, work, request)
    w.logged = 0


@njit
def _count(w, work, request):
    """Count one request: addresses of 32 lanes, 0 where one asks nothing, and what it is."""
    what = work[request, 32]
    site, size, shared = what >> 16, what >> 8 & 255, what & 1
    w.counts[site, REQUESTS] += 1
    if not shared:
        w.counts[site, SECTORS] += _units(w, work, request, 0, 32, size, SECTOR)
        return
    # lanes that ask for more than 4 bytes take turns: halves of a warp, or quarters
    part = 32 if size <= 4 else 16 if size == 8 else 8
    for first in range(0, 32, part):
        for bank in range(BANKS):
            w.busy[bank] = 0
        _units(w, work, request, first, first + part, size, WORD)
        turns = 0
        for bank in range(BANKS):
            turns = max(turns, w.busy[bank])
        w.counts[site, TURNS] += turns


@njit
def _units(w, work, request, first, last, size, unit):
    """How many different units of so many bytes some lanes touch; words are noted by bank."""
    found = 0
    for i in range(first, last):
        here = work[request, i]
        if not here:
            continue
        for n in range(here // unit, (here + size - 1) // unit + 1):
            new = True
            for j in range(i - 1, first - 1, -1):  # has a lane before touched it?
                other = work[request, j]
                if other and other // unit <= n <= (other + size - 1) // unit:
                    new = False
                    break
            if new:
                found += 1
                if unit == WORD:
                    w.busy[n % BANKS] += 1
    return found
