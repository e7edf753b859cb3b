"""Weights of PyTorch and Keras: built here with NumPy, run by a NumPy of their own layouts."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import save_file

import minidl
from minidl import Tensor, io, models, nn

RNG = np.random.default_rng(7)


def draw(*shape):
    return RNG.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))


# --- PyTorch's forward pass: images (N, C, H, W), filters (F, C / groups, H, W), dense (out, in)


def conv(x, state, name, stride=1, pad=0, groups=1):
    w, b = state[f"{name}.weight"], state.get(f"{name}.bias")
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    x = sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    x = x.reshape(len(x), groups, -1, *x.shape[2:])
    w = w.reshape(groups, -1, *w.shape[1:])
    y = np.einsum("ngcyxhw,gfchw->ngfyx", x, w, optimize=True)
    y = y.reshape(len(y), -1, *y.shape[3:])
    return y if b is None else y + b[:, None, None]


def norm(x, state, name, eps=1e-5):
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    scale = state[f"{name}.weight"] / np.sqrt(var + eps)
    shift = state[f"{name}.bias"] - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def pool(x, size, stride, pad=0):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=-np.inf)
    return sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride].max((4, 5))


def dense(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def relu(x):
    return np.maximum(x, 0)


def normed(channels, name):
    """What PyTorch's batch norm holds, counter included."""
    return {
        f"{name}.weight": 1 + 0.2 * draw(channels), f"{name}.bias": draw(channels),
        f"{name}.running_mean": draw(channels), f"{name}.running_var": 1 + RNG.random(channels),
        f"{name}.num_batches_tracked": np.array(3),
    }  # fmt: skip


def vgg16_of_torchvision(channels, hidden, classes, batch_norm):
    """A state and the forward pass of torchvision's VGG16, this narrow, for images of 64 x 64."""
    state, steps, before, place = {}, [], 3, 0
    for width, number in zip(channels, (2, 2, 3, 3, 3), strict=True):
        for _ in range(number):
            state |= {f"features.{place}.weight": draw(width, before, 3, 3) * 2}
            state |= {f"features.{place}.bias": draw(width)}
            steps.append(("conv", f"features.{place}"))
            before, place = width, place + 1
            if batch_norm:
                state |= normed(width, f"features.{place}")
                steps.append(("norm", f"features.{place}"))
                place += 1
            steps.append(("relu", ""))
            place += 1
        steps.append(("pool", ""))
        place += 1
    for place, (rows, columns) in zip(
        (0, 3, 6), ((before * 4, hidden), (hidden, hidden), (hidden, classes)), strict=True
    ):
        state[f"classifier.{place}.weight"] = draw(columns, rows)
        state[f"classifier.{place}.bias"] = draw(columns)

    def forward(x):
        for kind, name in steps:
            x = {
                "conv": lambda x, name: conv(x, state, name, pad=1),
                "norm": lambda x, name: norm(x, state, name),
                "relu": lambda x, name: relu(x),
                "pool": lambda x, name: pool(x, 2, 2),
            }[kind](x, name)
        x = x.reshape(len(x), -1)
        return dense(
            relu(dense(relu(dense(x, state, "classifier.0")), state, "classifier.3")),
            state, "classifier.6",
        )  # fmt: skip

    return state, forward


def resnet18_of_torchvision(width, classes):
    """A state and the forward pass of torchvision's ResNet-18, this narrow."""
    state = {"conv1.weight": draw(width, 3, 7, 7)} | normed(width, "bn1")
    before, blocks = width, []
    for stage in range(1, 5):
        after = width << (stage - 1)
        for block in range(2):
            name = f"layer{stage}.{block}"
            state[f"{name}.conv1.weight"] = draw(after, before, 3, 3)
            state[f"{name}.conv2.weight"] = draw(after, after, 3, 3)
            state |= normed(after, f"{name}.bn1") | normed(after, f"{name}.bn2")
            if before != after:
                state[f"{name}.downsample.0.weight"] = draw(after, before, 1, 1)
                state |= normed(after, f"{name}.downsample.1")
            blocks.append((name, 2 if before != after else 1))
            before = after
    state |= {"fc.weight": draw(classes, before), "fc.bias": draw(classes)}

    def forward(x):
        x = pool(relu(norm(conv(x, state, "conv1", 2, 3), state, "bn1")), 3, 2, 1)
        for name, stride in blocks:
            y = relu(norm(conv(x, state, f"{name}.conv1", stride, 1), state, f"{name}.bn1"))
            y = norm(conv(y, state, f"{name}.conv2", 1, 1), state, f"{name}.bn2")
            if stride == 2:
                x = conv(x, state, f"{name}.downsample.0", 2)
                x = norm(x, state, f"{name}.downsample.1")
            x = relu(x + y)
        return dense(x.mean((2, 3)), state, "fc")

    return state, forward


