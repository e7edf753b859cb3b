"""Elementwise kernels, losses and optimizers over sizes, beside PyTorch's.

    python -m benchmarks.sizes [--threads 1] [--only gelu] [--sizes 1000,100000] [--json FILE]

Microseconds of one call, medians of interleaved runs; torch/cpu: above 1 ours is faster. Both write
into room that is there already; where PyTorch's autograd takes several ops, so does it here.
Losses have rows of 10 and of 1,000 columns.
"""

import argparse
import functools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import minidl
from minidl.kernels import reference
from minidl.kernels.roles import roles

from . import report

Run = Callable[[], object]
SIZES = 1_000, 100_000, 4_000_000
WORK = 200_000  # elements per turn: a short kernel runs many times in one
NUMBERS = dict(
    low=-1.0, high=1.0, negative_slope=0.01, alpha=1.0, beta=1.0, threshold=20.0, relation="lt",
    approximate="none", eps=1e-8, weight_decay=0.0, nesterov=False, decoupled=False, initial=0.0,
    lr_decay=0.0, p=0.25, scale=1.0, add=False,
)  # fmt: skip
aten = torch.ops.aten


def columns(n: int) -> dict[str, np.ndarray]:
    """Arrays of n numbers, by the names that kernels give them."""
    rng, found = np.random.default_rng(n), {}
    for name in ("dy", "x", "a", "y", "b"):
        found[name] = room(n)
        found[name][:] = rng.normal(size=n)
    found["b"][:] = np.abs(found["b"]) + 0.5
    return found | {"cond": found["x"] > 0}


def room(*shape: int) -> np.ndarray:
    """For results; from a line of the cache on, as PyTorch's."""
    return minidl.device("cpu").kernels.empty(shape, np.float32)


POSITIVE = {"log", "sqrt", "sqrt_grad", "log_grad", "pow", "pow_grad_a", "pow_grad_b"}


def elementwise(n: int) -> Iterator[tuple[str, Run, Run]]:
    """Name, ours and PyTorch's of each elementwise kernel that PyTorch has."""
    k = minidl.device("cpu").kernels
    for positive in (False, True):
        held = columns(n)
        if positive:
            for a in held.values():
                if a.dtype == "f":
                    np.abs(a, out=a)
        theirs = torch_elementwise(**{name: torch.from_numpy(a) for name, a in held.items()})
        for name, run in theirs.items():
            kernel, _, variant = name.partition(" ")
            if (kernel in POSITIVE) != positive:
                continue
            kinds = roles(getattr(reference, kernel))
            out = np.empty(n, bool) if kernel == "compare" else room(n)
            numbers = NUMBERS | ({"approximate": variant} if variant else {})
            args = [
                {"out": out, "static": numbers.get(p)}.get(kind, held.get(p))
                for p, kind in kinds.items()
            ]
            yield name, functools.partial(getattr(k, kernel), *args), run


