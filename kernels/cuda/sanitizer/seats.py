"""A watched launch whose blocks wait for each other by grid.sync().

One worker runs them all, so that the shadow of memory is one. While a block waits for the others,
its threads and its shared memory have a seat beside the worker.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..emulator.grid import together
from ..emulator.runtime import STACK
from ..emulator.workers import Worker

# What goes on from block to block: counts, and what is known by them.
_COMMON = ["now", "barriers", "clock", "met", "printed", "silent", "silent_by"]


class Seat:
    """A block's threads and shared memory, with the shadow of that."""

    def __init__(self, worker: Worker, number: int, shadows: Sequence[np.ndarray]) -> None:
        self.worker, self.number, self.shadows = worker, number, shadows
        self.record = worker.record.copy()
        names = self.record.dtype.names or ()
        self.state = {name: self.record[name][0] for name in names if name not in _COMMON}
        self.stacks = np.zeros((int(self.record["threads"][0]), STACK // 8), np.int64)
        self.record["stacks"] = self.stacks.ctypes.data
        self.record["laid"] = self.record["frees"] = 0
        self.memory = [worker.shared.copy(), *(shadow.copy() for shadow in shadows)]

    def take(self) -> None:
        """Have the worker go on with this block."""
        record = self.worker.record
        common = record[_COMMON].copy()
        record[:] = self.record
        record[_COMMON] = common
        record["now"] += 1
        for there, mine in zip((self.worker.shared, *self.shadows), self.memory):
            there[:] = mine

    def leave(self) -> None:
        """Keep this block as it is."""
        self.record[:] = self.worker.record
        for there, mine in zip((self.worker.shared, *self.shadows), self.memory):
            mine[:] = there


def watch_together(
    worker: Worker,
    blocks: int,
    shadows: Sequence[np.ndarray],
    run: Callable[[int], int],
    met: Callable[[], None],
) -> int:
    """Run all blocks from one grid.sync() to the next; how that ended.

    run: lets a block go on. met: called when all have come to a grid.sync(). The worker is left
    with the block in which it ended.
    """
    own = worker.record["stacks"][0]
    seats = [Seat(worker, number, shadows) for number in range(blocks)]

    def go_on(seat: Seat) -> int:
        seat.take()
        ended = run(seat.number)
        seat.leave()
        return ended

    try:
        seat, ended = together(seats, go_on, met)
        seat.take()
    finally:
        worker.record["stacks"], worker.record["laid"], worker.record["frees"] = own, 0, 0
    return ended
