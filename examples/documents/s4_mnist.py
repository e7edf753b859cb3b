"""The fifth document's network on MNIST, put right: 784-128-10, SGD, batches of 64, 10 epochs.

    python examples/documents/s4_mnist.py            # MNIST, after `minidl data fetch mnist`
    python examples/documents/s4_mnist.py --quick    # the 10,000 digits that come with minidl

The document's program runs without an error in PyTorch and learns nothing. What was wrong with it,
each of which minidl warns about or refuses:

- relu behind the last layer: cross_entropy takes logits, and relu cuts off those below 0;
- a loss that nobody uses: no zero_grad, no backward, no step;
- a loop over the data set itself, which yields one sample at a time, instead of a DataLoader;
- an accuracy of the last batch, divided by the size of the whole test set.
"""

import argparse
import json
from pathlib import Path

import minidl
from minidl import data, nn, optim
from minidl.data import Compose, DataLoader, Normalize, ToTensor
from minidl.metrics import report
from minidl.train import predict


class Net(nn.Module):
    """Two linear layers with a relu between them."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        """x (N, 28, 28, 1) -> logits (N, 10)."""
        x = x.view(-1, 28 * 28)
        x = minidl.relu(self.fc1(x))
        return self.fc2(x)


def train_step(model, criterion, optimizer):
    """A function that learns from a batch and returns its loss; recorded once, then replayed."""

    @minidl.capture
    def step(inputs, labels):
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def main():
    """Train, and print loss and accuracy of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the digits that ship, 2 epochs")
    parser.add_argument("--epochs", type=int, default=None, help="10, or 2 with --quick")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/s4-mnist"))
    args = parser.parse_args()
    minidl.manual_seed(args.seed)

    transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
    read = data.digits if args.quick else data.mnist
    train_dataset, test_dataset = read("train"), read("test")
    train = DataLoader(train_dataset, batch_size=64, shuffle=True, transform=transform)
    test = DataLoader(test_dataset, batch_size=500, transform=transform)

    model = Net().to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    step, rows = train_step(model, criterion, optimizer), []
    for epoch in range(args.epochs or (2 if args.quick else 10)):
        model.train()
        losses = [step(inputs, labels).item() * len(labels) for inputs, labels in train]
        loss = sum(losses) / len(train_dataset)
        accuracy = report(predict(model, test), test_dataset.labels).accuracy
        rows.append({"epoch": epoch + 1, "loss": loss, "test_accuracy": accuracy})
        print(f"Epoch {epoch + 1}  loss {loss:.4f}  test accuracy {accuracy:.2%}")

    print(report(predict(model, test), test_dataset.labels))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "result.json").write_text(json.dumps({"seed": args.seed, "epochs": rows}, indent=1))
    minidl.save(model, args.out / "model.safetensors")


if __name__ == "__main__":
    main()
