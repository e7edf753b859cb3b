"""Search for good settings: each of a grid, or drawn at random. A trial is one call of a function.

    def train(lr, width):                    # returns what is to be small, or large
        ...
        return history["val_loss"][-1]

    search = tune.random_search(train, {"lr": tune.log_uniform(1e-4, 1e-1), "width": [32, 64]},
                                trials=20, path="runs/search.jsonl")
    print(search)                            # a table, the best trial first
    model = train(**search.best.params)

Trials run one after the other, in the caller's thread: a training uses all cores by itself.
"""

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import atomic, check
from .random import manual_seed

Space = Mapping[str, Any]


class uniform(NamedTuple):
    """Any number from low up to high."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """The value at the share u, 0 <= u < 1, of the range."""
        return self.low + u * (self.high - self.low)


class log_uniform(NamedTuple):
    """Any number from low up to high, each power of ten as likely: for learning rates."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """The value at the share u, 0 <= u < 1, of the range."""
        return self.low * (self.high / self.low) ** u


class integers(NamedTuple):
    """Any whole number from low to high, both included."""

    low: int
    high: int

    def at(self, u: float) -> int:
        """The value at the share u, 0 <= u < 1, of the range."""
        return self.low + int(u * (self.high - self.low + 1))


_RANGES = uniform, log_uniform, integers


@dataclass(frozen=True)
class Trial:
    """One call: its number, its arguments, what it returned and how long it took.

    value is NaN where the function raised an ArithmeticError, as `fit` does when a loss is not
    finite; error then says what it said.
    """

    number: int
    params: dict[str, Any]
    value: float
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Search:
    """The trials of a search, in order."""

    trials: list[Trial]
    mode: str

    @property
    def ranked(self) -> list[Trial]:
        """All trials, the best first; those without a value last."""
        sign = 1 if self.mode == "min" else -1
        return sorted(self.trials, key=lambda t: (math.isnan(t.value), sign * t.value))

    @property
    def best(self) -> Trial:
        """The trial with the best value. RuntimeError where no trial has one."""
        first = self.ranked[0]
        if math.isnan(first.value):
            raise RuntimeError(f"tune: no trial has a value; the last error: {first.error or None}")
        return first

    def __str__(self) -> str:
        rows = [["trial", "value", "seconds", *self.trials[0].params]]
        for t in self.ranked:
            rows.append([f"{t.number}", f"{t.value:.6g}", f"{t.seconds:.1f}",
                         *(f"{p:.4g}" if isinstance(p, float) else str(p)
                           for p in t.params.values())])  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
        )


def grid_search(
    function: Callable[..., float],
    space: Mapping[str, Sequence[Any]],
    *,
    mode: str = "min",
    seed: int = 0,
    path: str | os.PathLike | None = None,
) -> Search:
    """Call function(**params) for every combination of the lists of `space`, the last one fastest.

    The rest is as for random_search.
    """
    for name, values in space.items():
        if isinstance(values, _RANGES):
            raise TypeError(f"tune: {name} is {values}, which has no end of values; give a list")
    space = _checked(space)
    combined = [dict(zip(space, row, strict=True)) for row in itertools.product(*space.values())]
    return _run(function, combined, {"search": "grid", **_said(space, mode, seed)}, path)


def random_search(
    function: Callable[..., float],
    space: Space,
    trials: int,
    *,
    mode: str = "min",
    seed: int = 0,
    path: str | os.PathLike | None = None,
) -> Search:
    """Call function(**params) `trials` times, with params drawn from `space`.

    space: for each argument a list to choose from, or uniform, log_uniform or integers. mode: the
    best value is the "min" or the "max". path: a file with a JSON object per line, to which each
    trial is added when it ends; called again, with as many trials or more, the search goes on
    behind the last one. What a trial draws follows from seed and its number alone, and
    minidl.manual_seed(seed) comes before each, so a search that was stopped ends as any other.

    ValueError for a path that holds another search. What function raises is raised here, but for
    ArithmeticError: such a trial has the value NaN and ranks last.
    """
    if trials < 1:
        raise ValueError(f"tune: trials is {trials}, but must be at least 1")
    space = _checked(space)
    said = {"search": "random", **_said(space, mode, seed)}
    return _run(function, [_draw(space, seed, number) for number in range(trials)], said, path)


def _checked(space: Space) -> dict[str, Any]:
    """A space whose every entry can be drawn from."""
    if not space:
        raise ValueError("tune: the space is empty; give a list or a range for each argument")
    for name, values in space.items():
        if isinstance(values, _RANGES):
            low, high = values
            if not low < high or (isinstance(values, log_uniform) and low <= 0):
                raise ValueError(f"tune: {name} is {values}: low < high, and above 0 for logs")
        elif isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise TypeError(
                f"tune: {name} is {values!r}; give a list of values, or tune.uniform, "
                "tune.log_uniform or tune.integers"
            )
    return dict(space)


def _said(space: Space, mode: str, seed: int) -> dict[str, Any]:
    """What decides the trials, as it stands in the first line of a file."""
    check.known("mode", mode, ("min", "max"))
    if not 0 <= seed < 2**64:
        raise ValueError(f"tune: seed is {seed}, but must be from 0 to 2**64 - 1")
    shown = {
        name: {type(v).__name__: list(v)} if isinstance(v, _RANGES) else list(v)
        for name, v in space.items()
    }
    try:
        return json.loads(json.dumps({"mode": mode, "seed": seed, "space": shown}))
    except TypeError as error:
        raise TypeError(
            f"tune: values are numbers, texts, None or lists of them: {error}"
        ) from None


def _draw(space: Space, seed: int, number: int) -> dict[str, Any]:
    """The arguments of one trial."""
    bits = np.random.Philox(key=np.array([seed, number], np.uint64)).random_raw(len(space))
    shares = (bits >> np.uint64(11)) * 2.0**-53
    return {
        name: v.at(u) if isinstance(v, _RANGES) else v[int(u * len(v))]
        for (name, v), u in zip(space.items(), shares.tolist(), strict=True)
    }


def _run(
    function: Callable[..., float],
    todo: list[dict[str, Any]],
    said: dict[str, Any],
    path: str | os.PathLike | None,
) -> Search:
    """Call the function for all that the file at path does not hold yet."""
    lines = [] if path is None else _read(Path(path), said)
    trials = [
        Trial(**{**line, "params": params, "value": float(line["value"])})
        for line, params in zip(lines, todo, strict=False)
    ]
    for number, params in enumerate(todo[len(trials) :], len(trials)):
        manual_seed(said["seed"])
        start, error = time.perf_counter(), ""
        try:
            value = float(function(**params))
        except ArithmeticError as caught:
            value, error = math.nan, f"{type(caught).__name__}: {caught}"
        trials.append(Trial(number, params, value, time.perf_counter() - start, error))
        if path is not None:
            _append(Path(path), trials[-1])
    return Search(trials, said["mode"])


def _read(path: Path, said: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials in a file; a new file, or a line that was not finished, is put right."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, f"{json.dumps(said)}\n".encode())
        return []
    try:
        first, *rest = [json.loads(line) for line in whole.splitlines()]
        numbers = [line["number"] for line in rest]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"tune: {path} is not the log of a search: {error}") from error
    if first != said:
        raise ValueError(
            f"tune: {path} holds another search: {first}, now {said}; give another path, or "
            "delete the file"
        )
    if numbers != list(range(len(rest))):
        raise ValueError(f"tune: {path} holds trials {numbers}, which are not 0, 1, 2 ...")
    if whole != text:  # the process was killed while it wrote
        atomic.write(path, whole.encode())
    return rest


def _append(path: Path, trial: Trial) -> None:
    """Add a line to a file. What JSON has no word for, NaN and infinity, is written as text."""
    value = trial.value if math.isfinite(trial.value) else str(trial.value)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(trial) | {"value": value}, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
