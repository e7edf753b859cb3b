"""Find objects and name them: a small single-shot detector, trained in minutes on two CPU cores.

    python examples/detection.py digits       # MNIST's digits, strewn over a canvas
    python examples/detection.py cells        # photographs of blood: red and white cells, platelets
    python examples/detection.py digits --quick

One network looks at an image once. For each cell of its last map, 8 x 8 pixels, and each of a few
anchors there, boxes of fixed shapes, it says how sure it is of each class, and how the object's box
differs from the anchor. boxes.py has what is done with boxes, scenes.py makes images to learn from.
Liu et al., "SSD: single shot multibox detector", 2016; Lin et al., "Focal loss for dense object
detection", 2017.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import boxes as geometry
import numpy as np
from scenes import scaled, strew, varied

import minidl
from minidl import Tensor, data, nn, optim, plot
from minidl.data import BoxedImages, image
from minidl.nn import functional as F

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRIDE = 8  # pixels from cell to cell


# --- the network, and what it learns from


class Detector(nn.Module):
    """Images (N, H, W, C) -> logits (N, anchors, classes) and offsets (N, anchors, 4)."""

    def __init__(self, channels: int, classes: int, shapes: np.ndarray, width: int = 16):
        self.classes, self.shapes = classes, shapes
        wide = 8 * width
        self.body = nn.Sequential(
            *halved(channels, width),
            *halved(width, 2 * width),
            *halved(2 * width, 4 * width),
            nn.Conv2d(4 * width, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(),
        )  # fmt: skip
        self.what = nn.Conv2d(wide, len(shapes) * classes, 3, padding=1)
        self.where = nn.Conv2d(wide, len(shapes) * 4, 3, padding=1)
        # at first everything is background, of a chance of 99 %: Lin et al., section 3.3
        nn.init.constant_(self.what.bias, -np.log(99))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, H, W, C), H and W multiples of 8."""
        cells = self.body(x)
        what, where = self.what(cells), self.where(cells)
        return what.reshape(len(x), -1, self.classes), where.reshape(len(x), -1, 4)

    def anchors(self, images: np.ndarray) -> np.ndarray:
        """The anchors (anchors, 4) of images (N, H, W, C)."""
        rows, columns = (n // STRIDE for n in images.shape[1:3])
        return geometry.anchors(rows, columns, STRIDE, self.shapes)


def halved(before: int, after: int) -> list[nn.Module]:
    """A convolution, and the largest of each four pixels, normalised: less is left to do there."""
    conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return [conv, nn.MaxPool2d(2), nn.BatchNorm2d(after), nn.ReLU()]


def loss_of(model: Detector, x: Tensor, says: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Focal loss of all anchors that count, smooth L1 of those that mean an object, per object."""
    logits, moves = model(x)
    objects = says.sum(2, keepdims=True)
    what = (F.sigmoid_focal_loss(logits, says, reduction="none") * weight).sum()
    where = F.smooth_l1_loss(moves * objects, offsets, "sum")
    return (what + where) / objects.sum().maximum(1.0)


def targets(model: Detector, scenes: BoxedImages) -> tuple[np.ndarray, ...]:
    """What the network should say of each image: see geometry.match. Stacked: (N, anchors, ...)."""
    anchors = model.anchors(scenes.images)
    each = [
        geometry.match(anchors, boxes, labels, model.classes)
        for boxes, labels in zip(scenes.boxes, scenes.labels)
    ]
    says, offsets, weight = (np.stack(column) for column in zip(*each))
    return says, offsets, weight[:, :, None]


def learn(model: Detector, task: "Task", epochs: int) -> dict[str, list[float]]:
    """Train a model; returns each epoch's mean loss, and mAP on the first 100 test images."""
    history: dict[str, list[float]] = {"loss": [], "val_mAP": [], "seconds": []}
    optimizer = optim.AdamW(model.parameters(), weight_decay=1e-3)
    schedule = optim.OneCycleLR(optimizer, task.lr, epochs * (task.count // task.batch_size))

    @minidl.capture
    def step(*batch: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, *batch)
        loss.backward()
        optimizer.step()
        return loss

    for epoch in range(epochs):
        start, losses = time.perf_counter(), []
        scenes = task.epoch_of(epoch)
        columns = scenes.images, *targets(model, scenes)
        loader = data.DataLoader(columns, task.batch_size, shuffle=True, drop_last=True)
        for batch in loader:
            losses.append(step(*batch).item())
            schedule.step()
        found = np.nanmean(precisions(model, task.test[:100]))
        row = {"loss": np.mean(losses), "val_mAP": found, "seconds": time.perf_counter() - start}
        for name, value in row.items():
            history[name].append(float(value))
        print(f"epoch {epoch + 1:3}/{epochs}  loss {row['loss']:.4f}  mAP {found:.4f}  "
              f"{row['seconds']:.1f} s", flush=True)  # fmt: skip
    return history


# --- what it finds


def detect(model: Detector, images: np.ndarray, least: float = 0.05) -> list[tuple]:
    """Boxes, labels and scores of what is found in each of images (N, H, W, C), the surest first.

    A score is the chance of a class, at least `least`; boxes of one class overlap by at most half.
    """
    anchors, (height, width) = model.anchors(images), images.shape[1:3]
    found = []
    model.eval()
    with minidl.no_grad():
        for first in range(0, len(images), 32):
            logits, moves = model(Tensor(images[first : first + 32]))
            for chances, offsets in zip(F.sigmoid(logits).numpy(), moves.numpy()):
                boxes = np.clip(geometry.decode(offsets, anchors), 0, [width, height] * 2)
                found.append(geometry.suppressed(boxes, chances, least))
    model.train()
    return found


def precisions(model: Detector, scenes: BoxedImages) -> np.ndarray:
    """The average precision of each class at an IoU of a half."""
    right = list(zip(scenes.boxes, scenes.labels))
    return geometry.average_precisions(detect(model, scenes.images), right, model.classes)


# --- the two tasks


class Task(NamedTuple):
    """What to learn: training images of an epoch, test images, and how."""

    epoch_of: Callable[[int], BoxedImages]
    count: int  # of these images
    test: BoxedImages
    anchors: int
    epochs: int
    batch_size: int
    lr: float
    scale: tuple[np.ndarray, np.ndarray]


def digits_task(seed: int, quick: bool) -> Task:
    """Other canvases in every epoch, of training digits; test canvases are of test digits."""
    count = 128 if quick else 2000
    mean, std = np.float32([13]), np.float32([50])
    source = data.digits("train")

    def epoch_of(epoch: int) -> BoxedImages:
        return scaled(strew(source, count, seed=1000 * seed + epoch), mean, std)

    test = scaled(strew(data.digits("test"), 40 if quick else 500, seed=2**32), mean, std)
    return Task(epoch_of, count, test, 3, 2 if quick else 10, 16, 3e-3, (mean, std))


def cells_task(seed: int, quick: bool) -> Task:
    """292 photographs to learn from, zoomed, moved and mirrored anew in every epoch; 72 to test."""
    cells = data.bccd()
    for i, boxes in enumerate(cells.boxes):  # two of the boxes hold nothing
        full = geometry.area(boxes) > 0
        cells.boxes[i], cells.labels[i] = boxes[full], cells.labels[i][full]
    train, test = data.random_split(cells, [292, 72])  # the same two parts for every seed
    mean, std = (f(train.images, axis=(0, 1, 2), dtype=np.float64) for f in (np.mean, np.std))
    train, test = scaled(train, mean, std), scaled(test, mean, std)
    train, test = (train[:64], test[:16]) if quick else (train, test)

    def epoch_of(epoch: int) -> BoxedImages:
        return varied(train, np.random.default_rng((seed, epoch)))

    return Task(epoch_of, len(train), test, 4, 2 if quick else 60, 16, 4e-3, (mean, std))


def main() -> None:
    """Train a detector, say what it reaches, and draw what it finds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=("digits", "cells"))
    parser.add_argument("--epochs", type=int, help="instead of the task's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--quick", action="store_true", help="a subset, in seconds: does it run?")
    options = parser.parse_args()
    minidl.manual_seed(options.seed)
    start, make = time.perf_counter(), {"digits": digits_task, "cells": cells_task}[options.task]
    task = make(options.seed, options.quick)
    first = task.epoch_of(0)
    shapes = geometry.shapes_of(np.concatenate(first.boxes), task.anchors)
    model = Detector(first.images.shape[3], len(first.classes), shapes)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters; {first} to learn from, "
          f"{task.test} to test; anchors of {np.round(shapes, 1).tolist()} pixels")  # fmt: skip
    epochs = options.epochs or task.epochs
    history = learn(model, task, epochs)
    precision = dict(zip(first.classes, precisions(model, task.test).tolist()))
    result = {
        "mAP": float(np.nanmean(list(precision.values()))),
        "average_precision": precision,
        "seconds": round(time.perf_counter() - start, 1),
        "history": history,
        "options": {name: str(value) for name, value in vars(options).items()},
    }
    folder = options.out / f"detection-{options.task}"
    folder.mkdir(parents=True, exist_ok=True)
    minidl.save(model, folder / "model.safetensors")
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "curves.png").write_bytes(plot.png(plot.curves(history, options.task)))
    (folder / "found.png").write_bytes(plot.png(picture(model, task)))
    for name, value in precision.items():
        print(f"average precision of {name:10} {value:.4f}")
    print(f"mAP@0.5 {result['mAP']:.4f} in {result['seconds']} s; pictures are in {folder}")


def picture(model: Detector, task: Task, least: float = 0.4) -> "Figure":
    """The first test images with what is found by a score of `least`, and dashed what is right."""
    few = task.test[:12]
    found, words = [], []
    for boxes, labels, scores in detect(model, few.images, least):
        found.append(boxes)
        words.append([f"{few.classes[c]} {sure:.2f}" for c, sure in zip(labels, scores)])
    mean, std = task.scale
    return plot.boxes(image.to_bytes((few.images * std + mean) / 255), found, words, few.boxes)


if __name__ == "__main__":
    main()
