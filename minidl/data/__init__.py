"""Data: real sets, verified byte by byte, and batches for training."""

import importlib
from typing import TYPE_CHECKING, Any

from .dataset import Dataset, Subset, random_split
from .loader import DataLoader
from .shipped import digits
from .transforms import Compose, Flip, Normalize, PadCrop, Scale, ToTensor

if TYPE_CHECKING:
    from .augment import ColorJitter, CutMix, Cutout, MixUp, RandomAffine, RandomRotation
    from .sets import cifar10, fashion_mnist, mnist
    from .sources import fetch

# who trains on the digits that come with minidl loads nothing that parses or downloads files
_LATER = {"cifar10": "sets", "fashion_mnist": "sets", "mnist": "sets", "fetch": "sources"}
_LATER |= dict.fromkeys(
    ("ColorJitter", "CutMix", "Cutout", "MixUp", "RandomAffine", "RandomRotation"), "augment"
)


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)


__all__ = ["ColorJitter", "Compose", "CutMix", "Cutout", "DataLoader", "Dataset", "Flip", "MixUp",
           "Normalize", "PadCrop", "RandomAffine", "RandomRotation", "Scale", "Subset", "ToTensor",
           "cifar10", "digits", "fashion_mnist", "fetch", "mnist", "random_split"]  # fmt: skip
