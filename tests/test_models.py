"""The networks of minidl.models, and what is done with a part of one."""

import math

import numpy as np
import pytest

import minidl
from minidl import Tensor, models, nn, optim
from minidl.nn import functional as F

RNG = np.random.default_rng(3)


def sizes(model):
    """How many parameters, and how many running statistics."""
    return sum(p.size for p in model.parameters()), sum(b.size for b in model.buffers())


def images(*shape):
    return Tensor(RNG.standard_normal(shape).astype(np.float32))


# --- how large they are: the papers' numbers, torchvision's and Keras's


@pytest.mark.parametrize(
    ("make", "parameters", "statistics"),
    [
        (lambda: models.LeNet(), 60_000 + 900 - 44 + 850, 0),
        (lambda: models.VGG16(include_top=False), 14_714_688, 0),
        (lambda: models.VGG16(include_top=False, width=0.5), 3_680_160, 0),
        (
            lambda: models.VGG16(include_top=False, width=0.5, batch_norm=True),
            3_680_160 + 2_112,  # a scale and a shift for each of 2,112 biases
            2 * 2_112,
        ),
        (lambda: models.MobileNet(include_top=False), 3_228_864 - 21_888, 21_888),
        (lambda: models.MobileNet(alpha=0.25), 475_544 - 5_472, 5_472),
        (lambda: models.MobileNet(alpha=0.25, classes=1), 475_544 - 5_472 - 999 * 257, 5_472),
        (lambda: models.ResNet20(), 269_722, 1_376),
        (lambda: models.ResNet20(projection=True), 272_474, 1_568),
        (lambda: models.cifar10_cnn(), 167_562, 0),
    ],
)
def test_parameters_are_as_many_as_the_papers(make, parameters, statistics):
    assert sizes(make()) == (parameters, statistics)


