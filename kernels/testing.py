"""Checks any kernel against its definition in NumPy float64, on arguments that Hypothesis draws.

    >>> from minidl.kernels.testing import check
    >>> def mine(x, y):
    ...     y[...] = x * (x > 0)
    >>> check(mine, against="relu")
    relu[mine, float32] y = nan, reference 0.0; x ()
    property: inf and NaN
    x = array(-inf, dtype=float32)

The same properties hold for every kernel on every backend; `hold` lists them. What they need to
know of an op is its Case (`cases/`).
"""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import (
    CASES,
    DEFINITION,
    Blank,
    Call,
    Case,
    Definition,
    Draw,
    Example,
    Seeded,
    Values,
    draw_example,
    gradients,
)
from .cases.bounds import Bound, products
from .cases.calls import describe
from .differences import STEP, along
from .roles import Array, roles

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("minidl.kernels.testing needs Hypothesis: pip install hypothesis") from error


@dataclass(frozen=True)
class Backend:
    """Kernels by name, and how arrays get to them and back.

    schedules: circumstances under which the kernels must give the same bits, as context managers:
    numbers of threads, orders of blocks. dear: more of them, which take long: an example of each
    mode is run under them. without: parameters that its kernels do not take.
    """

    name: str
    kernels: Mapping[str, Callable]
    to_device: Callable[[np.ndarray], Array] = np.asarray
    to_host: Callable[[Array], np.ndarray] = np.asarray
    schedules: tuple[Callable[[], Any], ...] = (contextlib.nullcontext,)
    dear: tuple[Callable[[], Any], ...] = ()
    without: frozenset[str] = frozenset()


class Mismatch(AssertionError):
    """A kernel that does not do what its definition does; `property` names what it breaks."""

    def __init__(self, message: str, property: str):
        super().__init__(message)
        self.property = property


# Where arrays lie. Each is a view of a larger buffer, with guards before, behind and, unless it is
# plain, between its rows: NaN around inputs, for who reads there; a mark around outputs, for who
# writes there.

GUARD = 64  # elements; a multiple of the widest vector, so that plain arrays are aligned
LAYOUTS = ("reversed", "transposed", "stepped", "broadcast", "shifted")
# What outputs hold before a call. Two sets: a cell that is not written differs between them.
_UNSET = np.uint64(0x7FF8DEAD00000000).view(np.float64)  # a NaN that no arithmetic makes
_POISON = (
    {"f": _UNSET, "i": -(2**31), "u": 2**63 + 77, "b": True},
    {"f": -1e30, "i": 77, "u": 77, "b": False},
)
_AROUND_INPUTS = {"f": np.nan, "i": 0, "u": 0, "b": True}


def _strides(value: Array, layout: str) -> list[int]:
    """Strides of an array in a layout, in elements."""
    order = range(value.ndim) if layout == "transposed" else range(value.ndim - 1, -1, -1)
    strides, step = [0] * value.ndim, 2 if layout in ("stepped", "transposed") else 1
    for a in order:
        strides[a] = step
        step = step * max(value.shape[a], 1) + (layout not in ("plain", "shifted"))
    if layout == "reversed":
        return [-s for s in strides]
    if layout == "broadcast":  # stride 0 along the axes on which nothing changes
        constant = [n > 1 and _same(value, value.take([0], a)) for a, n in enumerate(value.shape)]
        return [0 if c else s for s, c in zip(strides, constant)]
    return strides


def _same(a: Array, b: Array) -> bool:
    return bool(np.all((a == b) | ((a != a) & (b != b))))


class Placed:
    """An array on a backend, guarded; after a call, what became of it."""

    def __init__(self, backend: Backend, value: Array, layout: str, guard: dict[str, Any]):
        strides = _strides(value, layout)
        reach = [(n - 1) * s for n, s in zip(value.shape, strides) if n]
        self.start = GUARD + (layout != "plain") - sum(r for r in reach if r < 0)
        self.shape, self.strides = value.shape, [s * value.itemsize for s in strides]
        length = self.start + sum(r for r in reach if r > 0) + 1 + GUARD
        self.before = np.full(length, guard[value.dtype.kind], value.dtype)
        self.view(self.before)[...] = value
        self.backend, self.buffer = backend, backend.to_device(self.before.copy())
        self.array = self.view(self.buffer)

    def view(self, buffer: Array) -> Array:
        if isinstance(buffer, np.ndarray):  # as_strided takes ten times as long
            first = self.start * buffer.itemsize
            return np.ndarray(self.shape, buffer.dtype, buffer, first, self.strides)
        package = sys.modules[type(buffer).__module__.partition(".")[0]]  # CuPy
        as_strided = package.lib.stride_tricks.as_strided
        return as_strided(buffer[self.start :], self.shape, self.strides)

    def untouched(self) -> bool:
        return self.backend.to_host(self.buffer).tobytes() == self.before.tobytes()

    def after(self) -> tuple[Array, bool]:
        """The array on the host, and whether its guards are as they were."""
        buffer = self.backend.to_host(self.buffer).copy()
        value = self.view(buffer).copy()
        self.view(buffer)[...] = self.view(self.before)
        return value, buffer.tobytes() == self.before.tobytes()


