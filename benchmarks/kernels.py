"""Each CPU kernel beside its definition, its bound, and PyTorch's op where that is installed.

    python -m benchmarks.kernels [--threads 1] [--only conv2d] [--rounds 15] [--json FILE]
    python -m benchmarks.kernels --parallel  # where threads begin to pay (PARALLEL)
    python -m benchmarks.kernels --small     # where compiled loops beat NumPy (_SMALL)

Milliseconds, the best of interleaved runs. bound: of what was measured here, the slower of a copy
of all bytes from and to main memory and, for products and convolutions, of a large sgemm; what
stays in the cache, and Winograd's trick, can be faster. torch/cpu: above 1 ours is faster.
PyTorch's images are in the better of its two orders.
"""

import argparse
import concurrent.futures
import functools
import itertools
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import minidl
from minidl.kernels import cpu, reference, shapes
from minidl.kernels.cpu import _numba, reduce
from minidl.kernels.families import files_of
from minidl.kernels.roles import kernels_of, roles

from . import bounds, report

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

Run = Callable[[], object]
Case = tuple[str, Callable[[Any], object], list[Run]]  # name, run(kernels), PyTorch's
BATCH = 64
POOL = (2, 2), (2, 2), ((0, 0), (0, 0))
NUMBERS = {"dilation": (1, 1), "groups": 1, "relu": False, "add": False}  # unless a case says more


def draw(*shape: int) -> np.ndarray:
    """Random numbers; images in the memory order in which this backend keeps them."""
    y = blank(*shape)
    y[...] = np.random.default_rng(shape).normal(size=shape)
    return y


def blank(*shape: int) -> np.ndarray:
    """Room for a result."""
    k = minidl.device("cpu").kernels
    return (k.empty_image if len(shape) == 4 else k.empty)(shape, "float32")


def calling(kernel: str, *arrays: Any, **numbers: Any) -> Callable[[Any], object]:
    """Run a kernel of a namespace: its arrays in order, its numbers by name."""
    kinds = roles(getattr(reference, kernel))
    rest = [(NUMBERS | numbers)[name] for name, kind in kinds.items() if kind == "static"]
    return lambda k: getattr(k, kernel)(*arrays, *rest)


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


def convolution(side: int, c: int, f: int, p: int, n: int = 3, step: int = 1) -> list[Case]:
    """n x n filters over images with c channels."""
    pad, stride = ((p, p), (p, p)), (step, step)
    x, w, b = draw(BATCH, side, side, c), draw(n, n, c, f), draw(f)
    return _convolution("conv2d", x, w, b, stride, pad, f"{side}x{side} {c}->{f} {n}x{n} /{step}")


def depthwise(side: int, c: int, step: int) -> list[Case]:
    """A layer of MobileNet."""
    x, w, b, pad = draw(BATCH, side, side, c), draw(3, 3, c, 1), draw(c), ((1, 1), (1, 1))
    return _convolution(
        "depthwise_conv2d", x, w, b, (step, step), pad, f"{side}x{side}x{c} /{step}"
    )


def _convolution(name: str, x: Any, w: Any, b: Any, stride: Any, pad: Any, of: str) -> list[Case]:
    _, oh, ow, _ = shapes.pool2d(x.shape, w.shape[:2], stride, pad)
    y, dx, dw = blank(BATCH, oh, ow, b.size), blank(*x.shape), np.empty_like(w)
    dy, how = draw(*y.shape), dict(stride=stride, pad=pad)
    theirs = torch_convolution(x, w, b, dy, stride, pad[0][0])
    runs = {
        name: calling(name, x, w, b, y, **how),
        f"{name}_grad_x": calling(f"{name}_grad_x", dy, w, dx, **how),
        f"{name}_grad_w": calling(f"{name}_grad_w", dy, x, dw, **how),
    }
    return [(f"{kernel} {of}", run, torchs) for (kernel, run), torchs in zip(runs.items(), theirs)]


