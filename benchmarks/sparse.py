"""Where sparse products win: a layer of which few weights are left, dense and compressed by rows.

    python -m benchmarks.sparse [--size 1024] [--batch 128] [--json FILE]

Medians of 15 rounds in which all take turns: weights (size, size) times activations (size, batch),
then the same with the gradients of both. bytes: of the file's weights, beside a dense one's.
"""

import argparse
from collections.abc import Callable

import numpy as np

from minidl import Tensor, sparse
from minidl.io.csr import packed

from . import report

DENSITIES = 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01


def weights(size: int, density: float) -> np.ndarray:
    """Weights of which a share is not 0."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((size, size), dtype=np.float32)
    return np.where(rng.random(dense.shape) < density, dense, np.float32(0))


def runs(size: int, batch: int, density: float) -> dict[str, Callable[[], object]]:
    """The products to time, by name."""
    x = np.random.default_rng(1).standard_normal((size, batch), dtype=np.float32)
    host = weights(size, density)
    kept = sparse.CSR.from_dense(host)
    factors = {"dense": Tensor(host), "sparse": kept}
    kept.value.requires_grad = factors["dense"].requires_grad = True  # type: ignore[union-attr]
    plain, followed, dy = Tensor(x), Tensor(x, requires_grad=True), Tensor(x)

    def forward(a: Tensor | sparse.CSR) -> Callable[[], object]:
        return lambda: a @ plain

    def both(a: Tensor | sparse.CSR) -> Callable[[], object]:
        def step() -> None:
            (a @ followed).backward(dy)
            for leaf in (followed, a.value if isinstance(a, sparse.CSR) else a):
                leaf.grad = None

        return step

    found = {f"{name} ms": forward(a) for name, a in factors.items()}
    return found | {f"{name} ms, with gradients": both(a) for name, a in factors.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    rows = []
    for density in DENSITIES:
        arrays, _ = packed({"w": weights(options.size, density)})
        stored = sum(a.nbytes for a in arrays.values()) / (4 * options.size**2)
        times = report.interleaved(runs(options.size, options.batch, density))
        rows.append({"density": density, **times, "bytes": f"{stored:.1%}"})
    report.show(rows, options.json)


if __name__ == "__main__":
    main()
