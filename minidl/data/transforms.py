"""What happens to images on their way into a batch.

The four transforms here are not code but numbers: a list of them folds into the arguments of one
kernel call for the whole batch (`image_batch`). RandomAffine, Cutout and MixUp, in augment.py, work
likewise. Any other callable gets the finished batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Device

Numbers = float | Sequence[float]


@dataclass(frozen=True)
class Scale:
    """Multiply by a factor. By default bytes become numbers from 0 to 1."""

    factor: float = 1 / 255


ToTensor = Scale  # as PyTorch calls it; images stay (N, H, W, C)


@dataclass(frozen=True)
class Normalize:
    """Subtract mean and divide by std: a number each, or one per channel."""

    mean: Numbers
    std: Numbers


@dataclass(frozen=True)
class PadCrop:
    """Pad by `pad` rows and columns of zeros on every side, crop to the old size anywhere."""

    pad: int


@dataclass(frozen=True)
class Flip:
    """Mirror half of the images left to right."""


class Drawn:
    """A transform of augment.py, which is loaded with the first of them."""


KERNEL = (Scale, Normalize, PadCrop, Flip, Drawn)


class Compose:
    """Several transforms, one after the other; a plain list does as well."""

    def __init__(self, transforms: Sequence[Any]):
        self.transforms = list(transforms)

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"


class Plan(NamedTuple):
    """Arguments of `image_batch`, and the functions that get the batch after it."""

    scale: Array  # None: no images, the kernel is not called
    shift: Array
    pad: int
    flip: bool
    after: list[Callable[[Array], Array]]

    def batch(
        self, where: Device, columns: Sequence[Array], index: np.ndarray, seed: int, epoch: int
    ) -> list[Array]:
        """Samples `index` of the columns, the first of them transformed, on a device."""
        x, *others = columns
        x = x[index] if self.scale is None else self.images(where, x, index, seed, epoch)
        for function in self.after:
            x = function(x)
        return [x, *(a[index] for a in others)]

    def images(self, where: Device, x: Array, index: np.ndarray, seed: int, epoch: int) -> Array:
        """Images of these numbers, mirrored, cropped and scaled."""
        k = where.kernels
        y = k.empty_image((len(index), *x.shape[1:]), self.scale.dtype)
        arrays = (where.array(a) for a in (x, index, self.scale, self.shift))
        return k.image_batch(*arrays, y, seed, epoch, self.pad, self.flip)


def steps(transform: Any) -> list[Any]:
    """Return the single transforms of a transform, a (nested) list of them, or None."""
    if isinstance(transform, Compose):
        transform = transform.transforms
    if isinstance(transform, list | tuple):
        return [step for part in transform for step in steps(part)]
    if transform is not None and not isinstance(transform, KERNEL) and not callable(transform):
        raise TypeError(
            f"transform: a transform, a function of a batch, or a list of them, got {transform!r}"
        )
    return [] if transform is None else [transform]


def fold(transform: Any, dtype: np.dtype, channels: int) -> Any:
    """Fold transforms of images of this dtype into one Plan, or an Augmentation.

    Bytes count from 0 to 1 unless a Scale says otherwise.
    """
    todo = steps(transform)
    if any(isinstance(step, Drawn) for step in todo):
        from . import augment

        return augment.fold(todo, dtype, channels)
    if dtype != np.uint8 and dtype.kind != "f":
        raise TypeError(f"transform: images are uint8 or floating, got {dtype}")
    if dtype == np.uint8 and not any(isinstance(step, Scale) for step in todo):
        todo.insert(0, Scale())
    scale, shift, pad, flip = np.ones(channels), np.zeros(channels), 0, False
    after: list[Callable[[Array], Array]] = []
    for step in todo:
        # a Resize may stand before what does the same to its input as to its output
        free = isinstance(step, Scale | Normalize | Flip)
        early = [f for f in after if not (free and getattr(f, "commutes", False))]
        if early and isinstance(step, KERNEL):
            raise ValueError(f"transform: {step} stands after {early[-1]!r}; functions come last")
        match step:
            case Scale(factor):
                scale, shift = scale * factor, shift * factor
            case Normalize():
                mean, std = _per_channel(step, channels)
                scale, shift = scale / std, (shift - mean) / std
            case PadCrop(rows):
                # the kernel pads raw images: it knows no zero of a shifted scale
                if pad or rows < 0 or shift.any():
                    raise ValueError("transform: one PadCrop of at least 0, before any Normalize")
                pad = rows
            case Flip():
                if flip:
                    raise ValueError("transform: two Flips mirror half of the images, as one does")
                flip = True
            case _:
                after.append(step)
    out = np.float32 if dtype == np.uint8 else dtype
    return Plan(scale.astype(out), shift.astype(out), pad, flip, after)


def _per_channel(step: Normalize, channels: int) -> tuple[np.ndarray, np.ndarray]:
    mean, std = np.asarray(step.mean, np.float64), np.asarray(step.std, np.float64)
    if not {mean.shape, std.shape} <= {(), (1,), (channels,)}:
        raise ValueError(f"transform: {step} does not fit images of {channels} channels")
    if not (std > 0).all():
        raise ValueError(f"transform: {step}: std must be above 0")
    return mean, std
