"""Do the documents' networks learn as in PyTorch? Same weights, same batches, loss by loss.

    python -m benchmarks.parity [--accuracy] [--networks S4,S0,S2] [--json FILE]

Needs PyTorch (pip install torch) and the full data sets (minidl data fetch mnist cifar10).
Compares the losses of 50 steps in float64 (they agree to 1e-8) and of 10 in float32 (to 1e-4);
--accuracy also trains both to the end with seeds 0, 1, 2 and compares the test accuracy (half an
hour on two cores). Batches of 64, no dropout. Exit status 1 where they differ by more.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import minidl
from minidl import Tensor, data
from minidl.nn import functional as F

from . import report
from .networks import RECIPES, Recipe, nchw, to_torch

BATCH = 64
CHECKS = {"float64": (50, 1e-8), "float32": (10, 1e-4)}  # steps, relative difference allowed


def step(model: Any, optimizer: Any, x: np.ndarray, y: np.ndarray) -> float:
    """One training step in minidl; its loss."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(Tensor(x)), Tensor(y))
    loss.backward()
    optimizer.step()
    return loss.item()


def torch_step(model: Any, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> float:
    """One training step in PyTorch; its loss."""
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def batches(n: int, seed: int) -> Iterator[np.ndarray]:
    """The numbers of the samples of each batch of an epoch; the last one may be short."""
    order = np.random.default_rng(seed).permutation(n)
    yield from (order[i : i + BATCH] for i in range(0, n, BATCH))


def losses(recipe: Recipe, dtype: str) -> dict[str, Any]:
    """The largest relative difference of the losses of the first steps."""
    steps, allowed = CHECKS[dtype]
    train = getattr(data, recipe.data)("train")
    minidl.manual_seed(0)
    model = recipe.model(dtype)
    twin = to_torch(model, recipe.image)
    ours, theirs = recipe.optim(model.parameters()), recipe.torch_optim(twin.parameters())
    worst = 0.0
    for _, index in zip(range(steps), batches(len(train), 0), strict=False):
        x, y = recipe.inputs(train.images[index], dtype), train.labels[index]
        a = step(model, ours, x, y)
        b = torch_step(twin, theirs, nchw(x), torch.from_numpy(y))
        worst = max(worst, abs(a - b) / abs(b))
    check = f"loss, {steps} steps, {dtype}"
    return {
        "network": recipe.name, "check": check, "difference": worst, "allowed": allowed,
        "holds": worst <= allowed,
    }  # fmt: skip


def train(recipe: Recipe, seed: int, model: Any, optimizer: Any, step: Any, convert: Any) -> None:
    """All epochs on the real data, the same batches in both frameworks."""
    train = getattr(data, recipe.data)("train")
    for epoch in range(recipe.epochs):
        for index in batches(len(train), 1000 * seed + epoch):
            x, y = convert(recipe.inputs(train.images[index]), train.labels[index])
            step(model, optimizer, x, y)


def accuracy(recipe: Recipe, predict: Any) -> float:
    """The fraction of the test set that is right."""
    test = getattr(data, recipe.data)("test")
    right = 0
    for i in range(0, len(test), 500):
        x = recipe.inputs(test.images[i : i + 500])
        right += int((predict(x).argmax(1) == test.labels[i : i + 500]).sum())
    return right / len(test)


def accuracies(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Test accuracy after training in both, from the same initial weights."""
    minidl.manual_seed(seed)
    model = recipe.model()
    twin = to_torch(model, recipe.image)
    start = time.perf_counter()
    optimizer = recipe.optim(model.parameters())
    train(recipe, seed, model, optimizer, step, lambda x, y: (x, y))
    middle = time.perf_counter()
    optimizer = recipe.torch_optim(twin.parameters())
    train(recipe, seed, twin, optimizer, torch_step, lambda x, y: (nchw(x), torch.from_numpy(y)))
    end = time.perf_counter()
    with minidl.no_grad(), torch.no_grad():
        return {
            "network": recipe.name,
            "check": f"accuracy, seed {seed}",
            "minidl": accuracy(recipe, lambda x: model(Tensor(x)).numpy()),
            "torch": accuracy(recipe, lambda x: twin(nchw(x)).numpy()),
            "minidl_s": middle - start,
            "torch_s": end - middle,
        }


def main() -> None:
    """Print the table; exit status 1 where the frameworks differ by more than allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="S4,S0,S2")
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(2)
    rows = []
    for name in options.networks.split(","):
        recipe = RECIPES[name]
        rows += [losses(recipe, dtype) for dtype in CHECKS]
        if options.accuracy:
            seeds = [accuracies(recipe, seed) for seed in range(3)]
            means = {who: float(np.mean([s[who] for s in seeds])) for who in ("minidl", "torch")}
            gap = abs(means["minidl"] - means["torch"])
            mean = {"network": name, "check": "accuracy, mean of 3", **means}
            rows += [*seeds, {**mean, "difference": gap, "allowed": 0.005, "holds": gap <= 0.005}]
        report.show(rows, options.json)
    sys.exit(0 if all(row.get("holds", True) for row in rows) else 1)


if __name__ == "__main__":
    main()