def torch_convolution(x, w, b, dy, stride, p) -> list[list[Run]]:
    """Forward and both gradients, in both of PyTorch's orders of images."""
    found: list[list[Run]] = [[], [], []]
    groups = x.shape[3] // w.shape[2] if w.shape[3] != 1 else x.shape[3]
    w = w if w.shape[3] != 1 else w.swapaxes(2, 3)  # depthwise: (KH, KW, C, 1)
    for order in (torch.contiguous_format, torch.channels_last) if torch else ():
        images = [torch.tensor(a).permute(0, 3, 1, 2) for a in (x, dy)]
        filters = torch.tensor(w).permute(3, 2, 0, 1)
        tx, tdy, tw = (t.contiguous(memory_format=order) for t in (*images, filters))
        forward = functools.partial(F.conv2d, tx, tw, torch.tensor(b), stride, p, 1, groups)
        given = tdy, tx, tw, None, stride, [p, p], [1, 1], False, [0, 0], groups
        for runs, run in zip(found, (forward, *map(functools.partial(_backward, given), MASKS))):
            runs.append(run)
    return found


MASKS = (True, False, False), (False, True, False)


def _backward(given: tuple, mask: tuple[bool, ...]) -> Run:
    return lambda: torch.ops.aten.convolution_backward(*given, mask)


def others() -> list[Case]:
    """The other kernels, at the sizes of the same networks."""
    x, dy = draw(BATCH, 30, 30, 32), draw(BATCH, 30, 30, 32)
    y, c, key = np.empty_like(x), np.empty(32, np.float32), np.array([1, 2], np.uint64)
    small, slope = blank(BATCH, 15, 15, 32), draw(BATCH, 15, 15, 32)
    arg = np.zeros_like(small, np.int32)
    mean, var, w = draw(32), np.square(draw(32)), draw(32)
    logits, label, lse = draw(BATCH, 10), np.arange(BATCH) % 10, np.empty(BATCH, np.float32)
    p = draw(170_000)
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
        "batch_norm": lambda k: k.batch_norm(x, w, w, None, y, c, c.copy(), 1e-5, False),
        "batch_norm_grad": lambda k: k.batch_norm_grad(
            dy, x, w, mean, var, None, y, c, c.copy(), None, 1e-5, False, (False,) * 4
        ),
        "linear 784->128": lambda k: k.linear(rows, dense, None, flat, False),
        "cross_entropy 64x10": lambda k: k.cross_entropy(
            logits, label, np.empty((), "f"), lse, 1 / BATCH
        ),
        "cross_entropy_grad": lambda k: k.cross_entropy_grad(
            lse[0], logits, label, lse, np.empty_like(logits), 1 / BATCH, False
        ),
        "adam_step_ 170k": calling("adam_step_", *steps("adam_step_"), **OPTIMIZER),
        "sgd_step_ 170k": calling("sgd_step_", *steps("sgd_step_"), **OPTIMIZER),
        "image_batch 32x32x3": lambda k: k.image_batch(pixels, label, *norm),
        "affine_batch 32x32x3": lambda k: k.affine_batch(pixels, label, turned, *norm[:3], False),
    }
    return [(name, call, [theirs[name]] if name in theirs else []) for name, call in calls.items()]


OPTIMIZER = {
    "momentum": 0.9, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0,
    "nesterov": False, "decoupled": False,
}  # fmt: skip


def steps(kernel: str) -> list[np.ndarray]:
    """The arrays of an optimizer's step over 170,000 parameters."""
    arrays = {name: np.abs(draw(170_000)) for name in ("dp", "p", "m", "v")}
    arrays |= dict.fromkeys(("lr", "momentum"), np.zeros(1, np.float32)) | {"t": np.array([3])}
    arrays["betas"] = np.float32([(beta, 1 - beta, math.log(beta)) for beta in (0.9, 0.999)])
    kinds = roles(getattr(reference, kernel))
    return [arrays[name] for name, kind in kinds.items() if kind != "static"]


def torch_others(x, dy, p) -> dict[str, Run]:
    """PyTorch's, in its own order of images."""
    x, dy = (torch.tensor(a).permute(0, 3, 1, 2).contiguous() for a in (x, dy))
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


