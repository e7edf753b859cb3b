"""Tensors by name in one .npz file, which NumPy alone can read. Nothing is ever unpickled."""

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..atomic import write
from ..tensor import Tensor
from .tensors import ENTRY, checked, contiguous, present, signed


def save_tensors(
    tensors: Mapping[str, Any], path: str | os.PathLike, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write tensors or arrays, and what JSON can hold, to a .npz file.

    Whole or not at all, and the same bytes for the same content.
    """
    arrays = contiguous(tensors)
    if ENTRY in arrays:
        raise ValueError(f"{path}: no tensor can be called {ENTRY!r}: the metadata is, in the file")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, array in (arrays | {ENTRY: np.array(signed(arrays, metadata))}).items():
            # a ZipInfo of our own has no date
            with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    write(path, buffer.getvalue())


def content(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read the tensors and the metadata of a .npz file, checked against its SHA-256.

    Files of other programs carry no such sum, and their metadata is None. ValueError for a damaged
    file.
    """
    path = present(path)
    try:
        with zipfile.ZipFile(path) as file:
            arrays = {_name(entry): _read(file, entry) for entry in file.infolist()}
        text = str(arrays.pop(ENTRY)) if ENTRY in arrays else None
        return checked(path, arrays, text)
    except (ValueError, TypeError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        size = f"{path.stat().st_size:,} bytes"
        raise ValueError(f"{path}: not a whole .npz file ({size}): {error}") from error


def _name(entry: zipfile.ZipInfo) -> str:
    return entry.filename.removesuffix(".npy")


def _read(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with file.open(entry) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
