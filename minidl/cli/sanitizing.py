"""minidl sanitize: somebody's CUDA kernels, run on this CPU and watched."""

import argparse
import contextlib
import dataclasses
import inspect
import json
import math
import os
import runpy
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

CLEAN, FOUND, FAILED = 0, 1, 2
_FILLED = ("random", "zeros", "ones", "arange", "empty")
_SYNTAX = (
    "write a number (100, 0.5, int32:100), an array (float32[100,3], zeros:float32[100]) or "
    "a file (data.npy); an array is random, zeros, ones, arange, or empty: not yet written"
)


def sanitize(arguments: argparse.Namespace, argv: list[str]) -> int:
    """Run a program, or one kernel of it, and print what its launches did: the exit code."""
    path, name = _target(arguments.target)
    if arguments.arg and not name:
        raise ValueError(f"--arg is for a kernel: {path.name}:KERNEL")
    stand_in = import_module("minidl.kernels.cuda.stand_in")
    launches: list[Any] = []
    failure = None

    def serve(asked: Any) -> None:
        launches.append((asked, stand_in.watched(asked)))

    quiet = contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext()
    with stand_in.standing_in(serve), _as_script(path, arguments.rest), quiet:
        try:
            _run(path, name, arguments, serve, stand_in)
        except SystemExit as error:
            failure = f"ended with exit code {error.code}" if error.code else None
        except Exception as error:
            if os.environ.get("MINIDL_DEBUG"):
                raise
            line = _line_of(error, path)
            failure = f"{type(error).__name__}{line}: {error}" if line else str(error)
    if arguments.json:
        print(json.dumps(_as_json(launches, failure), indent=1))
    else:
        _print(launches)
    if failure:
        print(f"minidl: {path.name}: {failure}", file=sys.stderr)
    elif not launches:
        print(f"minidl: {path.name} launched no kernel; see --help", file=sys.stderr)
    if any(not report for _, report in launches):
        return FOUND
    return FAILED if failure or not launches else CLEAN


def _target(text: str) -> tuple[Path, str]:
    """A file, and the name after its colon."""
    file, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier():
        file, name = text, ""
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    return path.resolve(), name


@contextlib.contextmanager
def _as_script(path: Path, rest: list[str]) -> Iterator[None]:
    """sys.argv and sys.path as Python sets them for a script."""
    before = sys.argv, sys.path[:]
    sys.argv, sys.path[:0] = [str(path), *rest], [str(path.parent)]
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before


def _run(path: Path, name: str, arguments: Any, serve: Any, stand_in: Any) -> None:
    """Run a file as a script; or import it, and call its function or launch its kernel."""
    if not name:
        runpy.run_path(str(path), run_name="__main__")
        return
    space = runpy.run_path(str(path), run_name=path.stem)
    if name not in space:
        kernels = [n for n, v in space.items() if hasattr(v, "targetoptions")]
        raise ValueError(f"there is no {name} in it; its kernels: {', '.join(kernels) or 'none'}")
    kernel = space[name]
    if inspect.isfunction(kernel) and not arguments.arg and not arguments.grid:
        kernel()
        return
    function = getattr(kernel, "py_func", getattr(kernel, "function", kernel))
    given = _arguments(list(inspect.signature(function).parameters), arguments.arg)
    grid, block = arguments.grid or (1,), arguments.block or (1,)
    args = tuple(value for value, _ in given.values())
    asked = stand_in.asked(kernel, grid, block, args, arguments.shared)
    fresh = tuple(n for n, (_, empty) in given.items() if empty)
    serve(asked._replace(fresh=fresh))


def _arguments(parameters: list[str], specs: list[str]) -> dict[str, tuple[Any, bool]]:
    """The values of a kernel's parameters, in its order, and which of them are empty."""
    rng = np.random.default_rng(0)
    given = {}
    for spec in specs:
        name, equals, text = spec.partition("=")
        if not equals or name not in parameters:
            raise ValueError(f"--arg {spec}: write NAME=VALUE, of ({', '.join(parameters)})")
        given[name] = value_of(text, rng)
    if missing := [n for n in parameters if n not in given]:
        raise ValueError(f"the kernel takes {', '.join(missing)} too: --arg {missing[0]}=...")
    return {n: given[n] for n in parameters}


