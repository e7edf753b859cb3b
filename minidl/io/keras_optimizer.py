"""What an optimizer keeps for each weight, as Keras writes it to .h5 files, and back.

Keras multiplies the learning rate into the momentums of SGD (with a minus) and RMSprop; here it is
applied in the step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

State = dict[str, Any]

# Arrays in Keras's order: what follows each other in one list is written weight by weight. Each has
# Keras's name, minidl's, and the power and sign of the learning rate that Keras multiplies in.
_ADAM = [[("momentum", "m", 0), ("velocity", "v", 0)]]
_SLOTS: dict[str, list[list[tuple[str, str, int]]]] = {
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "SGD": [[("momentum", "v", -1)]],
    "RMSprop": [[("velocity", "v", 0)], [("momentum", "b", 1)], [("average_gradient", "m", 0)]],
    "Adagrad": [[("accumulator", "v", 0)]],
}
_COUNTING = ("Adam", "AdamW", "Adagrad")


def arrays(
    kind: str, options: Mapping[str, Any], rows: Sequence[tuple[str, State]]
) -> dict[str, np.ndarray]:
    """Keras's arrays by name, of the states of weights that are called so."""
    rate, own = options["learning_rate"], options["name"]
    steps = max(state.get("t", 0) for _, state in rows)
    found = {
        f"{own}/iteration": np.array(steps, np.int32),
        f"{own}/learning_rate": np.array(rate, np.float32),
    }
    for together in _used(kind, options):
        for weight, state in rows:
            for theirs, ours, power in together:
                name = f"{own}/{weight.replace('/', '_')}_{theirs}"
                found[name] = np.asarray(state[ours] * _factor(rate, power), np.float32)
    return found


def states(
    kind: str, options: Mapping[str, Any], held: Mapping[str, np.ndarray], weights: int
) -> list[State]:
    """The state of each of so many weights."""
    steps, _, *rest = held.values()
    used = _used(kind, options)
    if len(rest) != weights * sum(map(len, used)):
        raise ValueError(f"{kind} keeps {len(rest)} arrays in the file for {weights} weights")
    found: list[State] = [{"t": int(steps)} if kind in _COUNTING else {} for _ in range(weights)]
    waiting = iter(rest)
    for together in used:
        for state in found:
            for _, ours, power in together:
                factor = _factor(options["learning_rate"], power)
                state[ours] = np.asarray(next(waiting) / factor, np.float32)
    return found


def _factor(rate: float, power: int) -> float:
    return power * rate if power and rate else 1.0


def _used(kind: str, options: Mapping[str, Any]) -> list[list[tuple[str, str, int]]]:
    """Of what a kind can keep, what it does with these options."""
    needs = {"momentum": options.get("momentum", 1), "average_gradient": options.get("centered")}
    slots = _SLOTS.get(kind, [])
    return [together for together in slots if needs.get(together[0][0], True)]
