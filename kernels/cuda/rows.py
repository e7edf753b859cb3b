"""Rows shared by neighbouring threads: sums and maxima of them, in an order of their own.

For maths along the last axis: softmax, losses, layer norm.
"""

import math

from ._numba import blocks, cuda, device
from .layout import EVERY_LANE, THREADS, WARP

EACH = 4  # numbers of a long row that a thread takes before the row gets more threads ...
MOST_THREADS = 1024  # ... up to all that a block can have: they share rows of 50,000 classes


def threads_of_rows(
    rows: int, length: int, most: int = MOST_THREADS
) -> tuple[int, tuple[int, int], int]:
    """Grid and block (2**bits threads per row, rows) for rows of a length, and bits.

    A power of two: up to 32 threads of a row then lie in one warp, which takes two rows of 10
    classes at a time, and no thread divides to know its share.
    """
    wanted = min(length, max(WARP, blocks(length, EACH)), most)
    bits = max(0, wanted - 1).bit_length()
    deep = max(1, THREADS >> bits)
    return blocks(rows, deep), (1 << bits, deep), bits


@device
def share_of(length, bits):
    """How many numbers of a row this thread takes: every 2**bits-th, from threadIdx.x on."""
    return (length - cuda.threadIdx.x + (1 << bits) - 1) >> bits


@device
def join_row(value, part, largest):
    """The sum of a row's threads, or the largest of them, in each of these threads.

    Their order is fixed by their number: a butterfly in each warp, then one across the warps.
    """
    width, lane = cuda.blockDim.x, cuda.threadIdx.x
    for step in (16, 8, 4, 2, 1):
        if step < width:
            other = cuda.shfl_xor_sync(EVERY_LANE, value, step)
            value = max(value, other) if largest else value + other
    if width > WARP:
        warps = width >> 5
        first = cuda.threadIdx.y * warps
        if lane & 31 == 0:
            part[first + (lane >> 5)] = value
        cuda.syncthreads()
        value = part[first + (lane & (warps - 1))]
        cuda.syncthreads()
        for step in (16, 8, 4, 2, 1):
            if step < warps:
                other = cuda.shfl_xor_sync(EVERY_LANE, value, step)
                value = max(value, other) if largest else value + other
    return value


@device
def top_of(x, n, part, bits):
    """The largest number of row n."""
    top = x.dtype.type(-math.inf)
    for k in range(share_of(x.shape[1], bits)):
        c = cuda.threadIdx.x + (k << bits)
        top = max(top, x[n, c])
    return join_row(top, part, True)


@device
def total_of(x, n, top, part, bits):
    """The sum of exp(x - top) over row n."""
    total = x.dtype.type(0)
    for k in range(share_of(x.shape[1], bits)):
        c = cuda.threadIdx.x + (k << bits)
        total += math.exp(x[n, c] - top)
    return join_row(total, part, False)


@device
def top_and_rest(x, n, part, bits):
    """The largest number of row n, and log(sum of exp(x - that))."""
    top = top_of(x, n, part, bits)
    return top, math.log(total_of(x, n, top, part, bits))
