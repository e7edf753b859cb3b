"""How many weights does a network need? Prune the CIFAR-10 network, and see what it costs.

    minidl data fetch cifar10
    python examples/pruning.py               # about 10 minutes on two cores
    python examples/pruning.py --quick       # digits that ship with minidl, in seconds

A network is trained as usual. Then, for each sparsity, copies of it are pruned in three ways:

    at once      the smallest weights become 0, and that is it
    fine-tuned   the same, and the weights that are left are trained on
    gradually    while it is trained on, more and more weights become 0 (Zhu and Gupta 2017)

The last two see the same batches, and so they do in the row of 0 %, where nothing is pruned: that
is what to compare with. What was pruned gradually is written to a file without its zeros. All that
was found is printed, and lies in runs/pruning: result.json, pruning.png, the networks.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minidl
from minidl import data, io, models, nn, optim, prune, sparse
from minidl.data import DataLoader, Flip, Normalize, PadCrop
from minidl.train import evaluate, fit

SPARSITIES = [0.5, 0.8, 0.9, 0.95, 0.98]
BATCH, QUICK_BATCH = 128, 32
RATE = 1e-3
LATE_RATE = 3e-4  # for weights that were trained already


class Task:
    """A network to prune, and the batches that it learns from and is tested on."""

    def __init__(self, quick: bool, seed: int):
        self.quick, self.seed = quick, seed
        if quick:
            self.build: Callable[[], nn.Module] = models.mnist_mlp
            self.sets = data.digits("train")[::4], data.digits("test")
            self.scale, self.augment = Normalize(0.1307, 0.3081), []
        else:
            self.build = models.cifar10_cnn
            self.sets = data.cifar10("train"), data.cifar10("test")
            self.scale = Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
            self.augment = [Flip(), PadCrop(4)]

    def batches(self) -> DataLoader:
        """Batches to learn from, the same ones whenever they are asked for."""
        size, steps = QUICK_BATCH if self.quick else BATCH, [*self.augment, self.scale]
        return DataLoader(self.sets[0], size, True, seed=self.seed, transform=steps)

    def accuracy(self, model: nn.Module) -> float:
        """The share of the test images that it names right."""
        return evaluate(model, DataLoader(self.sets[1], 500, transform=self.scale))["accuracy"]

    def copy(self, model: nn.Module) -> nn.Module:
        """The same network once more."""
        twin = self.build()
        twin.load_state_dict(model.state_dict())
        return twin


def train(task: Task, epochs: int) -> nn.Module:
    """The network, trained as usual."""
    minidl.manual_seed(task.seed)
    model = task.build()
    optimizer = optim.Adam(model.parameters(), lr=RATE)
    fit(model, task.batches(), epochs=epochs, optimizer=optimizer)
    return model


def prune_at_once(task: Task, trained: nn.Module, amount: float, epochs: int) -> nn.Module:
    """The smallest weights of all layers together become 0."""
    model = task.copy(trained)
    prune.magnitude(model, amount=amount)
    return model


def fine_tune(task: Task, trained: nn.Module, amount: float, epochs: int) -> nn.Module:
    """The same, and what is left is trained on."""
    model = task.copy(trained)
    optimizer = optim.Adam(model.parameters(), lr=LATE_RATE)
    prune.magnitude(model, optimizer, amount=amount)
    fit(model, task.batches(), epochs=epochs, optimizer=optimizer, progress=False)
    return model


def prune_gradually(task: Task, trained: nn.Module, amount: float, epochs: int) -> nn.Module:
    """A little more every few steps, in the first two thirds of the steps."""
    model, loader = task.copy(trained), task.batches()
    optimizer = optim.Adam(model.parameters(), lr=LATE_RATE)
    steps = epochs * len(loader)
    schedule = prune.Cubic(amount, last=2 * steps // 3, every=max(1, steps // 50))
    prune.magnitude(model, optimizer, schedule=schedule)
    fit(model, loader, epochs=epochs, optimizer=optimizer, progress=False)
    return model


WAYS = {"at once": prune_at_once, "fine-tuned": fine_tune, "gradually": prune_gradually}


def measure(
    task: Task, trained: nn.Module, epochs: int, sparsities: list[float], folder: Path
) -> list[dict[str, Any]]:
    """A row for each sparsity: accuracy by way, and the sizes of files."""
    io.save(trained, folder / "dense.safetensors")
    dense = (folder / "dense.safetensors").stat().st_size
    rows = []
    for amount in (0.0, *sparsities):
        row: dict[str, Any] = {"sparsity": amount}
        for way, run in WAYS.items():
            model = run(task, trained, amount, epochs)
            row[way] = task.accuracy(model)
        file = folder / f"sparse-{amount:.0%}.safetensors".replace("%", "")
        io.save_csr(model, file)
        again = minidl.load(file)  # what is in the file is what was measured
        assert abs(prune.sparsity(again) - amount) < 1e-4
        assert task.accuracy(again) == row["gradually"]
        row |= {"bytes": file.stat().st_size, "dense_bytes": dense}
        rows.append(row)
        print(line(row), flush=True)
    print(prune.table(model))
    print(sparse.convert(model, density=0.1))
    print(f"with its dense layers kept sparse: {task.accuracy(model):.2%}")
    return rows


def line(row: dict[str, Any]) -> str:
    """A row to print."""
    told = "  ".join(f"{way} {row[way]:7.2%}" for way in WAYS)
    share = row["bytes"] / row["dense_bytes"]
    return f"{row['sparsity']:4.0%} zeros  {told}  file {row['bytes']:9,} bytes, {share:6.1%}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy by sparsity, and the size of the file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    zeros = [100 * row["sparsity"] for row in rows]
    for way in WAYS:
        left.plot(zeros, [100 * row[way] for row in rows], "o-", label=way)
    left.set(xlabel="weights that are 0, %", ylabel="test accuracy, %")
    left.legend()
    right.plot(zeros, [row["bytes"] / 1e3 for row in rows], "o-")
    right.axhline(rows[0]["dense_bytes"] / 1e3, linestyle=":", label="with all zeros")
    right.set(xlabel="weights that are 0, %", ylabel="file, kB", ylim=(0, None))
    right.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Train, prune, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="digits, one epoch of everything")
    parser.add_argument("--epochs", type=int, default=10, help="to train before pruning")
    parser.add_argument("--more", type=int, default=3, help="epochs to train on while pruning")
    parser.add_argument("--sparsity", type=float, nargs="+", default=SPARSITIES, metavar="SHARE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/pruning"))
    options = parser.parse_args()
    epochs, more = (1, 1) if options.quick else (options.epochs, options.more)
    options.out.mkdir(parents=True, exist_ok=True)
    task = Task(options.quick, options.seed)
    trained = train(task, epochs)
    print(f"trained: {task.accuracy(trained):.2%} of the test images; then, each time anew:")
    rows = measure(task, trained, more, options.sparsity, options.out)
    result = {"seed": options.seed, "epochs": epochs, "more": more, "rows": rows}
    io.write(options.out / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    draw(rows, options.out / "pruning.png")
    print(f"written: {options.out / 'result.json'}, {options.out / 'pruning.png'}")


if __name__ == "__main__":
    main()
