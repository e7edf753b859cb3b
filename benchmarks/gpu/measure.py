"""Times on a GPU, what they are held against, and how far apart two results are."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[], Any]
ROUNDS = 5
LEAST = 5.0  # milliseconds that a round takes at least: the clock's steps are half a microsecond
MOST = 500  # calls in a round


def milliseconds(run: Run, elapsed: Callable[[Run, int], float]) -> float:
    """Median time of one call; elapsed(run, n) tells how long n calls one after another take."""
    elapsed(run, 2)  # compiles, and fills the memory pool
    once = elapsed(run, 1)
    n = max(1, min(MOST, math.ceil(LEAST / max(once, 1e-6))))
    return statistics.median(elapsed(run, n) / n for _ in range(ROUNDS))


def ours(run: Run, n: int) -> float:
    """Milliseconds on the GPU of n calls, in the stream that our kernels run in."""
    from minidl.kernels.cuda import gpu

    stream, events = gpu.stream(), (gpu.cupy.cuda.Event(), gpu.cupy.cuda.Event())
    events[0].record(stream)
    for _ in range(n):
        run()
    events[1].record(stream)
    events[1].synchronize()
    return gpu.cupy.cuda.get_elapsed_time(*events)


def torchs(run: Run, n: int) -> float:
    """Milliseconds on the GPU of n calls, in PyTorch's stream."""
    import torch

    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(n):
        run()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop)


def torch_tf32(on: bool) -> None:
    """Let PyTorch compute products and convolutions in TF32, or not."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def limits() -> tuple[float, float]:
    """Bytes and float32 operations per second: of a large copy, and of cuBLAS."""
    from minidl.kernels.cuda import gpu

    gpu.stream()
    x, y = (gpu.cupy.zeros(2**26, np.float32) for _ in range(2))
    a, b, c = (gpu.cupy.zeros((4096, 4096), np.float32) for _ in range(3))
    copy = milliseconds(lambda: gpu.cupy.copyto(y, x), ours)
    product = milliseconds(lambda: gpu.cupy.matmul(a, b, out=c), ours)
    return 2 * x.nbytes / copy * 1e3, 2 * 4096**3 / product * 1e3


def ulps(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, in units in the last place: how many floats lie between.

    Of integers and booleans 0 or inf. NaN and NaN are 0 apart, NaN and a number inf.
    """
    if a.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else math.inf
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return math.inf
    places = [_place(x[~np.isnan(x)]) for x in (a, b)]
    return max((abs(p - q) for p, q in zip(*(p.tolist() for p in places))), default=0)


def _place(x: np.ndarray) -> np.ndarray:
    """Each float's number when all are counted from 0 on, negative ones downwards."""
    bits = x.view(f"i{x.itemsize}").astype(np.int64)
    lowest = -(2 ** (8 * x.itemsize - 1))
    return np.where(bits < 0, lowest - bits, bits)
