"""Images of other programs: channels first, (N, C, H, W), and here last, (N, H, W, C)."""

from typing import Any

from . import check, ops
from .tensor import Tensor


def from_nchw(images: Any) -> Any:
    """Images (N, C, H, W), or one (C, H, W), with channels last; a view.

    An array or a Tensor, and that is also what is returned; gradients find the way back.
    """
    return _turned("from_nchw", images, "(N, C, H, W)", (0, 2, 3, 1))


def to_nchw(images: Any) -> Any:
    """Images (N, H, W, C), or one (H, W, C), with channels first; a view."""
    return _turned("to_nchw", images, "(N, H, W, C)", (0, 3, 1, 2))


def _turned(name: str, images: Any, layout: str, order: tuple[int, ...]) -> Any:
    if images.ndim not in (3, 4):
        check.fail(name, f"images {layout} are needed, or one of them", x=images)
    if images.ndim == 3:
        order = tuple(axis - 1 for axis in order[1:])
    return (
        ops.permute(images, axes=order) if isinstance(images, Tensor) else images.transpose(order)
    )