def counted(model, parameters, statistics, billions):
    """Parameters, running statistics, and 10**9 pairs of a product and a sum, as papers count."""
    found = model.summary()
    assert sizes(model) == (found.parameters, statistics) == (parameters, statistics)
    pairs = 0
    for row in found.rows:
        if row.layer in ("Conv2d", "DepthwiseConv2d", "Linear"):
            size = math.prod(row.shape)
            pairs += -(-row.flops // (2 * size)) * size  # without a bias there is one sum less
    assert pairs / 1e9 == pytest.approx(billions, rel=1e-3)


def test_products_and_sums_are_as_many_as_the_papers(capsys):
    counted(models.MobileNet(), 4_253_864 - 21_888, 21_888, 0.569)  # Howard et al., table 4
    counted(models.ResNet18(), 11_689_512, 9_600, 1.814)  # He et al., table 1: 1.8
    assert "(1, 224, 224, 3)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="summary: give the shape of a batch"):
        nn.ReLU().summary()


@pytest.mark.slow
def test_the_whole_vgg16():
    counted(models.VGG16(), 138_357_544, 0, 15.47)


# --- what they compute


SMALL = {
    "LeNet": dict(classes=5),
    "VGG16": dict(input_shape=(32, 64, 3), width=1 / 16, hidden=8, classes=5),
    "VGG16 normed": dict(input_shape=(32, 32, 3), width=1 / 16, batch_norm=True, classes=5),
    "MobileNet": dict(input_shape=(32, 32, 3), alpha=1 / 8, blocks=(1, 2), stride=1, classes=5),
    "ResNet18": dict(width=1 / 16, input_shape=(32, 32, 3), classes=5),
    "ResNet18 small": dict(width=1 / 16, input_shape=(16, 16, 3), small_images=True, classes=5),
    "ResNet20": dict(width=1 / 4, classes=5),
    "ResNet20 projection": dict(width=1 / 4, projection=True, classes=5),
}


def small(name):
    minidl.manual_seed(4)
    return getattr(models, name.split()[0])(**SMALL[name])


@pytest.mark.parametrize("name", SMALL)
def test_a_captured_step_learns_and_is_the_eager_one_bit_for_bit(name):
    losses = {}
    for captured in (False, True):
        model = small(name)
        optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = minidl.capture(step, fuse=False) if captured else step
        x = Tensor(np.random.default_rng(5).standard_normal((10, *model.input_shape), np.float32))
        y = Tensor(np.arange(10) % 5)
        losses[captured] = [run(x, y).item() for _ in range(8)]
        assert not captured or run.program is not None
    assert losses[True] == losses[False]
    assert losses[True][-1] < losses[True][0]


def test_a_network_without_its_top_ends_in_an_image():
    x = images(2, 64, 32, 3)
    for make, channels in ((models.VGG16, 32), (models.MobileNet, 64), (models.ResNet18, 32)):
        thin = dict(alpha=1 / 16) if make is models.MobileNet else dict(width=1 / 16)
        model = make(include_top=False, input_shape=(64, 32, 3), **thin)
        assert model(x).shape == (2, 2, 1, channels)


def test_a_new_network_keeps_the_size_of_activations():
    minidl.manual_seed(0)
    x = images(4, 32, 32, 3)
    for make in (models.VGG16, models.MobileNet, models.ResNet18):
        thin = dict(alpha=1 / 4) if make is models.MobileNet else dict(width=1 / 4)
        y = make(include_top=False, input_shape=(32, 32, 3), **thin)(x).detach().numpy()
        assert 0.05 < y.std() < 20, make


def test_one_class_is_a_logit_for_a_binary_loss():
    from minidl.metrics import accuracy
    from minidl.train import predict

    model = models.MobileNet(classes=1, alpha=1 / 8, blocks=(1, 1), input_shape=(16, 16, 1))
    x = images(6, 16, 16, 1)
    logit = model.eval()(x).detach().numpy()
    assert logit.shape == (6, 1)
    assert np.allclose(predict(model, x), 1 / (1 + np.exp(-logit)), rtol=1e-5)
    said = np.array([[3.0], [-1.0], [0.5], [-2.0]])
    assert accuracy(said, np.array([1, 0, 0, 0])) == 0.75
    assert accuracy(said, np.array([[1.0], [0], [1], [1]])) == 0.75


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: models.VGG16(input_shape=(28, 28, 1)), "needs 32 pixels a side; pad or resize"),
        (lambda: models.VGG16(input_shape=(32, 32)), r"must be \(height, width, channels\)"),
        (lambda: models.LeNet(input_shape=(8, 28, 1)), "needs 12 pixels a side"),
        (lambda: models.MobileNet(blocks=3), r"how many each stage has; \(3, 3, 3\) is three"),
        (lambda: models.MobileNet(blocks=()), "how many each stage has"),
        (lambda: models.MobileNet(activation="tanh"), "unknown activation of MobileNet 'tanh'"),
        (lambda: models.build("vgg19"), "unknown model 'vgg19'; did you mean 'vgg16'"),
    ],
)
def test_networks_that_cannot_be_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_an_argument_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(
        TypeError, match=r"device; minidl\.load\(path, LeNet\(\.\.\.\)\) reads weights"
    ):
        models.LeNet(weights="imagenet")
    with pytest.raises(TypeError, match=r"MobileNet: .*'num_classes'; it takes .*classes, alpha"):
        models.MobileNet(num_classes=1)


def test_all_networks_are_known_by_their_names():
    known = ["cifar10-cnn", "lenet", "mnist-cnn", "mnist-mlp", "mobilenet"]
    assert models.names() == [*known, "resnet18", "resnet20", "vgg16"]
    model = models.build("lenet", classes=3, device="cpu")
    assert model.config == {"name": "lenet", "args": {"input_shape": (28, 28, 1), "classes": 3}}


# --- sums


