"""Launches whose blocks wait for each other, by `cuda.cg.this_grid().sync()`.

All blocks of such a launch are on the GPU at once. Here each has a worker of its own, with stacks
and shared memory, and they run one after the other from one grid.sync() to the next.
"""

from collections.abc import Callable, Sequence
from typing import Any

from .runtime import GRID, READY
from .scheduler import DOING, FINISHED, MET, STUCK

MULTIPROCESSORS = 132  # as an H100 has, the GPU of this compute capability
_ROOM = 2048, 32, 228 * 1024  # of each: threads, blocks, bytes of shared memory
_RESERVED = 1024  # bytes of shared memory that the system takes for a block


def resident(threads: int, shared: int) -> int:
    """How many blocks of a size are on the GPU at once, as far as its registers suffice."""
    most = _ROOM[0] // (-(-threads // 32) * 32), _ROOM[1], _ROOM[2] // (shared + _RESERVED)
    return MULTIPROCESSORS * min(most)


def together(
    workers: Sequence[Any], run: Callable[[Any], int], met: Callable[[], None] = lambda: None
) -> tuple[Any, int]:
    """Run blocks, one by each worker, from one grid.sync() to the next: how that ended, and where.

    run: lets a worker's block go on, and tells how it stopped. met: called when all wait. STUCK
    where some blocks have ended that others wait for.
    """
    while True:
        waiting = []
        for worker in workers:
            if (ended := run(worker)) not in (FINISHED, MET):
                return worker, ended
            if ended == MET:
                waiting.append(worker)
        if not waiting:
            return workers[-1], FINISHED
        if len(waiting) < len(workers):
            return waiting[-1], STUCK
        met()
        for worker in workers:
            doing = worker.state["ask"][: int(worker.record["threads"][0]), DOING]
            doing[doing == GRID] = READY