def products() -> list[Case]:
    """Matrix products of the dense layers, and of square matrices."""
    found = []
    for m, k, n in ((256, 784, 128), (128, 2304, 64), (32, 512, 512), (512, 512, 512)):
        a, b, y = draw(m, k), draw(k, n), draw(m, n)
        calls = {
            "matmul": calling("matmul", a, b, np.empty_like(y)),
            "matmul_grad_a": calling("matmul_grad_a", y, b, np.empty_like(a)),
            "matmul_grad_b": calling("matmul_grad_b", y, a, np.empty_like(b)),
            "linear": calling("linear", a, b, b[0].copy(), np.empty_like(y), relu=True),
            "linear_grad_x": calling("linear_grad_x", y, b, np.empty_like(a)),
            "linear_grad_w": calling("linear_grad_w", y, a, np.empty_like(b)),
        }
        theirs = torch_products(a, b, y) if torch else {}
        for name, call in calls.items():
            rival = theirs.get(name.replace("matmul_grad_a", "linear_grad_x"))
            found.append((f"{name} {m}x{k}x{n}", call, [rival] if rival else []))
    return found


def torch_products(a, b, y) -> dict[str, Run]:
    """PyTorch's of row-major matrices."""
    a, b, y = (torch.tensor(array) for array in (a, b, y))
    return {
        "matmul": lambda: torch.mm(a, b),
        "matmul_grad_b": lambda: torch.mm(a.T, y),
        "linear": lambda: torch.addmm(b[0], a, b).relu_(),
        "linear_grad_x": lambda: torch.mm(y, b.T),
        "linear_grad_w": lambda: torch.mm(a.T, y),
    }


def elementwise() -> list[Case]:
    """What is done to each number of images, where NumPy needs several passes."""
    images = {name: draw(BATCH, 30, 30, 32) for name in ("x", "y", "dy", "dx")}
    numbers = dict(low=-1.0, high=1.0, negative_slope=0.01, approximate="none")
    theirs = torch_elementwise(**images) if torch else {}
    found: list[Case] = []
    for name in compiled():
        definition = getattr(reference, name)
        kinds = roles(definition)
        arrays = [n for n, kind in kinds.items() if kind != "static"]
        known = {*arrays} <= {*images} and {*kinds} <= {*arrays, *numbers, "add"}
        if known and definition.__module__.endswith(".elementwise"):
            call = calling(name, *(images[n] for n in arrays), **numbers)
            found.append((name, call, [theirs[name]] if name in theirs else []))
    return found


def torch_elementwise(**images: np.ndarray) -> dict[str, Run]:
    """PyTorch's; in which order the images are makes no difference."""
    aten = torch.ops.aten
    x, y, dy = (torch.tensor(images[name]) for name in ("x", "y", "dy"))
    return {
        "clip_grad": lambda: aten.hardtanh_backward(dy, x, -1, 1),
        "relu6_grad": lambda: aten.hardtanh_backward(dy, y, 0, 6),
        "leaky_relu": lambda: F.leaky_relu(x, 0.01),
        "leaky_relu_grad": lambda: aten.leaky_relu_backward(dy, x, 0.01, False),
        "sigmoid_grad": lambda: aten.sigmoid_backward(dy, y),
        "tanh_grad": lambda: aten.tanh_backward(dy, y),
        "silu_grad": lambda: aten.silu_backward(dy, x),
        "gelu": lambda: F.gelu(x),
        "gelu_grad": lambda: aten.gelu_backward(dy, x),
    }


def drawn(kernel: str) -> Case:
    """A kernel on a large example of its Case: what is in no other list."""
    from minidl.kernels.cases import CASES, Blank, Draw, Seeded, draw_example, gradients

    case = next(case for case in CASES.values() if kernel in (case.name, *gradients(case)))
    examples = (draw_example(case, Draw(Seeded(i), "float32", "large")) for i in itertools.count())
    # an optional input may be left out, and with it its gradient: on to the next example
    args = next(call.args for e in examples for call in e.calls if call.kernel == kernel).values()
    arrays = [np.zeros(a.shape, a.dtype or "f4") if isinstance(a, Blank) else a for a in args]
    return f"{kernel}, an example", lambda k: getattr(k, kernel)(*arrays), []


