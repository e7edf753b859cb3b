"""What the documents say of networks for images: layers, the zoo, layouts, transfer."""

import contextlib
import math
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import Tensor, io, models, nn, optim
from minidl.data import DataLoader, Normalize, digits
from minidl.nn import functional as F
from minidl.train import evaluate, fit, predict

ROOT = Path(__file__).parent.parent.parent
REFERENCE = os.environ.get("MINIDL_CPU") == "reference"


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# --- 5: input, convolution, pooling and dense layers


def convolved(x, w, b, stride, pad, dilation, groups):
    """The definition, a loop for each index: x (N, H, W, C), w (KH, KW, C / groups, F)."""
    (n, h, width, _), (kh, kw, c, f) = x.shape, w.shape
    padded = np.zeros((n, h + 2 * pad, width + 2 * pad, x.shape[3]))
    padded[:, pad : pad + h, pad : pad + width] = x
    rows = (h + 2 * pad - dilation * (kh - 1) - 1) // stride + 1
    columns = (width + 2 * pad - dilation * (kw - 1) - 1) // stride + 1
    y = np.zeros((n, rows, columns, f))
    for i, j, k in np.ndindex(rows, columns, f):
        first = k // (f // groups) * c  # of the channels that this filter's group sees
        for a, d in np.ndindex(kh, kw):
            pixel = padded[:, i * stride + a * dilation, j * stride + d * dilation]
            y[:, i, j, k] += pixel[:, first : first + c] @ w[a, d, :, k]
        y[:, i, j, k] += b[k]
    return y


def slope_is_right(layer, x, seed):
    """The gradient of <layer(x), v> along a direction is what differences say, in float64."""
    rng = np.random.default_rng(seed)
    x = Tensor(x, requires_grad=True)
    y = layer(x)
    v, direction = rng.standard_normal(y.shape), rng.standard_normal(x.shape)
    (y * Tensor(v)).sum().backward()
    ends = [layer(Tensor(x.detach().numpy() + s * 1e-6 * direction)).detach() for s in (1, -1)]
    slope = ((ends[0].numpy() - ends[1].numpy()) * v).sum() / 2e-6
    assert (x.grad.numpy() * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-7)


@given(
    stride=st.integers(1, 3),
    pad=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    size=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_row_05_convolution_is_its_definition(stride, pad, dilation, groups, size, seed):
    layer = nn.Conv2d(4, 8, (size, 2), stride, pad, dilation, groups).double()
    x = images(2, 6, 7, 4, seed=seed)
    w, b = layer.weight.numpy_view(), layer.bias.numpy_view()
    expected = convolved(x, w, b, stride, pad, dilation, groups)
    assert np.allclose(layer(Tensor(x)).detach(), expected, rtol=1e-10, atol=1e-12)
    slope_is_right(layer, x, seed)


@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AvgPool2d])
def test_row_05_pools_global_pool_and_dense_are_their_definitions(kind):
    x = images(2, 6, 8, 3)
    of = np.max if kind is nn.MaxPool2d else np.mean
    y = kind(2)(Tensor(x)).numpy()
    assert np.allclose(y, of(x.reshape(2, 3, 2, 4, 2, 3), axis=(2, 4)))
    assert np.allclose(nn.GlobalAvgPool2d()(Tensor(x)).numpy(), x.mean((1, 2)))
    dense = nn.Linear(3, 5).double()
    w, b = dense.weight.numpy_view(), dense.bias.numpy_view()
    assert np.allclose(dense(Tensor(x)).detach(), x @ w + b)
    for layer in (kind(2), nn.GlobalAvgPool2d(), dense):
        slope_is_right(layer, x, 1)


# --- 6: kernels of our own instead of cuDNN


@pytest.mark.numba
def test_row_06_all_algorithms_of_a_convolution_agree():
    layer, x = nn.Conv2d(16, 32, 3, padding=1), images(8, 12, 12, 16).astype(np.float32)
    exact = nn.Conv2d(16, 32, 3, padding=1)
    exact.load_state_dict(layer.state_dict())
    expected = exact.double()(Tensor(x.astype(np.float64))).detach().numpy()
    before = minidl.get_conv()
    try:
        for choice in ("direct", "winograd", "auto"):
            with contextlib.suppress(RuntimeError):  # a CPU without AVX2 has but one way
                minidl.set_conv(choice)
            y = layer(Tensor(x)).detach().numpy()
            assert np.abs(y - expected).max() < 1e-5, choice
    finally:
        minidl.set_conv(*before)


