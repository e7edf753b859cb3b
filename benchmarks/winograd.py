"""Winograd's convolution beside the direct one: how much faster, how exact, and what it learns.

    python -m benchmarks.winograd [--threads 1] [--only D2,F4] [--rounds 9] [--json FILE]
    python -m benchmarks.winograd --accuracy [--epochs 3] [--seeds 4]

Layers of the networks of benchmarks.train_step, forward ("y") and both gradients, of images in the
memory order of this backend. For F(2x2, 3x3) and F(4x4, 3x3): the direct kernel's time by theirs
(above 1 Winograd is faster), medians of rounds in turn, and their error by the direct one's, root
mean squares of differences to float64. auto: whether set_conv("auto") takes the first, and with
tile=4 the second.

--accuracy trains the CIFAR-10 network with each of them wherever it can stand, from equal seeds,
and prints the test accuracies (needs `minidl data fetch cifar10`); exit status 1 where a mean is
more than 0.3 points from that of "direct".
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import minidl
from minidl import data, models, optim, train
from minidl.kernels import cpu, reference, shapes
from minidl.kernels.cpu import winograd

from . import report

LAYERS = {  # batch, side, channels, filters, padding
    "B32": (32, 15, 32, 64, 0), "B128": (128, 15, 32, 64, 0),
    "C32": (32, 14, 32, 64, 1), "C128": (128, 14, 32, 64, 1),
    "C32, 2nd": (32, 7, 64, 128, 1), "C128, 2nd": (128, 7, 64, 128, 1),
    "D2": (32, 32, 64, 64, 1), "D3": (32, 16, 64, 128, 1), "D4": (32, 16, 128, 128, 1),
    "D5": (32, 8, 128, 256, 1), "D6": (32, 8, 256, 256, 1), "D8": (32, 4, 256, 512, 1),
    "D9": (32, 4, 512, 512, 1), "D11": (32, 2, 512, 512, 1),
    "F32, 16": (32, 32, 16, 16, 1), "F32, 32": (32, 16, 32, 32, 1), "F32, 64": (32, 8, 64, 64, 1),
    "F128, 16": (128, 32, 16, 16, 1), "F128, 32": (128, 16, 32, 32, 1),
    "F128, 64": (128, 8, 64, 64, 1),
}  # fmt: skip
CHOICES = {"direct": ("direct", 2), "F2": ("winograd", 2), "F4": ("winograd", 4)}
ALLOWED = 0.003
EXACT = 8  # images of which errors are measured: float64 takes long


def draw(*shape: int) -> np.ndarray:
    """Random numbers; images in the memory order in which this backend keeps them."""
    y = cpu.empty_image(shape, "f4") if shape[:2] != (3, 3) else np.empty(shape, "f4")
    y[...] = np.random.default_rng(shape).normal(size=shape)
    return y


def calls(layer: tuple[int, ...]) -> dict[str, tuple[str, tuple, tuple]]:
    """Of each pass: the kernel, its arrays, and the numbers after them."""
    n, side, c, f, p = layer
    x, w, how = draw(n, side, side, c), draw(3, 3, c, f), ((1, 1), ((p, p), (p, p)), (1, 1), 1)
    y = draw(*shapes.conv2d(x.shape, w.shape, *how[:3]))
    return {
        "y": ("conv2d", (x, w, draw(f), np.empty_like(y)), (*how, False)),
        "x": ("conv2d_grad_x", (y, w, np.empty_like(x)), (*how, False)),
        "w": ("conv2d_grad_w", (y, x, np.empty_like(w)), (*how, False)),
    }


def with_choice(choice: str, name: str, arrays: tuple, numbers: tuple) -> Callable[[], Any]:
    """A run of a kernel with set_conv's choice."""

    def run() -> Any:
        cpu.set_conv(*CHOICES[choice])
        return getattr(cpu, name)(*arrays, *numbers)

    return run


