"""What is noted of memory while a kernel runs, and of what it does there: one record of NumPy's.

`shadow.py` and `requests.py` write it, compiled; `report.py` reads it. Arrays of several columns
have these names for them.
"""

import numpy as np

READ, WRITE, UPDATE = range(3)  # what an access does
ATOMIC, VALUED = 4, 8  # bits that are added: whether it is atomic, whether the value is told

KINDS = "race", "uninitialised read", "out of bounds", "misaligned access"
RACE, UNINITIALISED, OUTSIDE, MISALIGNED = range(4)

MAX_FOUND = 256  # findings of a launch: one for each kind, array and pair of lines
MAX_SITES = 4096  # places in a kernel that touch memory
MAX_ARRAYS = 128
MAX_ORDERED = 4096  # blocks of which it is known who waited for whom by atomics
SYNCS = 64  # addresses of such atomics: a bit for each
MAX_RELEASED = 1 << 13  # how often an address and a block go together there
THREADS = 1024
ROWS = 1 << 14  # requests of a warp before they are counted; none is in row 0
BANKS = 32  # of shared memory; a bank has four bytes in every 128
TABLE = 256  # for what a request touches: 32 lanes of 16 bytes are 160 words, if misaligned
SPREAD = 0x9E3779B1  # a prime near 2**32 over the golden ratio, which spreads numbers evenly

# Of a granule of memory: the last write and a read since, in `cells`. In `more`, which most need
# not: a write before it that it did not wait for, as both are atomic or write the same, or that
# was plain before an atomic one; and a read by a thread that had not waited for the first. WHEN: a
# count that goes on at each barrier and block, from launch to launch, and in the lower half the
# thread's own, which goes on at each syncwarp; 0 where there was none. WHO: block, whether there
# is one in `more`, whether it was atomic, thread, site.
WHEN, WHO = range(2)
WRITTEN, SEEN, CELL = range(0, 6, 2)
THREAD_BITS, SITE_BITS, CLOCK_BITS = 10, 12, 32
ATOMIC_BIT = SITE_BITS + THREAD_BITS
MORE_BIT, BLOCK_BIT = ATOMIC_BIT + 1, ATOMIC_BIT + 2

# Columns of `array`. CELLS: what makes the number of an address's granule that of its cell; SHIFT:
# a granule has 1 << SHIFT bytes; FROM: what makes the address one in memory that begins where a
# GPU's would; GAPS: a view with something in between that is not its own; SHARED: in shared memory;
# FRESH: nothing is in it when the launch begins; FIXED: nobody writes there, so there is no race.
START, STOP, CELLS, SHIFT, FROM, GAPS, SHARED, FRESH, FIXED, PARTS = range(10)
# Columns of `found`. FENCED: 0 where the block before had an atomic, but no fence before it. REACH:
# 0 where both are in a warp, 1 in a block, 2 in two.
(
    KIND, AT, OTHER_AT, ARRAY, ADDRESS, BY, IN, OTHER_BY, OTHER_IN, FENCED, REACH, COUNT,
    FINDING,
) = range(13)  # fmt: skip
# Columns of `counts`, for each site. A request is what the lanes of a warp ask at once; sectors of
# global memory are brought for it, or shared memory takes so many turns.
ACCESSES, BYTES, REQUESTS, SECTORS, TURNS, COUNTS = range(6)
# Columns of `work` behind the addresses of 32 lanes: site, bytes, whether it is of shared memory;
# the next request from this site, 0 if there is none.
WHAT, NEXT, WORK = 32, 33, 34

WATCH = np.dtype(
    [
        ("cells", "i8"),  # address of an array (granules, CELL)
        ("more", "i8"),  # the same
        ("work", "i8"),  # (ROWS, WORK)
        ("look", "i8"),  # address of `shadow.look`
        ("known", "i8"),  # (THREADS, THREADS): what each knows of the others, see `order.py`
        ("released", "i8"),  # (MAX_RELEASED, THREADS)
        ("row", "i8"),  # (SYNCS, MAX_ORDERED): of an address and a block, in `released`
        ("nowhere", "i8"),  # what a wild access touches instead
        ("gaps", "i8"),  # (granules,) of bytes: whether it lies between the elements of a view
        ("blocks", "i8"),  # of the launch, or 0 if they are too many
        ("start", "i8"),  # when the launch began
        ("arrays", "i8"),
        ("array", "i8", (MAX_ARRAYS, PARTS)),
        ("origin", "i8", MAX_SITES),  # the array that a site is sure to mean, or -1
        ("near", "i8", MAX_SITES),  # the array that it touched last
        ("finds", "i8"),
        ("found", "i8", (MAX_FOUND, FINDING)),
        ("counts", "i8", (MAX_SITES, COUNTS)),
        # whether a thread had a fence after all that it wrote to global memory, the number of its
        # block plus 1; the same of all that it wrote, and of a fence for its block alone
        ("fence", "i8", THREADS),
        ("near_fence", "i8", THREADS),
        ("syncs", "i8"),  # addresses by which threads came with an atomic after a fence
        ("sync", "i8", SYNCS),
        ("handed", "i8", SYNCS),  # which of them those knew, who came by: bits
        ("lenient", "i8"),  # they are too many: any orders all
        ("rows_left", "i8"),
        ("latest", "i8", MAX_RELEASED),  # of each row: when somebody came by, and who did last
        ("giver", "i4", MAX_RELEASED),
        ("took", "i8", THREADS),  # a thread's own count when it learned something there
        ("seen", "i8", THREADS),  # which addresses it knows; in which block, plus 1
        ("seen_of", "i8", THREADS),
        ("seen_in", "i8"),  # the block, plus 1, of which threads know some: before the barrier
        ("before", "i8"),  # that came last, and since, and when that was
        ("within", "i8"),
        ("seen_now", "i8"),
        ("bare", "i8", (THREADS, 2)),  # where a thread came by with no fence, and when
        ("bare_block", "i8", (MAX_ORDERED, 2)),
        ("came", "i8", THREADS),  # where it came by last
        ("grid", "i8"),  # when all threads of the launch met last, at a grid.sync()
        ("warp", "i8"),  # whose requests are in `work`
        ("rows", "i8"),  # how many there are
        ("head", "u4", MAX_SITES),  # the first from a site
        ("cursor", "u4", (MAX_SITES, 32)),  # the last from a site that a lane is in
        ("uses", "i8"),
        ("used", "i4", MAX_SITES),  # sites that have one
        ("busy", "i8", BANKS),  # words that a request asks of each bank
        ("table", "i8", TABLE),  # sectors or words of a request
    ],
    align=True,
)