def run(
    call: Call,
    backend: Backend,
    poison: int = 0,
    layout: int | None = None,
    start: Values | None = None,
) -> dict[str, Array]:
    """Results of a kernel on a backend, by name; Mismatch where it breaks what every call keeps.

    poison: which of two sets of numbers outputs hold before. layout: None for plain arrays, else
    each array gets one of LAYOUTS in turn. start: what outputs hold instead.
    """
    args, inputs, outputs = dict(call.args), {}, {}
    for i, (name, role) in enumerate(call.roles().items()):
        value = args[name]
        if role == "static" or value is None:
            continue
        kind = "plain" if layout is None else LAYOUTS[(i + layout) % len(LAYOUTS)]
        if role == "in":
            inputs[name] = placed = Placed(backend, value, kind, _AROUND_INPUTS)
        else:
            if isinstance(value, Blank):
                dtype = np.dtype(value.dtype or call.dtype)
                value = np.full(value.shape, _POISON[poison][dtype.kind], dtype)
            kind = "reversed" if kind == "broadcast" else kind  # one cell, one place
            value = (start or {}).get(name, value)
            outputs[name] = placed = Placed(backend, value, kind, _POISON[1 - poison])
        args[name] = placed.array
    try:
        with np.errstate(all="ignore"):
            returned = backend.kernels[call.kernel](*(args[name] for name in call.roles()))
    except Exception as error:
        _fail("runs", call, backend, f"raised {type(error).__name__}: {error}", error)
    return _collect(call, backend, args, inputs, outputs, returned)


def _collect(call, backend, args, inputs, outputs, returned) -> dict[str, Array]:
    for name, placed in inputs.items():
        if not placed.untouched():
            _fail("inputs untouched", call, backend, f"changed its input {name}")
    results = {}
    for name, placed in outputs.items():
        results[name], intact = placed.after()
        if not intact:
            _fail("no overrun", call, backend, f"wrote outside of {name}")
    returned = returned if isinstance(returned, tuple) else (returned,)
    expected = [args[name] for name, role in call.roles().items() if "out" in role]
    if len(returned) != len(expected) or any(a is not b for a, b in zip(returned, expected)):
        names = ", ".join(outputs)
        _fail("returns its outputs", call, backend, f"must return the arrays it filled: {names}")
    return results


# What is said when a check fails. The first line says all; the arguments follow.


def _at(index: tuple) -> str:
    return "[" + ",".join(map(str, index)) + "]" if index else ""


def _fail(
    property: str, call: Call, backend: Backend, what: str, cause: Any = None, note: str = ""
):
    given = {n: a for n, a in call.args.items() if not isinstance(a, Blank)}
    line = f"{call.kernel}[{backend.name}, {call.dtype}] {what}; "
    line += " ".join(f"{name} {describe(a)}" for name, a in given.items())
    lines = [line, f"property: {property}" + f" ({note})" * bool(note)]
    for name, a in given.items():
        if isinstance(a, np.ndarray) and a.size <= 200:
            with np.printoptions(floatmode="unique", linewidth=96, threshold=10**6):
                lines.append(f"{name} = {a!r}")
    raise Mismatch("\n".join(lines), property) from cause


def _excess(mine: Array, theirs: Array, limit: Array) -> Array:
    """Errors as multiples of their bounds; inf where a bound of 0, NaN or inf is missed."""
    if not limit.any():
        theirs = theirs.astype(mine.dtype)
    right = (mine == theirs) | ((mine != mine) & (theirs != theirs))
    with np.errstate(all="ignore"):
        error = np.abs(mine - theirs) / limit
    # where inf or NaN reaches the bound, what is finite in both has nothing to be held to
    free = np.isfinite(mine) & np.isfinite(theirs) & ~np.isfinite(limit)
    return np.where(right | free, 0, np.where(np.isnan(error), np.inf, error))


