"""Images on their way to a network, and pictures of how it learns: what S0, S2 and S4 speak of."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import nn, plot
from minidl.data import DataLoader, digits, image
from minidl.metrics import confusion_matrix
from minidl.train import fit, predict

pytest.importorskip("matplotlib")


def test_row_02_an_image_file_becomes_what_a_network_takes(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    with Image.open(tmp_path / "cat.png") as file:
        x = image.to_tensor(file)
        right = np.asarray(file.resize((24, 16), Image.Resampling.BILINEAR)) / 255
    small = image.resize(x, (16, 24))
    np.testing.assert_allclose(small.numpy(), right, atol=1 / 255)  # Pillow rounds to bytes
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    y = image.normalize(small, mean, std)[None]
    np.testing.assert_allclose(y.numpy()[0], (small.numpy() - mean) / std, atol=1e-5)
    assert nn.Conv2d(3, 4, 3)(y).shape == (1, 14, 22, 4)
    assert image.to_nchw(y).shape == (1, 3, 16, 24)
    # a quarter of a turn, column and row being 15 - row and column: texture coordinates
    turned = image.affine(y, [[0, 1, 0], [-1, 0, 15]], size=(24, 16))
    np.testing.assert_array_equal(turned.numpy(), np.rot90(y.numpy(), -1, (1, 2)))


def test_row_39_curves_images_filters_and_confusion_without_a_screen():
    minidl.manual_seed(0)
    part = digits("test")[:200]
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(144, 10)
    )
    loader = DataLoader(part, 50, shuffle=True)
    history = fit(model, loader, epochs=2, validation=loader, progress=False)
    said = predict(model, image.to_tensor(part.images))
    figures = [
        plot.curves(history),
        plot.grid(part.images[:6], [str(label) for label in part.labels[:6]]),
        plot.filters(model[0].weight),
        plot.confusion(confusion_matrix(said, part.labels), part.classes),
        plot.mistakes(part.images, part.labels, said),
    ]
    assert [len(figure.axes) for figure in figures[:4]] == [2, 6, 4, 1]
    assert all(plot.png(figure)[:4] == b"\x89PNG" for figure in figures)


def test_row_39_no_window_is_opened():
    code = "import sys; from minidl import plot; plot.png(plot.curves({'loss': [1.0]}));"
    code += "sys.exit('matplotlib.pyplot' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
