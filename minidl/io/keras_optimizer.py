"""What an optimizer keeps for each weight, as Keras writes it to .h5 files, and back.

Keras multiplies the learning rate into the momentums of SGD (with a minus) and RMSprop; here it is
applied in the step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

State = dict[str, Any]

# Arrays in Keras's order: what follows each other in one list is written weight by weight. Each has
# Keras's name, minidl's, the sign of the learning rate that Keras multiplies in, or 0, and the
# option that Keras adds.
Slot = tuple[str, str, int, str]
_ADAM: list[list[Slot]] = [[("momentum", "m", 0, ""), ("velocity", "v", 0, "")]]
_SLOTS: dict[str, list[list[Slot]]] = {
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "SGD": [[("momentum", "v", -1, "")]],
    "RMSprop": [
        [("velocity", "v", 0, "")], [("momentum", "b", 1, "")], [("average_gradient", "m", 0, "")]
    ],
    "Adagrad": [[("accumulator", "v", 0, "initial_accumulator_value")]],
}  # fmt: skip
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
            for slot in together:
                factor, more = _line(options, slot)
                name = f"{own}/{weight.replace('/', '_')}_{slot[0]}"
                found[name] = np.asarray(state[slot[1]] * factor + more, np.float32)
    return found


def states(
    kind: str, options: Mapping[str, Any], held: Mapping[Any, np.ndarray], weights: int
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
            for slot in together:
                factor, more = _line(options, slot)
                state[slot[1]] = np.asarray((next(waiting) - more) / factor, np.float32)
    return found


def _line(options: Mapping[str, Any], slot: Slot) -> tuple[float, float]:
    """By what to multiply minidl's array, and what to add, to get Keras's."""
    _, _, sign, added = slot
    return sign * options["learning_rate"] or 1.0, options[added] if added else 0.0


def _used(kind: str, options: Mapping[str, Any]) -> list[list[Slot]]:
    """Of what a kind can keep, what it does with these options."""
    needs = {"momentum": options.get("momentum", 1), "average_gradient": options.get("centered")}
    slots = _SLOTS.get(kind, [])
    return [together for together in slots if needs.get(together[0][0], True)]
