"""The first document's program, put right: two networks for pictures, trained on any device.

    python examples/documents/s0_networks.py             # CIFAR-10, after `minidl data fetch`
    python examples/documents/s0_networks.py --model mobilenet --device cuda
    python examples/documents/s0_networks.py --quick     # the digits that come with minidl

What was wrong with it:

- MobileNet is in no version of torch.nn, and none takes such arguments; its one class was an mse;
- Flatten stood before the convolutions, which need rows and columns; the kernel was given twice;
- MaxPooling2d is a name of neither family: MaxPool2d in torch, MaxPooling2D in Keras;
- model.train(x, optimizer=..., loss=...) mixes two APIs: train() only says which mode is meant;
- what it counted as correct had nothing to do with the labels, and learning_rate was never used.
"""

import argparse
import json
from pathlib import Path

import minidl
from minidl import data, models, nn, optim
from minidl.data import DataLoader, Normalize
from minidl.nn import functional as F
from minidl.train import evaluate, predict

BYTES = Normalize(0.0, 1.0)  # bytes count from 0 to 1


def define_model(name, input_shape, classes):
    """A network that takes images (N, *input_shape) and gives logits (N, classes)."""
    if name == "mobilenet":
        return models.MobileNet(
            input_shape=input_shape, classes=classes, alpha=0.5, stride=1, dropout=0.1
        )
    height, width, channels = input_shape
    layers = []
    for filters in (32, 64, 128):
        layers += [nn.Conv2d(channels, filters, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
        channels = filters
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(height // 8 * (width // 8) * channels, classes)
    )


def train_model(model, train, validation, epochs, learning_rate):
    """Train with Adam; after each epoch print how many of all pictures were right."""
    optimizer = optim.Adam(model.parameters(), lr=learning_rate)

    @minidl.capture
    def step(x, y):
        optimizer.zero_grad()
        outputs = model(x)
        loss = F.cross_entropy(outputs, y)
        loss.backward()
        optimizer.step()
        return loss, outputs.argmax(axis=1)

    rows = []
    for epoch in range(epochs):
        model.train()
        correct = total = 0
        for x, y in train:
            _, guesses = step(x, y)
            correct, total = correct + int((guesses.numpy() == y.numpy()).sum()), total + len(y)
        found = evaluate(model, validation)["accuracy"]
        rows.append({"epoch": epoch + 1, "accuracy": correct / total, "val_accuracy": found})
        print(f"Epoch {epoch + 1}  {correct} of {total} correct, validation {found:.2%}")
    return rows


def test_model(model, test):
    """The share of test pictures that the network names rightly."""
    guesses = predict(model, test).argmax(axis=1)
    labels = test.dataset.labels
    correct = int((guesses == labels).sum())
    print(f"Test: {correct} of {len(labels)} correct, {correct / len(labels):.2%}")
    return correct / len(labels)


def main():
    """Read the command line; train, test, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("cnn", "mobilenet"), default="cnn")
    parser.add_argument("--epochs", type=int, help="10, or 1 with --quick")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="2,000 digits, 1 epoch")
    parser.add_argument("--out", type=Path, default=Path("runs/s0-networks"))
    args = parser.parse_args()
    minidl.manual_seed(args.seed)

    read = data.digits if args.quick else data.cifar10
    pictures, tests = read("train"), read("test")
    if args.quick:
        pictures, tests = pictures[:2000], tests[:500]
    learnt, held_out = data.random_split(pictures, [0.9, 0.1], seed=args.seed)
    train = DataLoader(learnt, 64, shuffle=True, transform=BYTES, seed=args.seed)
    validation = DataLoader(held_out, 256, transform=BYTES)
    test = DataLoader(tests, 256, transform=BYTES)

    model = define_model(args.model, pictures.images.shape[1:], 10).to(args.device)
    epochs = args.epochs or (1 if args.quick else 10)
    rows = train_model(model, train, validation, epochs, args.learning_rate)
    result = {"seed": args.seed, "epochs": rows, "test_accuracy": test_model(model, test)}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{args.model}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
