"""A training task as plain data in a file: layers with weights, batches, optimizer."""

import json
from typing import Any

import numpy as np

Task = dict[str, Any]


def save(path: str, task: Task) -> None:
    """Write nested dicts and lists of numbers, strings and arrays to an .npz."""
    arrays: list[np.ndarray] = []

    def without_arrays(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return {"array": len(arrays) - 1}
        if isinstance(value, dict):
            return {name: without_arrays(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [without_arrays(inner) for inner in value]
        return value

    text = json.dumps(without_arrays(task))
    np.savez(path, task=np.array(text), **{str(i): array for i, array in enumerate(arrays)})


def load(path: str) -> Task:
    """Read what save wrote; tuples come back as lists."""
    with np.load(path, allow_pickle=False) as file:
        return json.loads(
            str(file["task"]),
            object_hook=lambda d: file[str(d["array"])] if [*d] == ["array"] else d,
        )


def without_dropout(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same layers but for dropout: what random numbers drop differs between frameworks."""
    kept = [dict(layer) for layer in layers if layer["kind"] != "Dropout"]
    for layer in kept:
        inner = {"body", "shortcut"} & {*layer}
        layer |= {name: without_dropout(layer[name]) for name in inner}
    return kept
