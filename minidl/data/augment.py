"""Augmentation that needs more than shifts and mirrors: moved, cut and mixed images.

What happens to an image follows from seed, epoch and its number alone, like all that a DataLoader
does. Its random numbers are drawn on the CPU, on every device: places are handed to the kernels as
integers, so no rounding of a device decides which pixels count.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Device, device
from ..check import known
from . import transforms
from .color import ColorJitter
from .transforms import KERNEL, Drawn, Flip, Normalize, Numbers, PadCrop, Plan, Scale

# Columns of the numbers drawn for an image: who takes which. Each four are one Philox block.
_AFFINE, _CROP, _FLIP, _CUTOUT, _COLUMNS = slice(0, 6), slice(6, 8), 8, slice(9, 11), 11
# 0 and 1 belong to arrays of random numbers and to image_batch
_STREAM, _MIX_STREAM, _COLOR_STREAM = 2, 8, 12
_PADDING = {"zeros": False, "border": True}


@dataclass(frozen=True)
class RandomAffine(Drawn):
    """Turn, move, zoom and shear each image about its centre, by random amounts.

    degrees: clockwise, from -degrees to degrees, or from the first to the second of two numbers.
    translate: the largest part of width and of height that it moves by, either way. scale: by how
    much it grows, from the first to the second. shear: degrees as well, along the rows; four
    numbers: along the rows and the columns. Arguments and meaning as in torchvision, whose
    interpolation is nearest by default; here it is bilinear.

    Keras's rotation_range=r, width_shift_range=w, height_shift_range=h and zoom_range=z are
    degrees=r, translate=(w, h), scale=(1 - z, 1 + z); its default fill_mode="nearest" is
    padding_mode="border". padding_mode="zeros" is raw zeros: black, before any Normalize.

    RandomAffine, PadCrop and Flip of one list move the image in their order, but all at once: it is
    interpolated a single time, and what one of them pushed out another may bring back.
    """

    degrees: Numbers
    translate: tuple[float, float] | None = None
    scale: tuple[float, float] | None = None
    shear: Numbers | None = None
    padding_mode: str = "zeros"

    def __post_init__(self) -> None:
        known("padding_mode", self.padding_mode, _PADDING)
        self.ranges  # noqa: B018  (numbers that make no sense are refused here)

    @functools.cached_property
    def ranges(self) -> np.ndarray:
        """The least and largest angle, move to the right and down, zoom, and shear (6, 2)."""
        right, down = self.translate or (0.0, 0.0)
        along: Any = self.shear or 0.0
        across: Any = 0.0
        if np.size(along) not in (1, 2, 4):
            raise ValueError(f"RandomAffine: shear is one, two or four numbers, got {self.shear}")
        if np.size(along) == 4:
            along, across = along[:2], along[2:]
        found = [
            _range("degrees", self.degrees, -360, 360),
            _range("translate", right, -1, 1),
            _range("translate", down, -1, 1),
            _range("scale", self.scale or (1.0, 1.0), 0.01, 100),
            _range("shear", along, -89, 89),
            _range("shear", across, -89, 89),
        ]
        return np.array(found)

    def matrices(self, u: np.ndarray, height: int, width: int) -> np.ndarray:
        """For each image, from a place after the move to the place before: (N, 3, 3)."""
        low, high = self.ranges.T
        turn, right, down, zoom, along, across = (low + u[:, _AFFINE] * (high - low)).T
        turn, along, across = np.deg2rad(turn), np.deg2rad(along), np.deg2rad(across)
        # a rotation after a shear along the rows after one along the columns; determinant 1
        a, c = np.cos(turn - across) / np.cos(across), np.sin(turn - across) / np.cos(across)
        b, d = -a * np.tan(along) - np.sin(turn), -c * np.tan(along) + np.cos(turn)
        back = np.array([[d, -b], [-c, a]]).transpose(2, 0, 1) / zoom[:, None, None]
        centre = np.array([width - 1, height - 1]) / 2
        moved = centre + np.stack([right * width, down * height], axis=1)
        return _matrices(back, centre - (back @ moved[:, :, None])[:, :, 0])


def RandomRotation(degrees: Numbers, padding_mode: str = "zeros") -> RandomAffine:
    """Turn each image about its centre by a random angle: RandomAffine(degrees)."""
    return RandomAffine(degrees, padding_mode=padding_mode)


@dataclass(frozen=True)
class Cutout(Drawn):
    """Fill a square of size x size, whose centre is anywhere, so that part of it may lie outside.

    fill: a number, or one per channel, on the scale that the list has reached: 0 after a Normalize
    is the mean, as in DeVries and Taylor (2017). It comes after what moves the image.
    """

    size: int
    fill: Numbers = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"Cutout: size is {self.size}, but must be at least 1")

    def corners(self, u: np.ndarray, height: int, width: int) -> np.ndarray:
        """Top and left of each square, (N, 2)."""
        return np.floor(u[:, _CUTOUT] * (height, width)).astype(np.int64) - self.size // 2


@dataclass(frozen=True)
class MixUp(Drawn):
    """Mix each sample with another one of the whole set: lam x + (1 - lam) x', lam ~ Beta(alpha).

    Labels are mixed likewise, and so become probabilities (N, classes), which
    `F.cross_entropy` takes. Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.
    Its partner, like lam, follows from a sample's number, not from the batch it is in.
    """

    alpha: float
    classes: int

    def __post_init__(self) -> None:
        if not self.alpha > 0 or self.classes < 1:
            kind = type(self).__name__
            raise ValueError(f"{kind}: alpha must be above 0 and classes at least 1, got {self}")

    def draw(self, u: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """The partner of each sample, and lam, the sample's own share."""
        # Devroye, "Random variate generation in one line of code", 1996: Beta(alpha, alpha) from
        # two uniform numbers, by way of Student's t. u is in the middle of its 2**-24.
        with np.errstate(over="ignore", divide="ignore"):
            wide = (u[:, 1] + 2.0**-25) ** (-1 / self.alpha) - 1
            cosine = np.cos(2 * math.pi * (u[:, 2] + 2.0**-25))
            lam = 0.5 + np.copysign(0.5, cosine) / np.sqrt(1 + 1 / (wide * cosine**2))
        return (u[:, 0] * samples).astype(np.int64), lam

    def one_hot(self, labels: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """A row for each label, 1 at its place."""
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise TypeError(f"{type(self).__name__}: labels (N,) of integers are needed, got "
                            f"{labels.dtype} {labels.shape}")  # fmt: skip
        if labels.size and not 0 <= labels.min() <= labels.max() < self.classes:
            raise ValueError(
                f"{type(self).__name__}: labels from {labels.min()} to {labels.max()}, but "
                f"{self.classes} classes"
            )
        return np.eye(self.classes, dtype=dtype)[labels]

    def mixed(
        self, where: Device, both: Array, u: np.ndarray, lam: np.ndarray
    ) -> tuple[Array, np.ndarray]:
        """The first half of the images, mixed with the second, and the share of each label."""
        return _mixed(where, both, lam), lam


@dataclass(frozen=True)
class CutMix(MixUp):
    """Paste a box of another image of the whole set into each, of a share 1 - lam of its area.

    lam ~ Beta(alpha), the box is as the image in shape, its centre anywhere, and what lies outside
    is cut off. Labels are mixed by the areas that are seen, and so become probabilities
    (N, classes). Yun et al., "CutMix", ICCV 2019.
    """

    def box(self, u: np.ndarray, lam: np.ndarray, height: int, width: int) -> np.ndarray:
        """Top, bottom, left and right of each box (4, N): whole pixels, within the image."""
        sides = np.rint(np.sqrt(1 - lam) * np.array([[height], [width]]))
        start = np.floor(u[:, 3:5].T * [[height], [width]]) - sides // 2
        ends = np.clip([start, start + sides], 0, [[[height], [width]]]).astype(np.int64)
        return ends.transpose(1, 0, 2).reshape(4, -1)

    def mixed(
        self, where: Device, both: Array, u: np.ndarray, lam: np.ndarray
    ) -> tuple[Array, np.ndarray]:
        """The first half of the images with boxes of the second, and the share of each label."""
        n, (height, width) = len(lam), both.shape[1:3]
        k, (top, bottom, left, right) = where.kernels, self.box(u, lam, height, width)
        rows, columns = (np.arange(size)[None] for size in (height, width))
        down = (rows >= top[:, None]) & (rows < bottom[:, None])
        across = (columns >= left[:, None]) & (columns < right[:, None])
        kept = ~(down[:, :, None, None] & across[:, None, :, None])
        y = k.empty_image((n, *both.shape[1:]), both.dtype)
        images = k.where(where.array(kept), both[:n], both[n:], y)
        return images, 1 - (bottom - top) * (right - left) / (height * width)


class Augmentation(NamedTuple):
    """What is done to a batch by a list with a transform of this file in it."""

    plan: Plan  # of the other transforms, or of those before the colours
    color: ColorJitter | None
    late: Plan  # what scales the images after it
    moves: list[Any]  # in order; none: the plan's own kernel moves the images
    edge: bool
    cutout: Cutout | None
    value: np.ndarray  # what Cutout fills in, on the final scale
    mix: MixUp | None

    def batch(
        self, where: Device, columns: Sequence[Array], index: np.ndarray, seed: int, epoch: int
    ) -> list[Array]:
        """Samples `index` of the columns, the first of which holds images, on a device."""
        x, *others = columns
        if self.mix is None:
            images, rows = self._images(where, x, index, seed, epoch), [a[index] for a in others]
        elif not others:
            kind = type(self.mix).__name__
            raise ValueError(f"{kind}: there are no labels to mix: the data are (x,), not (x, y)")
        else:
            drawn = _drawn(index, 5, seed, epoch, _MIX_STREAM)
            partner, lam = self.mix.draw(drawn, len(x))
            both = np.concatenate([index, partner])
            images = self._images(where, x, both, seed, epoch)
            labels = self.mix.one_hot(others[0][both], images.dtype)
            images, lam = self.mix.mixed(where, images, drawn, lam)
            rows = [_mixed(where, where.array(labels), lam), *(a[index] for a in others[1:])]
        for function in self.plan.after:
            images = function(images)
        return [images, *rows]

    def _images(self, where: Device, x: Array, index: np.ndarray, seed: int, epoch: int) -> Array:
        """Images of these numbers, moved, scaled and cut."""
        k, (_, height, width, _) = where.kernels, x.shape
        u = _drawn(index, _COLUMNS, seed, epoch, _STREAM)
        if self.moves:
            y = k.empty_image((len(index), *x.shape[1:]), self.plan.scale.dtype)
            matrix = np.eye(3)
            for move in self.moves:
                matrix = matrix @ _MOVES[type(move)](move, u, height, width)
            fixed = np.rint(matrix[:, :2] * 2.0**32).astype(np.int64)
            arrays = (where.array(a) for a in (x, index, fixed, self.plan.scale, self.plan.shift))
            y = k.affine_batch(*arrays, y, self.edge)
        else:
            y = self.plan.images(where, x, index, seed, epoch)
        if self.color is not None:
            drawn = _drawn(index, 4, seed, epoch, _COLOR_STREAM)
            y = _scaled(where, self.color.apply(where, y, drawn), self.late)
        if self.cutout is None:
            return y
        corner = where.array(self.cutout.corners(u, height, width))
        return k.cutout_(y, corner, where.array(self.value), self.cutout.size)


def fold(todo: Sequence[Any], dtype: np.dtype, channels: int) -> Augmentation:
    """Fold single transforms, some of them of this file, for images of this dtype."""
    jitter = next((s for s in todo if isinstance(s, ColorJitter)), None)
    late = {} if jitter is None else _behind(jitter, todo)
    early = [s for i, s in enumerate(todo) if i not in late and not isinstance(s, Drawn)]
    plan = transforms.fold(early, dtype, channels)
    found: dict[Any, Any] = {}
    rank, shifted = 0, False
    for step in todo:
        kind = type(step)
        mine = _RANK.get(kind, rank if isinstance(step, KERNEL) else 4)
        if mine < rank:
            raise ValueError(
                f"transform: {step} stands too late: first what moves images, then ColorJitter, "
                "Cutout, then MixUp or CutMix; functions come last"
            )
        if kind in found and isinstance(step, Drawn):
            raise ValueError(f"transform: there are two {kind.__name__}, but one is enough")
        if kind is RandomAffine and shifted and not _PADDING[step.padding_mode]:
            # raw zeros, as PadCrop's: the kernel knows no zero of a shifted scale
            raise ValueError("transform: RandomAffine stands before any Normalize, or has "
                             "padding_mode='border'")  # fmt: skip
        found[kind], rank, shifted = step, mine, shifted or kind is Normalize
    if MixUp in found and CutMix in found:
        raise ValueError("transform: MixUp or CutMix, but not both")
    affine, cutout = found.get(RandomAffine), found.get(Cutout)
    moves = [] if affine is None else [step for step in todo if type(step) in _MOVES]
    value = np.zeros(channels) if cutout is None else _filled(cutout, todo, channels)
    edge = affine is not None and _PADDING[affine.padding_mode]
    scaled = transforms.fold([*late.values()], plan.scale.dtype, channels)
    mix, value = found.get(CutMix, found.get(MixUp)), value.astype(plan.scale.dtype)
    return Augmentation(plan, jitter, scaled, moves, edge, cutout, value, mix)


def _behind(jitter: ColorJitter, todo: Sequence[Any]) -> dict[int, Any]:
    """What scales images after their colours are changed, by place; before, nothing shifts them."""
    at = todo.index(jitter)
    if any(isinstance(step, Normalize) for step in todo[:at]):
        raise ValueError("transform: ColorJitter stands before any Normalize: it takes 0 to 1")
    return {i: s for i, s in enumerate(todo) if i > at and isinstance(s, Scale | Normalize)}


def _filled(cutout: Cutout, todo: Sequence[Any], channels: int) -> np.ndarray:
    """What a Cutout fills in, after all that stands behind it."""
    fill = np.asarray(cutout.fill, np.float64)
    if fill.shape not in ((), (1,), (channels,)):
        raise ValueError(f"transform: {cutout}: fill is one number or {channels}, one per channel")
    late = [s for s in todo[todo.index(cutout) :] if isinstance(s, Scale | Normalize)]
    plan = transforms.fold(late, np.dtype(np.float64), channels)
    return fill * plan.scale + plan.shift


def _range(name: str, value: Any, least: float, most: float) -> tuple[float, float]:
    """The range that a number x (from -x to x) or two numbers mean."""
    low, high = value if np.ndim(value) else (-value, value)
    if not least <= low <= high <= most:
        raise ValueError(
            f"RandomAffine: {name} goes from {low} to {high}, but must rise from {least} to {most} "
            "at most"
        )
    return low, high


def _drawn(index: np.ndarray, columns: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    """Random numbers in [0, 1) for each sample, (N, columns)."""
    rows = device("cpu").kernels.uniform_rows
    return rows(index, np.empty((len(index), columns)), seed, epoch, stream)


def _scaled(where: Device, x: Array, plan: Plan) -> Array:
    """x * scale + shift."""
    if (plan.scale == 1).all() and not plan.shift.any():
        return x
    k = where.kernels
    y = k.mul(x, where.array(plan.scale), k.empty_like(x))
    return k.add(y, where.array(plan.shift), k.empty_like(y))


def _mixed(where: Device, both: Array, lam: np.ndarray) -> Array:
    """The first half of an array, mixed with the second."""
    n, k = len(lam), where.kernels
    share, place = where.array(lam.astype(both.dtype)), where.array(np.arange(n, 2 * n))
    return k.mixup(both, place, share, k.empty((n, *both.shape[1:]), both.dtype))


def _matrices(linear: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """linear (N, 2, 2) and constant (N, 2) as matrices (N, 3, 3) for (column, row, 1)."""
    found = np.tile(np.eye(3), (len(constant), 1, 1))
    found[:, :2, :2], found[:, :2, 2] = linear, constant
    return found


def _crop(step: PadCrop, u: np.ndarray, height: int, width: int) -> np.ndarray:
    """Matrices of the crops: by whole pixels."""
    moved = np.floor(u[:, _CROP] * (2 * step.pad + 1)) - step.pad
    return _matrices(np.eye(2), moved)


def _flip(step: Flip, u: np.ndarray, height: int, width: int) -> np.ndarray:
    """Matrices that mirror half of the images, and leave the others."""
    sign = np.where(u[:, _FLIP] < 0.5, -1.0, 1.0)
    matrix = _matrices(np.eye(2), np.stack([(1 - sign) / 2 * (width - 1), 0 * sign], axis=1))
    matrix[:, 0, 0] = sign
    return matrix


_MOVES: dict[type, Callable[..., np.ndarray]] = {
    RandomAffine: RandomAffine.matrices, PadCrop: _crop, Flip: _flip,
}  # fmt: skip
_RANK = dict.fromkeys(_MOVES, 0) | {ColorJitter: 1, Cutout: 2, MixUp: 3, CutMix: 3}
