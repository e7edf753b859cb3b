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
SYNCS = 64  # addresses of such atomics
ROWS = 1 << 14  # requests of a warp before they are counted; none is in row 0
BANKS = 32  # of shared memory; a bank has four bytes in every 128

# Of a granule of memory: the last write; one before it that it did not wait for, as both are atomic
# or write the same, or that was plain before an atomic one; and two reads by threads that had not
# waited for each other. WHEN: a count that goes on at each barrier and block, and in the lower half
# the thread's own, which goes on at each syncwarp; 0 where there was none. WHO: block, thread,
# site, and whether it was atomic.
WHEN, WHO = range(2)
WRITTEN, ALSO_WRITTEN, FIRST_READ, OTHER_READ, CELL = range(0, 10, 2)
THREAD_BITS, SITE_BITS, CLOCK_BITS = 10, 12, 32
GAP = -1  # WHEN of what lies between the elements of a view

# Columns of `array`. CELLS: what makes the number of an address's granule that of its cell; FROM:
# what makes the address one in memory that begins where a GPU's would; GAPS: a view with something
# in between that is not its own; SHARED: in shared memory; FRESH: nothing is in it when the launch
# begins; FIXED: nobody writes there, so there is no race.
START, STOP, CELLS, FROM, GAPS, SHARED, FRESH, FIXED, PARTS = range(9)
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
        ("work", "i8"),  # (ROWS, WORK)
        ("releases", "i8"),  # (SYNCS, blocks, 2): when a block let others go on, and its thread
        ("nowhere", "i8"),  # what a wild access touches instead
        ("shift", "i8"),  # a granule has 1 << shift bytes
        ("sites", "i8"),
        ("blocks", "i8"),  # of the launch, or 0 if they are too many
        ("arrays", "i8"),
        ("array", "i8", (MAX_ARRAYS, PARTS)),
        ("origin", "i8", MAX_SITES),  # the array that a site is sure to mean, or -1
        ("finds", "i8"),
        ("found", "i8", (MAX_FOUND, FINDING)),
        ("counts", "i8", (MAX_SITES, COUNTS)),
        ("fence", "i8", 1024),  # whether a thread had a fence after all that it wrote
        ("syncs", "i8"),
        ("sync", "i8", (SYNCS, 3)),  # address; when this block came by, and the thread
        ("warp", "i8"),  # whose requests are in `work`
        ("rows", "i8"),  # how many there are
        ("head", "i4", MAX_SITES),  # the first from a site
        ("cursor", "i4", (MAX_SITES, 32)),  # the last from a site that a lane is in
        ("uses", "i8"),
        ("used", "i4", MAX_SITES),  # sites that have one
        ("busy", "i8", BANKS),  # words that a request asks of each bank
    ],
    align=True,
)
