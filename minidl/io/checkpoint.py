"""A training run in one file: stop, go on in another process, and get the same bits.

    save_checkpoint("run.safetensors", model=model, optimizer=optimizer, loader=loader)
    ...
    load_checkpoint("run.safetensors", model=model, optimizer=optimizer, loader=loader)

One safetensors file: the tensors of every part, and the rest of its state as JSON.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..random import get_states, set_states
from ..tensor import Tensor
from .tensors import read, save_tensors


def save_checkpoint(path: str | os.PathLike, **parts: Any) -> None:
    """Write the state_dict of every part, and of minidl's random numbers, to a safetensors file.

    parts: anything with state_dict and load_state_dict: model, optimizer, schedule, loader,
    history ... under names of your choice. Written whole or not at all.
    """
    states = {name: part.state_dict() for name, part in parts.items()}
    states[_RANDOM] = {name: list(state) for name, state in get_states().items()}
    tensors: dict[str, Any] = {}
    tree = {name: _pack(state, name, tensors) for name, state in states.items()}
    save_tensors(tensors, path, {"checkpoint": tree})


def load_checkpoint(path: str | os.PathLike, **parts: Any) -> None:
    """Bring every part, and minidl's random numbers, to the state that save_checkpoint wrote.

    The names must be those it was saved with. ValueError for a damaged file and for parts of
    another shape.
    """
    tensors, metadata = read(path)
    if "checkpoint" not in metadata:
        raise ValueError(f"{path}: not a training checkpoint; weights are read by minidl.load")
    try:
        tree = metadata["checkpoint"]
        states = {name: _unpack(tree[name], tensors) for name in tree}
        random = {name: (int(seed), int(n)) for name, (seed, n) in states.pop(_RANDOM).items()}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{path}: not a checkpoint that minidl wrote: {error!r}") from error
    if set(states) != set(parts):
        raise ValueError(f"{path}: holds {sorted(states)}, but you gave {sorted(parts)}")
    for name, part in parts.items():
        try:
            part.load_state_dict(states[name])
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
    set_states(random)


_RANDOM = "random"
_TENSOR, _PAIRS = "__tensor__", "__pairs__"  # in the JSON: a tensor's name; a dict in pairs


def _pack(value: Any, name: str, tensors: dict[str, Any]) -> Any:
    """value as JSON can hold it; its tensors go into `tensors`, named by their place."""
    if isinstance(value, Tensor | np.ndarray):
        if name in tensors:
            raise ValueError(f"save_checkpoint: two tensors would be called {name!r}")
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        # pairs: JSON would make text of keys that are numbers
        return {_PAIRS: [[k, _pack(v, f"{name}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {k: _unpack(v, tensors) for k, v in value[_PAIRS]}
    return value
