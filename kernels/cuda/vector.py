"""Four neighbours at a time: 128-bit loads and stores of arrays that are aligned, and the tail."""

from ._numba import device
from .intrinsics import ld4, st4


@device
def load4(x, i, wide):
    """x[i : i + 4] of a contiguous array, 0 past its end. i < x.size is a multiple of 4.

    wide: x starts at a multiple of 16 bytes (`aligned`), so that one load fetches four.
    """
    zero = x.dtype.type(0)
    a, b, c, d = zero, zero, zero, zero
    if wide and i + 4 <= x.size:
        a, b, c, d = ld4(x, i)
    else:
        a = x[i]
        if i + 1 < x.size:
            b = x[i + 1]
        if i + 2 < x.size:
            c = x[i + 2]
        if i + 3 < x.size:
            d = x[i + 3]
    return a, b, c, d


@device
def store4(y, i, wide, a, b, c, d):
    """y[i : i + 4] = a, b, c, d as far as y goes."""
    if wide and i + 4 <= y.size:
        st4(y, i, a, b, c, d)
    else:
        y[i] = a
        if i + 1 < y.size:
            y[i + 1] = b
        if i + 2 < y.size:
            y[i + 2] = c
        if i + 3 < y.size:
            y[i + 3] = d
