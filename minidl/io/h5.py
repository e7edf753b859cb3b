"""HDF5 files: tensors by name as minidl writes them, and what Keras writes. Never unpickled.

Of Keras's there are two layouts. `.h5` holds a network, or its weights alone: for each layer a
group with weights in an order that an attribute gives, the architecture and the training plan as
JSON. `.weights.h5` holds weights alone, numbered, in groups named by where the layers stand.
"""

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..atomic import write
from ..tensor import Tensor
from .tensors import ENTRY, checked, contiguous, present, signed

KERAS_VERSION = "3.15.1"  # whose layout is written
PACKING = 1000  # times its size in the file: no array of a network is packed more


@dataclass
class KerasFile:
    """What a .h5 file of Keras holds: JSON, and the weights of each layer by their names."""

    layers: dict[str, dict[str, np.ndarray]]
    config: Any = None
    training: Any = None
    optimizer: dict[str, np.ndarray] = field(default_factory=dict)


def save_tensors(
    tensors: Mapping[str, Any], path: str | os.PathLike, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write tensors or arrays, and what JSON can hold, to a HDF5 file: whole or not at all."""
    arrays = contiguous(tensors)
    with _new(path) as file:
        file.attrs[ENTRY] = signed(arrays, metadata)
        for name, array in arrays.items():
            file.create_dataset(name, data=array)


def content(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read tensors and metadata of a HDF5 file, checked against its SHA-256.

    Of a file of Keras the weights are called layer/0, layer/1 ..., and the metadata is None.
    """
    with _opened(path) as file:
        if ENTRY in file.attrs:
            arrays = {name: _array(file, name) for name in file}
            return checked(present(path), arrays, _text(file.attrs[ENTRY]))
        layers = _numbered(file) if "layers" in file else _layers(file)
    weights = {layer: list(held.values()) for layer, held in layers.items()}
    return {
        f"{layer}/{i}": Tensor(a) for layer, w in weights.items() for i, a in enumerate(w)
    }, None


def read_keras(path: str | os.PathLike) -> KerasFile:
    """Read a .h5 file that Keras wrote, with a network in it or weights alone."""
    with _opened(path) as file:
        config, training = (_json(file, name) for name in ("model_config", "training_config"))
        optimizer = _weights(file["optimizer_weights"]) if "optimizer_weights" in file else {}
        return KerasFile(_layers(file), config, training, optimizer)


def write_keras(path: str | os.PathLike, content: KerasFile) -> None:
    """Write a .h5 file as Keras does, for Keras to read."""
    with _new(path) as file:
        group = file
        if content.config is not None:
            notes = {"model_config": content.config, "training_config": content.training}
            for name, value in notes.items():
                if value is not None:
                    file.attrs[name] = json.dumps(value)
            group = file.create_group("model_weights")
        for place in {file, group}:
            place.attrs["keras_version"], place.attrs["backend"] = KERAS_VERSION, "minidl"
        _names(group, "layer_names", content.layers)
        for name, held in [*content.layers.items(), ("top_level_model_weights", {})]:
            _write_weights(group.create_group(name), held)
        if content.optimizer:
            _write_weights(file.create_group("optimizer_weights"), content.optimizer)


def read_weights(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """Read a .weights.h5 file of Keras: the arrays of each place, such as layers/conv2d_1."""
    with _opened(path) as file:
        return {place: list(held.values()) for place, held in _numbered(file, True).items()}


def write_weights(
    path: str | os.PathLike, places: Mapping[str, tuple[str, list[np.ndarray]]]
) -> None:
    """Write a .weights.h5 file as Keras does: for each place a layer's name, and its arrays."""
    with _new(path) as file:
        for place, (name, arrays) in places.items():
            group = file.create_group(f"{place}/vars")
            group.attrs["name"] = name
            for i, array in enumerate(arrays):
                group.create_dataset(str(i), data=array)


def is_numbered(path: str | os.PathLike) -> bool:
    """Whether a file is of the second layout, .weights.h5, whatever its name."""
    with _opened(path) as file:
        return "layers" in file and "layer_names" not in file.attrs


# --- reading: nothing is believed


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need h5py: pip install 'minidl[h5]'") from error
    return h5py


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Any]:
    """An HDF5 file to read. ValueError where it is damaged, or is not what it should be."""
    path, h5py = present(path), _h5py()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        size = f"{path.stat().st_size:,} bytes"
        raise ValueError(f"{path}: not a whole HDF5 file of weights ({size}): {error}") from error


def _inside(group: Any, name: str, kind: Any) -> Any:
    """A group or dataset of this very file, which names no other file."""
    h5py, at = _h5py(), group
    for part in name.split("/"):
        if not isinstance(at.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{group.file.filename}: {name} leads out of the file, or nowhere")
        at = at[part]
    if not isinstance(at, kind):
        raise ValueError(f"{group.file.filename}: {name} is a {type(at).__name__}")
    return at


def _array(group: Any, name: str) -> np.ndarray:
    data, file = _inside(group, name, _h5py().Dataset), group.file.filename
    if data.external or data.is_virtual:
        raise ValueError(f"{file}: {name} holds numbers of another file")
    if data.dtype.kind not in "fiub":
        raise ValueError(f"{file}: {name} holds {data.dtype}, not numbers")
    if data.nbytes > PACKING * max(data.id.get_storage_size(), 1):
        raise ValueError(f"{file}: {name} {data.shape} is more than the file can hold")
    return data[()]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _json(file: Any, name: str) -> Any:
    if name not in file.attrs:
        return None
    try:
        return json.loads(_text(file.attrs[name]))
    except ValueError as error:
        raise ValueError(f"{file.filename}: {name} is no JSON: {error}") from error


def _listed(group: Any, name: str) -> list[str]:
    """Names in an attribute, or (in large files) in several: layer_names0, layer_names1 ..."""
    parts = [name] if name in group.attrs else []
    while not parts or parts[0] != name:
        part = f"{name}{len(parts)}"
        if part not in group.attrs:
            break
        parts.append(part)
    return [_text(text) for part in parts for text in group.attrs[part]]


def _weights(group: Any) -> dict[str, np.ndarray]:
    return {name: _array(group, name) for name in _listed(group, "weight_names")}


def _layers(file: Any) -> dict[str, dict[str, np.ndarray]]:
    """The weights of each layer, in the order of the network."""
    h5py = _h5py()
    group = _inside(file, "model_weights", h5py.Group) if "model_weights" in file else file
    names = _listed(group, "layer_names")
    if not names:
        raise ValueError(f"{file.filename}: an HDF5 file, but neither of minidl nor of Keras")
    return {name: _weights(_inside(group, name, h5py.Group)) for name in names}


def _numbered(file: Any, places: bool = False) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each layer by their numbers; layers by their names, or by their places."""
    h5py, found = _h5py(), dict[str, dict[str, np.ndarray]]()

    def look(path: str, group: Any) -> None:
        for name in group:
            if name == "vars":
                held = _inside(group, name, h5py.Group)
                own = _text(held.attrs.get("name", path.rpartition("/")[2]))
                arrays = {i: _array(held, i) for i in sorted(held, key=int)}
                found[path if places else own] = arrays
            else:
                look(f"{path}/{name}".lstrip("/"), _inside(group, name, h5py.Group))

    look("", file)
    return found


# --- writing


@contextmanager
def _new(path: str | os.PathLike) -> Iterator[Any]:
    """An HDF5 file to be filled, which gets its name when it is whole."""
    memory = io.BytesIO()
    with _h5py().File(memory, "w") as file:
        yield file
    write(path, memory.getvalue())


def _names(group: Any, name: str, names: Any) -> None:
    group.attrs.create(name, list(names), dtype=_h5py().string_dtype())


def _write_weights(group: Any, held: Mapping[str, np.ndarray]) -> None:
    _names(group, "weight_names", held)
    for name, array in held.items():
        group.create_dataset(name, data=array)
