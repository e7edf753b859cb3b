"""Whether threads that go round in loops still get on.

What a thread will do depends on its stack, where all its variables are while it waits, and on
memory. A thread whose stack looks as it did before waits for memory to change; a block of which all
that has come again will go on so for ever. No loop that counts, sums or searches looks so.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from .runtime import DONE, MAX_THREADS, STACK

QUANTUM = 1024  # rounds of loops after which a thread lets others have their turn
GLANCE = 64  # the same of one that waits
SEEN, AGE, SPAN = range(3)  # columns of `mark`, as in Brent's search for a cycle


def pointer(kind: types.Type) -> Callable[[int], Any]:
    """A function that makes an address a pointer to what is of a kind."""

    def typed(typing: Any, address: types.Type) -> tuple[Any, Callable]:
        def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.int64), lower

    return intrinsic(typed)


words, octets = pointer(types.CPointer(types.int64)), pointer(types.CPointer(types.uint8))


@intrinsic
def cycles(typing: Any) -> tuple[Any, Callable]:
    """The processor's own clock."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [])
        name = "llvm.readcyclecounter"
        known = builder.module.globals
        return builder.call(known.get(name) or ir.Function(builder.module, kind, name), [])

    return types.int64(), lower


@njit
def _mixed(digest, start, stop):
    """A digest, and the bytes from one address to another."""
    for word in carray(words(start), (stop - start) // 8):
        digest = (digest ^ word) * 0x2545F4914F6CDD1D
        digest ^= digest >> 29
    for byte in carray(octets(stop - (stop - start) % 8), (stop - start) % 8):
        digest = (digest ^ byte) * 0x2545F4914F6CDD1D
    return digest


@njit
def _own(s, t):
    """What the stack of a thread that waits looks like."""
    top = s.tops[t]
    return _mixed(t, top, s.stacks + ((top - s.stacks) // STACK + 1) * STACK)


@njit
def _again(s, row, now):
    """Whether what is seen now was there before; Brent keeps what he saw at ages 1, 2, 4 ..."""
    mark = s.mark[row]
    if mark[SPAN] and mark[SEEN] == now:
        return True
    mark[AGE] += 1
    if mark[AGE] >= mark[SPAN]:
        mark[SEEN], mark[AGE], mark[SPAN] = now, 0, 2 * mark[SPAN] + 1
    return False


@njit
def forget(s, row):
    """Nothing was seen yet."""
    s.mark[row, SPAN] = s.mark[row, AGE] = 0


@njit
def waits(s, t):
    """Whether a thread that went round has nothing to show for it."""
    return _again(s, t, _own(s, t))


@njit
def hopeless(s):
    """Whether the threads of a block and all memory are as they were before.

    To look takes time, so it is done after four times as many rounds of loops as there are words.
    """
    if s.rounds == 0:
        return False
    cost = s.threads * 32
    for region in s.regions:
        if region[0] == 0:
            break
        cost += (region[1] - region[0]) // 8
    if s.rounds < 4 * cost:
        return False
    s.rounds, s.turns = 0, GLANCE
    digest = np.int64(0)
    for t in range(s.threads):
        digest = digest * 31 + s.ask[t, 0] * 8 + s.ask[t, 1]
        if s.ask[t, 0] != DONE:
            digest = digest * 31 + _own(s, t)
    for region in s.regions:
        if region[0] == 0:
            break
        digest = _mixed(digest, region[0], region[1])
    s.digest = digest
    return _again(s, MAX_THREADS, digest)
