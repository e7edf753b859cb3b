"""A network in a file: its weights, and its name and arguments to build it again."""

import os
from pathlib import Path
from typing import Any

from .. import check, models
from ..nn import Module
from . import npz, tensors
from .pytorch import from_torch

FORMATS: dict[str, Any] = {".safetensors": tensors, ".npz": npz}
SOURCES = ("minidl", "torch")

_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")  # as PyTorch writes them
_PICKLED = (
    "a pickle, which can run any code when it is opened; in PyTorch, "
    'safetensors.torch.save_file(model.state_dict(), "model.safetensors") writes what minidl.load '
    "reads"
)


def save(model: Module, path: str | os.PathLike) -> None:
    """Write a network to a .safetensors or, where its name ends so, a .npz file.

    Whole or not at all. A network of minidl.models carries `config`, which is written too: load
    then needs no model.
    """
    config = getattr(model, "config", None)
    notes = {} if config is None else {"config": config}
    _format(Path(path)).save_tensors(model.state_dict(), path, notes)


def load(
    path: str | os.PathLike, model: Module | None = None, *, source: str | None = None
) -> Module:
    """Read a network that save wrote: into `model`, or into one that is built as the file says.

    path may be a folder that holds model.safetensors. source: whose layouts the weights are in,
    "minidl" or "torch", for files that do not say: a .safetensors file of another program is taken
    for PyTorch's (see from_torch), a .npz file for one in minidl's own. ValueError for a damaged
    file, and for the weights of another network; `model` is unchanged then.
    """
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    form = _format(path)
    state, metadata = form.content(path)
    model = _build(path, metadata or {}) if model is None else model
    if source is None:
        source = "torch" if metadata is None and form is tensors else "minidl"
    check.known("source", source, SOURCES)
    try:
        model.load_state_dict(from_torch(state, model) if source == "torch" else state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model


def _format(path: Path) -> Any:
    """The file that reads and writes files of that name; .safetensors where it says nothing."""
    if path.suffix in _PICKLES:
        raise ValueError(f"{path}: {_PICKLED}")
    return FORMATS.get(path.suffix, tensors)


def _build(path: Path, metadata: dict[str, Any]) -> Module:
    if "config" not in metadata:
        raise ValueError(
            f"{path}: holds weights, but not which network they are of; build it yourself: "
            "minidl.load(path, model)"
        )
    try:
        config = metadata["config"]
        model = models.build(config["name"], **config["args"])
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{path}: cannot build the network it names: {error}") from error
    model.config = config
    return model
