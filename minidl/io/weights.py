"""A network in a file: its weights, and its name and arguments to build it again."""

import os
from pathlib import Path
from typing import Any

from .. import models
from ..nn import Module
from .tensors import read, save_tensors


def save(model: Module, path: str | os.PathLike) -> None:
    """Write a network to a safetensors file, whole or not at all.

    A network of minidl.models carries `config`, which is written too: load then needs no model.
    """
    config = getattr(model, "config", None)
    save_tensors(model.state_dict(), path, {} if config is None else {"config": config})


def load(path: str | os.PathLike, model: Module | None = None) -> Module:
    """Read a network that save wrote: into `model`, or into one that is built as the file says.

    path may be a folder that holds model.safetensors. ValueError for a damaged file, and for the
    weights of another network; `model` is unchanged then.
    """
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    tensors, metadata = read(path)
    if model is None:
        model = _build(path, metadata)
    try:
        model.load_state_dict(tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model


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
