"""Parts of a data set: training, validation and test, drawn by a seed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .dataset import Dataset, shuffled


class Subset:
    """The samples of another set that `indices` names, in that order."""

    def __init__(self, dataset: Any, indices: np.ndarray):
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]


def random_split(dataset: Any, lengths: Sequence[float], seed: int = 0) -> list[Any]:
    """Split a set at random into parts that share no sample and together hold all.

    lengths: how many samples each part gets, or fractions that sum to 1. A Dataset is split into
    Datasets, a tuple of arrays (x, y, ...) into such tuples, Recordings, BoxedImages and Ratings
    into their like, anything else into Subsets.
    """
    columns = _columns(dataset)
    total = len(columns[0] if columns else dataset)
    counts = list(lengths)
    if any(0 < n < 1 for n in lengths) and abs(sum(lengths) - 1) < 1e-9:
        counts = np.diff(np.round(np.cumsum(lengths) * total), prepend=0).astype(int).tolist()
    if sum(counts) != total or min(counts) < 0:
        raise ValueError(
            f"random_split: lengths {list(lengths)} do not sum to the {total} samples, nor to 1"
        )
    parts = np.split(shuffled(total, seed, 1 << 63), np.cumsum(counts)[:-1])
    if columns:
        return [tuple(a[p] for a in columns) for p in parts]
    whole = isinstance(dataset, Dataset) or hasattr(type(dataset), "__dataclass_fields__")
    return [dataset[p] if whole else Subset(dataset, p) for p in parts]


def _columns(dataset: Any) -> tuple[Any, ...]:
    """The arrays of a tuple of them, or ()."""
    if not isinstance(dataset, tuple) or not all(hasattr(a, "ndim") for a in dataset):
        return ()
    if len({len(a) for a in dataset}) > 1:
        shapes = ", ".join(str(a.shape) for a in dataset)
        raise ValueError(f"random_split: arrays of one length are needed, got shapes {shapes}")
    return dataset


class Splits(NamedTuple):
    """A data set in three parts that share no sample: `splits.train`, `.val` and `.test`.

    Settings are chosen by val; test is for the end.
    """

    train: Any
    val: Any
    test: Any

    @property
    def eval(self) -> Any:
        """val, by its other name."""
        return self.val

    @classmethod
    def random(cls, dataset: Any, val: float = 0.1, test: float = 0.1, seed: int = 0) -> "Splits":
        """Draw val and test, numbers of samples or fractions of all, and train of the rest.

        dataset: as for random_split. ValueError where nothing is left to train on.
        """
        columns = _columns(dataset)
        total = len(columns[0] if columns else dataset)
        counts = [round(n * total) if 0 < n < 1 else int(n) for n in (val, test)]
        if min(counts) < 0 or sum(counts) >= total:
            raise ValueError(
                f"Splits: val={val} and test={test} leave nothing to train on of {total} samples"
            )
        return cls(*random_split(dataset, [total - sum(counts), *counts], seed))