# --- 7: inference, validation and evaluation on the model's device


def test_row_07_a_network_on_the_gpu_predicts_what_it_does_on_the_cpu(cuda):
    minidl.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    x, y = images(12, 8, 8, 1).astype(np.float32), np.arange(12) % 3
    loader = DataLoader((x, y), 5)
    here, told = predict(model, x), evaluate(model, loader)
    model.to(cuda)
    there, told_there = predict(model, x), evaluate(model, loader)
    assert np.abs(here - there).max() < 1e-6 and np.allclose(here.sum(1), 1)
    assert told["accuracy"] == told_there["accuracy"]
    assert told["loss"] == pytest.approx(told_there["loss"], rel=1e-5)
    # nothing was learnt on the way: statistics and modes are as they were
    assert model.training and not model[1].running_mean.numpy_view().any()


# --- 8: image classification


@pytest.mark.download
@pytest.mark.parametrize(
    ("make", "least"),
    [
        (lambda: models.mnist_mlp(), 0.90),
        (lambda: models.LeNet(), 0.91),
        (lambda: models.VGG16(**SMALL, width=1 / 8, hidden=64, dropout=0.2, batch_norm=True), 0.90),
        (lambda: models.MobileNet(**SMALL, alpha=1 / 4, stride=1, blocks=(1, 2, 2)), 0.78),
        (lambda: models.ResNet20(input_shape=(32, 32, 1), width=0.25), 0.88),
    ],
    ids=["mnist-mlp", "lenet", "vgg16", "mobilenet", "resnet20"],
)
def test_row_08_every_network_learns_the_digits(make, least):
    minidl.manual_seed(0)
    model = make()
    train, test = digits("train")[:3000], digits("test")
    larger = getattr(model, "input_shape", ())[:1] == (32,)
    border = [lambda x: np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))] if larger else []
    scale = [Normalize(0.13, 0.31), *border]
    loader = DataLoader(train, 32, True, transform=scale)
    optimizer = optim.Adam(model.parameters())
    schedule = optim.OneCycleLR(optimizer, 4e-3, 3 * len(loader))
    fit(model, loader, epochs=3, optimizer=optimizer, schedule=schedule, progress=False)
    assert evaluate(model, DataLoader(test, 500, transform=scale))["accuracy"] >= least


SMALL = dict(input_shape=(32, 32, 1), classes=10)


@pytest.mark.download
def test_row_08_a_network_learns_photographs():
    from minidl.data import cifar10

    minidl.manual_seed(0)
    model = models.cifar10_cnn()
    fit(model, DataLoader(cifar10()[:8000], 32, True), epochs=3, progress=False)
    assert evaluate(model, DataLoader(cifar10("test")[:2000], 500))["accuracy"] >= 0.42


# --- 13: MobileNet


def test_row_13_mobilenet_is_the_papers():
    model = models.MobileNet()
    count = sum(p.size for p in model.parameters())
    assert count + sum(b.size for b in model.buffers()) == 4_253_864
    kinds = [type(layer).__name__ for layer in model][3:9]
    assert kinds == ["DepthwiseConv2d", "BatchNorm2d", "ReLU6", "Conv2d", "BatchNorm2d", "ReLU6"]
    assert [type(layer).__name__ for layer in model][-3:] == [
        "GlobalAvgPool2d",
        "Dropout",
        "Linear",
    ]


def test_row_13_what_the_document_types_is_answered():
    with pytest.raises(AttributeError, match="has no 'MobileNet'"):
        nn.MobileNet  # noqa: B018
    with pytest.raises(TypeError, match=r"'num_classes'; it takes .*classes, alpha, blocks, dropo"):
        models.MobileNet(
            num_classes=1, num_layers=2, dropout=0.1, in_features="post", num_blocks=3, device="cpu"
        )