def outputs_agree(model, x, expected, bound=1e-9):
    y = model.eval()(Tensor(minidl.from_nchw(x))).detach().numpy()
    assert np.abs(expected).max() > 0.05  # not all zeros
    assert np.abs(y - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_torchvisions_vgg16_gives_the_same_outputs(batch_norm, tmp_path):
    state, forward = vgg16_of_torchvision((4, 8, 16, 32, 32), 12, 5, batch_norm)
    x = RNG.standard_normal((2, 3, 64, 64))
    save_file(state, tmp_path / "vgg16.safetensors")
    model = models.VGG16(
        input_shape=(64, 64, 3), width=1 / 16, hidden=12, classes=5, batch_norm=batch_norm
    ).double()
    assert minidl.load(tmp_path / "vgg16.safetensors", model) is model
    outputs_agree(model, x, forward(x))
    back = io.to_torch(model)
    if not batch_norm:  # a bias in front of a norm is gone for good
        assert back.keys() == state.keys()
        assert all(np.array_equal(back[name], state[name]) for name in state)


def test_torchvisions_resnet18_gives_the_same_outputs_and_goes_back(tmp_path):
    state, forward = resnet18_of_torchvision(4, 5)
    x = RNG.standard_normal((2, 3, 40, 33))
    model = models.ResNet18(width=1 / 16, classes=5).double()
    save_file(state, tmp_path / "resnet.safetensors")
    minidl.load(tmp_path / "resnet.safetensors", model)
    outputs_agree(model, x, forward(x))
    back = io.to_torch(model)
    kept = {name for name in state if not name.endswith("num_batches_tracked")}
    assert kept == back.keys()
    assert all(np.array_equal(back[name], state[name]) for name in kept)


def test_every_layout_comes_from_pytorch_and_goes_back():
    model = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), groups=2), nn.DepthwiseConv2d(6, 3, depth_multiplier=2, padding=1),
        nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 4 * 3, 5), nn.Linear(5, 5),
    ).double()  # fmt: skip
    state = {
        "0.weight": draw(6, 2, 3, 2), "0.bias": draw(6),
        "1.weight": draw(12, 1, 3, 3), "1.bias": draw(12), **normed(12, "2"),
        "5.weight": draw(5, 144), "5.bias": draw(5), "6.weight": draw(5, 5), "6.bias": draw(5),
    }  # fmt: skip
    x = RNG.standard_normal((3, 4, 6, 4))
    y = conv(x, state, "0", groups=2)
    y = relu(norm(conv(y, state, "1", pad=1, groups=6), state, "2")).reshape(3, -1)
    model.load_state_dict(io.from_torch(state, model))
    outputs_agree(model, x, dense(dense(y, state, "5"), state, "6"))
    for name, array in io.to_torch(model).items():
        assert np.array_equal(array, state[name]), name


def test_sequences_of_pytorch_have_their_length_last():
    model = nn.Sequential(nn.Conv1d(3, 4, 2), nn.Flatten(), nn.Linear(16, 2)).double()
    state = {
        "0.weight": draw(4, 3, 2), "0.bias": draw(4), "2.weight": draw(2, 16), "2.bias": draw(2)
    }  # fmt: skip
    x = RNG.standard_normal((2, 3, 5))
    two_d = state | {"0.weight": state["0.weight"][:, :, None]}
    y = conv(x[:, :, None], two_d, "0").reshape(2, -1)
    model.load_state_dict(io.from_torch(state, model))
    found = model(Tensor(x.transpose(0, 2, 1))).detach().numpy()
    assert np.allclose(found, dense(y, state, "2"), rtol=1e-12)
    assert all(np.array_equal(a, state[name]) for name, a in io.to_torch(model).items())


