"""A whole training step (forward, backward, update) against PyTorch eager, in one process.

    python -m benchmarks.train_step [--threads 2] [--cases S4,S0,S2] [--batch 64] [--json FILE]

Needs PyTorch (pip install torch). The two take turns; medians of 15 rounds after warming up, and
the ratio minidl / PyTorch (below 1 minidl is faster). Checks first that the losses agree.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any


def case(name: str, batch: int) -> tuple[dict[str, Callable[[], Any]], float]:
    """The steps to time, and how far apart the losses of the first step are."""
    import numpy as np
    import torch

    import minidl
    from minidl import Tensor

    from .networks import RECIPES, nchw, to_torch
    from .parity import step, torch_step

    recipe = RECIPES[name]
    minidl.manual_seed(0)
    rng = np.random.default_rng(0)
    model = recipe.model()
    twin = to_torch(model)
    ours, theirs = recipe.optim(model.parameters()), recipe.torch_optim(twin.parameters())
    x = rng.standard_normal((batch, *recipe.image), dtype=np.float32)
    y = rng.integers(0, 10, batch)
    tx, ty = nchw(x), torch.from_numpy(y)
    with minidl.no_grad(), torch.no_grad():
        a = minidl.nn.functional.cross_entropy(model(Tensor(x)), Tensor(y)).item()
        b = torch.nn.functional.cross_entropy(twin(tx), ty).item()
    runs = {
        "minidl": lambda: step(model, ours, x, y),
        "torch": lambda: torch_step(twin, theirs, tx, ty),
    }
    return runs, abs(a - b) / abs(b)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cases", default="S4,S0,S2")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    for variable in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(options.threads)  # read when the libraries load, below

    import torch

    from . import report

    torch.set_num_threads(options.threads)
    rows = []
    for name in options.cases.split(","):
        runs, difference = case(name, options.batch)
        if difference > 1e-5:
            raise SystemExit(f"{name}: the losses differ by {difference:.1e}; nothing was timed")
        ms = report.interleaved(runs, repeats=5)
        rows.append(
            {
                "case": f"{name} batch {options.batch}",
                "threads": options.threads,
                "ms": ms["minidl"],
                "torch_ms": ms["torch"],
                "ratio": ms["minidl"] / ms["torch"],
            }
        )
    report.show(rows, options.json)


if __name__ == "__main__":
    main()
