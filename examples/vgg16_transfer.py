"""Transfer learning: a VGG16 that reads the digits 0 to 4 learns 5 to 9 from a few of each.

    python examples/vgg16_transfer.py                  # digits that come with minidl, a few minutes
    python examples/vgg16_transfer.py --weights vgg16.safetensors --width 1     # PyTorch's weights

A base, VGG16 without its top, is trained on many pictures of one task (or its weights are read
from a file). Of the other task there are few pictures. Three networks learn them:

    from scratch    the same layers, freshly drawn: all of it is learnt from the few pictures
    new head        the base is frozen; two dense layers behind it learn
    fine-tuned      then the last two blocks of the base are thawed, and learn with it

A head alone does worse than all the layers from scratch: the last layers of the base know what
tells 0 to 4 apart, not 5 to 9. Its first three blocks, strokes and their ends, serve both.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import minidl
from minidl import io, models, nn, optim
from minidl.data import DataLoader, Dataset, Normalize, PadCrop, digits, mnist
from minidl.train import evaluate, fit

SIZE = 32  # VGG16 halves images five times
SCALE = Normalize(0.13, 0.31)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--weights", help="a .safetensors file of PyTorch's VGG16, for the base")
    parser.add_argument("--width", type=float, default=0.25, help="share of VGG16's channels")
    parser.add_argument("--each", type=int, default=10, help="pictures of each new digit")
    parser.add_argument("--epochs", type=int, default=3, help="of the base")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/vgg16-transfer"))
    parser.add_argument("--quick", action="store_true", help="a thin base, few pictures: seconds")
    options = parser.parse_args()
    many = 30
    if options.quick:
        options.width, options.epochs, many = 0.125, 1, 5
    minidl.manual_seed(options.seed)

    read = digits if options.data == "digits" else mnist
    train, test = prepared(read("train")), prepared(read("test"))
    if options.quick:
        train, test = train[:2000], test[:500]
    few, new = first_of_each(only(train, range(5, 10)), options.each), only(test, range(5, 10))
    shape = few.images[0].shape
    print(f"{len(few)} pictures {shape} of 5 to 9 to learn from, {len(new)} to test")

    found = {}
    scratch = with_head(new_base(options))
    found["from scratch"] = learnt(scratch, few, new, epochs=many, lr=1e-3)

    base = new_base(options)
    if options.weights:
        read_weights(base, options.weights)
    else:
        old = only(train, range(5)), only(test, range(5))
        accuracy = learnt(with_head(base), *old, epochs=options.epochs, lr=1e-3)
        print(f"the base reads 0 to 4: {accuracy:.1%}")

    model = with_head(base.freeze())
    found["new head"] = learnt(model, few, new, epochs=many, lr=1e-3)
    last_blocks(base, 2).freeze(False)
    found["fine-tuned"] = learnt(model, few, new, epochs=many, lr=1e-3)

    for name, accuracy in found.items():
        print(f"{name:12}  {accuracy:.1%} of the new digits")
    options.out.mkdir(parents=True, exist_ok=True)
    io.save(base, options.out / "base.safetensors")
    result = {"accuracy": found, "options": {k: str(v) for k, v in vars(options).items()}}
    (options.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")


# --- pictures


def prepared(dataset: Dataset) -> Dataset:
    """Grey pictures (N, H, W, 1) as VGG16 takes them, (N, 32, 32, 3)."""
    return Dataset(resized(dataset.images), dataset.labels)


def resized(images: np.ndarray) -> np.ndarray:
    """Grey images (N, H, W, 1) at 32 x 32, the same in three channels: (N, 32, 32, 3).

    Bilinear: a new pixel is between two old ones, in each direction, and takes its share of both.
    """

    def shares(n: int) -> np.ndarray:
        place = np.clip((np.arange(SIZE) + 0.5) * n / SIZE - 0.5, 0, n - 1)
        return np.maximum(0, 1 - abs(place[:, None] - np.arange(n)))

    rows, columns = shares(images.shape[1]), shares(images.shape[2])
    grey = rows @ images[..., 0] @ columns.T
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=3)


def only(dataset: Dataset, labels: range) -> Dataset:
    """The pictures with these labels, which count from 0 then."""
    chosen = np.isin(dataset.labels, labels)
    return Dataset(dataset.images[chosen], dataset.labels[chosen] - labels.start)


def first_of_each(dataset: Dataset, number: int) -> Dataset:
    """So many pictures of each label."""
    kinds = (np.flatnonzero(dataset.labels == label)[:number] for label in range(5))
    return dataset[np.concatenate(list(kinds))]


# --- networks


def new_base(options: argparse.Namespace) -> models.VGG:
    """VGG16 without its top: (N, 32, 32, 3) -> (N, 1, 1, channels)."""
    # weights from elsewhere are those of the paper's network, which has no batch norms
    return models.VGG16(
        include_top=False,
        input_shape=(SIZE, SIZE, 3),
        width=options.width,
        batch_norm=not options.weights,
    )


def with_head(base: models.VGG) -> nn.Sequential:
    """The base and a new head for five classes."""
    channels = [m.out_channels for m in base.modules() if isinstance(m, nn.Conv2d)][-1]
    head = nn.Flatten(), nn.Linear(channels, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 5)
    return nn.Sequential(base, *head)


def last_blocks(base: models.VGG, number: int) -> nn.Sequential:
    """The last so many blocks; each ends in a pool."""
    pools = [i for i, layer in enumerate(base.features) if isinstance(layer, nn.MaxPool2d)]
    return base.features[pools[-number - 1] + 1 :]


def read_weights(base: models.VGG, path: str) -> None:
    """The base's share of a file of PyTorch's VGG16."""
    tensors = io.load_tensors(path).items()
    mine = {name: value for name, value in tensors if name.startswith("features.")}
    base.load_state_dict(io.from_torch(mine, base))


def learnt(model: nn.Module, train: Dataset, test: Dataset, *, epochs: int, lr: float) -> float:
    """Train what is not frozen, and return the accuracy on pictures it has not seen."""
    batches = DataLoader(train, 25, shuffle=True, transform=[PadCrop(2), SCALE])
    optimizer = optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    fit(model, batches, epochs=epochs, optimizer=optimizer, progress=False)
    return evaluate(model, DataLoader(test, 250, transform=SCALE))["accuracy"]


if __name__ == "__main__":
    main()