def test_half_precision_is_widened_and_integers_stay():
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    state = {"0.weight": draw(3, 2), "1.weight": draw(2, 2), "1.bias": draw(2)}
    found = io.from_torch({k: a.astype(np.float16) for k, a in state.items()}, model)
    assert {a.dtype.name for a in found.values()} == {"float32"}
    model.load_state_dict(found)
    assert np.array_equal(model[1].weight.numpy_view(), state["1.weight"].astype("f2").T)


def test_the_source_can_be_told(tmp_path):
    model, weight = nn.Linear(2, 2), np.array([[1, 2], [3, 4]], np.float32)
    state = {"weight": weight, "bias": np.zeros(2, np.float32)}
    np.savez(tmp_path / "w.npz", **state)
    save_file(state, tmp_path / "w.safetensors")
    found = {}
    for kind in ("npz", "safetensors"):
        for source in (None, "minidl", "torch"):
            minidl.load(tmp_path / f"w.{kind}", model, source=source)
            found[kind, source] = model.weight.numpy_view()[0, 1]
    assert found == {
        ("npz", None): 2, ("npz", "minidl"): 2, ("npz", "torch"): 3,
        ("safetensors", None): 3, ("safetensors", "minidl"): 2, ("safetensors", "torch"): 3,
    }  # fmt: skip
    minidl.save(model, tmp_path / "own.safetensors")  # holds what it wrote in its own layout
    before = model.weight.numpy_view().copy()
    minidl.load(tmp_path / "own.safetensors", model)
    assert np.array_equal(model.weight.numpy_view(), before)
    with pytest.raises(ValueError, match="unknown source 'pytorch'; did you mean 'torch'"):
        minidl.load(tmp_path / "w.npz", model, source="pytorch")


def test_weights_of_another_network_change_nothing(tmp_path):
    state, _ = resnet18_of_torchvision(4, 5)
    model = models.ResNet18(width=1 / 16, classes=6)
    before = model.state_dict()
    del state["bn1.bias"]
    state["extra.weight"] = draw(2)
    save_file(state, tmp_path / "resnet.safetensors")
    with pytest.raises(ValueError, match=r"resnet\.safetensors: load_state_dict") as caught:
        minidl.load(tmp_path / "resnet.safetensors", model)
    for words in ("missing: bn1.bias", "unexpected: extra.weight", "mismatch: fc.weight"):
        assert words in str(caught.value)
    assert all(np.array_equal(before[name], a) for name, a in model.state_dict().items())


def test_a_layer_whose_layout_is_not_known_is_named():
    class Own(nn.Module):
        def __init__(self):
            self.table = nn.Parameter(np.zeros((2, 2)))

    with pytest.raises(TypeError, match=r"0\.table: how PyTorch lays out a Own is not known"):
        io.from_torch({}, nn.Sequential(Own()))


# --- Keras