def test_row_13_one_class_trains_with_a_binary_loss():
    """Is it a 1, or a 0? With the document's three stages of three blocks."""
    minidl.manual_seed(0)
    set_ = digits("train")
    set_ = set_[np.flatnonzero(set_.labels < 2)[:160]]
    x = (set_.images / np.float32(255)).astype(np.float32)
    y = set_.labels.astype(np.float32)[:, None]
    model = models.MobileNet(
        input_shape=(28, 28, 1), classes=1, alpha=0.125, blocks=(3, 3, 3), dropout=0.1
    )
    bce = F.binary_cross_entropy_with_logits
    loader = DataLoader((x, y), 16, shuffle=True, seed=0)
    history = fit(model, loader, epochs=6, lr=3e-3, loss=bce, progress=False)
    assert history["accuracy"][-1] > 0.85 > history["accuracy"][0]
    said = predict(model, x)
    assert said.shape == (160, 1) and ((said > 0.5) == (y > 0.5)).mean() > 0.95


# --- 15: relu


def test_row_15_relu_is_a_function_a_layer_and_a_name():
    x = Tensor(np.array([-1.0, 0.0, 2.0], np.float32))
    ways = [minidl.relu(x), F.relu(x), x.relu(), nn.ReLU()(x)]
    assert [y.tolist() for y in ways] == [[0, 0, 2]] * 4
    for name, layer in (("relu", nn.ReLU), ("relu6", nn.ReLU6)):
        model = models.MobileNet(alpha=1 / 32, classes=2, activation=name)
        assert type(model.conv1_relu) is layer
    with pytest.raises(ValueError, match="unknown activation of MobileNet 'reul'; did you mean"):
        models.MobileNet(activation="reul")


# --- 48: VGG16 with a new head


def test_row_48_vgg16_without_its_top():
    base = models.VGG16(include_top=False, input_shape=(32, 32, 3))
    assert sum(p.size for p in base.parameters()) == 14_714_688
    assert base(Tensor(images(1, 32, 32, 3).astype(np.float32))).shape == (1, 1, 1, 512)


def test_row_48_a_frozen_base_keeps_its_weights_and_a_new_head_learns():
    minidl.manual_seed(0)
    base = models.VGG16(include_top=False, input_shape=(32, 32, 3), width=1 / 16).freeze()
    model = nn.Sequential(base, nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
    before = model.state_dict()
    set_ = digits("train")[:128]
    x = np.pad(set_.images, ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, axis=3)
    history = fit(model, DataLoader((x, set_.labels), 16), epochs=3, lr=3e-3, progress=False)
    assert history["loss"][-1] < history["loss"][0]
    after = model.state_dict()
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("0.features.")}
    look = models.Features(base, ["features.16", "features.23"])  # in the middle, as layers[-2]
    shapes = {path: y.shape for path, y in look(Tensor(x[:2] / np.float32(255))).items()}
    assert shapes == {"features.16": (2, 4, 4, 16), "features.23": (2, 2, 2, 32)}


