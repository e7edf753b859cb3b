"""Colours that vary: brightness, contrast, saturation and hue of each image."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, Device
from .transforms import Drawn, Numbers

# Red, green and blue of a pixel's brightness (luma), as in torchvision and Pillow: ITU-R 601-2.
LUMA = np.array([0.299, 0.587, 0.114])
# To a brightness and two numbers for the colour, which hue turns: YIQ, of the same standard.
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True)
class ColorJitter(Drawn):
    """Change brightness, contrast, saturation and hue of each image by random amounts.

    brightness, contrast, saturation: a factor from max(0, 1 - x) to 1 + x, or from the first to the
    second of two numbers; 1 leaves it be. hue: a turn of the colour circle from -x to x, at most
    1/2. Each is drawn anew for each image. Formulas and arguments as in torchvision, which takes
    them in random order, here it is this one; and hue turns the colours of YIQ, which keeps the
    brightness of a pixel, not those of HSV. After each of them values are cut to 0 to 1, so it
    stands where images are on that scale: after what moves them and a Scale, before any Normalize.
    Grey images have brightness and contrast only.
    """

    brightness: Numbers = 0.0
    contrast: Numbers = 0.0
    saturation: Numbers = 0.0
    hue: Numbers = 0.0

    def __post_init__(self) -> None:
        self.ranges  # noqa: B018  (numbers that make no sense are refused here)

    @functools.cached_property
    def ranges(self) -> np.ndarray:
        """The least and the largest of each (4, 2)."""
        factors = [
            _range(name, getattr(self, name), 1.0, 0.0, math.inf)
            for name in ("brightness", "contrast", "saturation")
        ]
        return np.array([*factors, _range("hue", self.hue, 0.0, -0.5, 0.5)])

    def apply(self, where: Device, x: Array, u: np.ndarray) -> Array:
        """Images x (N, H, W, C) from 0 to 1, each changed by its random numbers u (N, 4)."""
        low, high = self.ranges.T
        amounts = (low + u * (high - low)).reshape(len(u), 4, 1, 1, 1)
        for i, change in enumerate((_brighter, _contrasted, _saturated, _turned)):
            neutral = 1.0 if i < 3 else 0.0
            colours = x.shape[3] == 3 or i < 2
            if colours and (self.ranges[i] != neutral).any():
                k = where.kernels
                x = k.clip(change(where, x, amounts[:, i]), k.empty_like(x), 0.0, 1.0)
        return x


def _range(name: str, value: Any, centre: float, least: float, most: float) -> tuple[float, float]:
    """The range around its centre that a number means, or the one that two numbers are."""
    if np.ndim(value) == 0 and not value >= 0:
        raise ValueError(f"ColorJitter: {name} is {value}, but must be at least 0")
    low, high = value if np.ndim(value) else (max(centre - value, least), centre + value)
    if not least <= low <= high <= most:
        raise ValueError(
            f"ColorJitter: {name} goes from {low} to {high}, but must rise from {least} to {most} "
            "at most"
        )
    return low, high


def _brighter(where: Device, x: Array, factor: np.ndarray) -> Array:
    k = where.kernels
    return k.mul(x, where.array(factor.astype(x.dtype)), k.empty_like(x))


def _contrasted(where: Device, x: Array, factor: np.ndarray) -> Array:
    """Further from the mean brightness of the image, or nearer to it."""
    k, grey = where.kernels, _grey(where, x)
    mean = k.mean(grey, k.empty((len(x), 1, 1, 1), x.dtype))
    return _away(where, x, mean, factor)


def _saturated(where: Device, x: Array, factor: np.ndarray) -> Array:
    """Further from its brightness, or nearer to it, in each pixel."""
    return _away(where, x, _grey(where, x), factor)


def _turned(where: Device, x: Array, turn: np.ndarray) -> Array:
    """The colours of each image turned by a part of the circle."""
    k, (n, *_), angle = where.kernels, x.shape, 2 * math.pi * turn.reshape(-1)
    turns = np.tile(np.eye(3), (n, 1, 1))
    turns[:, 1, 1] = turns[:, 2, 2] = np.cos(angle)
    turns[:, 1, 2], turns[:, 2, 1] = np.sin(angle), -np.sin(angle)  # red to yellow, as in HSV
    rows = np.linalg.inv(YIQ) @ turns @ YIQ
    y = k.empty_like(x)
    for channel in range(3):
        weights = where.array(rows[:, channel].reshape(n, 1, 1, 3).astype(x.dtype))
        k.sum(k.mul(x, weights, k.empty_like(x)), y[..., channel : channel + 1])
    return y


def _grey(where: Device, x: Array) -> Array:
    """The brightness of each pixel (N, H, W, 1): itself where there is one channel."""
    if x.shape[3] == 1:
        return x
    k = where.kernels
    weighed = k.mul(x, where.array(LUMA.astype(x.dtype)), k.empty_like(x))
    return k.sum(weighed, k.empty((*x.shape[:3], 1), x.dtype))


def _away(where: Device, x: Array, middle: Array, factor: np.ndarray) -> Array:
    """middle + factor (x - middle)."""
    k = where.kernels
    far = k.sub(x, middle, k.empty_like(x))
    far = k.mul(far, where.array(factor.astype(x.dtype)), k.empty_like(x))
    return k.add(far, middle, k.empty_like(x))
