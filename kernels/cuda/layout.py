"""How arrays lie in memory: the fewest axes that say it."""

from collections.abc import Sequence


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
