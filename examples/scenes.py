"""Images with boxes to learn from: digits strewn over a canvas, and images moved about.

Boxes are (left, top, right, bottom) in pixels, as in boxes.py.
"""

from dataclasses import replace

import boxes as geometry
import numpy as np

from minidl import data
from minidl.data import BoxedImages, image


def strew(source: data.Dataset, count: int, seed: int, size: int = 64) -> BoxedImages:
    """Compose canvases of one to four digits each, turned and scaled. Boxes lie around the ink."""
    rng = np.random.default_rng(seed)
    thrown = [throw(rng, size) for _ in range(count)]
    x, y, scale = np.concatenate(thrown).T
    starts = np.cumsum([0, *map(len, thrown)])[:-1]
    chosen = rng.integers(0, len(source), len(scale))
    turn = np.deg2rad(rng.uniform(-15, 15, len(scale)))
    back = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / scale
    maps = centred(back.transpose(2, 0, 1), np.stack([x, y], axis=1) - 0.5, np.array([13.5, 13.5]))
    layers = image.affine(source.images[chosen], maps, size)
    ink = layers[..., 0] > 100
    (left, right), (top, bottom) = extent(ink.any(1)), extent(ink.any(2))
    boxes = np.stack([left, top, right, bottom], axis=1)
    boxes, labels = (np.split(a, starts[1:]) for a in (boxes, source.labels[chosen]))
    return BoxedImages(np.maximum.reduceat(layers, starts), boxes, labels, source.classes)


def throw(rng: np.random.Generator, size: int, most: int = 4) -> list[tuple[float, float, float]]:
    """Centres (x, y) and scales of 1 to `most` digits on a canvas, none far into another.

    A digit that finds no free place in ten throws is left out; the first always does.
    """
    placed: list[tuple[float, float, float]] = []
    for scale in rng.uniform(0.6, 1.3, rng.integers(1, most + 1)):
        for x, y in rng.uniform(11 * scale, size - 11 * scale, (10, 2)):
            if all(max(abs(x - u), abs(y - v)) > 9 * (scale + other) for u, v, other in placed):
                placed.append((x, y, scale))
                break
    return placed


def centred(back: np.ndarray, centre: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Affine maps (N, 2, 3) by matrices (N, 2, 2), which lead from centre (N, 2) to source (2,)."""
    return np.concatenate([back, source[:, None] - back @ centre[:, :, None]], axis=2)


def extent(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the true entries of each row begin, and where they end."""
    return lines.argmax(1).astype(float), lines.shape[1] - lines[:, ::-1].argmax(1).astype(float)


def varied(scenes: BoxedImages, rng: np.random.Generator) -> BoxedImages:
    """Mirror images both ways, zoom and move them at random; boxes follow.

    images are floats around 0, which is what comes in from outside. A box of which less than two
    fifths are left goes.
    """
    n, (height, width) = len(scenes), scenes.images.shape[1:3]
    sign = rng.choice([-1, 1], (n, 2)) * rng.uniform(0.8, 1.25, (n, 1))
    middle = np.array([width, height]) / 2
    centre = middle + rng.uniform(-0.15, 0.15, (n, 2)) * middle
    maps = centred(np.eye(2) / sign[:, None], centre - 0.5, middle - 0.5)
    boxes, labels = [], []
    for i, (old, label) in enumerate(zip(scenes.boxes, scenes.labels)):
        corners = (old.reshape(-1, 2, 2) - middle) * sign[i] + centre[i]
        new = np.concatenate([corners.min(1), corners.max(1)], axis=1)
        cut = np.clip(new, 0, [width, height, width, height])
        stay = geometry.area(cut) > 0.4 * geometry.area(new)
        boxes.append(cut[stay])
        labels.append(label[stay])
    return BoxedImages(image.affine(scenes.images, maps), boxes, labels, scenes.classes)


def scaled(scenes: BoxedImages, mean: np.ndarray, std: np.ndarray) -> BoxedImages:
    """Bytes as floats of mean 0 and variance 1."""
    return replace(scenes, images=image.normalize(scenes.images.astype(np.float32), mean, std))
