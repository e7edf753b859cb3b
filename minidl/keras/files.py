"""Networks in files: safetensors, never a pickle."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import check
from ..io.tensors import read, save_tensors
from . import layers, losses, metrics, optimizers
from .layer import InputLayer, Layer
from .model import Model, Sequential
from .symbols import KerasTensor, mapped

FORM = 1  # of the description of a network in a file
SUFFIX = ".safetensors"


def _path(path: Any) -> Path:
    path = Path(os.fspath(path))
    if path.suffix != SUFFIX:
        known = {".h5": "HDF5", ".hdf5": "HDF5", ".keras": "Keras's own format"}
        what = f"{known[path.suffix]} is not there yet: " if path.suffix in known else ""
        raise ValueError(f"{path}: {what}minidl.keras reads and writes {path.stem}{SUFFIX}")
    return path


def save(model: Model, path: Any) -> None:
    """Write architecture, weights, compile's arguments and the optimizer's state."""
    path, tensors = _path(path), model.state_dict()
    notes: dict[str, Any] = {"form": FORM, "model": described(model)}
    plan = model._compiled
    if plan is not None:
        given: list[Any] = [plan.optimizer, plan.loss, *plan.metrics]
        notes["compile"] = [[type(a).__name__, a.get_config()] for a in given]
        inner = plan.optimizer.inner
        for number, state in (inner.state_dict()["state"] if inner else {}).items():
            for name, value in state.items():
                tensors[f"optimizer.{number}.{name}"] = np.asarray(value)
    try:
        json.dumps(notes)
    except TypeError as error:
        raise ValueError(
            f"{path}: {error}; a file holds names and numbers, no functions: give losses, metrics "
            "and activations by name, or use save_weights"
        ) from error
    save_tensors(tensors, path, {"keras": notes})


def load_model(path: Any, compile: bool = True) -> Model:
    """Read a network that save wrote, ready to be trained further. ValueError for other files."""
    path = _path(path)
    tensors, metadata = read(path)
    if "keras" not in metadata:
        raise ValueError(f"{path}: holds weights, but no network of minidl.keras")
    notes = metadata["keras"]
    try:
        model = built(notes["model"])
        state = {name: t for name, t in tensors.items() if not name.startswith("optimizer.")}
        model.load_state_dict(state)
        if compile and "compile" in notes:
            homes = [optimizers, losses, *[metrics] * len(notes["compile"])]
            made = [_made(h.KINDS, *told) for h, told in zip(homes, notes["compile"])]
            model.compile(made[0], made[1], made[2:])
            _restore(model, tensors)
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{path}: cannot build the network it describes: {error!r}") from error
    return model


def _made(kinds: dict[str, Any], name: str, config: dict[str, Any]) -> Any:
    """An optimizer, loss or metric of minidl.keras: a file names no other class."""
    classes = {kind.__name__: kind for kind in kinds.values()}
    check.known("class", name, classes)
    return classes[name](**config)


def _restore(model: Model, tensors: Any) -> None:
    """Bring the optimizer to where it was."""
    entries: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            value = tensor.numpy()
            entries.setdefault(int(number), {})[key] = int(value) if key == "t" else value
    if entries:
        inner = model.optimizer.of(model.parameters())
        inner.load_state_dict({**inner.state_dict(), "state": entries})


def save_weights(model: Model, path: Any) -> None:
    """Write the weights alone."""
    save_tensors(model.state_dict(), _path(path))


def load_weights(model: Model, path: Any) -> None:
    """Read weights into a network of the same layers."""
    tensors, _ = read(_path(path))
    state = {name: t for name, t in tensors.items() if not name.startswith("optimizer.")}
    try:
        model.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


# --- a network as what JSON can hold


def described(layer: Layer) -> dict[str, Any]:
    """A layer, or a network of layers with the calls between them."""
    if not isinstance(layer, Model):
        config = {key: _plain(value) for key, value in layer.get_config().items()}
        if type(layer) is not getattr(layers, type(layer).__name__, None):
            raise ValueError(f"{layer.name}: a file holds layers of minidl.keras.layers alone")
        return {"layer": type(layer).__name__, "config": config}
    head = {"name": layer.name, "trainable": [x.name for x in layer.layers if not x.trainable]}
    if isinstance(layer, Sequential):
        start = [[list(x.shape[1:]), x.dtype] for x in layer.inputs]
        return {**head, "sequential": [described(x) for x in layer.layers], "start": start}
    place = {id(node.output): i for i, node in enumerate(layer.nodes)}
    names = {x.name: described(x) for x in layer.layers}
    calls = [
        [node.layer.name, _places(node.inputs, place) if node.parents() else None, node.options]
        for node in layer.nodes
    ]
    ends = [_places(nest, place) for nest in (layer.inputs, layer.form)]
    return {**head, "graph": calls, "layers": names, "ends": ends}


def _places(nest: Any, place: dict[int, int]) -> Any:
    return mapped(nest, lambda x: place[id(x)])


def _plain(value: Any) -> Any:
    return described(value) if isinstance(value, Layer) else value


def built(config: dict[str, Any]) -> Any:
    """The layer or network that was described."""
    if "layer" in config:
        check.known("layer", config["layer"], layers.__all__)  # a file names no other function
        kind = getattr(layers, config["layer"])
        given = {k: built(v) if _is_layer(v) else v for k, v in config["config"].items()}
        return kind(**given)
    if "sequential" in config:
        start = [InputLayer(tuple(shape), dtype) for shape, dtype in config["start"]]
        model: Model = Sequential([*start, *map(built, config["sequential"])], name=config["name"])
    else:
        held = {name: built(part) for name, part in config["layers"].items()}
        made: list[KerasTensor] = []
        for name, inputs, options in config["graph"]:
            layer = held[name]
            start_of = isinstance(layer, InputLayer) or inputs is None
            made.append(
                layer.output if start_of else layer(mapped(inputs, lambda i: made[i]), **options)
            )
        inputs, outputs = (mapped(nest, lambda i: made[i]) for nest in config["ends"])
        model = Model(inputs, outputs, name=config["name"])
    for name in config["trainable"]:
        model.get_layer(name).trainable = False
    return model


def _is_layer(value: Any) -> bool:
    return isinstance(value, dict) and ("layer" in value or "name" in value)
