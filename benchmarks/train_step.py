"""A training step (forward, backward, update) against PyTorch, Keras on TensorFlow, and JAX.

    python -m benchmarks.train_step [--threads 1,2] [--cases B32,B128] [--rounds 7] [--json FILE]

minidl twice: eager, a plain loop, and captured. Against it PyTorch eager in both orders of images
and torch.compile, which needs a C++ compiler; Keras in one tf.function; JAX in one jit. Float32,
the optimizer's default settings; beside them PyTorch's fused Adam, and bfloat16 by autocast.

Every opponent runs in a process of its own, pinned to the same cores, from the same weights on the
same data. Its losses before and after the first updates are checked against PyTorch's eager ones,
without dropout. All take turns in every round, so that a busy moment of the machine hits all alike.

ms are medians. Ratios are theirs / minidl's of the same round, so above 1 minidl is faster: to the
best of all, to PyTorch's best, and to those alike (eager to eager, captured to compiled).
others: the part of these cores that strangers took meanwhile. Beyond --quiet, rounds are run again,
and a row that stays so is marked as disturbed and says little: threads that spin while they wait
for each other can then take a hundred times as long.
of sgemm: the part that GF/s is of what NumPy's BLAS reaches in the same rounds.
MB: the most that a step holds, parameters and all, libraries and images not counted; beside it
PyTorch's least.

The opponents' interpreters: --torch-python, --keras-python, --jax-python, or in the environment
MINIDL_TORCH_PYTHON and so on; this one where none is named. Who cannot run is listed with the
reason. --profile: instead of all that, in which kernels minidl's own time goes.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

from . import report, turns
from .turns import Failed, Worker


class Opponent(NamedTuple):
    """A framework, the way it is used, and for which cases."""

    framework: str
    variant: str = ""
    compiled: bool = False  # held against captured steps, the others against eager ones
    counts: bool = True  # towards the best: float32, default settings
    cases: str = "ABCDEF"


OPPONENTS = {
    "torch": Opponent("torch"),
    "torch_cl": Opponent("torch", "channels_last"),
    "torch_compile": Opponent("torch", "compile", compiled=True),
    "keras": Opponent("keras", compiled=True),
    "jax": Opponent("jax", compiled=True, cases="ABF"),
    "torch_fused": Opponent("torch", "fused", counts=False, cases="BCDE"),
    "torch_cl_fused": Opponent("torch", "channels_last+fused", counts=False, cases="BCDE"),
    "torch_bf16": Opponent("torch", "channels_last+bf16", counts=False),
}
MODES = "eager", "captured"
# How far apart the losses may be before and after each update, where rounding is all that differs:
# Adam's first ones take each gradient's sign, and batch norm of few numbers carries that on.
APART = 1e-5, 1e-3, 2e-2
MEGA = {"torch", "torch_cl", "keras", *MODES}  # whose memory is measured: no compiler runs in it
LARGEST = 12  # kernels that --profile shows

Times = list[dict[str, list[float]]]  # of each round: milliseconds of everyone's steps


def main(line: list[str] | None = None) -> None:
    """Print the table."""
    options = _options(line)
    rows: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    for name in options.cases:
        for threads in options.threads:
            print(f"{name}, {threads} threads ...", file=sys.stderr, flush=True)
            with ExitStack() as stack:
                team = Team(stack, name, threads, options)
                rows += team.profile() if options.profile else team.rows()
            versions |= team.versions
            if options.json:
                report.save(options.json, rows, {"versions": versions})
    report.show(rows if options.profile else [flat(row) for row in rows])
    missing = {(n, why): None for row in rows for n, why in row.get("missing", {}).items()}
    for name, why in missing:
        print(f"{name} is missing: {why}")


def _options(line: list[str] | None) -> argparse.Namespace:
    from .networks import CASES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default="1,2", help="counts, joined by commas")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--opponents", default=",".join(OPPONENTS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="of a turn, at least one step")
    parser.add_argument("--quiet", type=float, default=0.1, help=turns.rounds.__doc__)
    for name in ("torch", "keras", "jax"):
        default = os.environ.get(f"MINIDL_{name.upper()}_PYTHON", sys.executable)
        parser.add_argument(f"--{name}-python", default=default, metavar="FILE")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(line)
    known = {"cases": CASES, "opponents": OPPONENTS, "modes": MODES}
    for what, names in known.items():
        chosen = [name for name in getattr(options, what).split(",") if name]
        setattr(options, what, chosen)
        for name in chosen:
            if name not in names:
                parser.error(f"no {what} {name}; known: {', '.join(names)}")
    options.threads = [int(n) for n in options.threads.split(",")]
    return options


class Team:
    """The workers for one case at one number of threads."""

    def __init__(self, stack: ExitStack, case: str, threads: int, options: Any):
        self.stack, self.case, self.threads, self.options = stack, case, threads, options
        self.workers: dict[str, Worker] = {}
        self.missing = {
            name: "left out by --opponents" if case[0] in o.cases else "not for this case"
            for name, o in OPPONENTS.items()
            if case[0] not in o.cases or name not in options.opponents
        }
        self.losses: dict[str, list[float]] = {}
        self.memory: dict[str, float | None] = {}
        self.versions: dict[str, str] = {}
        self.file = stack.enter_context(tempfile.TemporaryDirectory()) + "/task.npz"

    def write_task(self) -> float:
        """Write the task down; the operations of a step, in units of a thousand million."""
        import numpy as np

        from .networks import CASES, describe, step_operations
        from .workers import task

        case, batches = CASES[self.case], 4
        rng = np.random.default_rng(0)
        layers = describe(case.model(), case.image)
        told = {
            "case": self.case, "layers": layers, "threads": self.threads, "dropout": True,
            "x": rng.standard_normal((batches, case.batch, *case.image), dtype=np.float32),
            "y": rng.integers(0, 10, (batches, case.batch)),
            "optimizer": case.optimizer, "lr": case.lr, "momentum": case.momentum,
        }  # fmt: skip
        task.save(self.file, told)
        return step_operations(layers) * case.batch / 1e9

    def wanted(self) -> dict[str, tuple[str, str, str]]:
        """Who takes part: interpreter, worker and variant, PyTorch first."""
        against = {n: OPPONENTS[n] for n in self.options.opponents}
        found = {
            name: (getattr(self.options, f"{o.framework}_python"), f"in_{o.framework}", o.variant)
            for name, o in against.items()
            if self.case[0] in o.cases
        }
        found |= {mode: (sys.executable, "in_minidl", mode) for mode in self.options.modes}
        return found | {"sgemm": (sys.executable, "sgemm", "")}

    def start(self) -> None:
        """Bring everyone to the point where only steps are left; who cannot is missing."""
        cores = available()[: self.threads]
        if len(cores) < self.threads:
            raise SystemExit(f"{self.threads} threads, but only {len(cores)} cores")
        for name, how in self.wanted().items():  # all at once: they import for seconds
            try:
                self.workers[name] = Worker(*how, cores)
                self.stack.callback(self.workers[name].close)
            except Failed as error:
                self.missing[name] = str(error)
        for name in list(self.workers):
            try:
                self._ready(name)
            except Failed as error:
                self.missing[name] = str(error)
                self.workers.pop(name).close()
        if "sgemm" in self.missing:
            raise SystemExit(f"no peak to compare with: {self.missing['sgemm']}")

    def _ready(self, name: str) -> None:
        worker = self.workers[name]
        if name != "sgemm":
            answer = worker.ask("check", file=self.file)
            self.losses[name] = answer["losses"]
            self.versions |= answer["versions"]
            if name != "torch_bf16":
                agree(self.losses.get("torch"), answer["losses"])
        memory = name in MEGA
        self.memory[name] = worker.ask("start", file=self.file, memory=memory)["peak_mb"]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each mode of minidl."""
        head = {"case": self.case, "threads": self.threads}
        gflop = self.write_task()
        self.start()
        o = self.options
        try:
            found = turns.rounds(self.workers, o.rounds, o.seconds, o.quiet)
        except Failed as error:  # the other cases go on
            return [head | {"mode": mode, "error": str(error)} for mode in o.modes]
        shares = [r.others for r in found if r.others is not None]
        others = statistics.median(shares) if shares else None
        head |= {"others": others, "disturbed": others is not None and others > o.quiet}
        times = [r.ms for r in found]
        return [self._row(head | {"mode": mode}, times, gflop) for mode in o.modes]

    def _row(self, head: dict[str, Any], times: Times, gflop: float) -> dict[str, Any]:
        mine = head["mode"]
        if mine in self.missing:
            return head | {"error": self.missing[mine]}
        rivals = [name for name in self.workers if name in OPPONENTS]
        row = head | {"ms": median(times, mine)} | compare(times, mine, rivals)
        from .workers.sgemm import N

        peak = max(2 * N**3 / statistics.median(t["sgemm"]) / 1e6 for t in times)
        row |= {"gflop": gflop, "gflops": gflop / row["ms"] * 1e3, "sgemm_gflops": peak}
        row |= {"of_sgemm": row["gflops"] / peak}
        theirs = self.losses.get("torch")
        row |= {"losses_apart": theirs and apartness(theirs, self.losses[mine])}
        row |= {"peak_mb": {n: m for n, m in self.memory.items() if n in (mine, *rivals) and m}}
        return row | {"missing": {n: why for n, why in self.missing.items() if n not in MODES}}

    def profile(self) -> list[dict[str, Any]]:
        """The kernels of minidl's step, the largest first."""
        self.write_task()
        python = sys.executable
        worker = Worker(python, "in_minidl", "eager", available()[: self.threads])
        self.stack.callback(worker.close)
        found = worker.ask("profile", file=self.file)["kernels"][:LARGEST]
        return [{"case": self.case, "threads": self.threads, **row} for row in found]


