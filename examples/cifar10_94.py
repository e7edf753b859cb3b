"""CIFAR-10 to 94 % of the test pictures, in 24 minutes on two cores of a CPU.

    minidl data fetch cifar10
    python examples/cifar10_94.py                   # all of it, and the curve in runs/cifar10-94
    python examples/cifar10_94.py --device cuda
    python examples/cifar10_94.py --quick           # 4,096 pictures, 2 epochs: a minute

The recipe is Keller Jordan's (arXiv:2404.00498), which goes back to tysam-code's hlb-CIFAR10 and
David Page's "How to train your ResNet":

    whitening       the first layer is not learnt: its filters are the eigenvectors of the patches
                    of 2 x 2 pixels, so that what they see has variance 1 and is not correlated
    identity        each filter of a 3 x 3 convolution begins as one that hands a channel on
    biases          of the batch norms learn 64 times as fast as the weights; scales do not at all
    alternating     a picture that was mirrored in one epoch is not in the next, so that any two
    flips           epochs in a row show both
    Lookahead       every five steps the weights are drawn to their average, more and more
    smooth labels   0.8 + 0.02 for the class of a picture, 0.02 for any other
    test-time flips a picture, its mirror image, and both moved by a pixel are asked, and averaged
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import minidl
from minidl import Tensor, data, nn, optim
from minidl.nn import functional as F
from minidl.train import predict

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH, MOMENTUM, MOVE = 1024, 0.85, 2
# The paper's numbers are for the sum of a batch's losses, and leave out what momentum adds up to.
PER_STEP = 1 / (1024 * (1 + 1 / (1 - MOMENTUM)))
RATE = 11.5 * PER_STEP * BATCH  # here: of their mean
DECAY = 0.0153 * PER_STEP * BATCH  # of a weight, in one step at the highest rate
BIASES, SMOOTH = 64, 0.2  # how much faster the norms' biases learn; how smooth labels are


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=float, default=12.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10-94"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    minidl.manual_seed(options.seed)
    train, test = data.cifar10("train"), data.cifar10("test")
    if options.quick:
        train, test, options.epochs = train[:4096], test[:1000], 2

    model = network(whitening(train.images[:5000])).to(options.device)
    start, curve = time.perf_counter(), []
    for epoch, loss in trained(model, train, options):
        right = (predict(model, pictures(test.images)).argmax(1) == test.labels).mean()
        seconds = time.perf_counter() - start
        curve.append({"epoch": epoch, "loss": loss, "accuracy": right, "seconds": seconds})
        line = f"epoch {epoch:5.2f}  loss {loss:.4f}  {right:.2%} of the test  {seconds:.0f} s"
        print(line, flush=True)
    right = (looked_at_often(model, test.images).argmax(1) == test.labels).mean()
    seconds = time.perf_counter() - start
    print(f"{right:.2%} of the test pictures, with flips and moves, after {seconds:.0f} s")

    options.out.mkdir(parents=True, exist_ok=True)
    minidl.save(model, options.out / "model.safetensors")
    result = {"accuracy": right, "seconds": seconds, "curve": curve}
    result["options"] = {name: str(value) for name, value in vars(options).items()}
    (options.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")


# --- the network


def network(filters: np.ndarray) -> nn.Sequential:
    """Images (N, 32, 32, 3) to logits (N, 10)."""
    first = nn.Conv2d(3, filters.shape[-1], 2)
    first.weight.requires_grad = False
    first.weight.copy_(filters)
    nn.init.zeros_(first.bias)
    return nn.Sequential(
        first, nn.GELU(),
        *block(24, 64), *block(64, 256), *block(256, 256),
        nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False), Times(1 / 9),
    )  # fmt: skip


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """Two convolutions, each with a batch norm; half as many rows and columns come out."""
    return [
        convolution(inputs, outputs), nn.MaxPool2d(2), norm(outputs), nn.GELU(),
        convolution(outputs, outputs), norm(outputs), nn.GELU(),
    ]  # fmt: skip


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Its first filters hand a channel on, as it is."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    weight = layer.weight.detach().numpy()
    weight[:, :, :, :inputs] = 0
    weight[1, 1, range(inputs), range(inputs)] = 1
    with minidl.no_grad():
        layer.weight.copy_(weight)
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    """Its scales stay 1; its statistics follow quickly, as there are few steps."""
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


class Times(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor: float):
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def whitening(images: np.ndarray) -> np.ndarray:
    """Filters (2, 2, 3, 24): what they find in patches of these images has variance 1.

    The eigenvectors of the patches' covariance, over the root of the eigenvalue, and their
    negatives, for GELU lets one side through.
    """
    x = (images / 255 - MEAN) / STD
    patches = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (1, 2))  # (..., C, 2, 2)
    patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 12)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    vectors /= np.sqrt(values + 5e-4)
    return np.concatenate([vectors, -vectors], axis=1).reshape(2, 2, 3, 24)


# --- training


def trained(
    model: nn.Sequential, train: data.Dataset, options: argparse.Namespace
) -> Iterator[tuple[float, float]]:
    """Train the model; yields the epochs so far and the mean loss, after each of them."""
    whole = len(train) // BATCH
    steps = round(options.epochs * whole)
    biases = [m.bias for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    rest = [p for p in model.parameters() if p.requires_grad and not any(p is b for b in biases)]
    groups = [
        {"params": biases, "lr": RATE * BIASES, "weight_decay": DECAY / RATE / BIASES},
        {"params": rest, "lr": RATE, "weight_decay": DECAY / RATE},
    ]
    optimizer = optim.SGD(groups, lr=RATE, momentum=MOMENTUM, nesterov=True)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / steps))
    average = Lookahead(model)

    @minidl.capture
    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(model(x), y, label_smoothing=SMOOTH)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    mirrored = np.random.default_rng(options.seed).random(len(train)) < 0.5
    done = epoch = 0
    while done < steps:
        mirrored, losses = ~mirrored, []
        seen = augmented(train.images, mirrored, options.seed + epoch)
        batches = data.DataLoader(
            (seen, train.labels), BATCH, shuffle=True, drop_last=True, seed=options.seed,
            transform=data.Normalize(MEAN, STD), device=options.device,
        )  # fmt: skip
        batches.set_epoch(epoch)
        model.train()
        for x, y in batches:
            losses.append(step(x, y).item())
            schedule.step()
            done += 1
            if done % 5 == 0 or done == steps:
                average.step(0.95**5 * (done / steps) ** 3 if done < steps else 1.0)
            if done == steps:
                break
        epoch += 1
        yield done / whole, float(np.mean(losses))


def rate(part: float) -> float:
    """The share of the highest learning rate after a part of the training: up, then down."""
    return float(np.interp(part, [0, 0.23, 1], [0.2, 1, 0.07]))


class Lookahead:
    """An average of all that a model learns and measures; Zhang et al. (arXiv:1907.08610)."""

    def __init__(self, model: nn.Module):
        self.fast = [*model.parameters(), *model.buffers()]
        self.slow = [minidl.tensor(t.detach().numpy(), device=t.device) for t in self.fast]

    def step(self, keep: float) -> None:
        """Move the average to the model by 1 - keep of the way, then the model to the average."""
        with minidl.no_grad():
            for fast, slow in zip(self.fast, self.slow):
                slow.copy_(slow * keep + fast * (1 - keep))
                fast.copy_(slow)


# --- pictures


def augmented(images: np.ndarray, mirrored: np.ndarray, seed: int) -> np.ndarray:
    """Images (N, H, W, C): some mirrored, each moved by up to MOVE pixels, its border reflected."""
    height, width = images.shape[1:3]
    places = np.random.default_rng(seed).integers(0, 2 * MOVE + 1, (2, len(images)))
    found = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    padded = np.pad(found, ((0, 0), (MOVE, MOVE), (MOVE, MOVE), (0, 0)), "reflect")
    for top in range(2 * MOVE + 1):
        for left in range(2 * MOVE + 1):
            here = (places[0] == top) & (places[1] == left)
            found[here] = padded[here, top : top + height, left : left + width]
    return found


def pictures(images: np.ndarray) -> data.DataLoader:
    """Batches of pictures, as the network takes them."""
    return data.DataLoader((images,), 500, transform=data.Normalize(MEAN, STD))


def looked_at_often(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Scores (N, 10): half of what is said of pictures and mirror images, half of moved ones."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    views = (0.5, images), (0.25, padded[:, :-2, :-2]), (0.25, padded[:, 2:, 2:])
    both = [(share / 2, a) for share, seen in views for a in (seen, seen[:, :, ::-1])]
    return sum(share * logits(model, np.ascontiguousarray(seen)) for share, seen in both)


def logits(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """What the model says of pictures (N, 10), in evaluation mode."""
    with minidl.no_grad():
        model.eval()
        where = next(model.parameters()).device
        return np.concatenate([model(x.to(where)).numpy() for (x,) in pictures(images)])


if __name__ == "__main__":
    main()
