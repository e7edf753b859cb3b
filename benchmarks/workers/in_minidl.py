"""Training steps in minidl, as a user writes them: a plain loop, or the same captured."""

import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import minidl
from minidl import Tensor, nn
from minidl.nn import functional as F

from ..networks import CASES
from .task import Task

VERSIONS = {"minidl": minidl.__version__, "python": platform.python_version()}


def training(model: nn.Module, optimizer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """train(x, y) learns from a batch and returns its loss."""

    def train(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return train


def start(task: Task, variant: str) -> Callable[[int], float]:
    """step(i) trains on batch i and returns its loss. variant: "eager" or "captured"."""
    if variant == "captured" and not callable(getattr(minidl, "capture", None)):
        raise RuntimeError("this minidl has no capture")
    case = CASES[task["case"]]
    model = case.model()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout) and not task["dropout"]:
            layer.p = 0.0
    train = training(model, case.optim(model.parameters()))
    x, y = [Tensor(a) for a in task["x"]], [Tensor(a) for a in task["y"]]

    def refuse(why: str) -> None:
        raise RuntimeError(f"it stays eager: {why}")

    run = minidl.capture(train, tell=refuse) if variant == "captured" else train
    return lambda i: run(x[i % len(x)], y[i % len(y)]).item()


def kernel_times(step: Callable[[int], float], steps: int) -> list[dict[str, Any]]:
    """Milliseconds per step in each kernel and shape of its first array, the largest first.

    Kernels are wrapped where ops look them up, so what a kernel calls itself counts as its own.
    Medians: a moment of the machine may hit one call.
    """
    kernels = vars(minidl.device("cpu").kernels)
    before = dict(kernels)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    inside = [0.0]  # seconds in kernels

    def timed(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            start = time.perf_counter()
            result = kernel(*args)
            shape = next((str(a.shape) for a in args if hasattr(a, "shape")), "")
            times[name, shape].append(time.perf_counter() - start)
            inside[0] += times[name, shape][-1]
            return result

        return run

    step(0)
    rest = []
    callables = {n: f for n, f in before.items() if callable(f) and not isinstance(f, type)}
    kernels.update({name: timed(name, kernel) for name, kernel in callables.items()})
    try:
        for i in range(steps):
            start, inside[0] = time.perf_counter(), 0.0
            step(i)
            rest.append(time.perf_counter() - start - inside[0])
    finally:
        kernels.update(before)
    found = {key: statistics.median(each) * len(each) / steps for key, each in times.items()}
    found["(Python: engine, layers, loop)", ""] = statistics.median(rest)
    whole = sum(found.values())
    return [
        {"kernel": name, "first array": shape, "calls": len(times.get((name, shape), ())) / steps,
         "ms": seconds * 1e3, "share": seconds / whole}
        for (name, shape), seconds in sorted(found.items(), key=lambda item: -item[1])
    ]  # fmt: skip