def test_a_residual_adds_what_came_before():
    x = images(2, 6, 6, 3)
    body, shortcut = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(3, 4, 1, stride=2)
    same = nn.Residual(nn.ReLU())
    assert np.array_equal(same(x).numpy(), (F.relu(x) + x).numpy())
    assert np.allclose(nn.Residual(body, shortcut)(x).detach(), (body(x) + shortcut(x)).detach())
    with pytest.raises(ValueError, match=r"body \(2, 3, 3, 4\), shortcut \(2, 6, 6, 3\)\); give a"):
        nn.Residual(body)(x)


def test_a_block_is_what_its_layers_are_one_by_one():
    block = models.BasicBlock(4, 4).eval()
    for norm in (block.bn1, block.bn2):
        with minidl.no_grad():
            norm.running_mean.copy_(RNG.standard_normal(4).astype(np.float32))
            norm.weight.copy_(RNG.standard_normal(4).astype(np.float32))
    x = images(2, 5, 5, 4)
    y = F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))) + x)
    assert np.array_equal(block(x).detach().numpy(), y.detach().numpy())


def test_a_shortcut_without_parameters_is_every_other_pixel_and_zeros():
    block = models.ResNet20(width=1 / 8).layer2[0]
    x = images(2, 5, 6, 2)
    y = block.downsample(x).numpy()
    assert y.shape == (2, 3, 3, 4)
    assert np.array_equal(y[..., :2], x.numpy()[:, ::2, ::2]) and not y[..., 2:].any()


def test_summary_counts_the_sum_of_a_block(capsys):
    result = nn.Sequential(models.BasicBlock(3, 3), nn.Residual(nn.ReLU())).summary((1, 4, 4, 3))
    rows = {row.path: (row.layer, row.flops, row.parameters) for row in result.rows}
    assert rows["0"] == ("BasicBlock", 3 * 48, 0) and rows["1"] == ("Residual", 48, 0)
    assert list(rows)[:4] == ["0.conv1", "0.bn1", "0.conv2", "0.bn2"]
    assert result.parameters == 2 * (81 + 6)


@pytest.mark.parametrize("shape", [(5, 3), (4, 6, 3)])
def test_batch_norm_of_rows_and_of_sequences(shape):
    norm, same = nn.BatchNorm1d(3), nn.BatchNorm2d(3)
    x = images(*shape)
    assert np.array_equal(norm(x).detach().numpy(), same(x).detach().numpy())
    rows = x.numpy().reshape(-1, 3)
    assert np.allclose(norm.running_mean, rows.mean(0) / 10, atol=1e-6)
    net = nn.Sequential(norm, nn.ReLU())
    assert net._calls() == [(norm, True)] and (net(x).detach().numpy() >= 0).all()
    with pytest.raises(ValueError, match=r"BatchNorm1d: rows \(N, C\) or sequences"):
        norm(images(2, 4, 4, 3))


# --- parts of networks: frozen, replaced, looked into, made thin


def trained(model, steps=3):
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        model.train()
        loss = F.cross_entropy(model(images(8, 32, 32, 3)), Tensor(np.arange(8) % 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_frozen_part_keeps_its_weights_and_its_statistics():
    base = models.VGG16(
        include_top=False, input_shape=(32, 32, 3), width=1 / 16, batch_norm=True
    ).freeze()
    model = nn.Sequential(base, nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 2))
    before = model.state_dict()
    trained(model)
    after = model.state_dict()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"3.weight", "3.bias"}
    assert not base.features[1].training and model[2].training
    assert not base(images(2, 32, 32, 3)).requires_grad  # nothing is recorded for it
    base.freeze(False)
    trained(model)
    assert base.features[1].training
    thawed = model.state_dict()
    assert all(not np.array_equal(after[name], thawed[name]) for name in thawed)


def test_a_part_of_a_frozen_network_can_be_thawed():
    base = models.VGG16(include_top=False, input_shape=(32, 32, 3), width=1 / 16).freeze()
    base.features[24:].freeze(False)
    trained(nn.Sequential(base, nn.Flatten(), nn.Linear(32, 2)))
    learns = [path for path, p in base.named_parameters() if p.requires_grad]
    assert learns == [f"features.{i}.{n}" for i in (24, 26, 28) for n in ("weight", "bias")]


