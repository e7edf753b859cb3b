"""Threads that load batches ahead, in order, and that nothing can make hang."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import Any


def in_order(
    load: Callable[[Any], Any], tasks: Iterable[Any], workers: int, ahead: int
) -> Generator[Any]:
    """Yield load(task) for each task in turn, computed by threads at most `ahead` tasks early.

    What load raises is raised here, in its turn, with the worker's traceback. Only this generator
    hands out work, so a worker has nothing to wait for but the next task: when the generator ends,
    for whatever reason, each gets None and leaves. They are daemons: a call that never
    returns cannot keep the interpreter from its exit.
    """
    todo: queue.SimpleQueue[tuple[Any, Future] | None] = queue.SimpleQueue()
    for i in range(workers):
        threading.Thread(target=_work, args=(load, todo), name=f"loader-{i}", daemon=True).start()
    waiting: deque[Future] = deque()
    try:
        for task in tasks:
            waiting.append(Future())
            todo.put((task, waiting[-1]))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:  # left early: what no worker has begun is dropped
            future.cancel()
        for _ in range(workers):
            todo.put(None)


def _work(load: Callable[[Any], Any], todo: queue.SimpleQueue) -> None:
    while (item := todo.get()) is not None:
        task, future = item
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(load(task))
            except BaseException as error:  # even SystemExit: it must not vanish with the thread
                error.add_note(f"in a thread of the DataLoader, while it loaded samples {task}")
                future.set_exception(error)
        del item, future  # while it waits, a worker keeps no batch alive