def _compare(
    property: str, call: Call, backend: Backend, got: dict, expected: tuple, note: str = ""
) -> None:
    """Every result within its bound; NaN and inf where they belong."""
    want, bounds = expected
    for name, mine in got.items():
        if mine.dtype.kind == "f":
            limit = np.broadcast_to(bounds.get(name, 0), mine.shape)
            excess = _excess(mine, want[name], limit)
        else:
            excess = np.where(mine == want[name], 0, np.inf)
        if np.all(excess <= 1):
            continue
        at = np.unravel_index(np.argmax(excess), mine.shape)
        what = f"{name}{_at(at)} = {mine[at]!s}, reference {want[name][at]!s}"
        if np.isfinite(excess[at]):
            what += f", error {excess[at]:.3g}x the bound"
        _fail(property, call, backend, what, note=note)


def _bits(a: Array) -> Array:
    """An array's bits as integers; those of NaN are all alike."""
    a = np.where(np.isnan(a), np.nan, a).astype(a.dtype) if a.dtype.kind == "f" else a
    return a.view(f"u{a.itemsize}")


def _identical(
    property: str, call: Call, backend: Backend, got: dict, want: dict, versus: str
) -> None:
    """The same bits."""
    for name, mine in got.items():
        differs = _bits(mine) != _bits(want[name])
        if differs.any():
            at = tuple(np.argwhere(differs)[0])
            what = f"{name}{_at(at)} = {mine[at]!s}, {versus} {want[name][at]!s}"
            _fail(property, call, backend, what)


# The properties, in the order in which they are checked.


def value(example: Example, call: Call, backend: Backend) -> dict[str, Array]:
    """Every cell is written; results agree with the definition in float64."""
    got = run(call, backend)
    for name, a in got.items():
        if call.roles()[name] == "out" and a.dtype.kind != "b":
            bits = f"u{a.itemsize}"  # of NaN, too, which equals nothing
            left = a.ravel().view(bits) == np.array(_POISON[0][a.dtype.kind], a.dtype).view(bits)
            if left.any():
                at = np.unravel_index(np.argmax(left), a.shape)
                what = f"never wrote {name}{_at(at)}"
                _fail("every cell written", call, backend, what)
    empty = any(isinstance(a, np.ndarray) and not a.size for a in call.args.values())
    property = "empty batch" if empty else "value"
    _compare(property, call, backend, got, example.definition(call))
    return got


def repeat(example: Example, call: Call, backend: Backend, first: dict, dear: bool = False) -> None:
    """The same bits again: in other memory, on any schedule."""
    for schedule in (*backend.schedules, *(backend.dear if dear else ())):
        with schedule():
            again = run(call, backend, poison=1)
        _identical("repeat", call, backend, again, first, "the first time")


def add(example: Example, call: Call, backend: Backend, first: dict) -> None:
    """add=True equals the result added to what was there, bit for bit."""
    if "add" not in call.args or "add" in backend.without:
        return
    rng = np.random.default_rng(example.variant)
    start = {name: rng.normal(size=a.shape).astype(a.dtype) for name, a in first.items()}
    outs = [name for name, role in call.roles().items() if role == "out"]
    joint = isinstance(call.args["add"], tuple)
    for every in (1, 2) if joint else (1,):
        adding = call.adding(every)
        adds = dict(zip(outs, adding.args["add"] if joint else (True,)))
        want = {name: start[name] + a if adds[name] else a for name, a in first.items()}
        got = run(adding, backend, start=start)
        _identical("add", adding, backend, got, want, "but a separate add gives")


def strides(example: Example, call: Call, backend: Backend, first: dict, layouts: int = 2) -> None:
    """Any layout of inputs and outputs: reversed, transposed, with gaps, broadcast, unaligned."""
    for layout in range(example.variant, example.variant + layouts):
        got = run(call, backend, layout=layout)
        kinds = [LAYOUTS[(i + layout) % len(LAYOUTS)] for i in range(len(call.args))]
        arrays = [n for n, role in call.roles().items() if role != "static"]
        note = ", ".join(f"{n} {kind}" for n, kind in zip(arrays, kinds))
        _compare("strides", call, backend, got, example.definition(call), note)


def specials(example: Example, call: Call, backend: Backend) -> None:
    """NaN and inf come out where the definition has them."""
    _compare("inf and NaN", call, backend, run(call, backend), example.definition(call))


