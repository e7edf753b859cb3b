"""Time the CPU kernels beside their definitions, and beside PyTorch where it is installed.

python benchmarks/kernels_cpu.py            # milliseconds, the best of interleaved runs
python benchmarks/kernels_cpu.py --threads  # where threads begin to pay (PARALLEL)
python benchmarks/kernels_cpu.py --small    # where compiled loops beat NumPy (_SMALL)
"""

import argparse
import functools
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.kernels import cpu, reference, shapes
from minidl.kernels.cpu import _numba, reduce

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

Run = Callable[[], object]
# name, run(kernels), PyTorch's: the fastest of some counts
Case = tuple[str, Callable[[Any], object], Run | list[Run] | None]
BATCH = 64
POOL = (2, 2), (2, 2), ((0, 0), (0, 0))


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def best(runs: list[Run], rounds: int = 15) -> list[float]:
    """Milliseconds of each run, the best of several rounds in turn: neighbours are noisy."""
    times = [math.inf] * len(runs)
    for run in runs:
        run()  # compiles, and loads the library
    for _ in range(rounds):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            run()
            times[i] = min(times[i], time.perf_counter() - start)
    return [1000 * t for t in times]


def image(x: np.ndarray) -> np.ndarray:
    """Images in the memory order that they have in a network."""
    y = cpu.empty_image(x.shape, x.dtype)
    y[...] = x
    return y


def convolution(side: int, c: int, f: int, p: int) -> list[Case]:
    x, w, b, pad = image(draw(BATCH, side, side, c)), draw(3, 3, c, f), draw(f), ((p, p), (p, p))
    y = cpu.empty_image(shapes.conv2d(x.shape, w.shape, (1, 1), pad), np.float32)
    dy, dx, dw = image(draw(*y.shape)), np.empty_like(x), np.empty_like(w)
    forward, grad_x, grad_w = torch_convolution(x, w, b, dy, p)
    how, where = ((1, 1), pad, (1, 1), 1, False), f"{side}x{side} {c}->{f}"
    return [
        (f"conv2d {where}", lambda k: k.conv2d(x, w, b, y, *how), forward),
        (f"conv2d_grad_x {where}", lambda k: k.conv2d_grad_x(dy, w, dx, *how), grad_x),
        (f"conv2d_grad_w {where}", lambda k: k.conv2d_grad_w(dy, x, dw, *how), grad_w),
    ]


def torch_convolution(x, w, b, dy, p) -> list[list[Run]]:
    """In both of PyTorch's memory orders: which one is faster depends on the layer."""
    if torch is None:
        return [[]] * 3
    runs: list[list[Run]] = [[], [], []]
    for order in (torch.contiguous_format, torch.channels_last):

        def theirs(a: np.ndarray, *axes: int, order=order):
            return torch.from_numpy(a).permute(*axes).contiguous(memory_format=order)

        tx, tdy = (theirs(a, 0, 3, 1, 2) for a in (x, dy))
        tw, tb = theirs(w, 3, 2, 0, 1), torch.from_numpy(b)

        def back(*mask: bool, given=(tdy, tx, tw)) -> None:
            torch.ops.aten.convolution_backward(
                *given, [len(b)], [1, 1], [p, p], [1, 1], False, [0, 0], 1, mask
            )

        runs[0].append(functools.partial(F.conv2d, tx, tw, tb, padding=p))
        runs[1].append(functools.partial(back, True, False, False))
        runs[2].append(functools.partial(back, False, True, False))
    return runs


def depthwise(side: int, c: int, step: int) -> list[Case]:
    """A layer of MobileNet. PyTorch's images are channels-last, as ours: it is faster so."""
    x, w, b, pad = image(draw(BATCH, side, side, c)), draw(3, 3, c, 1), draw(c), ((1, 1), (1, 1))
    y = cpu.empty_image(shapes.pool2d(x.shape, (3, 3), (step, step), pad), np.float32)
    dy, dx, dw = image(draw(*y.shape)), np.empty_like(x), np.empty_like(w)
    forward, grad_x, grad_w = torch_depthwise(x, w, b, dy, step)
    static, where = ((step, step), pad, (1, 1), False), f"{side}x{side}x{c} /{step}"
    name = "depthwise_conv2d"
    return [
        (f"{name} {where}", lambda k: k.depthwise_conv2d(x, w, b, y, *static), forward),
        (f"{name}_grad_x", lambda k: k.depthwise_conv2d_grad_x(dy, w, dx, *static), grad_x),
        (f"{name}_grad_w", lambda k: k.depthwise_conv2d_grad_w(dy, x, dw, *static), grad_w),
    ]


