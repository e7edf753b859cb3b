"""Each kernel at the size of a large layer: against what the GPU allows, and PyTorch's op."""

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minidl.kernels import cuda
from minidl.kernels.cases import CASES, DEFINITION, Blank, Draw, Seeded, draw_example, gradients
from minidl.kernels.cuda import ladder, linear, memory
from minidl.kernels.roles import roles

from .. import bounds
from . import measure


class Sizes(NamedTuple):
    """How large arrays are."""

    batch: int = 128
    side: int = 32  # of an image
    channels: int = 128
    matrix: int = 4096
    rows: int = 65536  # of logits, with `channels` classes


class Integers(NamedTuple):
    """An array of integers below a number."""

    shape: tuple[int, ...]
    below: int
    dtype: str = "int64"


# Where what a Case draws would not do.
STATICS = {
    "relu": True, "momentum": 0.9, "p": 0.5, "flip": True, "stride": (1, 1), "size": (2, 2),
    "dilation": (1, 1), "groups": 1,
    "rows": 100, "scale": 1.0, "n": 100, "ignore": -100, "mean": True, "smoothing": 0.1,
    "seed": 1, "epoch": 0, "nesterov": False, "decoupled": False, "weight_decay": 0.0,
}  # fmt: skip
LOSSES = "binary_cross_entropy", "huber_loss", "kl_div", "l1_loss", "mse_loss"


@functools.cache
def drawn(kernel: str) -> dict[str, Any]:
    """The arguments of a kernel in a large example of its Case."""
    found = [case for case in CASES.values() if kernel in (case.name, *gradients(case))]
    if not found:
        raise LookupError(f"no Case draws arguments for {kernel}: write it in kernels/cases/")
    examples = (
        draw_example(found[0], Draw(Seeded(i), "float32", "large")) for i in itertools.count()
    )
    # an optional input may be left out, and with it its gradient: on to the next example
    return next(call.args for e in examples for call in e.calls if call.kernel == kernel)


