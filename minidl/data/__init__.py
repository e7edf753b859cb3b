"""Data: real sets, verified byte by byte, and batches for training."""

from typing import TYPE_CHECKING

from ..later import later
from .dataset import Dataset, Subset, random_split
from .loader import DataLoader
from .shipped import digits
from .transforms import Compose, Flip, Normalize, PadCrop, Scale, ToTensor

if TYPE_CHECKING:
    from .augment import Cutout, MixUp, RandomAffine
    from .boxes import BoxedImages, bccd
    from .ratings import Ratings, movielens
    from .sets import cifar10, fashion_mnist, mnist
    from .sources import fetch
    from .speech import Recordings, fsdd

# who trains on the digits that come with minidl loads nothing that parses or downloads files
__getattr__, _names = later(
    __name__,
    augment="Cutout MixUp RandomAffine",
    boxes="BoxedImages bccd",
    ratings="Ratings movielens",
    sets="cifar10 fashion_mnist mnist",
    sources="fetch",
    speech="Recordings fsdd",
)

__all__ = ["BoxedImages", "Compose", "Cutout", "DataLoader", "Dataset", "Flip", "MixUp",
           "Normalize", "PadCrop", "RandomAffine", "Ratings", "Recordings", "Scale", "Subset",
           "ToTensor", "bccd", "cifar10", "digits", "fashion_mnist", "fetch", "fsdd", "mnist",
           "movielens", "random_split"]  # fmt: skip
