"""Where each array of a program lies: memory is shared by those that never live at the same time.

Storages are placed from the largest to the smallest, each at the lowest place that no other one
takes while it lives ("greedy by size", Pisarchyk and Lee 2020). Before that, an elementwise kernel
whose input dies with it takes over its memory for the output.
"""

from collections.abc import Iterable, Sequence

from ..backend import Device
from .record import Entry, Ref, Storage

ALIGNMENT = 256  # bytes: a GPU's widest loads and every cache line

# Kernels that may write their first output where they read, element by element: a test tries each
# one on every backend. On the CPU they are NumPy's, or say outright which vectors they load and
# store: LLVM's own begin with a check that memory does not overlap, and would be slow.
IN_PLACE = {
    "add", "batch_norm_eval_grad", "batch_norm_grad", "bias_relu_grad", "div", "exp", "log",
    "maximum", "minimum", "mul", "neg", "relu", "sqrt", "sub",
}  # fmt: skip


class Span:
    """When a piece of memory is in use: from the entry that first writes it to the last reader."""

    def __init__(self, first: int, last: int, nbytes: int):
        self.first, self.last, self.nbytes, self.offset = first, last, nbytes, 0


def spans(
    entries: Sequence[Entry], inputs: Iterable[Ref], outputs: Iterable[Ref]
) -> dict[Storage, Span]:
    """The span of each storage: inputs live all the time, outputs to the end.

    Storages of one span lie in one place.
    """
    found: dict[Storage, Span] = {}
    for i, entry in enumerate(entries):
        for _, ref in entry.refs():
            if ref.storage is not None:
                span = found.setdefault(ref.storage, Span(i, i, ref.storage.nbytes))
                span.last = i
    for ref in outputs:
        if ref.storage is not None and ref.storage in found:
            found[ref.storage].last = len(entries)
    for ref in inputs:
        if ref.storage is not None:
            found[ref.storage] = Span(-1, len(entries), ref.storage.nbytes)
    for i, entry in enumerate(entries):
        _take_over(i, entry, found)
    return found


def _take_over(i: int, entry: Entry, found: dict[Storage, Span]) -> None:
    """Let the output of an elementwise kernel lie where an input lay that nobody reads again."""
    if entry.name not in IN_PLACE:
        return
    inputs = [ref for kind, ref in entry.refs() if kind == "in"]
    out = next(ref for kind, ref in entry.refs() if kind == "out")
    if out.storage is None or found[out.storage].first != i or _part(out):
        return
    for ref in inputs:
        views = [r.like for r in inputs if r.storage is ref.storage]
        if ref.storage in (None, out.storage) or _part(ref) or views != len(views) * [ref.like]:
            continue  # such as x * x.T
        old, new = found[ref.storage], found[out.storage]
        if old.last == i and ref.like == out.like:  # an input's lasts to the end
            old.last = new.last
            found[out.storage] = old
            return


def _part(ref: Ref) -> bool:
    """Whether it is less than its whole storage."""
    return ref.storage is not None and ref.nbytes != ref.storage.nbytes


def place(found: dict[Storage, Span]) -> dict[Device, int]:
    """Set the offset of every span, and return the bytes that each device needs."""
    sizes: dict[Device, int] = {}
    for device in {storage.device for storage in found}:
        mine = {id(s): s for storage, s in found.items() if storage.device is device}
        placed: list[Span] = []
        for span in sorted(mine.values(), key=lambda s: (-s.nbytes, s.first)):
            span.offset, at = 0, sorted(placed, key=lambda s: s.offset)
            for other in at:
                if other.first <= span.last and span.first <= other.last:
                    if span.offset + span.nbytes <= other.offset:
                        break
                    span.offset = max(span.offset, aligned(other.offset + other.nbytes))
            placed.append(span)
        sizes[device] = max(span.offset + span.nbytes for span in placed)
    return sizes


def aligned(nbytes: int) -> int:
    """The next multiple of the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
