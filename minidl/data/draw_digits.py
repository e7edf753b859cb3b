"""Draw the digits that minidl ships from the official MNIST.

    python -m minidl.data.draw_digits OUT.npz

The rule: within a split, the images of each digit are ranked by the SHA-256 of the text
"<seed> <split> <index>", and the first 1,000 (train) or 200 (test) are taken, so that every digit
is equally often there. They are kept in the order of the official file. Seed 0.
"""

import hashlib
import io
import sys
from pathlib import Path

import numpy as np

from .sets import mnist
from .sources import write

SEED = 0
EACH = {"train": 1_000, "test": 200}


def draw(split: str, labels: np.ndarray) -> np.ndarray:
    """Return the official indices of the digits drawn from `labels`, ascending."""

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{SEED} {split} {index}".encode()).digest()

    chosen = [
        sorted(np.flatnonzero(labels == digit).tolist(), key=rank)[: EACH[split]]
        for digit in range(10)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int32)


def main(path: str) -> None:
    """Write the drawn images, labels and official indices of both splits to `path`."""
    arrays = {}
    for split in EACH:
        full = mnist(split)
        index = draw(split, full.labels)
        arrays[f"{split}_images"] = full.images[index, :, :, 0]
        arrays[f"{split}_labels"] = full.labels[index].astype(np.uint8)
        arrays[f"{split}_indices"] = index
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type] # no array is called allow_pickle
    write(Path(path), out.getvalue())
    print(f"{path}: {out.tell():,} bytes, SHA-256 {hashlib.sha256(out.getvalue()).hexdigest()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
