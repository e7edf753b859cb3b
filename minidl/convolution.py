"""What computes convolutions on the CPU."""

from typing import Any

from . import check
from .backend import device

CONV = "direct", "winograd", "auto"
TILES = 2, 4


def set_conv(choice: str, tile: int = 2) -> None:
    """Choose what computes convolutions with 3x3 filters on the CPU, and both their gradients.

    choice: "direct"; "winograd", which takes fewer multiplications but rounds more of what is in
    between; "auto" (at first), Winograd's where that is faster, direct elsewhere. All others
    (strides, dilation, groups, float64, the device "cuda") are direct whatever is chosen.

    tile: Winograd's F(2x2, 3x3), whose error was measured to be no larger than a direct
    convolution's, or 4, F(4x4, 3x3): faster, with an error about 10 times as large. The bounds are
    in kernels/cpu/winograd.py. NaN, infinity and huge numbers come out as without it: where a
    result is not finite, it is computed directly.

    What is captured follows from the next step on. RuntimeError without AVX2 or AVX-512.
    """
    check.known("convolution", choice, CONV)
    if tile not in TILES:
        raise ValueError(f"set_conv: tile is {tile!r}, but must be 2 or 4")
    kernels = device("cpu").kernels
    if hasattr(kernels, "set_conv"):
        kernels.set_conv(choice, tile)
    elif choice == "winograd":
        raise RuntimeError("set_conv: MINIDL_CPU=reference computes convolutions directly, always")


def get_conv() -> tuple[str, int]:
    """What computes convolutions on the CPU, as `set_conv` takes it: the choice and the tile."""
    kernels: Any = device("cpu").kernels
    return kernels.get_conv() if hasattr(kernels, "get_conv") else ("direct", 2)
