"""The numbers that all kernels share, and how a grid covers arrays in any memory layout.

Kernels walk in strides (of a block, of a grid) that are known only when they run. `range` with such
a step starts with a 64-bit division to count its turns, some 100 instructions on a GPU. So they
walk with `while`; or, where the step is a power of two, count the turns by a shift
(reduce.steps_of, rows.share_of).
"""

from collections.abc import Sequence

from ..roles import Array
from ._numba import blocks

WARP = 32  # threads that run in step, and read each other's registers by shuffles
EVERY_LANE = 0xFFFFFFFF  # a shuffle in which the whole warp takes part
THREADS = 256  # of a block: 8 blocks fill a multiprocessor, and each may use 255 registers a thread
MOST_DEEP = 64  # threads of a block along its third axis
MOST_BLOCKS = 65535  # along the second and third axis of a grid; kernels loop over what is left

# Blocks that keep a large GPU (132 multiprocessors) busy. Where a shape gives fewer, long sums are
# cut into tasks, one for a block, whose results a second pass adds up.
ENOUGH_BLOCKS = 512  # for matrix products: their tiles take so much room that 4 run at a time ...
ENOUGH_LIGHT = 1024  # ... and for kernels that hold next to nothing: 8


def power_of_two(n: int) -> int:
    """The largest power of two up to n, at least 1."""
    return 1 << max(n, 1).bit_length() - 1


def collapse(
    shape: Sequence[int], *strides: Sequence[int]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The same elements along fewer axes: the new shape, and new strides for each array.

    Axes are put in the memory order of the last array, the output, and two that follow on each
    other in every array are made one. Contiguous arrays become one axis, a number none.
    """
    order = [a for a, n in enumerate(shape) if n != 1]
    order.sort(key=lambda a: -abs(strides[-1][a]))
    lengths: list[int] = []
    steps: list[list[int]] = []
    for a in order:
        step = [s[a] for s in strides]
        if steps and steps[-1] == [s * shape[a] for s in step]:
            lengths[-1], steps[-1] = lengths[-1] * shape[a], step
        else:
            lengths.append(shape[a])
            steps.append(step)
    return tuple(lengths), [tuple(column) for column in zip(*steps)] or [()] * len(strides)


def broadcast_strides(x: Array, shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of x broadcast to a shape: 0 along the axes on which it is repeated."""
    lead = len(shape) - x.ndim
    inner = (0 if n == 1 else s for n, s in zip(x.shape, x.strides))
    return (0,) * lead + tuple(inner)


def cover(*lengths: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A grid and a block of THREADS for up to three axes, given from the innermost one outwards.

    Threads run along the innermost axis first; where it is short, the block reaches further along
    the next. Only the grid's first axis is sure to be long enough: along the others the kernel
    goes on in steps of the grid's size.
    """
    block: list[int] = []
    left = THREADS
    for n, most in zip(lengths, (THREADS, THREADS, MOST_DEEP)):
        block.append(min(left, most, 1 << max(n - 1, 0).bit_length()))
        left //= block[-1]
    grid = [blocks(n, size) for n, size in zip(lengths, block)]
    return (grid[0], *(min(n, MOST_BLOCKS) for n in grid[1:])), tuple(block)