def same(x, w, stride):
    """TensorFlow's "same" padding of images (N, H, W, C)."""
    sides = []
    for n, k in zip(x.shape[1:3], w.shape[:2]):
        total = max((-(-n // stride) - 1) * stride + k - n, 0)
        sides.append((total // 2, total - total // 2))
    return np.pad(x, ((0, 0), *sides, (0, 0)))


def windows(x, w, stride, behind):
    """(N, OH, OW, C, KH, KW); behind: Keras pads at the end only, where it halves depthwise."""
    x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))) if behind else same(x, w, stride)
    return sliding_window_view(x, w.shape[:2], (1, 2))[:, ::stride, ::stride]


def mobilenet_of_keras(channels, blocks, classes):
    """Weights by the paths of a Keras 2 file, and the forward pass, with relu6."""
    weights = {}

    def layer(name, part, *shape):
        array = 3 * draw(*shape[::-1]).T if part.endswith("kernel") else draw(*shape)
        array = 1 + RNG.random(shape) if part in ("gamma", "moving_variance") else array
        weights[f"{name}/{name}/{part}:0"] = array
        return array

    def relu6_of_norm(x, name):
        gamma, beta, mean, var = (
            weights[f"{name}/{name}/{part}:0"]
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return np.clip((x - mean) / np.sqrt(var + 1e-3) * gamma + beta, 0, 6)

    steps, before = [], channels
    layer("conv1", "kernel", 3, 3, 3, channels)
    steps.append(("conv1", "kernel", channels, 2))
    numbers = [(s, b) for s, n in enumerate(blocks) for b in range(n)]
    for i, (stage, block) in enumerate(numbers, 1):
        after = 2 * channels << stage
        layer(f"conv_dw_{i}", "depthwise_kernel", 3, 3, before, 1)
        layer(f"conv_pw_{i}", "kernel", 1, 1, before, after)
        steps.append((f"conv_dw_{i}", "depthwise_kernel", before, 1 + (stage > 0 and block == 0)))
        steps.append((f"conv_pw_{i}", "kernel", after, 1))
        before = after
    for name, _, width, _ in steps:
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            layer(f"{name}_bn", part, width)
    layer("conv_preds", "kernel", 1, 1, before, classes)
    layer("conv_preds", "bias", classes)

    def forward(x):
        for name, part, _, stride in steps:
            w = weights[f"{name}/{name}/{part}:0"]
            how = "nyxchw,hwcf->nyxf" if part == "kernel" else "nyxchw,hwcm->nyxc"
            behind = part != "kernel" and stride == 2
            y = np.einsum(how, windows(x, w, stride, behind), w, optimize=True)
            x = relu6_of_norm(y, f"{name}_bn")
        w, b = (weights[f"conv_preds/conv_preds/{part}:0"] for part in ("kernel", "bias"))
        return x.mean((1, 2)) @ w[0, 0] + b

    return weights, forward


def test_mobilenet_of_keras_gives_the_same_outputs():
    weights, forward = mobilenet_of_keras(4, (1, 2, 1), 3)
    model = models.MobileNet(alpha=1 / 8, blocks=(1, 2, 1), classes=3).double()
    model.load_state_dict(io.from_keras(weights, model))
    x = RNG.standard_normal((2, 3, 21, 32))  # odd and even: "same" pads them differently
    outputs_agree(model, x, forward(minidl.from_nchw(x)))


def test_keras_names_and_numbers_layers():
    model = models.VGG16(input_shape=(32, 32, 3), width=1 / 64, hidden=3, classes=2)
    names = model.keras_names
    assert len(names) == 16
    assert [names[n] for n in ("block1_conv1", "block2_conv1", "block5_conv3", "fc2")] == [
        "features.0", "features.5", "features.28", "classifier.3"
    ]  # fmt: skip
    state = model.state_dict()
    named, numbered, counts = {}, {}, {}
    for name, path in names.items():
        kind = "conv2d" if "conv" in name else "dense"
        counts[kind] = counts.get(kind, 7) + 1  # others were made before in that process
        vars_ = f"layers/{kind}_{counts[kind]}/vars"
        for i, (own, theirs) in enumerate((("weight", "kernel"), ("bias", "bias"))):
            named[f"model_weights/{name}/{name}/{theirs}:0"] = state[f"{path}.{own}"]
            numbered[f"{vars_}/{i}"] = state[f"{path}.{own}"]
    backwards = dict(reversed(numbered.items()))
    for weights in (named, numbered, backwards):
        found = io.from_keras(weights, model)
        assert found.keys() == state.keys()
        assert all(np.array_equal(found[name], state[name]) for name in state)
    with pytest.raises(ValueError, match="block6_conv1/kernel: no layer of VGG is called so"):
        io.from_keras({"block6_conv1/kernel": np.zeros(1)}, model)
    with pytest.raises(ValueError, match="block1_conv1/kernels: no layer"):
        io.from_keras({"block1_conv1/kernels": np.zeros(1)}, model)


# --- images


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5)])
def test_images_of_pytorch_are_turned_and_back(shape):
    x = RNG.standard_normal(shape).astype(np.float32)
    y = minidl.from_nchw(x)
    assert y.shape == (*shape[:-3], 4, 5, 3) and np.shares_memory(x, y)
    assert y[..., 1, 2, 0].tolist() == x[..., 0, 1, 2].tolist()
    assert np.array_equal(minidl.to_nchw(y), x)
    t = Tensor(x, requires_grad=True)
    turned = minidl.from_nchw(t)
    assert np.array_equal(turned.detach().numpy(), y)
    weight = RNG.standard_normal(y.shape).astype(np.float32)
    (turned * Tensor(weight)).sum().backward()
    assert np.array_equal(t.grad.numpy(), minidl.to_nchw(weight))
    with pytest.raises(ValueError, match=r"to_nchw: images \(N, H, W, C\) are needed"):
        minidl.to_nchw(x[0, 0] if len(shape) == 4 else x[0])
