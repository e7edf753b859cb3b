"""Rewrites: entries of a recorded step replaced by fewer that do the same.

A rewrite is a function from a list of entries to another one; those that it makes say so in their
`note`, which the program's table shows. Each has a Case that holds it to what it replaces.
"""

from collections.abc import Callable, Sequence

from .record import Entry

Rewrite = Callable[[Sequence[Entry]], Sequence[Entry]]

REWRITES: list[Rewrite] = []  # in the order in which they are applied


def applied(entries: Sequence[Entry]) -> list[Entry]:
    """The entries after all rewrites."""
    for rewrite in REWRITES:
        entries = rewrite(entries)
    return list(entries)
