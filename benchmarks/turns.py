"""Worker processes that take turns: python -m benchmarks.workers in its interpreter, on a line."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600.0  # seconds for one answer: torch.compile takes minutes for VGG16
SETTLE = 0.01  # seconds between turns: OpenMP threads spin that long before they sleep
THREADS = (
    "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
)  # fmt: skip


class Failed(Exception):
    """Why a worker cannot take part."""


class Worker:
    """A process on certain cores, as many threads as cores; it answers one command at a time."""

    def __init__(self, python: str, name: str, variant: str, cores: list[int]):
        self.errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (until close)
        where = ",".join(map(str, cores))
        others = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}  # of this interpreter
        try:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.workers", name, variant, where],
                cwd=ROOT,
                env=others | dict.fromkeys(THREADS, str(len(cores))),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                start_new_session=True,
            )
        except OSError:
            self.errors.close()
            raise Failed("its interpreter does not start") from None

    def ask(self, do: str, **options: Any) -> dict[str, Any]:
        """The answer to a command. Failed where it is an error, or none comes."""
        assert self.process.stdin and self.process.stdout
        late = threading.Timer(PATIENCE, self.process.kill)
        late.start()
        try:
            self.process.stdin.write(json.dumps({"do": do, **options}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        if not line:
            raise Failed(self._last_words())
        answer = json.loads(line)
        if "missing" in answer:
            raise Failed(f"{answer['missing']} is not installed")
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def _last_words(self) -> str:
        self.process.kill()
        status = self.process.wait()
        self.errors.seek(0)
        said = [line for line in self.errors.read().splitlines() if line.strip()]
        return f"ended with status {status}: {said[-1] if said else 'without a word'}"

    def close(self) -> None:
        """End it, with all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # where there are no process groups
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(BrokenPipeError):
                file.close()  # type: ignore[union-attr]


@dataclass
class Round:
    """Milliseconds of everyone's steps, and the largest part of the cores that strangers took."""

    ms: dict[str, list[float]]
    others: float | None  # None where the system does not tell


def rounds(workers: dict[str, Worker], n: int, seconds: float, quiet: float) -> list[Round]:
    """In each round every worker has a turn of so many seconds.

    A round in which others took more than `quiet` of the cores is run again, while there are not
    three times as many: then the quietest n count.
    """
    found: list[Round] = []
    while len(found) < 3 * n and sum((r.others or 0) <= quiet for r in found) < n:
        answers = {}
        for name, worker in workers.items():
            time.sleep(SETTLE)
            answers[name] = worker.ask("steps", seconds=seconds)
        shares = [a["others"] for a in answers.values() if a["others"] is not None]
        found.append(Round({n: a["ms"] for n, a in answers.items()}, max(shares, default=None)))
    return sorted(found, key=lambda r: r.others or 0)[:n]
