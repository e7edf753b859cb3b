"""What the sanitizer takes of time, against the same kernels in the emulator alone.

    python -m benchmarks.sanitizer [--json FILE]

Medians of 15 rounds of compiled kernels, in turn, both on one core; compiling them comes before.
It is the time of this process alone, for others may share the core.
"""

import argparse
import os
import time
from typing import Any

os.environ["MINIDL_CUDA"] = "emulate"  # read when "cuda" is first asked for

import numpy as np

from minidl.kernels import sanitize
from minidl.kernels.cuda._numba import cuda, jit
from minidl.kernels.cuda.emulator import schedule

from . import report

TILE, THREADS = 16, 256


@jit
def axpy(x, y, a):
    i = cuda.grid(1)
    if i < x.size:
        y[i] += a * x[i]


@jit
def grid_stride(x, y):
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        y[i] = x[i] + x[i]


@jit
def matmul(a, b, y):
    column, row = cuda.grid(2)
    total = a.dtype.type(0)
    for k in range(a.shape[1]):
        total += a[row, k] * b[k, column]
    y[row, column] = total


@jit
def matmul_tiled(a, b, y):
    left, right = cuda.shared.array((TILE, TILE), a.dtype), cuda.shared.array((TILE, TILE), a.dtype)
    column, row = cuda.grid(2)
    i, j = cuda.threadIdx.x, cuda.threadIdx.y
    total = a.dtype.type(0)
    for k in range(0, a.shape[1], TILE):
        left[j, i], right[j, i] = a[row, k + i], b[k + j, column]
        cuda.syncthreads()
        for p in range(TILE):
            total += left[j, p] * right[p, i]
        cuda.syncthreads()
    y[row, column] = total


@jit
def block_sums(x, sums):
    s = cuda.shared.array(THREADS, x.dtype)
    t = cuda.threadIdx.x
    s[t] = x[cuda.grid(1)]
    step = THREADS // 2
    while step:
        cuda.syncthreads()
        if t < step:
            s[t] += s[t + step]
        step //= 2
    if t == 0:
        sums[cuda.blockIdx.x] = s[0]


@jit
def warp_sums(x, sums):
    i = cuda.grid(1)
    total = x[i]
    for step in (16, 8, 4, 2, 1):
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, step)
    if i % 32 == 0:
        sums[i // 32] = total


@jit
def histogram(x, bins):
    cuda.atomic.add(bins, x[cuda.grid(1)] % 16, 1)


@jit(mixed=True)
def gather(x, order, y):
    i = cuda.grid(1)
    y[i] = x[order[i]]


@jit(mixed=True)
def scatter(x, order, y):
    i = cuda.grid(1)
    y[order[i]] = x[i]


@jit
def in_place(x):
    i = cuda.grid(1)
    half = x.size // 2
    if i < half - 1:
        x[i] += x[half + i] + x[half + i + 1]


def launches() -> list[tuple[Any, ...]]:
    """Kernel, grid, block, and arguments of what is timed."""

    def ones(*shape: int) -> np.ndarray:
        return np.ones(shape, np.float32)

    n, blocks = 1 << 16, (1 << 16) // THREADS
    order = np.random.default_rng(0).permutation(n)
    square = ones(64, 64), ones(64, 64), ones(64, 64)
    return [
        (axpy, blocks, THREADS, ones(n), ones(n), np.float32(2)),
        (grid_stride, 16, THREADS, ones(n), ones(n)),
        (matmul, (4, 4), (TILE, TILE), *square),
        (matmul_tiled, (4, 4), (TILE, TILE), *square),
        (block_sums, blocks, THREADS, ones(n), ones(blocks)),
        (warp_sums, blocks, THREADS, ones(n), ones(n // 32)),
        (gather, blocks, THREADS, ones(n), order, ones(n)),
        (scatter, blocks, THREADS, ones(n), order, ones(n)),
        (in_place, blocks, THREADS, ones(2 * n)),
        (histogram, blocks, THREADS, np.arange(n), np.zeros(16, np.int64)),
    ]


def rows(rounds: int = 15) -> list[dict[str, Any]]:
    """Milliseconds of each launch, alone and watched, and how many times as long that takes."""
    runs: dict[str, Any] = {}
    found = {}
    for kernel, grid, block, *args in launches():
        name = kernel.__name__
        runs[name] = lambda k=kernel, g=grid, b=block, a=args: k[g, b](*a)
        runs["sanitized " + name] = lambda k=kernel, g=grid, b=block, a=args: sanitize(k, g, b, *a)
        found[name] = sanitize(kernel, grid, block, *args)
    with schedule("forward"):  # one worker
        times = report.interleaved(runs, rounds=rounds, clock=time.process_time)
    return [
        {
            "kernel": name,
            "accesses": sum(line.accesses for line in said.lines),
            "emulated ms": times[name],
            "sanitized ms": times["sanitized " + name],
            "times as long": times["sanitized " + name] / times[name],
        }
        for name, said in found.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanitizer")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    report.show(rows(), options.json)


if __name__ == "__main__":
    main()
