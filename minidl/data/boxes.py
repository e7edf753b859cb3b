"""Blood cells with boxes around them: BCCD, 364 photographs."""

import io
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .catalog import UNPACKED, folders
from .sets import Folder, load

CELLS = ("RBC", "WBC", "Platelets")
WIDTH, HEIGHT = 160, 120  # a quarter of the photographs'


@dataclass(frozen=True)
class BoxedImages:
    """Images uint8 (N, H, W, C); for each boxes, float32 (K, 4), and labels, int64 (K,).

    A box is xmin, ymin, xmax, ymax in pixels, from the upper left corner of the image. `cells[3]`
    is one (image, boxes, labels); `cells[:100]` or `cells[array]` is fewer images.
    """

    images: np.ndarray
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Any) -> Any:
        if np.ndim(key) == 0 and not isinstance(key, slice):
            return self.images[key], self.boxes[key], self.labels[key]
        chosen = np.arange(len(self))[key]
        boxes, labels = [self.boxes[i] for i in chosen], [self.labels[i] for i in chosen]
        return BoxedImages(self.images[chosen], boxes, labels, self.classes)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.images.shape))
        return f"BoxedImages({shape}, {sum(map(len, self.boxes))} boxes: {', '.join(self.classes)})"


def bccd(*, root: Folder = None) -> BoxedImages:
    """Load BCCD: 364 photographs of blood, 120 x 160 x 3, with a box around each of 4,888 cells.

    root: a folder with bccd_160x120.npz, whose bytes are verified, or a clone of the public
    repository, which Pillow reads and makes as small: JPEG decoders round differently, so those
    pixels are not verified. MIT, https://github.com/Shenggan/BCCD_Dataset
    """
    for folder in folders("bccd", root):
        for home in (folder, folder.parent / UNPACKED["bccd"]):
            if (home / "BCCD" / "Annotations").is_dir():
                return _from_repository(home / "BCCD")
    with np.load(io.BytesIO(load("bccd", "all", root, False)[0]), allow_pickle=False) as file:
        images, rows, classes = file["images"], file["boxes"], tuple(file["classes"].tolist())
    each = [rows[rows[:, 0] == i] for i in range(len(images))]
    boxes = [found[:, 2:].copy() for found in each]
    return BoxedImages(images, boxes, [found[:, 1].astype(np.int64) for found in each], classes)


def _from_repository(folder: Path) -> BoxedImages:
    """Photographs and annotations (Pascal VOC's XML) of a clone, made small."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            f"bccd: {folder} holds JPEG files: pip install pillow reads them"
        ) from error
    images, boxes, labels = [], [], []
    for path in sorted((folder / "Annotations").glob("*.xml")):
        with Image.open(folder / "JPEGImages" / f"{path.stem}.jpg") as photograph:
            scale = np.array([WIDTH, HEIGHT] * 2) / (photograph.size * 2)
            small = photograph.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BOX)
        cells = xml.etree.ElementTree.parse(path).getroot().findall("object")
        edges = [[float(c.findtext(f"bndbox/{e}", "nan")) for e in EDGES] for c in cells]
        images.append(np.asarray(small))
        boxes.append((np.array(edges).reshape(-1, 4) * scale).astype(np.float32))
        labels.append(np.array([CELLS.index(c.findtext("name", "")) for c in cells], np.int64))
    return BoxedImages(np.stack(images), boxes, labels, CELLS)


EDGES = "xmin", "ymin", "xmax", "ymax"
