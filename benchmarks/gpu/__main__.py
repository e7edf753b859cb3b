"""Everything that only a real GPU can show, in one command of under 8 minutes.

    python -m minidl.kernels.report    # once, needs no GPU: most kernels are compiled by then
    python -m benchmarks.gpu [--json FILE] [--only agreement,kernels,...]

agreement   every Case on the GPU and in the emulator: the largest difference in ulps
sanitizer   compute-sanitizer over the launches of all Cases, where it is installed
kernels     each kernel against its bound (measured copy bandwidth and FLOP rate) and PyTorch's op
ladder      the steps to a fast matrix product against cuBLAS (goal: 90 % in float32)
overhead    what one launch costs the host
steps       training steps against PyTorch eager and torch.compile, TF32 off and on

Each part is a process of its own: a kernel that breaks its GPU context, or never ends, takes none
of the other parts with it. The JSON is written anew after each. PyTorch (pip install torch) is
optional. Without a GPU: one line that says so, and exit status 1.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from minidl import atomic

from .processes import finish

PARTS = {  # seconds until which, counted from the start, a part may go on
    "agreement": 80,
    "sanitizer": 250,  # two tools, each with half of what is left
    "kernels": 315,
    "ladder": 335,
    "overhead": 345,
    "steps": 455,
}
GRACE = 5  # seconds that a part may go on for what it had begun


def problem() -> str:
    """Why nothing can be measured here, or nothing."""
    from minidl.backend import cuda_problem

    if found := cuda_problem():
        return found
    from minidl.kernels.cuda import memory

    return "the emulator stands in for the GPU (MINIDL_CUDA)" if memory.emulated() else ""


def part(name: str, until: float) -> Iterable[dict[str, Any]]:
    """The rows of one part."""
    if name == "steps":
        from . import steps

        return steps.table(until)
    if name in ("agreement", "sanitizer"):
        from . import agreement

        return agreement.cases(until) if name == "agreement" else agreement.sanitized(until)
    from . import kernels, measure

    if name == "kernels":
        return kernels.table(*measure.limits(), until)
    return kernels.ladder_table((1024, 4096), until) if name == "ladder" else kernels.overhead()


def environment() -> dict[str, Any]:
    """The GPU, the driver, and versions of all that matters."""
    from minidl import cuda
    from minidl.kernels.cuda import cache, cubin, gpu

    from .. import report

    runtime, found = gpu.cupy.cuda.runtime, report.environment()
    found["versions"] |= {"numba-cuda": metadata.version("numba-cuda")}
    found["versions"] |= {"cupy": gpu.cupy.__version__}
    if "torch" in found["versions"]:
        import torch

        found["versions"] |= {"torch's CUDA": torch.version.cuda}
        found["versions"] |= {"torch's cuDNN": torch.backends.cudnn.version()}
    return found | {
        "gpu": cuda.devices()[0]._asdict(),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "compilers": [*cache.versions(), *cubin.toolkit()],
    }


def rows_of(name: str, seconds: float) -> list[dict[str, Any]]:
    """The rows of a part that runs in a process of its own; the last one tells what went wrong."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, str(seconds)]
    status, out, err = finish(command, seconds + GRACE)
    whole = (line for line in out.splitlines(keepends=True) if line[0] == "{" and line[-1] == "\n")
    rows = [json.loads(line) for line in whole]
    if status is None:
        rows.append({"error": "out of time, and ended"})
    elif status:
        rows.append({"error": f"exit status {status}: {(err.strip().splitlines() or ['?'])[-1]}"})
    return rows


def save(path: str, found: dict[str, Any]) -> None:
    """Write what is known so far, so that the file is whole at any time."""
    atomic.write(path, (json.dumps(found, indent=1) + "\n").encode())


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; 1 without a GPU, or where a part failed or GPU and emulator differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)  # the process of one part
    options = parser.parse_args(arguments)
    if unknown := set(options.only.split(",")) - {*PARTS}:
        parser.error(f"no part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    if found := problem():
        print(f"benchmarks.gpu needs an NVIDIA GPU: {found}", file=sys.stderr)
        return 1
    if options.part:
        name, seconds = options.part
        for row in part(name, time.monotonic() + float(seconds)):
            print(json.dumps(row, default=str), flush=True)
        return 0
    return tables(options.only.split(","), options.json)


def tables(names: list[str], path: str | None) -> int:
    """Run parts one after the other, print each as a table, and save all so far."""
    from .. import report

    start = time.monotonic()
    results: dict[str, Any] = environment()
    print(json.dumps(results))
    for name in names:
        print(f"\n{name}", flush=True)
        results[name] = rows_of(name, start + PARTS[name] - time.monotonic())
        report.show(results[name])
        results["seconds"] = time.monotonic() - start
        if path:
            save(path, results)
    rows = [row for name in names for row in results[name]]
    return int(any(row.get("error") or row.get("ulps") == math.inf for row in rows))


if __name__ == "__main__":
    sys.exit(main())