def torch_depthwise(x, w, b, dy, step) -> list[Run | None]:
    if torch is None:
        return [None] * 3
    x, dy = (torch.from_numpy(np.ascontiguousarray(a)).permute(0, 3, 1, 2) for a in (x, dy))
    w = torch.from_numpy(w).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
    b = torch.from_numpy(b)

    def back(*mask: bool) -> Run:
        return lambda: torch.ops.aten.convolution_backward(
            dy, x, w, None, [step, step], [1, 1], [1, 1], False, [0, 0], len(b), mask
        )

    return [
        lambda: F.conv2d(x, w, b, step, 1, 1, len(b)),
        back(True, False, False),
        back(False, True, False),
    ]


def others() -> list[Case]:
    """The other kernels, at the sizes of the same networks."""
    x, dy = image(draw(BATCH, 30, 30, 32)), image(draw(BATCH, 30, 30, 32))
    y, c, key = np.empty_like(x), np.empty(32, np.float32), np.array([1, 2], np.uint64)
    small = cpu.empty_image((BATCH, 15, 15, 32), np.float32)
    arg, slope = cpu.empty_image(small.shape, np.int32), image(draw(*small.shape))
    mean, var, w = draw(32), np.square(draw(32)), draw(32)
    logits, label, lse = draw(BATCH, 10), np.arange(BATCH) % 10, np.empty(BATCH, np.float32)
    g, p, m, v = draw(170_000), draw(170_000) + 1, draw(170_000) + 2, np.abs(draw(170_000))
    lr, t = np.zeros(1, np.float32), np.array([3])
    betas = np.float32([(beta, 1 - beta, math.log(beta)) for beta in (0.9, 0.999)])
    pixels = np.zeros((1000, 32, 32, 3), np.uint8)
    batch = np.empty((BATCH, 32, 32, 3), np.float32)
    norm = draw(3), draw(3), batch, 1, 2, 4, True
    turned = np.rint(draw(BATCH, 2, 3) * 2.0**32).astype(np.int64)
    rows, dense, flat = draw(BATCH, 784), draw(784, 128), np.empty((BATCH, 128), np.float32)
    theirs = torch_others(x, dy, p) if torch else {}
    calls = {
        "relu_grad": lambda k: k.relu_grad(dy, x, y, False),
        "max_pool2d": lambda k: k.max_pool2d(x, small, arg, *POOL),
        "max_pool2d_grad": lambda k: k.max_pool2d_grad(slope, arg, y, *POOL, False),
        "avg_pool2d": lambda k: k.avg_pool2d(x, small, *POOL, True),
        "avg_pool2d_grad": lambda k: k.avg_pool2d_grad(slope, y, *POOL, True, False),
        "sum_rows": lambda k: k.sum_rows(dy, c, False),
        "dropout": lambda k: k.dropout(x, key, y, 0.25),
        "batch_norm": lambda k: k.batch_norm(x, w, w, y, c, c.copy(), 1e-5, False),
        "batch_norm_grad": lambda k: k.batch_norm_grad(
            dy, x, w, mean, var, y, c, c.copy(), 1e-5, (False,) * 3
        ),
        "linear 784->128": lambda k: k.linear(rows, dense, None, flat, False),
        "cross_entropy 64x10": lambda k: k.cross_entropy(
            logits, label, np.empty((), "f"), lse, 1 / BATCH
        ),
        "cross_entropy_grad": lambda k: k.cross_entropy_grad(
            lse[0], logits, label, lse, np.empty_like(logits), 1 / BATCH, False
        ),
        "adam_step_ 170k": lambda k: k.adam_step_(g, lr, betas, t, p, m, v, 1e-8, 0.0, False),
        "sgd_step_ 170k": lambda k: k.sgd_step_(g, lr, betas[0, :1], p, v, 0.0, False),
        "image_batch 32x32x3": lambda k: k.image_batch(pixels, label, *norm),
        "affine_batch 32x32x3": lambda k: k.affine_batch(pixels, label, turned, *norm[:3], False),
    }
    return [(name, call, theirs.get(name)) for name, call in calls.items()]


