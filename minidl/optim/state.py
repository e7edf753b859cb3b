"""An optimizer's state: saved, and gone on from."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .flat import Flat
from .optimizer import Optimizer


def dump(optimizer: Optimizer) -> dict[str, Any]:
    """What state_dict returns."""
    groups, start = [], 0
    for group in optimizer.param_groups:
        numbers = list(range(start, start + len(group["params"])))
        groups.append({**group, "params": numbers})
        start += len(numbers)
    state: dict[int, dict[str, Any]] = {}
    steps = {flat: flat.device.numpy(flat.t) for flat, _ in optimizer.places()}
    for number, (flat, i) in enumerate(optimizer.places()):
        state[number] = {
            name: flat.device.numpy(views[i]).copy() for name, views in flat.states().items()
        }
        if optimizer.counts_steps and state[number]:
            state[number]["t"] = int(steps[flat][i])
    return {"state": state, "param_groups": groups}


def load(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Take over what state_dict returned; ValueError, and nothing changed, if it does not fit."""
    groups, entries = state["param_groups"], state["state"]
    problems = list(misfits(optimizer, groups, entries))
    if problems:
        lines = "\n  ".join(problems)
        raise ValueError(f"load_state_dict: the state does not fit {optimizer.name}:\n  {lines}")
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        group.update({key: v for key, v in saved.items() if key != "params"})
    counts: dict[Flat, list[int]] = {}
    for number, (flat, i) in enumerate(optimizer.places()):
        entry = entries.get(number, {})
        for name in optimizer.state_names:
            if name in entry or name in flat.states():
                place = flat.views(flat.state(name))[i]
                flat.device.assign(place, ..., np.asarray(entry.get(name, 0)))
        counts.setdefault(flat, [0] * len(flat.parameters))[i] = entry.get("t", 0)
    for flat, t in counts.items():
        flat.device.assign(flat.t, ..., np.array(t, np.int64))
        flat.cuts = {i for i in range(1, len(t)) if t[i] != t[i - 1]}


def misfits(optimizer: Optimizer, groups: Any, entries: Any) -> Iterator[str]:
    """What keeps a state's groups and entries from being loaded, a line each."""
    mine, theirs = ([len(g["params"]) for g in gs] for gs in (optimizer.param_groups, groups))
    if mine != theirs:
        yield f"groups of {mine} parameters here, of {theirs} in the state"
        return
    for number, (group, saved) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        if set(group) != set(saved):
            yield f"group {number} has the options {sorted(group)}, not {sorted(saved)}"
        else:
            optimizer.check_options(saved)
    strange = set(entries) - set(range(sum(mine)))
    if strange:
        yield f"there are no parameters {sorted(strange, key=str)}"
    known = {*optimizer.state_names, *(["t"] if optimizer.counts_steps else [])}
    for number, (flat, i) in enumerate(optimizer.places()):
        entry, p = entries.get(number, {}), flat.parameters[i]
        if entry and not known - {*optimizer.optional_states} <= set(entry) <= known:
            yield f"parameter {number} has {sorted(entry)} in the state, not {sorted(known)}"
        for name in set(entry) & set(optimizer.state_names):
            a = np.asarray(entry[name])
            if (a.shape, a.dtype) != (p.shape, p.dtype):
                yield (
                    f"parameter {number} is {p.dtype} {p.shape}, but its {name} is "
                    f"{a.dtype} {a.shape}"
                )
