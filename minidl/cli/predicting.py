"""minidl predict: name what is on pictures."""

import sys
from collections.abc import Sequence
from pathlib import Path

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
        hint = "these look dark on light, but the network learned light on dark: try --invert"
        print(hint, file=sys.stderr)
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
    if image.dtype == np.uint8:
        image = image / 255
    if image.dtype.kind != "f" or not ((image >= 0) & (image <= 1)).all():
        raise ValueError(f"{path}: pixels are bytes (uint8) or floats from 0 to 1")
    image = image[..., None] if image.ndim == 2 else image
    channels = image.shape[-1] if image.ndim == 3 else 0
    if channels in (2, 4):  # the last channel is opacity
        image, channels = image[..., :-1] * image[..., -1:], channels - 1
    if (channels, shape[2]) == (3, 1):
        image = (image @ GREY)[..., None]
    elif (channels, shape[2]) == (1, 3):
        image = np.repeat(image, 3, 2)
    if image.shape != tuple(shape):
        raise ValueError(
            f"{path}: the network takes images {shape[0]} high and {shape[1]} wide; this one has "
            f"shape {image.shape}; crop it to a square around the object and scale it to that"
        )
    return image.astype(np.float32)


def _decode(path: Path) -> np.ndarray:
    """The pixels of a .npy or picture file."""
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        from ..plot import read_image

        return read_image(path)
    except ImportError as error:
        hint = 'pip install "minidl[plot]"; .npy files are read without'
        raise ImportError(f"{path}: pictures are read by Matplotlib: {hint}") from error
    except (OSError, EOFError, SyntaxError, ValueError) as error:  # SyntaxError: PIL's, broken PNG
        kind = ".npy file" if path.suffix == ".npy" else "picture"
        raise ValueError(f"{path}: not a {kind} that can be read: {error}") from error