class Seen:
    """In the place of kernels: which one is called, and with what."""

    def __getattr__(self, kernel: str) -> Callable[..., tuple[str, dict[str, Any]]]:
        return lambda *args: (kernel, dict(zip(roles(getattr(reference, kernel)), args)))


def cases() -> list[Case]:
    """All of them, every CPU kernel at least once."""
    found: list[Case] = []
    # the CIFAR-10 network (valid), the 28x28 network ("same"), VGG16, ResNet-20, MobileNet
    for layer in (
        (32, 3, 32, 0), (15, 32, 64, 0), (28, 1, 32, 1), (14, 32, 64, 1), (7, 64, 128, 1),
        (16, 128, 128, 1), (8, 256, 256, 1), (4, 512, 512, 1), (2, 512, 512, 1),
        (32, 16, 16, 1), (16, 32, 32, 1), (8, 64, 64, 1), (32, 16, 32, 1, 3, 2),
        (16, 64, 64, 0, 1), (4, 256, 256, 0, 1),
    ):  # fmt: skip
        found += convolution(*layer)
    layers = itertools.product(((32, 64), (16, 128), (8, 256), (4, 512)), (1, 2))
    found += [case for size, step in layers for case in depthwise(*size, step)]
    found += others() + products()
    names = {name for name, _, _ in found}
    found += [case for case in elementwise() if case[0] not in names]
    rows = {call(Seen())[0] for _, call, _ in found}
    return found + [drawn(kernel) for kernel in compiled() if kernel not in rows]


def compiled() -> list[str]:
    """The kernels that the CPU has of its own."""
    return [*kernels_of(*files_of(cpu.__name__))]


def limits(threads: int) -> tuple[float, float]:
    """Bytes and float32 operations per second: of a large copy, and of a large product."""
    n, part = 1536, 2**24 // threads
    a, y = np.ones((n, n), np.float32), np.empty((n, n), np.float32)
    pairs = [(np.ones(part, np.float32), np.empty(part, np.float32)) for _ in range(threads)]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        copy = lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))  # noqa: E731
        copying, product = best([copy, lambda: np.matmul(a, a, out=y)])
    return 8 * part * threads / copying * 1e3, 2 * n**3 / product * 1e3


def row(case: Case, bandwidth: float, rate: float, rounds: int) -> dict[str, Any]:
    """Milliseconds of a kernel, of all that it is held against."""
    name, call, theirs = case
    definition, ours, *torchs = best(
        [*(functools.partial(call, k) for k in PLACES), *theirs], rounds
    )
    least = bounds.bound(*call(Seen()), bandwidth, rate)
    found = {"kernel": name, "definition": definition, "cpu": ours, "bound": least}
    found |= {"of bound": least / ours}
    return found | ({"torch": min(torchs), "torch/cpu": min(torchs) / ours} if torchs else {})


PLACES = reference, cpu


def table(threads: int, only: str, rounds: int, file: str | None) -> None:
    """All kernels whose name begins with `only`, on so many threads and cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    minidl.set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)
    bandwidth, rate = limits(threads)
    print(
        f"{threads} threads: {bandwidth / 1e9:.1f} GB/s, {rate / 1e9:.0f} GFLOP/s", file=sys.stderr
    )
    rows = [row(case, bandwidth, rate, rounds) for case in cases() if case[0].startswith(only)]
    report.show(rows)
    if file:
        about = {"threads": threads, "GB/s": bandwidth / 1e9, "GFLOP/s": rate / 1e9, "batch": BATCH}
        report.save(file, rows, about)


def parallel() -> None:
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


def main(line: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", metavar="NAME", help="kernels that begin with it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--parallel", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    chosen = parser.parse_args(line)
    if chosen.parallel or chosen.small:
        parallel() if chosen.parallel else small()
    else:
        table(chosen.threads, chosen.only, chosen.rounds, chosen.json)


if __name__ == "__main__":
    main()