def value_of(text: str, rng: np.random.Generator) -> tuple[Any, bool]:
    """A number or an array out of the words for it, and whether it is an array yet to be written.

    Random floats are from [-1, 1), random integers 0 or 1.
    """
    if text.endswith(".npy"):
        return np.load(text), False
    fill, _, kind = text.rpartition(":")
    dtype, bracket, axes = kind.partition("[")
    try:
        if not bracket:
            number = float(kind) if fill or not _whole(kind) else int(kind)
            return (np.dtype(fill).type(number) if fill else number), False
        shape = tuple(int(n) for n in axes.removesuffix("]").split(",") if n)
        if not axes.endswith("]") or (fill or "random") not in _FILLED:
            raise ValueError
        return _filled(fill or "random", shape, np.dtype(dtype), rng), fill == "empty"
    except (ValueError, TypeError) as error:
        raise ValueError(f"{text!r} is no argument: {_SYNTAX}") from error


def _whole(text: str) -> bool:
    return text.lstrip("+-").isdecimal()


def _filled(fill: str, shape: tuple[int, ...], dtype: np.dtype, rng: Any) -> np.ndarray:
    if fill == "zeros" or fill == "ones":
        return np.full(shape, fill == "ones", dtype)
    if fill == "arange":
        return np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    if fill == "empty":
        made = np.empty(shape, dtype)
        made.reshape(-1).view(np.uint8)[...] = 0xFF
        return made
    if dtype.kind in "fc":
        return rng.uniform(-1, 1, shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def _line_of(error: BaseException, path: Path) -> str:
    """Where in the user's file an error came up."""
    lines, at = [], error.__traceback__
    while at:
        if at.tb_frame.f_code.co_filename == str(path):
            lines.append(at.tb_lineno)
        at = at.tb_next
    return f" in line {lines[-1]}" if lines else ""


# --- what is told


def _key(asked: Any) -> tuple:
    """What tells launches of a kernel apart: not the contents of its arrays."""
    kinds = [(a.dtype.str, a.shape) if isinstance(a, np.ndarray) else type(a) for a in asked.args]
    return asked.kernel, asked.grid, asked.block, tuple(kinds)


def _print(launches: list[Any]) -> None:
    """A report for each kernel and size of launch: the worst one, and how many there were."""
    groups: dict[tuple, list[Any]] = {}
    for asked, report in launches:
        groups.setdefault(_key(asked), []).append((asked, report))
    for same in groups.values():
        asked, worst = max(same, key=lambda pair: len(pair[1].findings))
        bad = sum(not report for _, report in same)
        times = f", {len(same):,} launches" * (len(same) > 1)
        times += f", {bad:,} of them with findings" * (len(same) > 1 and bad > 0)
        print(f"grid {_size(asked.grid)}, block {_size(asked.block)}{times}")
        print(f"{worst}\n")
    found = {str(f) for _, report in launches for f in report.findings}
    n = len(launches)
    if n:
        print(
            f"{n:,} launch{'es' * (n > 1)}, {len(found) or 'no'} finding{'s' * (len(found) != 1)}"
        )


def _size(n: tuple[int, ...]) -> str:
    return " x ".join(map(str, n[: 3 if n[2] > 1 else 2 if n[1] > 1 else 1]))


def _as_json(launches: list[Any], failure: str | None) -> dict[str, Any]:
    told = [
        {
            "grid": asked.grid,
            "block": asked.block,
            **dataclasses.asdict(report),
            **{n: getattr(report, n) for n in ("bytes", "sectors", "requests", "bank_conflicts")},
        }
        for asked, report in launches
    ]
    return {"launches": told, "failure": failure}