def test_heads_are_replaced():
    vgg = models.VGG16(input_shape=(32, 32, 3), width=1 / 16, hidden=8)
    vgg.classifier[-1] = nn.Linear(8, 3)
    resnet = models.ResNet18(width=1 / 16, small_images=True)
    resnet.fc = nn.Linear(32, 3)
    for model in (vgg, resnet):
        assert model(images(2, 32, 32, 3)).shape == (2, 3)
    assert list(resnet)[-1] is resnet.fc


def test_features_are_what_leaves_the_layers():
    model = small("VGG16").eval()
    x = images(2, 32, 64, 3)
    look = models.Features(model, ["features.2", "features.4", "classifier.0", ""])
    found = look(x)
    assert list(found) == look.layers
    for path, n in (("features.2", 3), ("features.4", 5)):
        assert np.allclose(found[path].detach(), model.features[:n](x).detach(), atol=1e-5)
    assert (found["features.2"].detach().numpy() < 0).any()  # before the relu behind it
    assert np.allclose(found[""].detach(), model(x).detach(), atol=1e-5)
    assert "forward" not in vars(model.features[2]) and "features.2" in repr(look)
    found["features.4"].sum().backward()
    assert model.features[0].weight.grad is not None
    with pytest.raises(ValueError, match=r"unknown layer 'feature\.2'; did you mean 'features"):
        models.Features(model, ["feature.2"])
    with pytest.raises(ValueError, match="channels"):
        look(images(2, 32, 64, 1))
    assert "forward" not in vars(model.features[2])


def test_features_of_a_layer_that_is_not_called():
    class Half(nn.Module):
        def __init__(self):
            self.used, self.idle = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.used(x)

    x = images(2, 3)
    assert np.array_equal(models.Features(Half(), "used")(x)["used"].numpy(), F.relu(x).numpy())
    with pytest.raises(RuntimeError, match="the network did not call idle"):
        models.Features(Half(), ["used", "idle"])(x)


@pytest.mark.parametrize(
    ("layer", "shape", "full"),
    [
        (lambda: nn.Linear(6, 4), (5, 6), 4),
        (lambda: nn.Linear(3, 7, bias=False), (5, 3), 3),
        (lambda: nn.Conv2d(2, 5, 3, 2, padding="same"), (2, 7, 7, 2), 5),
    ],
)
def test_low_rank_is_the_nearest_of_its_size(layer, shape, full):
    layer, x = layer().double(), Tensor(RNG.standard_normal(shape))
    whole = models.low_rank(layer, full)
    assert np.allclose(whole(x).detach(), layer(x).detach(), atol=1e-12)
    thin = models.low_rank(layer, 2)
    old = layer.weight.numpy_view()
    old = old.reshape(-1, old.shape[-1])
    new = thin[0].weight.numpy_view().reshape(-1, 2) @ thin[1].weight.numpy_view().reshape(2, -1)
    lost = np.linalg.svd(old, compute_uv=False)[2:]
    assert np.linalg.norm(old - new) == pytest.approx(np.sqrt((lost**2).sum()))
    bias = layer.bias is not None
    count = sum(p.size for p in thin.parameters())
    assert count == 2 * sum(old.shape) + old.shape[1] * bias
    assert thin(x).dtype == np.float64 and (thin[1].bias is not None) == bias


def test_low_rank_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="rank is 5, but must be from 1 to 4"):
        models.low_rank(nn.Linear(6, 4), 5)
    with pytest.raises(ValueError, match="has 2 groups"):
        models.low_rank(nn.Conv2d(4, 4, 3, groups=2), 1)
    with pytest.raises(TypeError, match="for a Linear or a Conv2d, not a ReLU"):
        models.low_rank(nn.ReLU(), 1)
