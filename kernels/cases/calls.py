"""From a Case to calls of kernels: the op's own, its gradients', and what they should compute."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import reference
from ..roles import Array, roles
from .case import Case
from .draw import Blank, Draw, Values

DEFINITION: dict[str, Callable] = {
    name: value
    for name, value in vars(reference).items()
    if inspect.isfunction(value) and {"out", "inout"} & set(roles(value).values())
}


@dataclass(frozen=True)
class Call:
    """One call of a kernel: arguments by name, a Blank for an output."""

    kernel: str
    args: Values
    dtype: np.dtype

    def roles(self) -> dict[str, str]:
        return roles(DEFINITION[self.kernel])

    def outputs(self) -> list[str]:
        """Names of the arrays that this call writes."""
        found = self.roles().items()
        return [n for n, role in found if "out" in role and self.args[n] is not None]

    def adding(self, every: int = 1) -> "Call":
        """The call with add=True; of a joint gradient, for every n-th output."""
        add = self.args["add"]
        add = tuple(i % every == 0 for i in range(len(add))) if isinstance(add, tuple) else True
        return Call(self.kernel, self.args | {"add": add}, self.dtype)


class Definition:
    """The reference kernel of a call, with float64 arguments: what a bound is worked out from."""

    def __init__(self, call: Call):
        self.name, self.roles = call.kernel, call.roles()
        self.eps, self.tiny = float(np.finfo(call.dtype).eps), 8 * float(np.finfo(call.dtype).tiny)
        self.args = {name: _widen(a) for name, a in call.args.items()}
        arrays = {n: a for n, a in self.args.items() if isinstance(a, np.ndarray)}
        self.floats = {n: a for n, a in arrays.items() if a.dtype.kind == "f"}
        self.outputs = call.outputs()
        self.out = self.outputs[0]

    @np.errstate(all="ignore")  # inf and NaN are results like others
    def all(self, **changes: Any) -> dict[str, Array]:
        """All results, by name."""
        args = self.args | changes
        for name, a in args.items():
            if isinstance(a, Blank):
                args[name] = np.empty(a.shape, a.dtype or np.float64)
            elif self.roles[name] == "inout" and a is not None:
                args[name] = a.copy()
        DEFINITION[self.name](*(args[name] for name in self.roles))
        return {name: args[name] for name in self.outputs}

    def __call__(self, **changes: Any) -> Array:
        """The first result."""
        return self.all(**changes)[self.out]

    @np.errstate(all="ignore")
    def bounds(self, case: Case, results: dict[str, Array]) -> dict[str, Array]:
        """How far each float result may be off."""
        bound = case.bound
        if isinstance(bound, dict):
            bound = bound.get(self.name) or bound[""]
        blanks = {n: a for n, a in results.items() if self.roles[n] == "out"}
        found = bound(SimpleNamespace(**self.args | blanks), self)
        found = found if isinstance(found, dict) else {self.out: found}
        # below the smallest normal number the epsilon no longer counts
        return {n: self.eps * np.asarray(b) + self.tiny * (b > 0) for n, b in found.items()}


def describe(value: Any) -> str:
    """An array as its shape; anything else as it is."""
    shape = getattr(value, "shape", None)
    return str(value if shape is None else tuple(shape)).replace(" ", "")


def _widen(a: Any) -> Any:
    real = isinstance(a, np.ndarray) and a.dtype.kind == "f"
    return a.astype(np.float64) if real else a


def gradients(case: Case) -> list[str]:
    """Names of the kernels that compute a Case's gradients."""
    return [name for name in DEFINITION if name.startswith(f"{case.name}_grad")] + [*case.grads]


def op_call(case: Case, values: Values) -> tuple[list[Any], Values]:
    """What the op of a Case is given: its inputs, and its static arguments by name."""
    kinds = roles(DEFINITION[case.name])
    inputs = case.inputs.split() or [name for name, kind in kinds.items() if kind == "in"]
    if case.static:
        static = case.static(values)
    else:
        names = {n: "padding" if n == "pad" else n for n, kind in kinds.items() if kind == "static"}
        static = {names[n]: values[n] for n in names}
    return [values.get(name) for name in inputs], static