def available() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def apartness(a: list[float], b: list[float]) -> list[float]:
    """How far apart losses are, relative to the first."""
    return [abs(p - q) / abs(p) for p, q in zip(a, b, strict=True)]


def agree(theirs: list[float] | None, mine: list[float]) -> None:
    """Failed where the losses are not PyTorch's. Without PyTorch there is nothing to compare."""
    if theirs is None:
        return
    if not all(a <= b for a, b in zip(apartness(theirs, mine), APART, strict=True)):
        raise Failed(f"its losses {mine} are not PyTorch's {theirs}; not timed")


def median(times: Times, name: str) -> float:
    """Milliseconds of a step: the median over the rounds of each round's median."""
    return statistics.median(statistics.median(turn[name]) for turn in times)


def ratio(times: Times, name: str, mine: str) -> float:
    """How many times as long as mine another's steps take, in the same round; the median."""
    each = (statistics.median(t[name]) / statistics.median(t[mine]) for t in times)
    return statistics.median(each)


def compare(times: Times, mine: str, rivals: Iterable[str]) -> dict[str, Any]:
    """Milliseconds of all, and ratios to the best of some."""
    ms = {name: median(times, name) for name in rivals}
    counted = [n for n in ms if OPPONENTS[n].counts]
    kinds = {
        "best": counted,
        "torch": [n for n in counted if n.startswith("torch")],
        "alike": [n for n in counted if OPPONENTS[n].compiled == (mine == "captured")],
        "fused_adam": [n for n in ms if n.endswith("fused")],
        "bf16": [n for n in ms if n.endswith("bf16")],
    }
    row: dict[str, Any] = {"opponents": ms, "best": min(counted, key=ms.__getitem__, default=None)}
    for kind, names in kinds.items():
        best = min(names, key=ms.__getitem__, default=None)
        row[f"ratio_to_{kind}"] = ratio(times, best, mine) if best else None
    return row


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table on the screen."""
    if "error" in row:
        return {name: row[name] for name in ("case", "threads", "mode", "error")}
    memory = row["peak_mb"]
    found = {name: row[name] for name in ("case", "threads", "mode", "others", "ms", "best")}
    if row["disturbed"]:
        found["others"] = f"{row['others']:.2f}, disturbed"
    for kind in ("best", "torch", "alike", "fused_adam", "bf16"):
        found[f"/{kind}"] = row[f"ratio_to_{kind}"]
    for name in OPPONENTS:
        found[name] = row["opponents"].get(name, "missing")
    found |= {"GF/s": row["gflops"], "of sgemm": row["of_sgemm"], "MB": memory.get(row["mode"])}
    found["torch's"] = min((m for n, m in memory.items() if n.startswith("torch")), default=None)
    return {name: "" if value is None else value for name, value in found.items()}


if __name__ == "__main__":
    main()
