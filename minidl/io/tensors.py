"""Tensors by name in one safetensors file. Nothing is ever unpickled."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from ..atomic import write
from ..tensor import Tensor
from ..version import __version__

# One entry of the file's own metadata, for safetensors writes several in any order.
ENTRY = "minidl"
FORMAT = 1  # of what that entry holds: raised when an older minidl would misread it
KINDS = (".safetensors", ".npz", ".h5")  # of files of tensors, by the ends of their names


def save_tensors(
    tensors: Mapping[str, Any], path: str | os.PathLike, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write tensors or arrays, and what JSON can hold, to a safetensors file.

    Whole or not at all, and the same bytes for the same content.
    """
    arrays = contiguous(tensors)
    write(path, safetensors.save(arrays, {ENTRY: signed(arrays, metadata)}))


def load_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file by name. ValueError for a damaged file."""
    return read(path)[0]


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the metadata of a safetensors file, checked against its SHA-256.

    Files of other programs carry no such sum: of those only the layout is checked.
    """
    tensors, metadata = content(path)
    return tensors, metadata or {}


def content(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read what `read` does; the metadata is None where another program wrote the file."""
    path = present(path)
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(ENTRY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({path.stat().st_size:,} bytes): {error}"
        ) from error
    return checked(path, arrays, text)


def present(path: str | os.PathLike) -> Path:
    """Return the path of a file that is there. FileNotFoundError with what is there instead."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {_what_is_there(path)}")
    return path


def signed(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any] | None) -> str:
    """Return the metadata and versions as JSON, behind the SHA-256 of all that goes into a file."""
    versions = {"format": FORMAT, "minidl": __version__}
    notes = json.dumps({**(metadata or {}), "versions": versions}, sort_keys=True)
    return f"{_digest(arrays, notes)} {notes}"


def checked(
    path: Path, arrays: Mapping[str, np.ndarray], text: str | None
) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return tensors and metadata of a file, of which text is what `signed` gave."""
    metadata = None
    if text is not None:
        sha256, _, notes = text.partition(" ")
        if sha256 != _digest(arrays, notes):
            raise ValueError(f"{path}: damaged, its content does not have the SHA-256 noted in it")
        metadata = json.loads(notes)
        versions = metadata.get("versions", {})  # files from before there were any have none
        if versions.get("format", 0) > FORMAT:
            raise ValueError(
                f"{path}: written by minidl {versions['minidl']}, in a format that this one, "
                f"{__version__}, does not know: pip install --upgrade minidl"
            )
        if "csr" in metadata:
            arrays = _unpacked(path, arrays, metadata["csr"])
    return {name: Tensor(array) for name, array in arrays.items()}, metadata


def _unpacked(path: Path, arrays: Mapping[str, np.ndarray], shapes: Any) -> dict[str, np.ndarray]:
    from .csr import unpacked  # few files hold sparse weights

    try:
        return unpacked(arrays, shapes)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: its sparse weights cannot be put together: {error}") from error


def contiguous(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return tensors or arrays as arrays in C order, for files hold memory as it lies."""
    return {name: _array(tensor) for name, tensor in tensors.items()}


def _array(tensor: Any) -> np.ndarray:
    array = tensor.numpy_view() if isinstance(tensor, Tensor) else np.asarray(tensor)
    return np.asarray(array, order="C")


def _digest(arrays: Mapping[str, np.ndarray], notes: str) -> str:
    """The SHA-256 of names, types, shapes, values and notes, whatever their order in the file."""
    sha = hashlib.sha256(notes.encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(repr((name, array.dtype.str, array.shape)).encode())
        sha.update(array.data if array.size else b"")
    return sha.hexdigest()


def _what_is_there(path: Path) -> str:
    """Why there is no such file, and which ones there are."""
    if path.is_dir():
        return "a folder, not a file"
    if not path.parent.is_dir():
        return f"no such file, for there is no folder {path.parent}"
    there = sorted(p.name for kind in KINDS for p in path.parent.glob(f"*{kind}"))
    return "no such file" + (f"; in that folder: {', '.join(there[:5])}" if there else "")