def hold(example: Example, backend: Backend, layouts: int = 2, dear: bool = False) -> None:
    """Check every property of every kernel that the backend has, in so many memory layouts."""
    for call, special in zip(example.calls, example.special):
        if call.kernel in backend.kernels:
            first = value(example, call, backend)
            repeat(example, call, backend, first, dear)
            add(example, call, backend, first)
            strides(example, call, backend, first, layouts)
            specials(example, special, backend)


class Drawn:
    """Choices by Hypothesis, which looks for the simplest that fail."""

    def __init__(self, draw: Callable):
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def bytes(self, n: int) -> bytes:
        return self.draw(st.binary(min_size=n, max_size=n))


def _search(strategy: Any, test: Callable, **options: Any) -> None:
    """Run a test on drawn examples; its error is that of the smallest one that fails."""
    options = dict(deadline=None, database=None, report_multiple_bugs=False) | options
    search = settings(**options, suppress_health_check=list(HealthCheck))(given(strategy)(test))
    try:
        search()
    except Mismatch as error:
        raise Mismatch(str(error), error.property) from error.__cause__
    except BaseExceptionGroup as error:  # it failed, and then on the same example it did not
        inner = next((e for e in error.exceptions if isinstance(e, Mismatch)), None)
        if inner is None:
            raise
        raise Mismatch(f"{inner}\nfails on some runs only", inner.property) from None


def verify(case: Case, backend: Backend, dtype: str, **options: Any) -> None:
    """Check all kernels of a Case on a backend; options are Hypothesis settings."""

    @st.composite
    def examples(draw: Callable) -> Example:
        return draw_example(case, Draw(Drawn(draw), dtype, without=backend.without))

    def test(example: Example) -> None:
        hold(example, backend)

    _search(examples(), test, **options)
    for seed in range(4):  # what a search may miss, and would take long to shrink
        for mode in ("any", "empty", "large", "edges", "long"):
            layouts = len(LAYOUTS) if mode in ("any", "edges") else 2
            drawn = Draw(Seeded(seed), dtype, mode, backend.without)
            hold(draw_example(case, drawn), backend, layouts, dear=seed == 0)


def verify_gradients(case: Case, **options: Any) -> None:
    """Check the gradients of the definition against numeric differences, in float64.

    For a random dy and a random direction v of an input: <v, dx> = <dy, the change of y along v>,
    and the same for each element where there are few.
    """

    @st.composite
    def examples(draw: Callable) -> Example:
        return draw_example(case, Draw(Drawn(draw), "float64", "smooth"))

    def test(example: Example) -> None:
        for call in example.calls[1:]:
            for name, gradient in Definition(call).all().items():
                _numeric(example.calls[0], call, name, gradient)

    _search(examples(), test, **options)


def _numeric(forward: Call, call: Call, name: str, gradient: Array) -> None:
    op, dy = Definition(forward), call.args["dy"]
    x = op.args[name[1:]]
    rng = np.random.default_rng(x.size)
    directions = [rng.normal(size=x.shape) for _ in range(2)]
    if 0 < x.size <= 24:
        directions += list(np.eye(x.size).reshape(-1, *x.shape))
    near = op(**{name[1:]: x + STEP})
    for v in directions:
        slope = along(lambda moved: op(**{name[1:]: moved}), x, v)
        left, right = (v * gradient).sum(), (dy * slope).sum()
        scale = np.abs(v * gradient).sum() + np.abs(dy * slope).sum()
        rounding = 4 * op.eps / STEP * np.abs(dy * near).sum()
        if not abs(left - right) <= 1e-8 * scale + rounding:
            what = f"{name}: <v, {name}> = {left}, but <dy, change of y along v> = {right}"
            _fail("gradient", call, Backend("reference", {}), what)