@dataclass
class Example:
    """Arguments for an op and its gradients: the calls they make, and those with NaN and inf."""

    case: Case
    calls: list[Call]
    special: list[Call]
    variant: int
    known: dict[int, tuple] = field(default_factory=dict)

    def definition(self, call: Call) -> tuple[dict, dict]:
        """What the reference computes in float64, and how far off a result may be."""
        if id(call) not in self.known:
            definition = Definition(call)
            results = definition.all()
            self.known[id(call)] = results, definition.bounds(self.case, results)
        return self.known[id(call)]

    def __repr__(self) -> str:
        given = self.calls[0].args.items()
        return f"{self.case.name}: " + " ".join(f"{name} {describe(a)}" for name, a in given)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # or Hypothesis spells out every array


def draw_example(case: Case, draw: Draw) -> Example:
    """Draw what a Case needs, and a gradient dy of its first output."""
    values = case.draw(draw)
    dy, wanted = None, (True,)
    if gradients(case):
        y = Definition(bind(case.name, values, draw.dtype)).out
        dy = draw.array(values[y].shape)
        wanted = draw.pick("", *_WANTED)
    variant = draw.source.integer(0, 63)
    calls = _calls(case, values, dy, wanted, draw)
    values, dy = _with_specials(case, values, dy, variant)
    return Example(case, calls, _calls(case, values, dy, wanted, draw), variant)


# which outputs of a joint gradient are wanted; the others are None
_WANTED = (
    (True, True, True, True),
    (True, False, False, True),
    (False, True, True, False),
    (False, False, True, False),
)


def bind(kernel: str, values: Values, dtype: Any) -> Call:
    """The call of a kernel with what it takes of some values, by parameter name."""
    args = {n: values.get(n, False if n == "add" else None) for n in roles(DEFINITION[kernel])}
    return Call(kernel, args, np.dtype(dtype))


def _calls(case: Case, values: Values, dy: Array | None, wanted: tuple, draw: Draw) -> list[Call]:
    """The op's call, and those of its gradients on what the op saved."""
    calls = [bind(case.name, values, draw.dtype)]
    if dy is None:
        return calls
    saved = Definition(calls[0]).all()
    saved = {n: a.astype(values[n].dtype or draw.dtype) for n, a in saved.items()}
    for kernel in gradients(case):
        kinds = roles(DEFINITION[kernel])
        outs = [name for name, role in kinds.items() if role == "out"]
        blanks = {
            name: Blank(values[name[1:]].shape)
            for name, yes in zip(outs, wanted if len(outs) > 1 else (True,))
            if yes and values[name[1:]] is not None
        }
        if blanks:
            add = (False,) * len(outs) if len(outs) > 1 else False
            calls.append(bind(kernel, values | saved | {"dy": dy, "add": add} | blanks, draw.dtype))
    return calls


def _with_specials(case: Case, values: Values, dy: Array | None, variant: int) -> tuple:
    """The same arguments with NaN, inf, -inf and 0 here and there."""
    rng = np.random.default_rng(variant)
    values = values | ({} if dy is None else {"dy": dy})
    odd = [np.nan, np.inf, -np.inf] + [0.0] * (not case.blas)
    for name, a in values.items() if case.blas else ():
        if isinstance(a, np.ndarray):
            values[name] = np.where(a == 0, a.dtype.type(1), a)
    for name in case.specials(values) if case.specials else [*values]:
        a = values.get(name)
        if isinstance(a, np.ndarray) and a.dtype.kind == "f" and rng.integers(0, 3):
            a = values[name] = a.copy()
            some = rng.integers(0, max(a.size, 1), 1 + a.size // 16)[: a.size]
            a.flat[some] = rng.choice(odd, some.size)
    return values, None if dy is None else values["dy"]
