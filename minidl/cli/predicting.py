"""minidl predict: name what is on pictures."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import io
from ..train import predict

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601: how bright the eye sees R, G, B


def predict_images(model_path: str, paths: Sequence[str], invert: bool = False) -> None:
    """Print the likeliest class of each picture, and its probability."""
    model = io.load(model_path)
    config = getattr(model, "config", {})
    if "shape" not in config:
        raise ValueError(f"{model_path}: does not say what images it takes; `minidl train` does")
    images = np.stack([_read(Path(path), config["shape"]) for path in paths])
    if invert:
        images = 1 - images
    elif config["shape"][2] == 1 and np.median(images) > 0.5:
        print("these look dark on light, but the network learned light on dark: try --invert",
              file=sys.stderr)  # fmt: skip
    scaled = (images - np.float32(config["mean"])) / np.float32(config["std"])
    width = max(map(len, paths))
    for path, row in zip(paths, predict(model, scaled.astype(np.float32)), strict=True):
        best = int(row.argmax())
        print(f"{path:{width}}  {config['classes'][best]}  {row[best]:.2%}")


def _read(path: Path, shape: Sequence[int]) -> np.ndarray:
    """A picture as the network takes it: float32 (H, W, C), from 0 to 1."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    image = _decode(path)
    if image.ndim == 3 and image.shape[2] in (2, 4):  # the last channel is opacity
        image = image[..., :-1] * image[..., -1:]
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim == 3 and (image.shape[2], shape[2]) == (3, 1):
        image = (image @ GREY)[..., None]
    elif image.ndim == 3 and (image.shape[2], shape[2]) == (1, 3):
        image = np.repeat(image, 3, 2)
    if image.shape != tuple(shape):
        height, width, _ = shape
        raise ValueError(
            f"{path}: the network takes images {height} high and {width} wide; this one has shape "
            f"{image.shape}; crop it to a square around the object and scale it to that"
        )
    return image


def _decode(path: Path) -> np.ndarray:
    """The pixels of a .npy or picture file as float32 from 0 to 1."""
    if path.suffix == ".npy":
        try:
            image: Any = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: not a whole .npy file: {error}") from error
        if image.dtype == np.uint8:
            image = image / 255
    else:
        try:
            from ..plot import read_image

            image = read_image(path)
        except ImportError as error:
            raise ImportError(
                f'{path}: pictures are read by Matplotlib: pip install "minidl[plot]"; '
                ".npy files are read without"
            ) from error
        except (OSError, SyntaxError, ValueError) as error:  # PIL calls a broken PNG a SyntaxError
            raise ValueError(f"{path}: not a picture that can be read: {error}") from error
    if image.dtype.kind != "f" or not ((image >= 0) & (image <= 1)).all():
        raise ValueError(f"{path}: pixels are bytes (uint8) or floats from 0 to 1")
    return image.astype(np.float32)
