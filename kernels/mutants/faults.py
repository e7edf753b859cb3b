"""The mistakes that people make in kernels, as changes of a syntax tree.

An operator looks at one node and yields what could stand there by mistake. Left out is what no
test can notice: the barrier at the very end, `>=` for `>` where equal values give the same, room
in a shared array that nobody reads, a block more than needed behind a guard.
"""

import ast
from collections.abc import Iterable

from . import arithmetic, threads
from .scope import Scope
from .source import Fault, Source

# What kind of test notices a fault that survived.
HINTS = {
    "edge": "Sizes that are not a multiple of the block, 1 and 0, and a value exactly at the "
    "limit; hold the memory behind the output, or run it under sanitize.",
    "guard": "Sizes that are not a multiple of the block: then threads are left over, and must "
    "not touch memory. sanitize names the line where one does.",
    "condition": "Values for which the condition is true and values for which it is not.",
    "barrier": "Blocks of more than one warp, several orders of the threads (the emulator's "
    "schedule), or sanitize, which reports the race itself.",
    "atomic": "Many threads that add to one place, under sanitize: in the emulator threads take "
    "turns, so the sum is right by luck.",
    "indices": "Arrays that are not square and whose numbers all differ.",
    "axis": "Arrays, blocks and grids that are not square: more columns than rows.",
    "sign": "Numbers other than 0 in every place, and an expected result from elsewhere (NumPy).",
    "term": "Every index and every number larger than 0: more than one block, all numbers "
    "different.",
    "number": "Sizes and values for which this number matters: small ones, one more and one less.",
    "start": "Outputs filled with garbage before the launch, sizes smaller than one tile, and only "
    "negative values.",
    "min for max": "Numbers that all differ, with the largest in the first, a middle and the last "
    "place.",
    "whole numbers": "Values that are not whole numbers, and divisions that leave a rest.",
    "loop": "Numbers in the first and in the last place of a loop that change the result; sizes "
    "one more than a multiple of the block or tile.",
    "neighbour": "Numbers that all differ, and the first and the last element looked at.",
    "overwrite": "Sums of several numbers other than 0; outputs that already hold something.",
    "shuffle": "A whole warp with a different number in each lane, and an expected sum from NumPy.",
    "grid": "More elements than one block has threads, and a last block that is not full.",
}


def faults(source: Source, functions: Iterable[str]) -> list[Fault]:
    """All faults for some functions of a file, from the top down, no two of them the same."""
    found: dict[str, Fault] = {}
    for name in functions:
        scope = Scope(source.functions[name])
        for node in scope.nodes():
            for plants in (*threads.OPERATORS, *arithmetic.OPERATORS):
                for change in plants(node, scope):
                    fault = source.plant(change, name)
                    if fault:
                        found.setdefault(ast.dump(ast.parse(fault.source)), fault)
    return sorted(found.values(), key=lambda fault: fault.line)