def errors(layer: tuple[int, ...], of: str) -> dict[str, float]:
    """Root mean square of the error of each choice."""
    name, arrays, numbers = calls((min(layer[0], EXACT), *layer[1:]))[of]
    exact = getattr(reference, name)(*(a.astype(float) for a in arrays), *numbers)
    got = {}
    for choice in CHOICES:
        y = with_choice(choice, name, arrays, numbers)()
        got[choice] = float(np.sqrt(np.square(y - exact).mean()))
    return got


def taken(of: str, arrays: tuple, numbers: tuple) -> str:
    """The tiles with which set_conv("auto", tile) is Winograd's."""
    x, w, y = {"y": (0, 1, 3), "x": (2, 1, 0), "w": (1, 2, 0)}[of]
    found = []
    for tile in (2, 4):
        cpu.set_conv("auto", tile)
        if winograd.suited(of, *(arrays[i] for i in (x, w, y)), *numbers[:4]):
            found.append(str(tile))
    return ", ".join(found)


def row(layer: str, of: str, rounds: int) -> dict[str, Any]:
    """A line of the table."""
    name, arrays, numbers = calls(LAYERS[layer])[of]
    runs = {choice: with_choice(choice, name, arrays, numbers) for choice in CHOICES}
    ms, wrong = report.interleaved(runs, rounds=rounds), errors(LAYERS[layer], of)
    found = {"layer": layer, "of": of, "direct": ms["direct"], "auto": taken(of, arrays, numbers)}
    for choice in ("F2", "F4"):
        found |= {f"{choice} faster": ms["direct"] / ms[choice]}
        found |= {f"{choice} error": wrong[choice] / wrong["direct"]}
    return found


def learned(choice: str, seed: int, epochs: int, sets: tuple) -> float:
    """Test accuracy of the CIFAR-10 network."""
    minidl.set_conv(*CHOICES[choice])
    minidl.manual_seed(seed)
    model = models.cifar10_cnn()
    batches = data.DataLoader(sets[0], 128, shuffle=True, seed=seed)
    # to a rate of 0: a network that still moves is a little better or worse after every step
    adam = optim.Adam(model.parameters(), lr=2e-3)
    rate = optim.CosineAnnealingLR(adam, epochs * len(batches))
    how = dict(optimizer=adam, schedule=rate, schedule_every="batch")
    train.fit(model, batches, epochs=epochs, progress=False, **how)
    return train.evaluate(model, data.DataLoader(sets[1], 500))["accuracy"]


def accuracies(epochs: int, seeds: int) -> list[dict[str, Any]]:
    """Each choice's accuracy by seed, their mean, and how far it is from the direct one's."""
    sets = data.cifar10("train"), data.cifar10("test")
    found: dict[str, list[float]] = {choice: [] for choice in CHOICES}
    for seed in range(seeds):
        for choice, each in found.items():
            each.append(learned(choice, seed, epochs, sets))
            print(choice, seed, each[-1], file=sys.stderr, flush=True)
    direct = float(np.mean(found["direct"]))
    rows = []
    for choice, each in found.items():
        mean = float(np.mean(each))
        deviation = float(np.std(np.subtract(each, found["direct"]), ddof=1) / seeds**0.5)
        holds = abs(mean - direct) <= ALLOWED
        rows.append({
            "conv": choice, **{f"seed {s}": a for s, a in enumerate(each)}, "mean": mean,
            "difference": mean - direct, "its error": deviation, "holds": holds,
        })  # fmt: skip
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default=",".join(LAYERS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    minidl.set_num_threads(options.threads)
    if options.accuracy:
        rows = accuracies(options.epochs, options.seeds)
    else:
        asked = options.only.split(",")
        layers = [name for name in LAYERS if {name, name.split(",")[0]} & {*asked}]
        rows = [row(layer, of, options.rounds) for layer in layers for of in "yxw"]
    report.show(rows, options.json)
    sys.exit(0 if all(r.get("holds", True) for r in rows) else 1)


if __name__ == "__main__":
    main()
