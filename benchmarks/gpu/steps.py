"""Training steps against PyTorch, eager and compiled, with TF32 off and on."""

import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minidl
from minidl import Tensor

from .. import report
from ..networks import RECIPES, Recipe, to_torch
from . import measure

BATCHES = 32, 128, 1024
# what to hold ours against: torch.compile last, for it takes seconds each time
RIVALS = ("torch", "compiled") if importlib.util.find_spec("torch") else ("nobody",)


def table(until: float) -> Iterator[dict[str, Any]]:
    """Milliseconds of a step of each network and batch, by each who can take it."""
    every = itertools.product(RIVALS, (False, True), RECIPES.items(), BATCHES)
    for rival, tf32, (name, recipe), batch in every:
        if time.monotonic() > until:
            which = f"from {name}, batch {batch}, TF32 {tf32}, against {rival} on"
            yield {"network": f"{which}: out of time"}
            return
        head = {"network": name, "batch": batch, "tf32": tf32}
        try:
            yield head | _timed(recipe, batch, tf32, rival)
        except Exception as error:  # the table tells of all networks
            yield head | {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def _timed(recipe: Recipe, batch: int, tf32: bool, rival: str) -> dict[str, Any]:
    minidl.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *recipe.image), dtype=np.float32)
    y = rng.integers(0, 10, batch)
    model = recipe.model()
    runs: dict[str, Callable[[], float]] = {}
    if rival != "nobody":
        measure.torch_tf32(tf32)
        runs[rival] = torch_step(recipe, to_torch(model, recipe.image), x, y, rival == "compiled")
    runs["minidl"] = our_step(recipe, model.to("cuda"), x, y)
    minidl.set_matmul("kernel", tf32=tf32)
    try:
        losses = {n: run() for n, run in runs.items()}
        ms = report.interleaved(runs, rounds=7, repeats=10, warm=2)
    finally:
        minidl.set_matmul("kernel", tf32=False)
    row = {f"{n}_ms": value for n, value in ms.items()}
    row |= {f"of_{n}": ms["minidl"] / ms[n] for n in ms if n != "minidl"}
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