def specs(kernel: str, sizes: Sizes) -> dict[str, Any]:
    """Each argument of a kernel: the shape of an array of floats, Integers, an array or a number.

    What is not spelled out here is as in the kernel's Case, but for elementwise maths: of images.
    """
    n, side, c, m, rows = sizes
    image, channel, one = (n, side, side, c), (c,), (1,)
    small = (n, side // 2, side // 2, c)
    square, logits, label = (m, m), (rows, c), Integers((rows,), c)
    flat = (n * side * side * c,)
    padding = ((1, 1), (1, 1)) if "conv2d" in kernel else ((0, 0), (0, 0))
    own: dict[str, dict[str, Any]] = {
        "log_softmax": dict(x=logits, y=logits),
        "log_softmax_grad": dict(dy=logits, y=logits, dx=logits),
        "cross_entropy": dict(x=logits, label=label, y=(), lse=(rows,)),
        "cross_entropy_grad": dict(dy=(), x=logits, label=label, lse=(rows,), dx=logits),
        "take": dict(x=logits, index=Integers((rows,), rows), y=logits),
        "take_grad": dict(dy=logits, index=Integers((rows,), rows), dx=logits),
        "compare": dict(y=Integers(image, 2, "bool")),
        "sum_rows": dict(db=channel),
        "sum_squares": dict(x=flat, y=()),
        "sum": dict(y=(1, 1, 1, c)), "mean": dict(y=(1, 1, 1, c)),
        "sum_grad": dict(dy=(1, 1, 1, c)), "mean_grad": dict(dy=(1, 1, 1, c)),
        "max": dict(x=logits, y=(rows, 1), arg=Integers((rows, 1), c)),
        "min": dict(x=logits, y=(rows, 1), arg=Integers((rows, 1), c)),
        "var": dict(y=(1, 1, 1, c), mean=(1, 1, 1, c)),
        "var_grad": dict(dy=(1, 1, 1, c), mean=(1, 1, 1, c)),
        "std": dict(y=(1, 1, 1, c), mean=(1, 1, 1, c)),
        "std_grad": dict(dy=(1, 1, 1, c), y=(1, 1, 1, c), mean=(1, 1, 1, c)),
        "softmax": dict(x=logits, y=logits),
        "softmax_grad": dict(dy=logits, y=logits, dx=logits),
        "max_grad": dict(dy=(rows, 1), arg=Integers((rows, 1), c), dx=logits),
        "max_pool2d": dict(y=small, arg=Integers(small, 4, "int32"), stride=(2, 2)),
        "max_pool2d_grad": dict(dy=small, arg=Integers(small, 4, "int32"), stride=(2, 2)),
        "avg_pool2d": dict(y=small, stride=(2, 2), count_padding=True),
        "avg_pool2d_grad": dict(dy=small, stride=(2, 2), count_padding=True),
        "linear": dict(x=square, w=square, b=(m,), y=square),
        "image_batch": dict(
            images=Integers((n, side, side, 3), 256, "uint8"), index=Integers((n,), n),
            scale=(3,), shift=(3,), y=(n, side, side, 3), pad=4,
        ),
        "count_": dict(t=Integers(one, 9)),
        "lion_step_": dict(betas=(2, 2)),
        "trust_step_": dict(u=flat, weights=(), steps=()),
        "clip_": dict(square=(), x=flat),
        **{name: {} for name in ("copy", "fill", "uniform", "normal", "dropout")},
        "reserve_": dict(state=Integers((2,), 9, "uint64"), key=Integers((2,), 9, "uint64")),
    }  # fmt: skip
    found: dict[str, Any] = {}
    if kernel.startswith(("matmul", "linear")):
        found = dict.fromkeys(("a", "b", "y", "dy", "da", "db", "x", "w", "dx", "dw"), square)
    elif kernel.startswith("bmm"):
        found = dict.fromkeys(("a", "b", "y", "dy", "da", "db"), (n, m // 16, m // 16))
    elif kernel.startswith("layer_norm"):
        found = dict.fromkeys(("x", "y", "dx", "dy"), logits)
        found |= dict.fromkeys(("w", "b", "dw", "db"), channel)
        found |= dict(mean=(rows,), rstd=(rows,))
        found |= {"add": (False,) * 3} if "grad" in kernel else {}
    elif kernel.startswith("conv2d"):
        found = dict.fromkeys(("w", "dw"), (3, 3, c, c)) | {"b": channel}
    elif kernel.startswith("depthwise_conv2d"):
        found = dict.fromkeys(("w", "dw"), (3, 3, c, 1)) | {"b": channel, "dilation": (1, 1)}
    elif kernel.startswith("batch_norm"):
        channels = "w", "b", "mean", "var", "dw", "db", "running_mean", "running_var"
        found = dict.fromkeys(channels, channel) | {"r": None, "dr": None}
        found |= {"add": (False,) * 4} if "grad" in kernel else {}
    elif kernel.endswith("_step_"):
        found = dict.fromkeys(("dp", "p", "m", "v", "b"), flat) | {"t": Integers(one, 9)}
        found |= {"lr": one, "momentum": one, "betas": (2, 3)}
    elif kernel.startswith(("cross_entropy_", "nll_loss")):
        found = dict.fromkeys(("x", "dx", "target", "dtarget"), logits) | {"label": label}
        found |= {"weight": channel, "lse": (rows,), "dy": (), "y": (), "total": ()}
    elif kernel.startswith(LOSSES):
        found = {"y": (), "dy": (), "pos_weight": channel}
    kinds, case = roles(DEFINITION[kernel]), drawn(kernel)
    if not (found or kernel in own or DEFINITION[kernel].__module__.endswith(".elementwise")):
        return case
    statics = {name: case[name] for name, kind in kinds.items() if kind == "static"} | STATICS
    found |= {
        "key": Integers((2,), 9, "uint64"),
        "pad": padding,
        "cond": Integers(image, 2, "bool"),
    }
    found |= own.get(kernel, {})
    return {name: found.get(name, statics.get(name, image)) for name in kinds}


def arguments(
    kernel: str, sizes: Sizes, floats: Callable, integers: Callable, given: Callable
) -> dict[str, Any]:
    """The arguments of a kernel.

    floats(shape) and integers(spec) make its arrays; given(array) is a NumPy array as one of them.
    """
    kinds, found = roles(DEFINITION[kernel]), specs(kernel, sizes)
    makers = {Integers: integers, tuple: floats, np.ndarray: given}
    makers[Blank] = lambda blank: given(np.zeros(blank.shape, blank.dtype or np.float32))
    return {
        name: spec if kinds[name] == "static" or spec is None else makers[type(spec)](spec)
        for name, spec in found.items()
    }


def on_gpu(kernel: str, sizes: Sizes) -> dict[str, Any]:
    """The arguments of a kernel, on the GPU: numbers from 0.5 to 1.5."""
    key = memory.from_host(np.array([1, 2], np.uint64))

    def floats(shape: tuple[int, ...]) -> Any:
        return cuda.uniform(key, memory.empty(shape, np.float32), 0.5, 1.5)

    def integers(spec: Integers) -> Any:
        return memory.from_host(host_integers(spec))

    return arguments(kernel, sizes, floats, integers, memory.from_host)


def host_integers(spec: Integers) -> np.ndarray:
    """Random integers."""
    return np.random.default_rng(0).integers(0, spec.below, spec.shape).astype(spec.dtype)


def table(bandwidth: float, rate: float, until: float) -> Iterator[dict[str, Any]]:
    """For each kernel: milliseconds, how near to its bound, and against PyTorch's op."""
    ops = torch_ops()
    if ops:
        measure.torch_tf32(False)  # PyTorch has it on for convolutions, our kernels have it off
    yield {"kernel": "(the GPU)", "GB/s": bandwidth / 1e9, "teraflops": rate / 1e12}
    for kernel in DEFINITION:
        if time.monotonic() > until:
            yield {"kernel": f"from {kernel} on: out of time"}
            return
        try:
            yield _timed(kernel, ops.get(kernel), bandwidth, rate)
        except Exception as error:  # the table tells of all kernels, whatever happens to one
            yield {"kernel": kernel, "error": f"{type(error).__name__}: {error}".splitlines()[0]}


def _timed(kernel: str, op: Callable | None, bandwidth: float, rate: float) -> dict[str, Any]:
    args = on_gpu(kernel, Sizes())
    function, given = getattr(cuda, kernel), tuple(args.values())
    ms = measure.milliseconds(lambda: function(*given), measure.ours)
    least = bounds.bound(kernel, args, bandwidth, rate)
    row = {"kernel": kernel, "tf32": False, "ms": ms, "bound_ms": least, "of_bound": least / ms}
    if op:
        tensors = Tensors(args)
        theirs = measure.milliseconds(lambda: op(tensors), measure.torchs)
        row |= {"torch_ms": theirs, "ratio": ms / theirs}
    return row


def ladder_table(sizes: tuple[int, ...], until: float) -> Iterator[dict[str, Any]]:
    """Each step to a fast matrix product, and the product that minidl runs, against cuBLAS.

    What runs in TF32 is held against cuBLAS in TF32.
    """
    for n in sizes:
        a, b, y = (memory.from_host(np.ones((n, n), np.float32)) for _ in range(3))
        cublas = {tf32: _product("cublas", tf32, a, b, y) for tf32 in (False, True)}
        runs = {step.__name__: functools.partial(step, a, b, y) for step in ladder.STEPS}
        times = {f"minidl{' TF32' * tf32}": _product("kernel", tf32, a, b, y) for tf32 in cublas}
        for name, run in runs.items():
            if time.monotonic() > until:
                yield {"step": f"from {name} on: out of time"}
                return
            times[name] = measure.milliseconds(run, measure.ours)
        for name, ms in times.items():
            tf32 = name.endswith("TF32") or name == "tensor_cores"
            teraflops = 2 * n**3 / ms / 1e9
            row = {"step": name, "n": n, "tf32": tf32, "ms": ms, "teraflops": teraflops}
            yield row | {"of_cublas": cublas[tf32] / ms}


def _product(choice: str, tf32: bool, a: Any, b: Any, y: Any) -> float:
    before = linear._chosen["matmul"]
    linear.set_matmul(choice, tf32)
    try:
        return measure.milliseconds(lambda: cuda.matmul(a, b, y), measure.ours)
    finally:
        linear.set_matmul(*before)


def overhead() -> list[dict[str, Any]]:
    """Microseconds that the host takes for one launch of a kernel on one number."""
    args = on_gpu("add", Sizes(batch=1, side=1, channels=1))
    given, tensors = tuple(args.values()), Tensors(args)
    rows = [{"launch": "minidl add", "us": _host(lambda: cuda.add(*given), memory.synchronize)}]
    if op := torch_ops().get("add"):
        import torch

        us = _host(lambda: op(tensors), torch.cuda.synchronize)
        rows.append({"launch": "torch add", "us": us})
    return rows


def _host(run: Callable[[], Any], wait: Callable[[], Any]) -> float:
    rounds = []
    for _ in range(7):
        wait()
        start = time.perf_counter()
        for _ in range(500):
            run()
        rounds.append((time.perf_counter() - start) / 500 * 1e6)
    return statistics.median(rounds)


class Tensors:
    """A kernel's arguments for PyTorch, made when they are asked for: views of the same memory.

    Images and filters are channels_last, in which their memory is ours; filters are copied once.
    """

    def __init__(self, args: dict[str, Any]):
        self.args = args

    def __getattr__(self, name: str) -> Any:
        import torch

        tensor = torch.from_dlpack(self.args[name])
        if tensor.ndim == 4 and name in ("w", "dw"):
            tensor = tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
        elif tensor.ndim == 4:
            tensor = tensor.permute(0, 3, 1, 2)
        setattr(self, name, tensor)
        return tensor


def torch_ops() -> dict[str, Callable[[Any], Any]]:
    """PyTorch's op for a kernel, of the same arrays; without those it has no single op for."""
    try:
        import torch
        import torch.nn.functional as F
    except ImportError:
        return {}
    aten = torch.ops.aten

    def gradient(t: Any, x: Any, w: Any, mask: list[bool], groups: int = 1) -> Any:
        ones = [1, 1]
        return aten.convolution_backward(
            t.dy, x, w, None, ones, ones, ones, False, [0, 0], groups, mask
        )

    def optimizer(t: Any, make: Callable[..., Any], **options: Any) -> None:
        if "step" not in vars(t):
            p = torch.nn.Parameter(t.p)
            p.grad = t.dp
            t.step = make([p], lr=1e-3, fused=True, **options).step
        t.step()

    pairs = {name: getattr(torch, name) for name in ("add", "sub", "mul", "div", "pow", "maximum")}
    alone = {name: getattr(torch, name) for name in ("neg", "exp", "log", "sqrt")}
    ops: dict[str, Callable[[Any], Any]] = {
        **{n: lambda t, f=f: f(t.a, t.b, out=t.y) for n, f in pairs.items()},
        **{n: lambda t, f=f: f(t.x, out=t.y) for n, f in alone.items()},
        "relu": lambda t: torch.clamp_min(t.x, 0, out=t.y),
        "relu_grad": lambda t: aten.threshold_backward(t.dy, t.y, 0),
        "compare": lambda t: torch.lt(t.a, t.b, out=t.y),
        "matmul": lambda t: torch.mm(t.a, t.b, out=t.y),
        "matmul_grad_a": lambda t: torch.mm(t.dy, t.b.T, out=t.da),
        "matmul_grad_b": lambda t: torch.mm(t.a.T, t.dy, out=t.db),
        "linear": lambda t: torch.addmm(t.b, t.x, t.w, out=t.y).relu_(),
        "linear_grad_x": lambda t: torch.mm(t.dy, t.w.T, out=t.dx),
        "linear_grad_w": lambda t: torch.mm(t.x.T, t.dy, out=t.dw),
        "log_softmax": lambda t: torch.log_softmax(t.x, 1),
        "log_softmax_grad": lambda t: aten._log_softmax_backward_data(t.dy, t.y, 1, t.y.dtype),
        "cross_entropy": lambda t: F.cross_entropy(t.x, t.label, reduction="sum"),
        "cross_entropy_weighted": lambda t: F.cross_entropy(
            t.x, t.label, t.weight, label_smoothing=0.1
        ),
        "cross_entropy_soft": lambda t: F.cross_entropy(
            t.x, t.target, t.weight, label_smoothing=0.1, reduction="sum"
        ),
        "nll_loss": lambda t: F.nll_loss(t.x, t.label, t.weight),
        "mse_loss": lambda t: F.mse_loss(t.x, t.target, reduction="sum"),
        "l1_loss": lambda t: F.l1_loss(t.x, t.target, reduction="sum"),
        "huber_loss": lambda t: F.huber_loss(t.x, t.target, reduction="sum"),
        "kl_div": lambda t: F.kl_div(t.x, t.target, reduction="sum"),
        "copy": lambda t: t.y.copy_(t.x),
        "fill": lambda t: t.y.fill_(0),
        "take": lambda t: torch.index_select(t.x, 0, t.index, out=t.y),
        "take_grad": lambda t: t.dx.zero_().index_add_(0, t.index, t.dy),
        "batch_norm": lambda t: torch.relu(
            aten.native_batch_norm(t.x, t.w, t.b, None, None, True, 0.1, 1e-5)[0]
        ),
        "batch_norm_eval": lambda t: torch.relu(
            F.batch_norm(t.x, t.mean, t.var, t.w, t.b, False, 0.1, 1e-5)
        ),
        "batch_norm_grad": lambda t: aten.native_batch_norm_backward(
            t.dy, t.x, t.w, None, None, t.mean, t.var, True, 1e-5, [True] * 3
        ),
        "uniform": lambda t: t.y.uniform_(),
        "normal": lambda t: t.y.normal_(),
        "dropout": lambda t: F.dropout(t.x, 0.5),
        "sum": lambda t: t.x.sum((0, 2, 3)),
        "mean": lambda t: t.x.mean((0, 2, 3)),
        "max": lambda t: t.x.max(1),
        "sum_rows": lambda t: t.dy.sum((0, 2, 3)),
        "sum_squares": lambda t: torch.dot(t.x, t.x),
        "conv2d": lambda t: torch.relu(F.conv2d(t.x, t.w, t.b, padding=1)),
        "conv2d_grad_x": lambda t: gradient(t, t.dx, t.w, [True, False, False]),
        "conv2d_grad_w": lambda t: gradient(t, t.x, t.dw, [False, True, False]),
        "depthwise_conv2d": lambda t: torch.relu(
            F.conv2d(t.x, t.w.swapaxes(0, 1), t.b, padding=1, groups=t.x.shape[1])
        ),
        "depthwise_conv2d_grad_x": lambda t: gradient(
            t, t.dx, t.w.swapaxes(0, 1), [True, False, False], t.dx.shape[1]
        ),
        "depthwise_conv2d_grad_w": lambda t: gradient(
            t, t.x, t.dw.swapaxes(0, 1), [False, True, False], t.x.shape[1]
        ),
        "avg_pool2d": lambda t: F.avg_pool2d(t.x, 2),
        "sgd_step_": lambda t: optimizer(t, torch.optim.SGD, momentum=0.9),
        "adam_step_": lambda t: optimizer(t, torch.optim.Adam),
        "max_pool2d": lambda t: F.max_pool2d(t.x, 2, return_indices=True),
    }
    return ops
