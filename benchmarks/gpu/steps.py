"""Training steps against PyTorch, eager and compiled, with TF32 off and on."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minidl
from minidl import Tensor

from .. import report
from ..networks import RECIPES, Recipe, to_torch

BATCHES = 32, 128, 1024


def table(until: float) -> Iterator[dict[str, Any]]:
    """Milliseconds of a step of each network and batch, by each who can take it."""
    for tf32 in (False, True):
        for name, recipe in RECIPES.items():
            for batch in BATCHES:
                if time.monotonic() > until:
                    yield {"network": f"from {name}, batch {batch}, TF32 {tf32} on: out of time"}
                    return
                head = {"network": name, "batch": batch, "tf32": tf32}
                try:
                    yield head | _timed(recipe, batch, tf32, until)
                except Exception as error:  # the table tells of all networks
                    yield head | {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def _timed(recipe: Recipe, batch: int, tf32: bool, until: float) -> dict[str, Any]:
    minidl.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *recipe.image), dtype=np.float32)
    y = rng.integers(0, 10, batch)
    model = recipe.model()
    try:
        twins = {name: to_torch(model) for name in ("torch", "compiled")}
    except ImportError:
        twins = {}
    runs = {"minidl": our_step(recipe, model.to("cuda"), x, y)}
    for name, twin in twins.items():
        if name == "torch" or time.monotonic() < until:
            runs[name] = torch_step(recipe, twin, x, y, compiled=name == "compiled")
    minidl.set_matmul("kernel", tf32=tf32)
    if twins:
        _torch_tf32(tf32)
    try:
        losses = {name: run() for name, run in runs.items()}
        ms = report.interleaved(runs, rounds=7, repeats=10, warm=2)
    finally:
        minidl.set_matmul("kernel", tf32=False)
    row = {f"{name}_ms": value for name, value in ms.items()}
    row |= {f"of_{name}": ms["minidl"] / ms[name] for name in ms if name != "minidl"}
    apart = (abs(losses["minidl"] / a - 1) for a in losses.values())
    return row | {"losses_apart": max(apart)}


def our_step(recipe: Recipe, model: Any, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    """A step on the GPU, batch and all; the loss comes back, so that it is done."""
    optimizer = recipe.optim(model.parameters())
    inputs, labels = Tensor(x).to("cuda"), Tensor(y).to("cuda")

    def step() -> float:
        optimizer.zero_grad()
        loss = minidl.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_step(
    recipe: Recipe, model: Any, x: np.ndarray, y: np.ndarray, compiled: bool
) -> Callable[[], float]:
    """The same step in PyTorch, images channels_last."""
    import torch

    model = model.to("cuda", memory_format=torch.channels_last)
    optimizer = recipe.torch_optim(model.parameters())
    forward = torch.compile(model) if compiled else model
    inputs = torch.from_numpy(x).to("cuda").permute(0, 3, 1, 2)
    labels = torch.from_numpy(y).to("cuda")

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _torch_tf32(on: bool) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
