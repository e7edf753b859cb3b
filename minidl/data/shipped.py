"""Real handwritten digits that come with minidl: a fixed part of MNIST, no network needed."""

import functools
import hashlib
import io
from pathlib import Path

import numpy as np

from .dataset import Dataset

PATH = Path(__file__).parent / "files" / "digits.npz"
SHA256 = "9a40d5b046cbd1fa09a2ea39ea6af9d4e5d5d3a2079b3aaab869a0587d66d580"


def digits(split: str = "train") -> Dataset:
    """Load 10,000 training or 2,000 test images of MNIST, 28 x 28 x 1, each digit equally often.

    A fixed draw from the official splits (draw_digits.py), CC BY-SA 3.0 (files/LICENSE.digits).
    """
    if split not in ("train", "test"):
        raise ValueError(f"digits: split is 'train' or 'test', got {split!r}")
    arrays = _arrays(PATH)
    images, labels = arrays[f"{split}_images"].copy(), arrays[f"{split}_labels"]
    return Dataset(images[..., None], labels, tuple("0123456789"))


def indices(split: str) -> np.ndarray:
    """Return where the shipped images stand in the official split, in the same order."""
    return _arrays(PATH)[f"{split}_indices"].copy()


@functools.cache  # once per process: the arrays are handed out as copies
def _arrays(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != SHA256:
        raise ValueError(
            f"{path}: {len(data):,} bytes with SHA-256 {sha256}, expected {SHA256}; "
            "the installation is damaged, install minidl again"
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)
