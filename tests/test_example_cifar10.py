"""examples/cifar10_94.py: its parts, and that it learns in its quick form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn

EXAMPLE = Path(__file__).parents[1] / "examples" / "cifar10_94.py"
sys.path.insert(0, str(EXAMPLE.parent))

import cifar10_94 as recipe  # noqa: E402

RNG = np.random.default_rng(0)
SMOOTH = (
    RNG.integers(0, 256, (40, 9, 9, 3)).repeat(4, 1).repeat(4, 2)[:, 2:34, 3:35].astype(np.uint8)
)


def test_whitened_patches_have_variance_1_and_are_not_correlated():
    filters = recipe.whitening(SMOOTH)
    x = (SMOOTH / 255 - recipe.MEAN) / recipe.STD
    seen = minidl.nn.functional.conv2d(Tensor(x), Tensor(filters)).numpy().reshape(-1, 24)
    products = seen.T @ seen / len(seen)
    np.testing.assert_allclose(products[:12, :12], np.eye(12), atol=0.1)
    np.testing.assert_allclose(seen[:, 12:], -seen[:, :12], atol=1e-12)


def test_a_convolution_begins_by_handing_channels_on():
    x = Tensor(RNG.random((2, 5, 4, 3), np.float32))
    y = recipe.convolution(3, 8)(x)
    np.testing.assert_array_equal(y.detach().numpy()[..., :3], x.numpy())
    assert abs(y.detach().numpy()[..., 3:]).max() > 0


def test_the_network_has_the_papers_size():
    # 24 filters of 2 x 2 and their biases, six convolutions, their norms' biases, and the head
    model = recipe.network(np.zeros((2, 2, 3, 24)))
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    sizes = [(24, 64), (64, 64), (64, 256), (256, 256), (256, 256), (256, 256)]
    assert learnt == 24 + sum(9 * a * b + b for a, b in sizes) + 2560
    with minidl.no_grad():
        assert model(minidl.rand(2, 32, 32, 3)).shape == (2, 10)


def test_pictures_are_moved_and_mirrored_and_nothing_else():
    mirrored = np.arange(len(SMOOTH)) % 2 == 1
    seen = recipe.augmented(SMOOTH, mirrored, seed=3)
    places = set()
    for i, picture in enumerate(seen):
        whole = SMOOTH[i, :, ::-1] if mirrored[i] else SMOOTH[i]
        padded = np.pad(whole, ((2, 2), (2, 2), (0, 0)), "reflect")
        here = {
            (a, b) for a in range(5) for b in range(5)
            if np.array_equal(picture, padded[a : a + 32, b : b + 32])
        }  # fmt: skip
        assert here
        places |= here
    assert len(places) > 12
    np.testing.assert_array_equal(seen, recipe.augmented(SMOOTH, mirrored, seed=3))


def test_the_learning_rate_rises_and_falls():
    rates = [recipe.rate(part) for part in np.linspace(0, 1, 201)]
    assert rates[0] == 0.2 and rates[46] == 1.0 == max(rates) and rates[-1] == pytest.approx(0.07)


def test_lookahead_draws_the_model_to_its_average():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    average, weight, buffer = recipe.Lookahead(model), model[0].weight, model[1].running_mean
    before = weight.detach().numpy().copy()
    with minidl.no_grad():
        weight.copy_(before + 1)
        buffer.copy_(np.full(1, 4.0))
    average.step(0.75)
    np.testing.assert_allclose(weight.detach().numpy(), before + 0.25, rtol=1e-6)
    np.testing.assert_allclose(buffer.numpy(), 1.0)
    with minidl.no_grad():
        weight.copy_(before + 9)
    average.step(1.0)
    np.testing.assert_allclose(weight.detach().numpy(), before + 0.25, rtol=1e-6)


def test_six_views_of_a_picture_are_averaged():
    class Corner(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(np.ones(1, np.float32))

        def forward(self, x):
            return x[:, 0, 0] * self.weight

    images = RNG.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    x = (images / 255 - recipe.MEAN) / recipe.STD
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    corners = [
        (1 / 4, x[:, 0, 0]), (1 / 4, x[:, 0, -1]),
        (1 / 8, padded[:, 0, 0]), (1 / 8, padded[:, 0, -3]),
        (1 / 8, padded[:, 2, 2]), (1 / 8, padded[:, 2, -1]),
    ]  # fmt: skip
    expected = sum(share * corner for share, corner in corners)
    np.testing.assert_allclose(recipe.looked_at_often(Corner(), images), expected, atol=1e-5)


@pytest.mark.download
def test_it_learns(tmp_path):
    command = [sys.executable, EXAMPLE, "--quick", "--out", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1])}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["epoch"] for row in result["curve"]] == [1, 2]
    assert result["accuracy"] > 0.25 and f"{result['accuracy']:.2%}" in run.stdout
    model = recipe.network(np.zeros((2, 2, 3, 24)))
    assert minidl.load(tmp_path / "model.safetensors", model)[0].weight.numpy().any()