def test_row_48_the_whole_program_runs(tmp_path, monkeypatch, capsys):
    command = ["vgg16_transfer.py", "--quick", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(ROOT / "examples/vgg16_transfer.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "the base reads 0 to 4" in out and "fine-tuned" in out
    base = io.load(tmp_path / "out" / "base.safetensors")
    assert base.config["args"]["width"] == 0.125
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"base.safetensors", "result.json"}


# --- 54: fewer parameters


def test_row_54_a_summary_counts_parameters_operations_and_memory(capsys):
    result = models.cifar10_cnn().summary((1, 32, 32, 3))
    assert result.parameters == 167_562 and result.parameter_bytes == 4 * 167_562
    assert result.flops == sum(row.flops for row in result.rows)
    assert "167,562 parameters are trained" in capsys.readouterr().out


def test_row_54_widths_depthwise_filters_and_low_rank_have_fewer():
    def count(model):
        return sum(p.size for p in model.parameters())

    whole = models.VGG16(include_top=False, width=0.5)
    thin = models.VGG16(include_top=False, width=0.25)
    assert 3.9 < count(whole) / count(thin) < 4.1
    standard = nn.Conv2d(64, 128, 3, bias=False)
    pair = nn.DepthwiseConv2d(64, 3, bias=False), nn.Conv2d(64, 128, 1, bias=False)
    share = sum(map(count, pair)) / count(standard)
    assert share == pytest.approx(1 / 128 + 1 / 9)  # Howard et al. 2017, section 3.1
    dense = nn.Linear(256, 128)
    assert count(models.low_rank(dense, 8)) == 8 * (256 + 128) + 128


# --- 55: batch norm and residual connections


@pytest.mark.parametrize(
    ("make", "shape"), [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm2d, (4, 5, 5, 3))]
)
def test_row_55_batch_norm_is_numpys(make, shape):
    layer, x = make(3).double(), images(*shape) * 2 + 1
    with minidl.no_grad():
        layer.weight.copy_(np.array([1.0, 2.0, -1.0]))
        layer.bias.copy_(np.array([0.5, 0.0, 1.0]))
    rows = x.reshape(-1, 3)
    mean, var = rows.mean(0), rows.var(0)
    w, b = layer.weight.numpy_view(), layer.bias.numpy_view()
    y = layer(Tensor(x)).detach().numpy()
    assert np.allclose(y, (x - mean) / np.sqrt(var + 1e-5) * w + b)
    n = len(rows)  # the running variance is an estimate for the whole population: n - 1
    assert np.allclose(layer.running_mean.numpy(), 0.1 * mean)
    assert np.allclose(layer.running_var.numpy(), 0.9 + 0.1 * var * n / (n - 1))
    slope_is_right(layer, x, 2)
    held = layer.running_mean.numpy().copy(), layer.running_var.numpy().copy()
    y = layer.eval()(Tensor(x)).detach().numpy()
    assert np.allclose(y, (x - held[0]) / np.sqrt(held[1] + 1e-5) * w + b)


def test_row_55_residuals_have_the_right_slope_and_make_resnets():
    minidl.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Softplus())
    slope_is_right(nn.Residual(body).double(), images(2, 4, 4, 3), 3)
    slope_is_right(models.BasicBlock(3, 3).double(), images(2, 4, 4, 3, seed=5), 4)
    assert sum(p.size for p in models.ResNet20().parameters()) == 269_722
    assert sum(p.size for p in models.ResNet18().parameters()) == 11_689_512


# --- 66: layouts


def test_row_66_channels_first_and_channels_last_agree():
    """A network as PyTorch stores it, run on (N, C, H, W) by NumPy, and brought over here."""
    rng = np.random.default_rng(6)
    x, w, d = rng.random((2, 3, 6, 6)), rng.random((4, 3, 3, 3)), rng.random((5, 4 * 16))
    y = np.zeros((2, 4, 4, 4))
    for i, j in np.ndindex(4, 4):
        y[:, :, i, j] = np.einsum("nchw,fchw->nf", x[:, :, i : i + 3, j : j + 3], w)
    expected = y.reshape(2, -1) @ d.T
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 5)).double()
    state = {"0.weight": w, "0.bias": np.zeros(4), "2.weight": d, "2.bias": np.zeros(5)}
    model.load_state_dict(io.from_torch(state, model))
    found = model(Tensor(minidl.from_nchw(x))).detach().numpy()
    assert np.allclose(found, expected, rtol=1e-12)
    assert np.array_equal(minidl.to_nchw(minidl.from_nchw(x)), x)
    assert math.isclose(io.to_torch(model)["0.weight"][3, 2, 1, 0], w[3, 2, 1, 0])


def test_row_66_an_optimizer_trains_what_came_over():
    minidl.manual_seed(0)
    source = models.ResNet20(width=0.25)
    model = models.ResNet20(width=0.25)
    model.load_state_dict(io.from_torch(io.to_torch(source), model))
    x = Tensor(minidl.from_nchw(images(4, 3, 32, 32).astype(np.float32)))
    optimizer, losses = optim.SGD(model.parameters(), lr=0.05), []
    for _ in range(3):
        loss = F.cross_entropy(model(x), Tensor(np.arange(4)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
