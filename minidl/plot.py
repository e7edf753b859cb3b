"""Pictures of a training run. They need Matplotlib: pip install "minidl[plot]"."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#1f5fa8", "#d9661f", "#b8c4d0"


def curves(history: Mapping[str, Sequence[float]], title: str = "") -> "Figure":
    """Draw each quantity per epoch, in training and in tests, and the loss of every batch.

    history: lists with an entry per epoch, as fit returns them: "loss", "val_loss" and whatever
    metrics there are. Those of one quantity share a panel; "lr" and "seconds" have none.
    """
    names = dict.fromkeys(name.removeprefix("val_") for name in history)
    names = {"loss": None} | {name: None for name in names if name not in ("lr", "seconds")}
    figure = _figure((5 * len(names), 4))
    panels = dict(zip(names, figure.subplots(1, len(names), squeeze=False)[0]))
    epochs = max(map(len, history.values()), default=0)
    batches = np.asarray(getattr(history, "batch_loss", ()))
    if len(batches):
        place = (np.arange(len(batches)) + 0.5) * epochs / len(batches) + 0.5
        panels["loss"].plot(place, batches, color=GREY, linewidth=0.6, label="each batch")
    for name, axes in panels.items():
        for key, label, color in ((name, "training", ORANGE), (f"val_{name}", "test", BLUE)):
            if key in history:
                epoch = range(1, len(history[key]) + 1)
                axes.plot(epoch, history[key], "o-", color=color, markersize=4, label=label)
                axes.legend()
        axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if "accuracy" in name:
            axes.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    panels["loss"].set_yscale("log")
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


def grid(images: Any, titles: Sequence[str] = (), columns: int = 8, title: str = "") -> "Figure":
    """Draw images side by side, row after row.

    images (N, H, W, 1 or 3), array or Tensor: bytes, or numbers from 0 to 1; an image with others
    is stretched, so that its least is black and its largest white. titles: one above each image,
    or none. ValueError for other shapes.
    """
    images = _array(images)
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"grid: images are (N, H, W, 1 or 3), got shape {images.shape}")
    if titles and len(titles) != len(images):
        raise ValueError(f"grid: {len(titles)} titles, but {len(images)} images; one each")
    figure, places = _panels(images, columns, 1.2, 0.25 if titles else 0.0, title)
    for i, (axes, image) in enumerate(zip(places, images)):
        _show(axes, image)
        if titles:
            axes.set_title(titles[i], fontsize=9)
    return figure


def filters(weight: Any, columns: int = 8, title: str = "") -> "Figure":
    """Draw the filters of a convolution, each with a grey scale, or colours, of its own.

    weight (height, width, in, out), array or Tensor, as Conv2d.weight has it. Filters of 1 or 3
    channels are drawn as images; of others each row has one filter's channels, 16 x 16 at most.
    """
    weight = _array(weight)
    if weight.ndim != 4:
        raise ValueError(f"filters: weight is (height, width, in, out), got shape {weight.shape}")
    *_, channels, count = weight.shape
    if channels in (1, 3):
        return grid(_stretched(weight.transpose(3, 0, 1, 2)), columns=columns, title=title)
    shown = weight[:, :, : min(channels, 16), : min(count, 16)]
    tiles = shown.transpose(3, 2, 0, 1).reshape(-1, *weight.shape[:2], 1)
    return grid(_stretched(tiles), columns=shown.shape[2], title=title)


def boxes(
    images: Any,
    found: Sequence[Any],
    labels: Sequence[Sequence[str]] = (),
    right: Sequence[Any] = (),
    columns: int = 4,
    title: str = "",
) -> "Figure":
    """Draw images with the boxes that were found, and dashed those that are right.

    images (N, H, W, 1 or 3), as in `grid`. For each image: found and right (M, 4), left, top, right
    and bottom in pixels, where 0 is the outer edge of the first pixel; labels, a word for each box.
    """
    from matplotlib.patches import Rectangle

    images = _array(images)
    figure, places = _panels(images, columns, 3.2, 0.0, title)
    for i, (axes, image) in enumerate(zip(places, images)):
        # edges of pixels at whole numbers, as the boxes have it
        _show(axes, image, extent=(0, image.shape[1], image.shape[0], 0))
        for these, color, style in ((right, BLUE, "--"), (found, ORANGE, "-")):
            for x, y, x2, y2 in np.asarray(these[i]).reshape(-1, 4) if len(these) else ():
                line = Rectangle((x, y), x2 - x, y2 - y, fill=False, linewidth=1.2)
                line.set(edgecolor=color, linestyle=style)
                axes.add_patch(line)
        for word, (x, y, *_) in zip(labels[i], found[i]) if labels else ():
            axes.text(x, y, word, color=ORANGE, fontsize=7, va="bottom", fontweight="bold")
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


def _panels(
    images: np.ndarray, columns: int, width: float, above: float, title: str
) -> tuple["Figure", Any]:
    """A figure with a place for each image, so many inches wide, and those places."""
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    height = width * images.shape[1] / images.shape[2] + above
    figure = _figure((width * columns, height * rows + (0.4 if title else 0)))
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.axis("off")
    figure.suptitle(title)
    return figure, places


def _array(x: Any) -> np.ndarray:
    return x.numpy_view() if hasattr(x, "numpy_view") else np.asarray(x)


def _show(axes: Any, image: np.ndarray, **how: Any) -> None:
    """One image on axes: grey, or red, green and blue; numbers beyond 0 to 1 are stretched."""
    if image.dtype != np.uint8 and (image.min() < 0 or image.max() > 1):
        image = _stretched(image[None])[0]
    full = 255 if image.dtype == np.uint8 else 1  # black is 0, not the least that there is
    axes.imshow(
        image.squeeze(2) if image.shape[2] == 1 else image, "gray", vmin=0, vmax=full, **how
    )


def _stretched(images: np.ndarray) -> np.ndarray:
    """Each of images (N, ...) moved and scaled to lie from 0 to 1."""
    inner = tuple(range(1, images.ndim))
    low, high = images.min(inner, keepdims=True), images.max(inner, keepdims=True)
    return (images - low) / np.maximum(high - low, np.finfo(images.dtype).tiny)


def _figure(size: tuple[float, float]) -> "Figure":
    # without pyplot: no window, no state that pictures share
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")
