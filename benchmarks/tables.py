"""Where gradients of rows win: a step of Adam for an embedding, of all rows and of those looked up.

    python -m benchmarks.tables [--lookups 4096] [--width 32] [--json FILE]

Medians of 15 rounds in which all take turns, in ms: lookups at random, the mean of their squares,
its gradient, and the step, captured. rows: of the table.
"""

import argparse
from collections.abc import Callable

import numpy as np

import minidl
from minidl import Tensor, nn, optim

from . import report

ROWS = 1_000, 10_000, 100_000, 1_000_000


def step(rows: int, width: int, lookups: int, sparse: bool) -> Callable[[], object]:
    """A captured step, called with other lookups each time."""
    table = nn.Embedding(rows, width, sparse=sparse)
    optimizer = optim.Adam(table.parameters(), lr=0.01)
    random = np.random.default_rng(0)
    seen = [Tensor(random.integers(rows, size=lookups)) for _ in range(8)]

    @minidl.capture
    def run(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = (table(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    def next_one() -> None:
        seen.append(seen.pop(0))
        run(seen[0])

    for _ in range(4):  # recorded, proven, planned
        next_one()
    return next_one


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables")
    parser.add_argument("--lookups", type=int, default=4096)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    kinds = {"all rows": False, "rows in use": True}
    runs = {
        f"{rows} {kind}": step(rows, options.width, options.lookups, sparse)
        for rows in ROWS
        for kind, sparse in kinds.items()
    }
    times = report.interleaved(runs)
    table = [{"rows": f"{rows:,}", **{k: times[f"{rows} {k}"] for k in kinds}} for rows in ROWS]
    for row in table:
        row["times as fast"] = f"{row['all rows'] / row['rows in use']:.2f}"
    report.show(table, options.json)


if __name__ == "__main__":
    main()
