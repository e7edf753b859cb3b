"""Pictures of a training run. They need Matplotlib: pip install "minidl[plot]"."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#1f5fa8", "#d9661f", "#b8c4d0"


def curves(history: Mapping[str, Sequence[float]], title: str = "") -> "Figure":
    """Draw loss and accuracy per epoch, training and validation, and the loss of every batch."""
    figure = _figure((10, 4))
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(history["loss"]) + 1)
    batches = np.asarray(getattr(history, "batch_loss", ()))
    if len(batches):
        place = (np.arange(len(batches)) + 0.5) * len(epochs) / len(batches) + 0.5
        left.plot(place, batches, color=GREY, linewidth=0.6, label="each batch")
    for axes, name in ((left, "loss"), (right, "accuracy")):
        lines = ((name, "training", ORANGE), (f"val_{name}", "test", BLUE))
        for key, label, color in lines:
            if key in history:
                axes.plot(epochs, history[key], "o-", color=color, markersize=4, label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    right.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    figure.suptitle(title)
    return figure


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str] = (),
    title: str = "",
    most: int = 24,
) -> "Figure":
    """Draw the images that a model got wrong, the surest mistakes first.

    images (N, H, W, C) bytes or 0 to 1, labels (N,), probabilities (N, classes).
    """
    guess = probabilities.argmax(1)
    wrong = np.flatnonzero(guess != labels)
    shown = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:most]
    columns = 6
    rows = max(1, -(-len(shown) // columns))
    figure = _figure((1.6 * columns, 1.9 * rows + 0.6))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, i in zip(grid, shown, strict=False):
        axes.imshow(images[i].squeeze(), cmap="gray")
        mine, right = ((classes[j] if classes else str(j)) for j in (guess[i], labels[i]))
        sure, true = probabilities[i, guess[i]], probabilities[i, labels[i]]
        axes.set_title(f"said {mine}: {sure:.1%}\nis {right}: {true:.1%}", fontsize=9)
    count = f"{len(wrong)} of {len(labels):,} wrong"
    if len(shown) < len(wrong):
        count += f", the {len(shown)} it was surest of"
    figure.suptitle(f"{title}: {count}" if title else count)
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str] = (), title: str = "") -> "Figure":
    """Draw a confusion matrix: rows what is right, columns what was said, darker for more.

    counts (C, C), as minidl.metrics.confusion_matrix gives them. Each row has a colour scale of its
    own, so that rare classes are seen too.
    """
    n = len(counts)
    figure = _figure((1.5 + 0.5 * n, 1.5 + 0.5 * n))
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = classes or [str(i) for i in range(n)]
    axes.set(xlabel="said", ylabel="is", title=title)
    axes.set_xticks(range(n), names, rotation=90 if max(map(len, names), default=0) > 3 else 0)
    axes.set_yticks(range(n), names)
    whole = np.issubdtype(counts.dtype, np.integer)
    for (i, j), count in np.ndenumerate(counts):
        color = "white" if shares[i, j] > 0.5 else "black"
        if count:
            label = f"{count:,}" if whole else f"{count:.2f}"
            axes.text(j, i, label, ha="center", va="center", color=color, fontsize=8)
    return figure


def learning_rates(
    lrs: Sequence[float], losses: Sequence[float], suggestion: float, title: str = ""
) -> "Figure":
    """Draw the loss over rising learning rates, as minidl.find_lr measures it."""
    figure = _figure((6, 4))
    axes = figure.subplots()
    axes.plot(lrs, losses, color=BLUE)
    axes.axvline(suggestion, color=ORANGE, linewidth=1, label=f"suggestion: {suggestion:.2g}")
    axes.set(xlabel="learning rate", ylabel="loss", title=title)
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def png(figure: "Figure") -> bytes:
    """Return the picture as the bytes of a PNG file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def read_image(path: Any) -> np.ndarray:
    """Read a PNG (or what else Matplotlib reads) -> (H, W), (H, W, 3) or (H, W, 4), 0 to 1."""
    from matplotlib.image import imread

    image = np.asarray(imread(path))
    return image / np.float32(255) if image.dtype == np.uint8 else image


def _figure(size: tuple[float, float]) -> "Figure":
    # without pyplot: no window, no state that pictures share
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")
