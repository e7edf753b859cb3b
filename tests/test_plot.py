"""The pictures, without a window: what is drawn in them, as Matplotlib's own objects tell."""

import numpy as np
import pytest

from minidl import nn, plot
from minidl.train import History

pytest.importorskip("matplotlib")


def pixels(axes):
    """The image that axes show."""
    (shown,) = axes.get_images()
    return np.asarray(shown.get_array())


def test_curves_have_a_panel_for_each_quantity():
    history = History()
    history.batch_loss = [3.0, 2.0, 2.0, 1.0]
    row = {
        "loss": 2.5,
        "val_loss": 2.0,
        "accuracy": 0.5,
        "val_accuracy": 0.6,
        "lr": 1,
        "seconds": 3,
    }
    history.add(row)
    history.add(row | {"loss": 1.5})
    figure = plot.curves(history, "a run")
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["each batch"] == [[0.75, 3], [1.25, 2], [1.75, 2], [2.25, 1]]
    assert lines["training"] == [[1, 2.5], [2, 1.5]]
    assert lines["test"] == [[1, 2], [2, 2]]
    assert plot.png(figure)[:4] == b"\x89PNG"


def test_curves_of_other_quantities_and_of_loss_alone():
    figure = plot.curves({"loss": [2.0, 1.0], "val_mAP": [0.1, 0.9], "val_top_5_accuracy": [0, 1]})
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "mAP", "top 5 accuracy"]
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1]
    (axes,) = plot.curves({"loss": [1.0]}).axes
    assert axes.get_yscale() == "log" and plot.png(axes.figure)


def test_a_grid_shows_images_as_they_are():
    images = np.random.default_rng(0).random((5, 4, 6, 3)).astype(np.float32)
    figure = plot.grid(images, titles=list("abcde"), columns=3, title="five")
    assert [axes.get_title() for axes in figure.axes] == [*"abcde", ""]
    for axes, image in zip(figure.axes, images):
        np.testing.assert_array_equal(pixels(axes), image)
    assert plot.png(figure)[:4] == b"\x89PNG"
    (axes,) = plot.grid(np.array([[[[100]], [[200]]]], np.uint8)).axes
    np.testing.assert_array_equal(pixels(axes), [[100], [200]])
    assert axes.get_images()[0].get_clim() == (0, 255)  # not 100 to 200
    (axes,) = plot.grid(np.float32([[[[-1], [1], [3]]]])).axes
    np.testing.assert_array_equal(pixels(axes), [[0, 0.5, 1]])


def test_filters_are_drawn_each_on_its_own_scale():
    colour = nn.Conv2d(3, 4, (2, 5))
    figure = plot.filters(colour.weight)
    assert len(figure.axes) == 4
    for i, axes in enumerate(figure.axes):
        weight = colour.weight.numpy_view()[..., i]
        low, high = weight.min(), weight.max()
        np.testing.assert_allclose(pixels(axes), (weight - low) / (high - low), rtol=1e-6)
    deep = np.arange(3 * 3 * 20 * 2, dtype=np.float32).reshape(3, 3, 20, 2)
    figure = plot.filters(deep)
    assert len(figure.axes) == 2 * 16  # two filters, the first 16 of 20 channels
    part = deep[:, :, 1, 1]
    np.testing.assert_allclose(pixels(figure.axes[17]), (part - part.min()) / np.ptp(part))
    flat = plot.filters(np.ones((3, 3, 1, 1))).axes[0]
    assert not pixels(flat).any()  # nothing to stretch, and no division by 0


def test_boxes_lie_where_the_pixels_are():
    images = np.zeros((2, 8, 10, 1), np.uint8)
    found = [np.array([[1, 2, 4, 7.5]]), np.empty((0, 4))]
    figure = plot.boxes(images, found, [["cat 0.9"], []], [[[0, 0, 10, 8]], [[2, 2, 3, 3]]])
    first, second = figure.axes
    right, mine = first.patches
    assert (*mine.get_xy(), mine.get_width(), mine.get_height()) == (1, 2, 3, 5.5)
    assert (*right.get_xy(), right.get_width(), right.get_height()) == (0, 0, 10, 8)
    assert right.get_linestyle() == "--" != mine.get_linestyle()
    assert first.get_images()[0].get_extent() == [0, 10, 8, 0]
    assert [text.get_text() for text in first.texts] == ["cat 0.9"]
    assert len(second.patches) == 1 and not second.texts
    assert plot.png(figure)[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: plot.grid(np.zeros((3, 4, 4))), r"\(N, H, W, 1 or 3\), got shape \(3, 4, 4\)"),
        (lambda: plot.grid(np.zeros((3, 4, 4, 2))), r"1 or 3"),
        (lambda: plot.grid(np.zeros((3, 4, 4, 1)), ["a"]), "1 titles, but 3 images"),
        (lambda: plot.filters(np.zeros((3, 4))), r"\(height, width, in, out\), got shape \(3, 4\)"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
