"""What a kernel has to do at least: bytes to move, multiplications and additions to carry out."""

import math
from typing import Any

from minidl.kernels import reference
from minidl.kernels.roles import roles


def traffic(kernel: str, args: dict[str, Any]) -> int:
    """Bytes that a kernel has to move at least: inputs in, outputs out, what it changes both."""
    times = {"in": 1, "out": 1, "inout": 2}
    return sum(
        times[role] * args[name].nbytes
        for name, role in roles(getattr(reference, kernel)).items()
        if role in times and args[name] is not None
    )


def operations(kernel: str, args: dict[str, Any]) -> int:
    """Multiplications and additions of products and convolutions; 0 for kernels that only move."""
    if "conv2d" in kernel:
        slopes = args["dy"] if "grad" in kernel else args["y"]
        w = args["dw"] if kernel.endswith("conv2d_grad_w") else args["w"]
        window = w.shape[:2] if kernel.startswith("depthwise") else w.shape[:3]
        return 2 * math.prod(slopes.shape) * math.prod(window)
    if kernel.startswith(("matmul", "linear")):
        matrices = [a for a in args.values() if getattr(a, "ndim", 0) == 2]
        return 2 * math.isqrt(math.prod(math.prod(a.shape) for a in matrices))
    return 0


def bound(kernel: str, args: dict[str, Any], bandwidth: float, rate: float) -> float:
    """Milliseconds below which no kernel can be, at so many bytes and operations per second."""
    seconds = max(traffic(kernel, args) / bandwidth, operations(kernel, args) / rate)
    return seconds * 1e3