def check(
    mine: Callable,
    against: str | Callable,
    names: Mapping[str, str] | None = None,
    dtype: str | tuple[str, ...] = ("float32", "float64"),
    examples: int = 200,
    to_device: Callable[[np.ndarray], Array] = np.asarray,
    to_host: Callable[[Array], np.ndarray] = np.asarray,
    draw: Callable[[Draw], Values] | None = None,
    bound: Bound = products,
) -> None:
    """Check a kernel of yours against a kernel of `minidl.kernels.reference`, by all properties.

    mine: fills its outputs, or returns them; launches of CUDA kernels on the emulator are run in
    several orders of threads and blocks, with the same bits. names: its parameters' names for
    ours, {"inp": "x"}; it may lack the statics and optional inputs of ours, and have others with
    defaults. A mismatch is an AssertionError whose first line tells the smallest failing input.

    against: or a definition of your own, a NumPy function that fills its outputs (annotated `Out`);
    then draw makes its arguments, as a Case does, and bound says how far a result may be off.

        >>> check(mine, against="max_pool2d", names={"inp": "x"}, dtype="float32")
        >>> def double(x, y: Out):
        ...     y[...] = x + x
        >>> def draw(d):
        ...     n = d.size(0, 300)
        ...     return dict(x=d.array((n,)), y=Blank((n,)))
        >>> check(mine, against=double, draw=draw)
    """
    with _defined(against, draw, bound) as name:
        cases = [case for case in CASES.values() if name in (case.name, *gradients(case))]
        cases.sort(key=lambda case: case.name != name)
        if not cases:
            known = ", ".join(sorted(DEFINITION))
            raise ValueError(f"check: there is no kernel {name!r} to check against; known: {known}")
        kernel, without = _adapted(mine, name, names or {})
        label = getattr(mine, "__name__", "mine")
        _refuse_what_needs(cases[0], name, without, label)
        without |= _OURS_ALONE
        backend = Backend(label, {name: kernel}, to_device, to_host, SCHEDULES, without=without)
        for each in (dtype,) if isinstance(dtype, str) else dtype:
            verify(cases[0], backend, each, max_examples=examples, derandomize=True)


@contextlib.contextmanager
def _defined(against: str | Callable, draw: Any, bound: Bound) -> Iterator[str]:
    """The name of a kernel to check against; a definition of the user's stands there meanwhile."""
    if isinstance(against, str):
        yield against
        return
    name = against.__name__
    if draw is None or not {"out", "inout"} & set(roles(against).values()):
        raise TypeError(
            f"check: to check against {name}, give draw=..., and annotate its outputs: `y: Out`"
        )
    if name in DEFINITION:
        raise ValueError(
            f"check: {name!r} is a kernel of minidl; give your definition another name"
        )
    DEFINITION[name], CASES[name] = against, Case(name, draw, bound)
    try:
        yield name
    finally:
        del DEFINITION[name], CASES[name]


def _in_order(order: str) -> Any:
    """Run CUDA kernels that the emulator executes in an order of threads and blocks."""
    emulator = sys.modules.get("minidl.kernels.cuda.emulator")  # nothing is loaded for its sake
    return emulator.schedule(order) if emulator else contextlib.nullcontext()


SCHEDULES = tuple(
    functools.partial(_in_order, order) for order in ("forward", "reverse", "shuffled")
)


# What Cases draw that no parameter says: a captured step's convolutions may end before the image.
_OURS_ALONE = frozenset({"cropped"})


def _adapted(mine: Callable, against: str, names: Mapping[str, str]) -> tuple[Callable, frozenset]:
    """mine behind the signature of the kernel it stands for, and what that has and mine lacks."""
    kinds = roles(DEFINITION[against])
    parameters = inspect.signature(getattr(mine, "py_func", mine)).parameters
    theirs = {names.get(p, p): p for p in parameters}
    for ours, p in theirs.items():
        if ours not in kinds and parameters[p].default is inspect.Parameter.empty:
            raise TypeError(
                f"check: {against} has no parameter {ours!r}, it has ({', '.join(kinds)}); "
                f"give names={{{p!r}: ...}} or {p!r} a default"
            )
    outputs = [name for name, role in kinds.items() if "out" in role]

    def kernel(*args: Any) -> Any:
        given = dict(zip(kinds, args))
        returned = mine(**{p: given[ours] for ours, p in theirs.items() if ours in given})
        returned = iter(returned if isinstance(returned, tuple) else (returned,))
        for name in (n for n in outputs if n not in theirs and given[n] is not None):
            _store(next(returned, None), given[name], name)
        filled = tuple(given[name] for name in outputs)
        return filled if len(filled) > 1 else filled[0]

    return kernel, frozenset(kinds) - set(theirs) - set(outputs)


def _store(result: Array, out: Array, name: str) -> None:
    got = (getattr(result, "shape", None), getattr(result, "dtype", type(result).__name__))
    if got != (out.shape, out.dtype):
        raise TypeError(f"returned {name} as {got[1]} {got[0]}, not {out.dtype} {out.shape}")
    out[...] = result


def _refuse_what_needs(case: Case, against: str, without: frozenset, label: str) -> None:
    """TypeError where mine lacks an input that the Case cannot leave out."""
    values = case.draw(Draw(Seeded(0), without=without))
    for name in without:
        needed = roles(DEFINITION[against])[name] != "static" and values.get(name, case) is not None
        if needed:
            raise TypeError(f"check: {label} takes no {name!r}, which {against} needs; see names=")