def torch_others(x, dy, p) -> dict[str, Run]:
    x, dy = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous() for a in (x, dy))
    aten, w = torch.ops.aten, torch.ones(32)
    small, arg = F.max_pool2d(x, 2, return_indices=True)
    flat = torch.nn.Parameter(torch.from_numpy(p.copy()))
    flat.grad = torch.ones_like(flat)
    adam, sgd = torch.optim.Adam([flat], fused=True), torch.optim.SGD([flat], momentum=0.9)
    return {
        "relu_grad": lambda: aten.threshold_backward(dy, x, 0),
        "max_pool2d": lambda: F.max_pool2d(x, 2, return_indices=True),
        "max_pool2d_grad": lambda: aten.max_pool2d_with_indices_backward(
            small, x, [2, 2], [2, 2], [0, 0], [1, 1], False, arg
        ),
        "avg_pool2d": lambda: F.avg_pool2d(x, 2),
        "avg_pool2d_grad": lambda: aten.avg_pool2d_backward(
            small, x, [2, 2], [2, 2], [0, 0], False, True, None
        ),
        "sum_rows": lambda: dy.sum((0, 2, 3)),
        "dropout": lambda: F.dropout(x, 0.25),
        "batch_norm": lambda: aten.native_batch_norm(x, w, w, None, None, True, 0.1, 1e-5),
        "batch_norm_grad": lambda: aten.native_batch_norm_backward(
            dy, x, w, None, None, w, w, True, 1e-5, [True] * 3
        ),
        "adam_step_ 170k": adam.step,
        "sgd_step_ 170k": sgd.step,
    }


def table() -> None:
    print(f"{'milliseconds, batch ' + str(BATCH):34}definition     cpu   torch  cpu/torch")
    # the convolutions of the CIFAR-10 network (valid), of the 28x28 network ("same")
    sizes = (32, 3, 32, 0), (15, 32, 64, 0), (28, 1, 32, 1), (14, 32, 64, 1), (7, 64, 128, 1)
    cases = [case for size in sizes for case in convolution(*size)]
    layers = itertools.product(((32, 64), (16, 128), (8, 256), (4, 512)), (1, 2))
    cases += [case for size, step in layers for case in depthwise(*size, step)]
    for name, call, theirs in cases + others():
        both = [functools.partial(call, kernels) for kernels in (reference, cpu)]
        theirs = theirs if isinstance(theirs, list) else [theirs] if theirs else []
        times = best(both + theirs)
        fastest = min(times[2:], default=0.0)
        rest = f"{fastest:8.3f}{times[1] / fastest:11.2f}" if theirs else ""
        print(f"{name:34}{times[0]:10.3f}{times[1]:8.3f}{rest}", flush=True)


def threads() -> None:
    """The calling thread alone against all, over sizes."""
    print("elements  relu_grad: one thread, many   sum_rows: one, many   (microseconds)")
    measured = _numba.PARALLEL
    for size in (1 << n for n in range(12, 21)):
        x, y, db = draw(size // 32, 32), np.empty((size // 32, 32), np.float32), np.empty(32, "f")

        def limited(limit: int, call: Run) -> None:
            _numba.PARALLEL = limit
            call()

        calls = [
            functools.partial(cpu.relu_grad, x, x, y, False),
            functools.partial(cpu.sum_rows, x, db, False),
        ]
        runs = [functools.partial(limited, n, call) for call in calls for n in (1 << 40, 0)]
        print(f"{size:8}", *(f"{1000 * t:15.1f}" for t in best(runs, 100)))
    _numba.PARALLEL = measured


def small() -> None:
    """Definition against compiled kernel, over small sizes."""
    print("elements  relu_grad: NumPy, cpu   sum_rows: NumPy, cpu   log_softmax: NumPy, cpu  (us)")
    reduce._SMALL = 0
    for size in (1 << n for n in range(5, 18)):
        x, y, db = draw(size // 16, 16), np.empty((size // 16, 16), np.float32), np.empty(16, "f")
        given = (
            ("relu_grad", (x, x, y, False)),
            ("sum_rows", (x, db, False)),
            ("log_softmax", (x, y)),
        )
        runs = [functools.partial(getattr(k, n), *a) for n, a in given for k in (reference, cpu)]
        print(f"{size:8}", *(f"{1000 * t:12.1f}" for t in best(runs, 60)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time the CPU kernels.")
    parser.add_argument("--threads", action="store_true")
    parser.add_argument("--small", action="store_true")
    chosen = parser.parse_args()
    (threads if chosen.threads else small if chosen.small else table)()
