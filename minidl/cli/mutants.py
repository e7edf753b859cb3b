"""minidl mutants: do the tests of a kernel notice when it is wrong?

The tests must pass first. Then one fault at a time is planted, the tests run again, and the first
that fails has killed it. What survives is a mistake that these tests would let through.
"""

import argparse
import importlib.util
import json
import os
import random
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from .. import __version__
from ..kernels.mutants import HINTS, Fault, Source, faults
from ..kernels.mutants.trial import Asked, Runner, Seen

SLOWER = 4  # times as long as the tests take without a fault; then they would never end
AT_LEAST = 10.0  # seconds, for what is compiled anew


def mutants(arguments: argparse.Namespace, argv: list[str]) -> int:
    """Plant faults, run the tests against each, and print what became of them."""
    begin = time.monotonic()
    if importlib.util.find_spec("pytest") is None:
        raise ImportError("minidl mutants runs pytest, which is not here: pip install pytest")
    for test in arguments.tests:
        if not Path(test.split("::")[0]).exists():
            raise ValueError(f"there is no {test}")
    runner, asked = Runner(), Asked(tuple(arguments.tests), arguments.seed)
    first = runner.run(asked)
    _must_pass(first, " ".join(arguments.tests))
    planted = _planted(arguments, first)
    total = len(planted)
    if arguments.limit and arguments.limit < total:
        chosen = random.Random(arguments.seed).sample(range(total), arguments.limit)
        planted = [planted[i] for i in sorted(chosen)]
    right = _asked(asked, planted[0], Source(planted[0].file).text)
    _must_pass_again(runner.prepare(right, first))
    rows = _run_all(runner, asked, planted, arguments, first.seconds)
    found = _summary(arguments, rows, total, time.monotonic() - begin)
    if arguments.json != "-":
        print(_table(found))
    if arguments.json:
        text = json.dumps(found, indent=2) + "\n"
        if arguments.json == "-":
            sys.stdout.write(text)
        else:
            Path(arguments.json).write_text(text, encoding="utf-8")
    return int(100 * found["killed"] < (arguments.fail_under or 0) * found["planted"])


def _must_pass(first: Seen, tests: str) -> None:
    """The tests are of use only if they pass while the kernel is right."""
    if first.code == 5 or (first.code == 0 and not first.passed):
        why = "skipped them all" if first.code == 0 else "found none"
        raise ValueError(f"no test of {tests} ran: pytest {why}")
    if first.code:
        at = f"{first.failed}: {first.said}" if first.failed else first.output.strip()[-400:]
        raise ValueError(
            f"the tests fail before anything is wrong with the kernel, so they could not tell; "
            f"first put this right: {at}"
        )
    if first.code is None:
        told = f"; {first.output.strip()}" if first.output.strip() else ""
        raise ValueError(f"the tests of {tests} did not come to an end: {first.said}{told}")


def _must_pass_again(second: Seen) -> None:
    """In the way in which faults are tried, but with none: else all of them would seem killed."""
    if second.code != 0:
        at = f"{second.failed}: {second.said}" if second.said else second.output.strip()[-400:]
        raise ValueError(f"the tests pass once, and not a second time: {at}")


def _asked(asked: Asked, fault: Fault, source: str) -> Asked:
    """The tests against a source; where that is the tests' own file, pytest does not rewrite it."""
    tests = [Path(test.split("::")[0]).resolve() for test in asked.tests]
    plain = any(Path(fault.file).is_relative_to(t) for t in tests)
    return asked._replace(file=fault.file, source=source, plain=plain)


def _planted(arguments: argparse.Namespace, first: Seen) -> list[Fault]:
    """All faults of the kernels under test."""
    wanted = _named(arguments.kernel, first) if arguments.kernel else first.found
    if not wanted:
        raise ValueError(
            f"{' '.join(arguments.tests)} imports no kernel from a file of yours; say which one "
            "they test: --kernel FILE.py, or --kernel FILE.py:NAME"
        )
    found: list[Fault] = []
    for file, (names, compiled) in wanted.items():
        source = Source(file)
        found += faults(source, source.chosen(names, compiled))
    if not found:
        files = ", ".join(Path(file).name for file in wanted)
        raise ValueError(f"there is nothing in {files} that a fault could be planted in")
    return found


def _named(kernels: list[str], first: Seen) -> dict[str, tuple[list[str], list[str]]]:
    """What --kernel FILE.py, FILE.py:NAME or NAME mean."""
    wanted: dict[str, tuple[list[str], list[str]]] = {}
    for text in kernels:
        file, _, name = text.rpartition(":") if ".py:" in text else (text, "", "")
        if not file.endswith(".py"):
            known = {n: path for path, (names, _) in first.found.items() for n in names}
            if text not in known:
                raise ValueError(f"the tests import no kernel {text}; they import {_list(known)}")
            file, name = known[text], text
        path = Path(file).resolve()
        if not path.is_file():
            raise ValueError(f"there is no {file}")
        functions = Source(path).functions
        if name and name not in functions:
            raise ValueError(f"{file} has no function {name}; it has {_list(functions)}")
        names, compiled = wanted.setdefault(str(path), ([], []))
        names += [name] if name else list(functions)
        compiled += first.found.get(str(path), ([], []))[1]
    return wanted


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


