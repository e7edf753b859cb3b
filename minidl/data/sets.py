"""The data sets by name: MNIST, Fashion-MNIST, CIFAR-10.

`root` is the folder of the official files; without it <name> in each folder of $MINIDL_DATA, a list
like PATH, and in the user's cache is searched. `download=True` fetches what is missing. Images are
uint8 (N, H, W, C).
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from . import formats
from .catalog import FILES, read
from .dataset import Dataset
from .loader import DataLoader

Folder = str | os.PathLike | None
DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
           "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")  # fmt: skip
PHOTOGRAPHED = ("airplane", "automobile", "bird", "cat", "deer",
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
    return Dataset(images, labels, PHOTOGRAPHED)


class _Official(Dataset):
    """A set under torchvision's name and with its arguments; images are (N, H, W, C) here too.

    root: the folder of the files, or the one that torchvision made; where download=True fetches to.
    `dataset[3]` is one (image, label), transformed; so are a DataLoader's batches.
    """

    _read: Callable[..., Dataset]

    def __init__(
        self, root: Folder = None, train: bool = True, transform: Any = None, download: bool = False
    ):
        found = type(self)._read("train" if train else "test", root=root, download=download)
        super().__init__(found.images, found.labels, found.classes, transform)

    def __getitem__(self, index: Any) -> Any:
        if self.transform is None or np.ndim(index) or isinstance(index, slice):
            return super().__getitem__(index)
        one = Dataset(self.images[index][None], self.labels[index][None], (), self.transform)
        image, label = next(iter(DataLoader(one, 1, seed=0)))
        return image.numpy()[0], int(label.item())


class MNIST(_Official):
    """mnist() under torchvision's name and with its arguments."""

    _read = staticmethod(mnist)


class FashionMNIST(_Official):
    """fashion_mnist() under torchvision's name and with its arguments."""

    _read = staticmethod(fashion_mnist)


class CIFAR10(_Official):
    """cifar10() under torchvision's name and with its arguments."""

    _read = staticmethod(cifar10)


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
