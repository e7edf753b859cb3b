"""Weights that pruning has made sparse, in a file that holds what is not 0.

Each array of two and more axes that becomes smaller so is stored as a matrix (..., its last axis)
compressed by rows, in three parts: NAME/value, and NAME/column and NAME/row_start in the smallest
unsigned integers that hold them. `load` and `load_tensors` read such files like all others.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..nn import Module
from ..sparse import CSR

PARTS = "value", "column", "row_start"


class Sizes(NamedTuple):
    """Bytes of a model's arrays, with all their zeros and as they are stored."""

    dense: int
    stored: int


def save_csr(model: Module, path: str | os.PathLike) -> Sizes:
    """Write a network as `save` does, but without the zeros of sparse weights. Returns the sizes.

    Read again, every number is the same; -0 comes back as 0.
    """
    from .tensors import save_tensors

    state = model.state_dict()
    arrays, shapes = packed(state)
    config = getattr(model, "config", None)
    notes = {"csr": shapes} | ({} if config is None else {"config": config})
    save_tensors(arrays, path, notes)
    dense, stored = (sum(a.nbytes for a in held.values()) for held in (state, arrays))
    return Sizes(dense, stored)


def packed(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Arrays as they are stored, and the shapes of those in parts."""
    arrays: dict[str, np.ndarray] = {}
    shapes: dict[str, list[int]] = {}
    for name, array in state.items():
        parts = _parts(array)
        if sum(part.nbytes for part in parts) < array.nbytes:
            arrays |= {f"{name}/{part}": a for part, a in zip(PARTS, parts)}
            shapes[name] = list(array.shape)
        else:
            arrays[name] = array
    return arrays, shapes


def unpacked(arrays: Mapping[str, np.ndarray], shapes: Any) -> dict[str, np.ndarray]:
    """The arrays of a file with all their zeros. ValueError where its parts do not fit."""
    dense = dict(arrays)
    for name, shape in shapes.items():
        value, column, row_start = (dense.pop(f"{name}/{part}") for part in PARTS)
        rows = math.prod(shape[:-1])
        matrix = CSR(value, column, row_start, (rows, shape[-1])).to_dense()
        dense[name] = matrix.numpy_view().reshape(shape)
    return dense


def _parts(array: np.ndarray) -> tuple[np.ndarray, ...]:
    """Value, column and row_start of an array as a matrix, or the array itself."""
    if array.ndim < 2 or not array.size:
        return (array,)
    matrix = array.reshape(-1, array.shape[-1])
    row, column = np.nonzero(matrix)
    start = np.concatenate([[0], np.bincount(row, minlength=len(matrix)).cumsum()])
    places = (a.astype(np.min_scalar_type(most)) for a, most in
              ((column, matrix.shape[1] - 1), (start, row.size)))  # fmt: skip
    return matrix[row, column], *places
