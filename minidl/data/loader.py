"""DataLoader: a data set in batches, in an order that a seed decides."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from .. import backend
from ..backend import Device
from ..random import default_generator
from ..tensor import Tensor
from .dataset import Dataset, shuffled
from .transforms import KERNEL, Drawn, Flip, PadCrop, Plan, fold, steps

Columns = tuple[np.ndarray, ...]


class DataLoader:
    """Batches of a data set: `for x, y in loader`.

    dataset: a Dataset, a tuple of arrays (x, y, ...) of one length, anything of yours with
    `__len__` and `__getitem__`, or the path or URL of a file that data.read_arrays reads. Arrays
    may be mapped from a file: of what is not images (N, H, W, C) only the rows of a batch are read.
    transform: see transforms.py; it applies to x. A batch is a tuple of Tensors on the device:
    images float32 (N, H, W, C), labels int64 (N,).

    Sets in memory are gathered, moved and scaled by one kernel call, on `device`, to which their
    images are brought once; a function of yours gets an array there. Order and augmentation depend
    on seed, epoch and the sample's number alone, so batch size, workers, device and resuming change
    neither; without a seed, `minidl.manual_seed` decides. Threads (`workers`, each `prefetch`
    batches ahead) make batches in the background: of sets in memory on the CPU whole ones, a
    function of yours included; else they only call a `__getitem__` of yours, at once.

    Each `for` loop is one epoch; `epoch` counts them. `state_dict()`, taken inside the loop or
    between two, lets another loader go on after the last batch that was handed out.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        *,
        seed: int | None = None,
        drop_last: bool = False,
        transform: Any = None,
        workers: int = 0,
        prefetch: int = 2,
        device: str | Device = "cpu",
    ):
        for name, value, least in (
            ("batch_size", batch_size, 1), ("workers", workers, 0), ("prefetch", prefetch, 1)
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"DataLoader: {name} is {value}, but must be at least {least}")
        if isinstance(dataset, str | os.PathLike):
            from .readers import read_arrays

            dataset = read_arrays(dataset)
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.seed = _drawn_seed() if seed is None else int(seed)
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"DataLoader: seed is {seed}, but must be from 0 to 2**64 - 1")
        self.drop_last, self.workers, self.prefetch = drop_last, workers, prefetch
        self.transform = getattr(dataset, "transform", None) if transform is None else transform
        self.arrays = _arrays(dataset)
        self.device = backend.device(device)
        self.samples = len(self.arrays[0] if self.arrays else dataset)
        if not self.samples:
            raise ValueError("DataLoader: the data set is empty")
        if not len(self):
            raise ValueError(
                f"DataLoader: {self.samples} samples make no batch of {batch_size}, and drop_last "
                "drops what is shorter"
            )
        self._plan = self._planned()
        self.set_epoch(0)

    def _planned(self) -> Any:
        """What is done to the first array of a set in memory; images go to the device once."""
        if self.arrays:
            x, *others = self.arrays
            plan = _plan(self.transform, x)
            self.arrays = self.device.array(x) if x.ndim == 4 else x, *others
            return plan
        for step in steps(self.transform):
            if isinstance(step, PadCrop | Flip | Drawn):
                raise ValueError(
                    f"DataLoader: {step} can only work on sets in memory; a set with a "
                    "__getitem__ of its own does such things there"
                )
        return None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(self.samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Let the next loop be this epoch, from its beginning."""
        self.epoch, self.position, self._underway = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """Return where the loader stands: what it takes to go on in another process."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position,
                "samples": self.samples}  # fmt: skip

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next loop go on where `state` was taken."""
        if set(state) != set(self.state_dict()):
            raise ValueError(f"DataLoader: not a state of a DataLoader: {state}")
        if state["samples"] != self.samples or not 0 <= state["position"] <= self.samples:
            raise ValueError(
                f"DataLoader: the state is at sample {state['position']} of {state['samples']}, "
                f"but this data set has {self.samples} samples"
            )
        self.set_epoch(state["epoch"])
        self.seed, self.position = state["seed"], state["position"]

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if self._underway:  # the last loop was left early
            self.set_epoch(self.epoch + 1)
        epoch, start, self._underway = self.epoch, self.position, True
        # from (epoch + 1) * 2**40 on: far from what the model draws with the same seed
        order = np.arange(self.samples)
        if self.shuffle:
            order = shuffled(self.samples, self.seed, (epoch + 1) << 40)
        size = self.batch_size
        parts = [order[i : i + size] for i in range(start, self.samples, size)]
        if self.drop_last:
            parts = [part for part in parts if len(part) == size]
        # a GPU's kernels are launched by the thread that waits for them
        ahead = self.arrays and self.device.name == "cpu"
        whole = lambda part: self._batch(self.arrays, part, epoch)  # noqa: E731
        with closing(self._loaded(whole if ahead else self._collect, parts)) as loaded:
            for part, found in zip(parts, loaded):
                self.position += len(part)
                if not ahead:
                    columns, index = found
                    found = self._batch(columns, index, epoch)
                yield found
        self.set_epoch(epoch + 1)

    def _loaded(self, load: Callable[[np.ndarray], Any], parts: list[np.ndarray]) -> Generator[Any]:
        """Yield load(samples) for each of `parts` in turn, by workers if there are some."""
        if self.workers:
            from .threads import in_order

            return in_order(load, parts, self.workers, self.workers * self.prefetch)
        return (load(part) for part in parts)

    def _collect(self, part: np.ndarray) -> tuple[Columns, np.ndarray]:
        if self.arrays:
            return self.arrays, part
        items = [self.dataset[int(i)] for i in part]
        if not isinstance(items[0], tuple | list):
            items = [(item,) for item in items]
        try:
            return tuple(map(_stack, zip(*items, strict=True))), np.arange(len(part))
        except ValueError as error:
            error.add_note(f"DataLoader: samples {part} do not fit together; pad or crop them")
            raise

    def _batch(self, columns: Columns, index: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        plan = self._plan or _plan(self.transform, columns[0])
        batch = plan.batch(self.device, columns, index, self.seed, epoch)
        return tuple(Tensor(a, device=self.device) for a in batch)


def _drawn_seed() -> int:
    """Return 48 random bits that `minidl.manual_seed` decides."""
    high, low = (default_generator().uniform((2,)).numpy() * 2**24).astype(int).tolist()
    return high << 24 | low


def _arrays(dataset: Any) -> Columns:
    """Return the arrays of a set in memory, or () for a set of the user's own."""
    if isinstance(dataset, Dataset):
        return dataset.images, dataset.labels
    if isinstance(dataset, tuple | list) and all(hasattr(a, "ndim") for a in dataset):
        arrays = tuple(np.asarray(a) for a in dataset)
        shapes = ", ".join(str(a.shape) for a in arrays)
        if any(a.ndim == 0 for a in arrays) or len({len(a) for a in arrays}) > 1:
            raise ValueError(f"DataLoader: arrays of one length are needed, got shapes {shapes}")
        return tuple(_numbers(a) for a in arrays)
    if isinstance(dataset, np.ndarray | Tensor):
        raise TypeError("DataLoader: put arrays into a tuple: (x, y), or (x,)")
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            "DataLoader: a Dataset, a tuple of arrays, or an object with __len__ and "
            f"__getitem__ is needed, got {type(dataset).__name__}"
        )
    return ()


def _numbers(a: np.ndarray) -> np.ndarray:
    """Return an array of numbers; labels become int64, however narrow they were stored."""
    if a.dtype.kind not in "fiub":
        raise TypeError(f"DataLoader: numbers are needed, got an array of {a.dtype}")
    return a.astype(np.int64) if a.ndim == 1 and a.dtype.kind in "iu" else a


def _stack(items: Sequence[Any]) -> np.ndarray:
    """Return one array of the items of a batch; Python's floats become float32."""
    stacked = np.stack([np.asarray(item) for item in items])
    if isinstance(items[0], float):
        return stacked.astype(np.float32)
    return _numbers(stacked)


def _plan(transform: Any, x: np.ndarray) -> Any:
    """Return what is done to x: arguments of the kernel, which knows images only."""
    if x.ndim == 4:
        return fold(transform, x.dtype, x.shape[3])
    functions = steps(transform)
    for step in functions:
        if isinstance(step, KERNEL):
            raise ValueError(
                f"DataLoader: {step} is for images (N, H, W, C), but x has shape {x.shape}; "
                "grey images need a channel: x[..., None]"
            )
    return Plan(None, None, 0, False, functions)
