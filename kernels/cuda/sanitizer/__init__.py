"""Runs a CUDA kernel on the CPU and holds every access to memory against every other one.

    report = sanitize(kernel, grid, block, *args)
    assert report, report

What it finds, each with array, index, threads, block and line of the source: races, within a block
and between blocks, of shared and of global memory; a missing syncwarp; reads of what nobody has
written; accesses outside an array, or at a wrong address; barriers and shuffles that a part of the
threads does not reach; loops without an end; launches that no GPU takes. It counts bytes, requests
of warps, sectors and turns of shared memory, by line.

How: the emulator's code of the kernel has a call before each access (`instrument.py`), to compiled
Python that knows, of each granule of memory, its last two writes and two reads since (`shadow.py`),
and what the lanes of a warp asked together (`requests.py`). Threads run one after the other, in the
order of `schedule`; but what is a race does not depend on who was first.

What it cannot see. Paths that these arguments do not take, and orders of locks and flags that did
not come about. An order that threads make by plain or volatile stores: only atomics after a
threadfence count, and beyond 4096 blocks or 64 places any of these does. Of
more than two reads of a granule between two writes, by threads that have not waited for each other,
all but two; of such atomics before a plain access, too. A race of stores that are equal with these
arguments only. Local arrays, constants. Where the compiler has put two reads of a thread into one,
there is one. A wrong index that lies in the array; and, through a pointer that may be of several
arrays, in another one. The memory model beyond this, timing, and what NVIDIA's assembler does.

It is held to its word by the kernels of tests/sanitized/; docs/sanitizer.md has the score.
"""

from .launch import sanitize
from .report import Finding, Line, Place, Report

__all__ = ["Finding", "Line", "Place", "Report", "sanitize"]
