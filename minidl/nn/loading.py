"""A module that takes over a saved state, all of it or nothing."""

import difflib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from ..autograd import no_grad
from ..tensor import Tensor
from .module import Loaded, Module


def load(module: Module, state: Mapping[str, Any], strict: bool) -> Loaded:
    """What Module.load_state_dict does."""
    own = dict(module._tensors(True, "persistent"))
    given = {
        name: value.numpy_view() if isinstance(value, Tensor) else np.asarray(value)
        for name, value in state.items()
    }
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    wrong = [
        name
        for name, array in given.items()
        if name in own and (array.shape, array.dtype) != (own[name].shape, own[name].dtype)
    ]
    if wrong or (strict and (missing or unexpected)):
        _refuse(type(module).__name__, own, given, missing, unexpected, wrong)
    with no_grad():
        for name, array in given.items():
            if name in own:
                own[name].copy_(array)
    return Loaded(missing, unexpected)


def _refuse(
    owner: str, own: dict, given: dict, missing: list, unexpected: list, wrong: list
) -> NoReturn:
    """One ValueError about all that keeps a state from being loaded."""

    def kind(a: Any) -> str:
        return f"{a.dtype} {a.shape}"

    def near(name: str, names: list) -> str:
        found = difflib.get_close_matches(name, names, 1)
        return f"; did you mean {found[0]!r}?" if found else ""

    lines = [f"load_state_dict: the state does not fit {owner}, and nothing was changed:"]
    lines += [f"  missing: {n} {kind(own[n])}" for n in missing]
    lines += [f"  unexpected: {n} {kind(given[n])}{near(n, missing)}" for n in unexpected]
    for n in wrong:
        turned = own[n].shape != given[n].shape and sorted(own[n].shape) == sorted(given[n].shape)
        hint = "; weights are (in, out), filters (height, width, in, out)" if turned else ""
        lines.append(f"  mismatch: {n} is {kind(own[n])}, but {kind(given[n])} in the state{hint}")
    raise ValueError("\n".join(lines))