def torch_elementwise(dy, x, a, b, y, cond) -> dict[str, Run]:
    """PyTorch's: forward into `out`, gradients as its autograd computes them."""
    out, truth = torch.empty_like(x), torch.empty_like(cond)
    two = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}
    two |= {"pow": torch.pow, "maximum": torch.maximum, "minimum": torch.minimum}
    one = {"neg": torch.neg, "abs": torch.abs, "exp": torch.exp, "log": torch.log}
    one |= {"sqrt": torch.sqrt, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    one |= {"relu": aten.relu.out, "silu": aten.silu.out, "gelu": aten.gelu.out}
    zero = torch.zeros(())
    into, grad = {"out": out}, {"grad_input": out}
    share = lambda p, q: dy.masked_fill(p == q, 0.5).masked_fill_(p < q, 0)  # noqa: E731
    return {
        **{name: functools.partial(f, a, b, **into) for name, f in two.items()},
        **{name: functools.partial(f, x, **into) for name, f in one.items()},
        "where": lambda: torch.where(cond, a, b, **into),
        "compare": lambda: torch.lt(a, b, out=truth),
        "clip": lambda: torch.clamp(x, -1, 1, **into),
        "relu6": lambda: aten.hardtanh.out(x, 0, 6, **into),
        "leaky_relu": lambda: aten.leaky_relu.out(x, 0.01, **into),
        "elu": lambda: aten.elu.out(x, 1, 1, 1, **into),
        "softplus": lambda: aten.softplus.out(x, 1, 20, **into),
        "gelu tanh": lambda: aten.gelu.out(x, approximate="tanh", **into),
        "mul_grad_a": lambda: torch.mul(dy, b, **into),
        "div_grad_a": lambda: torch.div(dy, b, **into),
        "div_grad_b": lambda: -dy * ((a / b) / b),
        "pow_grad_a": lambda: dy * (b * a.pow(b - 1)),
        "pow_grad_b": lambda: torch.where((a == 0) & (b >= 0), zero, dy * (y * a.log())),
        "maximum_grad_a": lambda: share(a, b),
        "where_grad_a": lambda: torch.where(cond, dy, zero, **into),
        "neg_grad": lambda: torch.neg(dy, **into),
        "abs_grad": lambda: dy * x.sgn(),
        "exp_grad": lambda: torch.mul(dy, y, **into),
        "log_grad": lambda: torch.div(dy, x, **into),
        "sqrt_grad": lambda: dy / (2 * y),
        "clip_grad": lambda: torch.where((x >= -1) & (x <= 1), dy, zero, **into),
        "relu_grad": lambda: aten.threshold_backward.grad_input(dy, y, 0, **grad),
        "relu6_grad": lambda: aten.hardtanh_backward.grad_input(dy, y, 0, 6, **grad),
        "leaky_relu_grad": lambda: aten.leaky_relu_backward.grad_input(dy, x, 0.01, False, **grad),
        "elu_grad": lambda: aten.elu_backward.grad_input(dy, 1, 1, 1, False, x, **grad),
        "sigmoid_grad": lambda: aten.sigmoid_backward.grad_input(dy, y, **grad),
        "tanh_grad": lambda: aten.tanh_backward.grad_input(dy, y, **grad),
        "silu_grad": lambda: aten.silu_backward.grad_input(dy, x, **grad),
        "gelu_grad": lambda: aten.gelu_backward.grad_input(dy, x, **grad),
        "gelu_grad tanh": lambda: aten.gelu_backward.grad_input(dy, x, approximate="tanh", **grad),
        "softplus_grad": lambda: aten.softplus_backward.grad_input(dy, x, 1, 20, **grad),
    }


def losses(n: int) -> Iterator[tuple[str, Run, Run]]:
    """Softmax and what is built on it, and dropout."""
    for width in (10, 1000):
        yield from rows_of(width, n)
    k, held, key, out = minidl.device("cpu").kernels, columns(n), np.array([1, 2], "u8"), room(n)
    x, tx = held["x"], torch.from_numpy(held["x"])
    yield "dropout", lambda: k.dropout(x, key, out, 0.25), lambda: F.dropout(tx, 0.25)


def rows_of(width: int, n: int) -> Iterator[tuple[str, Run, Run]]:
    """The same of logits with so many columns."""
    k, shape = minidl.device("cpu").kernels, (n // width, width)
    x, y, dy, out = (columns(n)[name].reshape(shape) for name in ("x", "y", "dy", "a"))
    tx, ty, tdy, tout = map(torch.from_numpy, (x, y, dy, room(*shape)))
    real, leaf = torch.float32, tx.clone().requires_grad_()
    theirs = {
        "softmax": lambda: torch._softmax(tx, 1, False, out=tout),
        "log_softmax": lambda: torch._log_softmax(tx, 1, False, out=tout),
        "softmax_grad": lambda: aten._softmax_backward_data.out(tdy, ty, 1, real, grad_input=tout),
        "log_softmax_grad": lambda: aten._log_softmax_backward_data.out(tdy, ty, 1, real, out=tout),
    }
    for name, run in theirs.items():
        args = (dy, y, out, False) if "grad" in name else (x, out)
        yield f"{name} of {width}", functools.partial(getattr(k, name), *args), run
    label = np.arange(len(x)) % width
    loss, lse = np.empty((), np.float32), np.empty(len(x), np.float32)
    one, rank = np.ones((), np.float32), torch.from_numpy(label)

    def torchs() -> None:
        leaf.grad = None
        F.cross_entropy(leaf, rank).backward()

    def ours() -> None:
        k.cross_entropy(x, label, loss, lse, 1 / len(x))
        k.cross_entropy_grad(one, x, label, lse, out, 1 / len(x), False)

    yield f"cross_entropy, and back of {width}", ours, torchs


def optimizers(n: int) -> Iterator[tuple[str, Run, Run]]:
    """Steps over n parameters, PyTorch's `fused` where it has that."""
    k = minidl.device("cpu").kernels
    held = dict(zip(("dp", "p", "m", "v", "b"), columns(n).values()))
    np.abs(held["v"], out=held["v"])
    rates = {"lr": np.full(1, 1e-3, np.float32), "t": np.array([3])}
    betas = np.array([(b, 1 - b, math.log(b)) for b in (0.9, 0.999)], np.float32)
    theirs = {
        "adam_step_": lambda p: torch.optim.Adam(p, fused=True),
        "sgd_step_": lambda p: torch.optim.SGD(p, momentum=0.9, fused=True),
        "rmsprop_step_": lambda p: torch.optim.RMSprop(p),
        "adagrad_step_": lambda p: torch.optim.Adagrad(p, fused=True),
    }
    for name, make in theirs.items():
        momentum = np.full(1, 0.9 if name == "sgd_step_" else 0.0, np.float32)
        arrays = held | rates | {"betas": betas, "momentum": momentum}
        if name == "rmsprop_step_":
            arrays |= {"m": None, "b": None}
        kinds = roles(getattr(reference, name))
        args = [NUMBERS[p] if kind == "static" else arrays[p] for p, kind in kinds.items()]
        if name == "rmsprop_step_":
            args[list(kinds).index("alpha")] = 0.99
        flat = torch.nn.Parameter(torch.from_numpy(held["p"].copy()))
        flat.grad = torch.from_numpy(held["dp"].copy())
        yield name, functools.partial(getattr(k, name), *args), make([flat]).step


def rows(sizes: list[int], only: str) -> Iterator[dict[str, Any]]:
    """A row for each kernel and size."""
    for n in sizes:
        for family in (elementwise, losses, optimizers):
            for name, ours, theirs in family(n):
                if name.startswith(only):
                    runs = {"cpu": ours, "torch": theirs}
                    repeats = max(1, WORK // n)
                    found = report.interleaved(runs, rounds=9, repeats=repeats)
                    us = {who: 1e3 * ms for who, ms in found.items()}
                    yield {"kernel": name, "n": n} | us | {"torch/cpu": us["torch"] / us["cpu"]}


def main(line: list[str] | None = None) -> None:
    """Print the table, a size below the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", metavar="NAME", help="kernels that begin with it")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--json", metavar="FILE")
    chosen = parser.parse_args(line)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.threads])
    minidl.set_num_threads(chosen.threads)
    torch.set_num_threads(chosen.threads)
    found = list(rows([int(n) for n in chosen.sizes.split(",")], chosen.only))
    report.show(found)
    if chosen.json:
        report.save(chosen.json, found, {"threads": chosen.threads})


if __name__ == "__main__":
    main()
