"""The data sets by name: MNIST, Fashion-MNIST, CIFAR-10.

`root` is the folder of the official files; without it <name> in each folder of $MINIDL_DATA, a list
like PATH, and in the user's cache is searched. `download=True` fetches what is missing. Images are
uint8 (N, H, W, C).
"""

import os

import numpy as np

from . import formats
from .catalog import FILES, read
from .dataset import Dataset

Folder = str | os.PathLike | None
DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
           "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")  # fmt: skip
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer",
           "dog", "frog", "horse", "ship", "truck")  # fmt: skip


def mnist(split: str = "train", *, root: Folder = None, download: bool = False) -> Dataset:
    """Load MNIST: 60,000 training or 10,000 test images of handwritten digits, 28 x 28 x 1."""
    images, labels = load("mnist", split, root, download)
    return Dataset(formats.idx(images)[..., None], formats.idx(labels), DIGITS)


def fashion_mnist(split: str = "train", *, root: Folder = None, download: bool = False) -> Dataset:
    """Load Fashion-MNIST: 60,000 training or 10,000 test images of clothes, 28 x 28 x 1."""
    images, labels = load("fashion_mnist", split, root, download)
    return Dataset(formats.idx(images)[..., None], formats.idx(labels), FASHION)


def cifar10(split: str = "train", *, root: Folder = None, download: bool = False) -> Dataset:
    """Load CIFAR-10: 50,000 training or 10,000 test colour photographs, 32 x 32 x 3."""
    batches = [formats.cifar(data) for data in load("cifar10", split, root, download)]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Dataset(images, labels, CIFAR10)


def load(name: str, split: str, root: Folder, download: bool) -> list[bytes]:
    """Return the verified bytes of the files of one split."""
    if split not in FILES[name]:
        raise ValueError(f"{name}: split is 'train' or 'test', got {split!r}")
    try:
        return [read(name, file, root) for file in FILES[name][split]]
    except FileNotFoundError:
        if not download:
            raise
    from .sources import fetch  # only who downloads loads urllib, tarfile and tqdm

    folder = fetch(name, root)
    return [read(name, file, folder) for file in FILES[name][split]]
