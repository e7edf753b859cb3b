"""Data: real sets, verified byte by byte, and batches for training."""

import os
from pathlib import Path

from .dataset import Dataset
from .sets import cifar10, fashion_mnist, mnist
from .shipped import digits


def fetch(name: str, root: str | os.PathLike | None = None) -> Path:
    """Bring all files of the set `name` into a folder, verified, and return that folder.

    The folder is `root`, else $MINIDL_DATA/<name>, else the user's cache.
    """
    from . import sources  # urllib, tarfile and tqdm only for who downloads

    return sources.fetch(name, root)


__all__ = ["Dataset", "cifar10", "digits", "fashion_mnist", "fetch", "mnist"]