def _run_all(
    runner: Runner, asked: Asked, planted: list[Fault], arguments: argparse.Namespace, usual: float
) -> list[tuple[Fault, Seen]]:
    """Run the tests against each fault, several at a time; rows in the order of the faults."""
    limit = arguments.seconds or AT_LEAST + SLOWER * usual

    def one(fault: Fault) -> Seen:
        return runner.run(_asked(asked, fault, fault.source), limit)

    seen: dict[int, Seen] = {}
    with ThreadPoolExecutor(arguments.jobs or _cores()) as pool:
        waiting = {pool.submit(one, fault): i for i, fault in enumerate(planted)}
        try:
            for done in as_completed(waiting):
                seen[waiting[done]] = done.result()
                if sys.stderr.isatty():
                    print(f"\r{len(seen)} of {len(planted)} ", end="", file=sys.stderr, flush=True)
        except BaseException:
            runner.stopped = True
            pool.shutdown(cancel_futures=True)
            raise
    if sys.stderr.isatty():
        print("\r" + " " * 20 + "\r", end="", file=sys.stderr)
    return [(fault, seen[i]) for i, fault in enumerate(planted)]


def _cores() -> int:
    here = getattr(os, "sched_getaffinity", None)
    return len(here(0)) if here else os.cpu_count() or 1


# ---- what is said


def _summary(
    arguments: argparse.Namespace, rows: list[tuple[Fault, Seen]], total: int, seconds: float
) -> dict[str, Any]:
    told = [_told(fault, seen) for fault, seen in rows]
    killed = sum(row["outcome"] == "killed" for row in told)
    return {
        "minidl": __version__, "tests": arguments.tests, "seed": arguments.seed,
        "possible": total, "planted": len(told), "killed": killed,
        "score": killed / len(told), "seconds": round(seconds, 1), "faults": told,
    }  # fmt: skip


def _told(fault: Fault, seen: Seen) -> dict[str, Any]:
    """What became of one fault."""
    row = {
        "file": os.path.relpath(fault.file), "line": fault.line, "function": fault.function,
        "kind": fault.kind, "what": fault.what, "before": fault.before, "after": fault.after,
        "outcome": "survived" if seen.code == 0 else "killed", "by": seen.failed,
        "said": seen.said, "seconds": round(seen.seconds, 2),
    }  # fmt: skip
    if seen.code == 0:
        row["hint"] = HINTS[fault.kind]
    elif not seen.failed:
        row["by"] = seen.said or f"pytest stopped with exit code {seen.code}"
    return row


def _table(found: dict[str, Any]) -> str:
    """The faults by file and function; for those that survived, what would notice them."""
    lines: list[str] = []
    for title, rows in _groups(found["faults"]):
        lines += [*[""] * bool(lines), title, *_rows(rows)]
    lost = [row for row in found["faults"] if row["outcome"] == "survived"]
    if lost:
        lines += ["", "What would notice them"]
    for kind in dict.fromkeys(row["kind"] for row in lost):
        at = ", ".join(dict.fromkeys(str(row["line"]) for row in lost if row["kind"] == kind))
        lines += textwrap.wrap(f"line {at}: {HINTS[kind]}", 88, initial_indent="  ",
                               subsequent_indent="    ")  # fmt: skip
    of = "" if found["planted"] == found["possible"] else f" (of {found['possible']} possible)"
    lines += [
        "",
        f"{found['killed']} of {found['planted']} faults{of} killed, "
        f"{100 * found['score']:.0f} %, in {found['seconds']:.0f} s",
    ]
    return "\n".join(lines)


def _groups(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    titles = dict.fromkeys((row["file"], row["function"]) for row in rows)
    for file, function in titles:
        these = [r for r in rows if (r["file"], r["function"]) == (file, function)]
        yield f"{function}, {file}", these


def _rows(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line on each fault, and below it the line of source that has it."""
    for row in rows:
        became = _killed(row["by"]) if row["outcome"] == "killed" else "SURVIVED"
        yield f"{row['line']:5}  {row['what']:44} {became}"
        shown = row["before"] + "  (deleted)" if row["after"] == "(deleted)" else row["after"]
        yield f"       {shown}"


def _killed(by: str) -> str:
    if by.endswith(".py"):
        return "killed, already when imported"
    return f"killed by {by.rpartition('::')[2]}"
