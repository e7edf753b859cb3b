"""minidl train: learn, measure, save."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import time
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
    start = time.perf_counter()
    device(arguments.device)
    recipe, training, test = find(arguments.model, arguments.data)
    with _new_folder(Path(arguments.out), arguments.name or arguments.model) as folder:
        manual_seed(arguments.seed)
        model = models.build(arguments.model, **recipe.network)
        model.config |= {
            "shape": training.images.shape[1:],
            "mean": recipe.normalize.mean,
            "std": recipe.normalize.std,
            "classes": training.classes,
        }
        batch_size = arguments.batch_size or recipe.batch_size
        loader = data.DataLoader(
            training, batch_size, shuffle=True, seed=arguments.seed,
            transform=[*recipe.augment, recipe.normalize],
        )  # fmt: skip
        test_loader = data.DataLoader(test, 256, transform=recipe.normalize)
        history = _learn(model, recipe, arguments, loader, test_loader)
        probabilities = predict(model, test_loader)
        io.save(model, folder / "model.safetensors")
        title = f"{arguments.model}, seed {arguments.seed}"
        pictures = _save_pictures(folder, title, history, test, probabilities)
        result = {
            "model": arguments.model,
            "test_accuracy": history["val_accuracy"][-1],
            "test_loss": history["val_loss"][-1],
            "seconds": round(time.perf_counter() - start, 2),
            "seed": arguments.seed,
            "command": shlex.join(["minidl", *argv]),
            "versions": _versions(),
            **pictures,
            "history": history,
        }
        io.write(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    _tell(folder, result, probabilities, test)


def _learn(
    model: Module,
    recipe: Recipe,
    arguments: argparse.Namespace,
    loader: data.DataLoader,
    test_loader: data.DataLoader,
) -> History:
    epochs, lr = arguments.epochs or recipe.epochs, arguments.lr or recipe.lr
    count = sum(p.numel() for p in model.parameters())
    print(
        f"{arguments.model}: {count:,} parameters; {loader.samples:,} images to learn from, "
        f"{test_loader.samples:,} to test; {epochs} epochs of {len(loader)} batches",
        flush=True,
    )
    optimizer = optim.get(recipe.optimizer, model.parameters(), lr=lr)
    schedule = None
    if recipe.one_cycle:
        schedule = optim.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * len(loader))
    return fit(
        model, loader, epochs=epochs, optimizer=optimizer, schedule=schedule,
        validation=test_loader,
    )  # fmt: skip


@contextlib.contextmanager
def _new_folder(out: Path, name: str):
    """Make the folder of a run; a taken name gets a number. It goes again if nothing is saved."""
    out.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = out / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            break
        except FileExistsError:
            number += 1
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

    try:
        figures = {
            "curves.png": plot.curves(history, title),
            "mistakes.png": plot.mistakes(
                test.images, test.labels, probabilities, test.classes, title
            ),
        }
    except ImportError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        note = 'no pictures: Matplotlib is not installed; pip install "minidl[plot]" brings it'
        return {"pictures": [], "note": note}
    for name, figure in figures.items():
        io.write(folder / name, plot.png(figure))
    return {"pictures": list(figures)}


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("numpy", "safetensors")}
    kernels = os.environ.get("MINIDL_CPU", "numba")
    if kernels == "numba":
        packages["numba"] = importlib.metadata.version("numba")
    return {
        "minidl": __version__,
        "python": platform.python_version(),
        **packages,
        "kernels": kernels,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _tell(
    folder: Path, result: dict[str, Any], probabilities: np.ndarray, test: data.Dataset
) -> None:
    wrong = int((probabilities.argmax(1) != test.labels).sum())
    print(
        f"test accuracy {result['test_accuracy']:.2%} ({wrong} of {len(test):,} wrong), "
        f"loss {result['test_loss']:.4f}, {result['seconds']:.1f} s"
    )
    for name, what in (
        ("model.safetensors", f"the network: minidl predict {shlex.quote(str(folder))} IMAGE"),
        ("result.json", "these numbers, all epochs, versions"),
        ("curves.png", "loss and accuracy by epoch"),
        ("mistakes.png", "what it got wrong"),
    ):
        if (folder / name).exists():
            print(f"  {folder / name}: {what}")
    if "note" in result:
        print(result["note"])
