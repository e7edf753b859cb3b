"""Where sparse products win: a layer of which few weights are left, dense and compressed by rows.

    python -m benchmarks.sparse [--size 1024] [--batch 128] [--json FILE]

Medians of 15 rounds in which all take turns: weights (size, size) times activations (size, batch),
and the same with the gradients of both. weights: the share of them that is not 0; bytes: what they
take in a file, of what dense ones do.
"""

import argparse
from collections.abc import Callable

import numpy as np

from minidl import Tensor, no_grad, sparse
from minidl.io.csr import packed

from . import report

DENSITIES = 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01
KINDS = "ms", "ms, with gradients"


def weights(size: int, density: float) -> np.ndarray:
    """Weights of which a share is not 0."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((size, size), dtype=np.float32)
    return np.where(rng.random(dense.shape) < density, dense, np.float32(0))


Run = Callable[[], object]


def products(a: Tensor | sparse.CSR, x: np.ndarray) -> tuple[Run, Run]:
    """a x, and the same with the gradients of both."""
    leaf = a.value if isinstance(a, sparse.CSR) else a
    leaf.requires_grad = True
    plain, followed, dy = Tensor(x), Tensor(x, requires_grad=True), Tensor(x)

    def forward() -> None:
        with no_grad():
            a @ plain

    def both() -> None:
        (a @ followed).backward(dy)
        followed.grad = leaf.grad = None

    return forward, both


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    shape = options.size, options.batch
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    hosts = {"dense": weights(options.size, 1.0)}
    hosts |= {f"{d:.0%}": weights(options.size, d) for d in DENSITIES}
    runs: dict[str, Run] = {}
    stored = {}
    for name, host in hosts.items():
        a = Tensor(host) if name == "dense" else sparse.CSR.from_dense(host)
        for kind, run in zip(KINDS, products(a, x)):
            runs[f"{name} {kind}"] = run
        arrays, _ = packed({"w": host})
        stored[name] = sum(a.nbytes for a in arrays.values()) / host.nbytes
    times = report.interleaved(runs)
    report.show(
        [
            {"weights": name, **{kind: times[f"{name} {kind}"] for kind in KINDS},
             "bytes": f"{stored[name]:.1%}"}
            for name in hosts
        ],
        options.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
