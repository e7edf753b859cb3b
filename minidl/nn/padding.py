"""More elements around a tensor. Loaded when it is asked for."""

from typing import Any

from .. import ops
from ..tensor import Tensor
from .module import Module


def pad(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """input with more elements before and after those along each axis.

    pad: a pair (before, after) for each axis, from the first one on, as in numpy.pad: images
    (N, H, W, C) need ((0, 0), (top, bottom), (left, right), (0, 0)). PyTorch's flat form counts
    from the last axis, which holds the channels here, so it is refused. mode: "constant", all of
    them are value (0 where it is None); "reflect"; "edge", which PyTorch calls "replicate".
    """
    mode = "edge" if mode == "replicate" else mode
    return ops.pad(input, widths=pad, mode=mode, value=0.0 if value is None else value)


class ZeroPad2d(Module):
    """Zeros around each image of x (N, H, W, C).

    padding: a number for all sides, or (left, right, top, bottom), as in PyTorch.
    """

    def __init__(self, padding: Any):
        sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
        if len(sides) != 4 or not all(isinstance(n, int) and n >= 0 for n in sides):
            raise ValueError(
                f"ZeroPad2d: padding is {padding!r}, but must be a whole number from 0 on, or four "
                "of them: (left, right, top, bottom)"
            )
        self.padding = sides

    def forward(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, top + H + bottom, left + W + right, C)."""
        left, right, top, bottom = self.padding
        return pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))

    def flops(self, x: Tensor, y: Tensor) -> int:
        """None: numbers are copied."""
        return 0

    def extra_repr(self) -> str:
        """As in PyTorch."""
        return f"{self.padding}"
