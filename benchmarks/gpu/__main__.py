"""Everything that only a real GPU can show, in one command of under 8 minutes.

    python -m benchmarks.gpu [--json FILE] [--only agreement,kernels,...]

agreement   every Case on the GPU and in the emulator: the largest difference in ulps
sanitizer   compute-sanitizer over the launches of all Cases, where it is installed
kernels     each kernel against its bound (measured copy bandwidth and FLOP rate) and PyTorch's op
ladder      the steps to a fast matrix product against cuBLAS (goal: 90 % in float32)
overhead    what one launch costs the host
steps       training steps against PyTorch eager and torch.compile, TF32 off and on

PyTorch (pip install torch) is optional. Without a GPU: one line that says so, and exit status 1.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable
from typing import Any

PARTS = {  # seconds until which, counted from the start, a part may go on
    "agreement": 80,
    "sanitizer": 260,  # two tools, each with a limit of its own
    "kernels": 320,
    "ladder": 340,
    "overhead": 345,
    "steps": 450,
}


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

        return agreement.cases(until) if name == "agreement" else agreement.sanitized()
    from . import kernels, measure

    if name == "kernels":
        return kernels.table(*measure.limits(), until)
    return kernels.ladder_table((1024, 4096), until) if name == "ladder" else kernels.overhead()


def environment() -> dict[str, Any]:
    """The GPU, the driver, and versions of all that matters."""
    from minidl import cuda
    from minidl.kernels.cuda import cache, cubin, gpu

    from .. import report

    runtime = gpu.cupy.cuda.runtime
    return report.environment() | {
        "gpu": cuda.devices()[0]._asdict(),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "cupy": gpu.cupy.__version__,
        "compilers": [*cache.versions(), *cubin.toolkit()],
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; 1 without a GPU, or where the GPU and the emulator do not agree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    options = parser.parse_args(arguments)
    if found := problem():
        print(f"benchmarks.gpu needs an NVIDIA GPU: {found}", file=sys.stderr)
        return 1
    from .. import report

    start, results = time.monotonic(), {}
    where = environment()
    print(json.dumps(where))
    for name in options.only.split(","):
        print(f"\n{name}", flush=True)
        results[name] = list(part(name, start + PARTS[name]))
        report.show(results[name])
    if options.json:
        with open(options.json, "w") as f:
            json.dump({**where, "seconds": time.monotonic() - start, **results}, f, indent=1)
            f.write("\n")
    compared = results.get("agreement", ())
    return int(any(row.get("error") or row.get("ulps") == math.inf for row in compared))


if __name__ == "__main__":
    sys.exit(main())
