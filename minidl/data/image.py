"""Single images and batches of them: bytes to numbers, orders of axes, sizes, affine warps.

    x = image.to_tensor(PIL.Image.open("cat.png"))        # (H, W, 3), from 0 to 1
    x = image.normalize(image.resize(x, (224, 224)), mean, std)
    y = model(x[None])

Images are (H, W, C) or (N, H, W, C). A Tensor gives a Tensor on its device, an array an array, and
bytes stay bytes where it is not said otherwise.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import check, ops
from ..backend import Array
from ..kernels import shapes
from ..tensor import Tensor
from .transforms import Numbers

_PADDING = {"zeros": False, "border": True}


def to_tensor(image: Any, device: str = "cpu") -> Tensor:
    """Make float32 numbers of an image, (H, W, C), or of images, (N, H, W, C), bytes from 0 to 1.

    image: an array, a PIL image, or what else NumPy reads as an array: bytes, which are divided by
    255, or floats, which are kept. (H, W) gets a channel.
    """
    x = np.asarray(image)
    x = x[..., None] if x.ndim == 2 else x
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise TypeError(f"to_tensor: images are uint8 or floating, got {x.dtype}")
    _images("to_tensor", x)
    y = x.astype(np.float32)
    return Tensor(y / np.float32(255) if x.dtype == np.uint8 else y, device=device)


def to_bytes(x: Any) -> np.ndarray:
    """Make bytes of numbers from 0 to 1, rounded; what lies outside becomes 0 or 255."""
    x = x.detach().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if x.dtype.kind != "f" or np.isnan(x).any():
        raise TypeError(f"to_bytes: numbers from 0 to 1 are needed, no NaN; got {x.dtype}")
    return _rounded(x * 255)


def normalize(x: Any, mean: Numbers, std: Numbers) -> Any:
    """(x - mean) / std of floats (..., C): a number each, or one per channel."""
    if getattr(x, "dtype", np.dtype("O")).kind != "f":
        raise TypeError("normalize: floats are needed; image.to_tensor makes them of bytes")
    low, wide = np.asarray(mean, x.dtype), np.asarray(std, x.dtype)
    if any(a.shape not in ((), (1,), x.shape[-1:]) for a in (low, wide)):
        check.fail("normalize", f"mean {mean} and std {std} do not fit the channels", x=x)
    if not (wide > 0).all():
        check.fail("normalize", f"std is {std}, but must be above 0")
    if isinstance(x, Tensor):
        return (x - Tensor(low, device=x.device)) / Tensor(wide, device=x.device)
    return (x - low) / wide


def to_nchw(x: Any) -> Any:
    """(N, H, W, C) -> (N, C, H, W), or (H, W, C) -> (C, H, W): a view, for PyTorch."""
    _images("to_nchw", x)
    return x.transpose(*range(x.ndim - 3), x.ndim - 1, x.ndim - 3, x.ndim - 2)


def to_nhwc(x: Any) -> Any:
    """(N, C, H, W) -> (N, H, W, C), or (C, H, W) -> (H, W, C): a view, from PyTorch."""
    _images("to_nhwc", x)
    return x.transpose(*range(x.ndim - 3), x.ndim - 2, x.ndim - 1, x.ndim - 3)


def resize(x: Any, size: Any, antialias: bool = True) -> Any:
    """Scale images (..., H, W, C) to size, a number or (height, width), by linear interpolation.

    antialias: where an image shrinks, each new pixel is a mean over all that it covers, weighted
    by a triangle, as in Pillow's resize with BILINEAR; without, over the nearest two by two, as in
    PyTorch's interpolate. Corners of pixels, not their centres, lie on each other. Differentiable.
    """
    _images("resize", x)
    new = shapes.pair(size)
    if min(*new, *x.shape[-3:-1]) < 1:
        check.fail("resize", f"size is {size}, and both must have at least a pixel", x=x)
    if not isinstance(x, Tensor):
        # in float32: off by less than a byte's rounding, which is all that is left of it
        bytes_ = x.dtype == np.uint8
        y = resize(Tensor(x.astype(np.float32) if bytes_ else x), new, antialias).numpy()
        return _rounded(y) if bytes_ else y
    *_, height, width, channels = x.shape
    down, across = (
        Tensor(weights(n, m, antialias).astype(x.dtype), device=x.device)
        for n, m in zip((height, width), new)
    )
    rows = ops.matmul(down, x.reshape(*x.shape[:-3], height, width * channels))
    return ops.matmul(across, rows.reshape(*x.shape[:-3], new[0], width, channels))


def weights(n: int, m: int, antialias: bool) -> np.ndarray:
    """How much each of n pixels in a row counts in each of m that replace them: (m, n).

    A triangle about the new pixel's centre, as wide as a new pixel to either side, or an old one
    if that is wider or nothing is to be smoothed; cut off at the border, and of sum 1.
    """
    centre = (np.arange(m)[:, None] + 0.5) * n / m - 0.5
    reach = max(n / m, 1.0) if antialias else 1.0
    found = np.maximum(0, 1 - np.abs(np.arange(n) - centre) / reach)
    return found / found.sum(1, keepdims=True)


def affine(x: Any, matrix: Any, size: Any = None, padding_mode: str = "zeros") -> Any:
    """Look at images (N, H, W, C) through affine maps: bilinear samples -> (N, *size, C).

    matrix (2, 3) or (N, 2, 3) leads from a place (column, row, 1) of the result to (column, row)
    in the image; whole numbers are the centres of pixels. size: (height, width) of the result, as
    the image by default. Outside of an image are zeros, or its nearest pixel ("border").

    Places are rounded to 2**-32 of a pixel, the same on every device; no gradients.
    """
    check.known("padding_mode", padding_mode, _PADDING)
    if x.ndim != 4:
        check.fail("affine", "images are (N, H, W, C)", x=x)
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape not in ((2, 3), (len(x), 2, 3)):
        check.fail("affine", "matrix is (2, 3), or one for each image", x=x, matrix=matrix)
    matrix = np.broadcast_to(matrix, (len(x), 2, 3))
    fixed = np.rint(matrix * 2.0**32)
    if not (np.abs(fixed) < 2.0**62).all():
        check.fail("affine", "the matrix has a number that is not finite, or beyond 2**30")
    tensor = x if isinstance(x, Tensor) else Tensor(x)
    where, height_width = tensor.device, x.shape[1:3] if size is None else shapes.pair(size)
    dtype, c = np.float32 if x.dtype == np.uint8 else x.dtype, x.shape[3]
    numbers = np.arange(len(x)), fixed.astype(np.int64), np.ones(c, dtype), np.zeros(c, dtype)
    y = where.kernels.empty_image((len(x), *height_width, c), dtype)
    arrays = tensor.data, *(where.array(a) for a in numbers)
    y = Tensor(where.kernels.affine_batch(*arrays, y, _PADDING[padding_mode]), device=where)
    if isinstance(x, Tensor):
        return y
    return _rounded(y.numpy()) if x.dtype == np.uint8 else y.numpy()


@dataclass(frozen=True)
class Resize:
    """Scale images to size, a number or (height, width): image.resize, for a DataLoader.

    Scale, Normalize and Flip may follow it in a list; what moves images by pixels may not.
    """

    size: Any
    antialias: bool = True

    commutes = True  # with what works on each pixel alone, and with mirrors: see transforms.fold

    def __call__(self, batch: Array) -> Array:
        """batch (N, H, W, C) -> (N, *size, C), on the device that it is on."""
        where = "cpu" if batch.device == "cpu" else "cuda"
        return resize(Tensor(batch, device=where), self.size, self.antialias).data


def _images(who: str, x: Any) -> None:
    if x.ndim not in (3, 4):
        check.fail(who, "an image has three axes, several have four", x=x)


def _rounded(x: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(x, 0, 255)).astype(np.uint8)
