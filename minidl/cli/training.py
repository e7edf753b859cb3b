"""minidl train: learn, measure, save."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, data, io, models, optim
from ..backend import device
from ..nn import Module
from ..random import manual_seed
from ..train import History, fit, predict
from .recipes import Recipe, find


def train(arguments: argparse.Namespace, argv: list[str]) -> None:
    """Train one network as the command line says, and save what came out."""
    start, name, seed = time.perf_counter(), arguments.model, arguments.seed
    device(arguments.device)
    recipe, training, test = find(name, arguments.data)
    flags = {flag: getattr(arguments, flag) for flag in ("epochs", "batch_size", "lr")}
    recipe = replace(recipe, **{flag: value for flag, value in flags.items() if value})
    with _new_folder(Path(arguments.out), arguments.name or name) as folder:
        manual_seed(seed)
        model = models.build(name, **recipe.network).to(arguments.device)
        vars(model)["config"] |= {
            "shape": training.images.shape[1:],
            "mean": recipe.normalize.mean,
            "std": recipe.normalize.std,
            "classes": training.classes,
        }
        steps = [*recipe.augment, recipe.normalize]
        loader = data.DataLoader(training, recipe.batch_size, True, seed=seed, transform=steps)
        test_loader = data.DataLoader(test, 256, transform=recipe.normalize)
        history = _learn(model, recipe, loader, test_loader)
        probabilities = predict(model, test_loader)
        io.save(model, folder / "model.safetensors")
        pictures = _save_pictures(folder, f"{name}, seed {seed}", history, test, probabilities)
        result = {
            "model": name,
            "test_accuracy": history["val_accuracy"][-1],
            "test_loss": history["val_loss"][-1],
            "seconds": round(time.perf_counter() - start, 2),
            "seed": seed,
            "command": shlex.join(["minidl", *argv]),
            "device": arguments.device,
            "versions": _versions(),
            **pictures,
            "history": history,
        }
        io.write(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    _tell(folder, result, int((probabilities.argmax(1) != test.labels).sum()), len(test))


def _learn(
    model: Module, recipe: Recipe, loader: data.DataLoader, test_loader: data.DataLoader
) -> History:
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters; {loader.samples:,} images to "
        f"learn from, {test_loader.samples:,} to test; {recipe.epochs} epochs of {len(loader)} "
        f"batches of {recipe.batch_size}",
        flush=True,
    )
    optimizer, schedule = optim.get(recipe.optimizer, model.parameters(), lr=recipe.lr), None
    if recipe.one_cycle:
        schedule = optim.OneCycleLR(optimizer, recipe.lr, recipe.epochs * len(loader))
    return fit(
        model, loader, epochs=recipe.epochs, optimizer=optimizer, schedule=schedule,
        validation=test_loader,
    )  # fmt: skip


@contextlib.contextmanager
def _new_folder(out: Path, name: str) -> Iterator[Path]:
    """Make the folder of a run; a taken name gets a number. It goes again if nothing is saved."""
    out.mkdir(parents=True, exist_ok=True)
    folder, number = out / name, 1
    while True:
        try:
            folder.mkdir()
            break
        except FileExistsError:
            number += 1
            folder = out / f"{name}-{number}"
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # it has files: it stays
            folder.rmdir()


def _save_pictures(
    folder: Path, title: str, history: History, test: data.Dataset, probabilities: np.ndarray
) -> dict[str, Any]:
    """Write the two pictures. Returns what result.json says about them."""
    from .. import plot

    wrong = test.images, test.labels, probabilities, test.classes, title
    try:
        drawn = {"curves.png": plot.curves(history, title), "mistakes.png": plot.mistakes(*wrong)}
    except ImportError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        note = 'no pictures: Matplotlib is not installed; pip install "minidl[plot]" brings it'
        return {"pictures": [], "note": note}
    for name, figure in drawn.items():
        io.write(folder / name, plot.png(figure))
    return {"pictures": list(drawn)}


def _versions() -> dict[str, str]:
    kernels = os.environ.get("MINIDL_CPU", "numba")
    packages = ["numpy", "safetensors", *(["numba"] if kernels == "numba" else [])]
    return {
        "minidl": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "kernels": kernels,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _tell(folder: Path, result: dict[str, Any], wrong: int, tested: int) -> None:
    """Print how well it went, and what lies where."""
    print(
        f"test accuracy {result['test_accuracy']:.2%} ({wrong} of {tested:,} wrong), "
        f"loss {result['test_loss']:.4f}, {result['seconds']:.1f} s"
    )
    about = {
        "model.safetensors": f"the network: minidl predict {shlex.quote(str(folder))} IMAGE",
        "result.json": "these numbers, every epoch, versions",
        "curves.png": "loss and accuracy by epoch",
        "mistakes.png": "what it got wrong",
    }
    for name in ("model.safetensors", "result.json", *result["pictures"]):
        print(f"  {folder / name}: {about[name]}")
    if "note" in result:
        print(result["note"])
