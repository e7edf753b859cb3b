"""Layers and Module: what they hold, compute, print and refuse."""

import copy
import math
from unittest import mock

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn
from minidl.nn import functional as F
from minidl.nn import init


def wave(*shape, phase=0.0):
    """Numbers that every framework can make alike."""
    return np.sin(np.arange(math.prod(shape)) * 0.7 + phase).reshape(shape)


class Net(nn.Module):
    """Parameters, a buffer, modules within modules, and a layer used twice."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm2d(4), nn.ReLU())
        self.scale = nn.Parameter(np.ones(4, np.float32))
        self.head = nn.Linear(4, 2, bias=False)
        self.again = self.head
        self.register_buffer("count", Tensor(np.zeros(1, np.float32)), persistent=False)

    def forward(self, x):
        return self.head(self.body(x) * self.scale)


NAMES = ["scale", "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "head.weight"]
STATISTICS = ["body.1.running_mean", "body.1.running_var"]


# --- what a module holds


def test_parameters_and_buffers_are_found_by_their_paths():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_buffers()] == ["count", *STATISTICS]
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [name for name, _ in net.named_modules()] == [
        "", "body", "body.0", "body.1", "body.2", "head",
    ]  # fmt: skip
    assert [name for name, _ in net.named_children()] == ["body", "head"]
    assert list(net.children()) == [net.body, net.head]
    assert [p.shape for p in net.parameters()] == [(4,), (3, 4), (4,), (4,), (4,), (4, 2)]
    assert len(list(net.buffers())) == 3 and len(list(net.modules())) == 6


def test_a_tied_parameter_appears_once_and_gets_both_gradients():
    class Tied(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    net = Tied()
    assert [name for name, _ in net.named_parameters()] == ["a.weight"]
    assert list(net.state_dict()) == ["a.weight"]
    x = wave(2, 3).astype(np.float32)
    net(Tensor(x)).sum().backward()
    w, ones = net.a.weight.numpy_view(), np.ones((2, 3), np.float32)
    expected = x.T @ (ones @ w.T) + (x @ w).T @ ones
    np.testing.assert_allclose(net.a.weight.grad.numpy(), expected, rtol=1e-5)


def test_super_init_may_be_left_out():
    class Bare(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 2)
            self.register_buffer("seen", None)

    net = Bare()
    assert net.training and len(list(net.parameters())) == 2 and not list(net.buffers())
    assert not net.eval().layer.training


def test_what_parameters_could_not_find_is_refused():
    net = Net()
    with pytest.raises(TypeError, match=r"Net.layers: .* a list; put layers into nn.Sequential"):
        net.layers = [nn.Linear(1, 1)]
    with pytest.raises(TypeError, match="does not look into a dict"):
        net.layers = {"a": nn.Parameter([1.0])}
    with pytest.raises(TypeError, match=r"Net.scale is a parameter .* nn.Parameter, or .*copy_"):
        net.scale = Tensor([1.0])
    with pytest.raises(TypeError, match="register_buffer: mean is a float"):
        net.register_buffer("mean", 1.0)
    net.sizes = [1, 2]  # no parameters in it: an attribute like any other
    net.scale = None
    assert "scale" not in dict(net.named_parameters())


def test_a_buffer_stays_one_when_it_is_assigned_anew():
    net = Net()
    net.count = Tensor([7.0])
    assert dict(net.named_buffers())["count"].item() == 7


def test_train_eval_and_zero_grad_reach_every_layer():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    net.body[0].requires_grad_(False)
    net(minidl.rand(4, 3)).sum().backward()
    assert net.scale.grad is not None and net.body[0].weight.grad is None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("mode", [1, np.zeros(3), "x", None])
def test_train_with_data_says_fit(mode):
    with pytest.raises(TypeError, match="use fit"):
        Net().train(mode)


def test_forward_must_be_defined():
    class Keras(nn.Module):
        def call(self, x):
            return x

    with pytest.raises(NotImplementedError, match=r"Module does not say .*def forward\(self, x\)"):
        nn.Module()(1)
    with pytest.raises(NotImplementedError, match=r"Keras .* rename `call` to `forward`"):
        Keras()(1)


def test_apply_goes_inside_out():
    seen = []
    net = Net()
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "BatchNorm2d", "ReLU", "Sequential", "Linear", "Net"]


def test_double_and_float_convert_parameters_and_buffers():
    net = Net()
    before = net.state_dict()
    net(minidl.rand(4, 3)).sum().backward()
    assert net.double() is net
    tensors = [*net.parameters(), *net.buffers()]
    assert {t.dtype.name for t in tensors} == {"float64"}
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    y = net(minidl.rand(4, 3, dtype="float64"))
    y.sum().backward()
    assert y.dtype == net.scale.grad.dtype == np.float64
    net.float().load_state_dict(before)
    assert net.scale.dtype == np.float32 and net.to("cpu") is net
    with pytest.raises(TypeError, match="they cannot be int64"):
        net.astype("int64")
    with pytest.raises(RuntimeError, match="no device 'tpu'"):
        net.to("tpu")


def test_a_frozen_parameter_stays_frozen_when_converted():
    layer = nn.Linear(2, 2).requires_grad_(False).double()
    assert not any(p.requires_grad for p in layer.parameters())


def test_deepcopy_is_independent():
    net = Net()
    twin = copy.deepcopy(net)
    assert twin.again is twin.head and list(twin.state_dict()) == list(net.state_dict())
    twin(minidl.rand(4, 3)).sum().backward()
    assert twin.scale.grad is not None and net.scale.grad is None
    twin.scale.numpy_view()[:] = 5
    assert net.scale.numpy_view()[0] == 1 and isinstance(twin.scale, nn.Parameter)


# --- saving and loading


def test_state_dict_is_a_copy_and_comes_back():
    minidl.manual_seed(1)
    one, two = Net(), Net()
    state = one.state_dict()
    assert list(state) == [NAMES[0], *NAMES[1:5], *STATISTICS, NAMES[5]]
    held = two.scale.data
    assert two.load_state_dict(state) == ([], [])
    assert two.scale.data is held, "an optimizer's flat buffer must stay the home"
    x = minidl.rand(4, 3)
    assert np.array_equal(one.eval()(x).detach(), two.eval()(x).detach())
    one.scale.numpy_view()[:] = 9
    assert state["scale"][0] == 1
    two.load_state_dict({name: Tensor(a) for name, a in state.items()})


def test_a_state_that_does_not_fit_changes_nothing():
    net = Net()
    before = net.state_dict()
    state = {name: a + 1 for name, a in before.items()}
    state["head.wieght"] = state.pop("head.weight")
    state["body.0.weight"] = state["body.0.weight"].T
    state["scale"] = state["scale"].astype(np.float64)
    with pytest.raises(ValueError) as error:
        net.load_state_dict(state)
    assert str(error.value).splitlines() == [
        "load_state_dict: the state does not fit Net, and nothing was changed:",
        "  missing: head.weight float32 (4, 2)",
        "  unexpected: head.wieght float32 (4, 2); did you mean 'head.weight'?",
        "  mismatch: scale is float32 (4,), but float64 (4,) in the state",
        "  mismatch: body.0.weight is float32 (3, 4), but float32 (4, 3) in the state; "
        "weights are (in, out), filters (height, width, in, out)",
    ]
    assert all(np.array_equal(a, before[name]) for name, a in net.state_dict().items())


def test_loading_without_strict_passes_over_names_but_not_shapes():
    net = Net()
    ones = np.ones(4, np.float32) * 3
    left = net.load_state_dict({"scale": ones, "other": ones}, strict=False)
    assert left.unexpected_keys == ["other"]
    assert left.missing_keys == [*NAMES[1:5], *STATISTICS, NAMES[5]]
    assert np.array_equal(net.scale.detach(), ones)
    with pytest.raises(ValueError, match=r"mismatch: scale is float32 \(4,\), but float32 \(5,\)"):
        net.load_state_dict({"scale": np.ones(5, np.float32)}, strict=False)


# --- errors from inside a layer


def notes(call):
    with pytest.raises(Exception) as error:
        call()
    return getattr(error.value, "__notes__", [])


def test_an_error_names_the_layer_by_its_path():
    net = Net()
    assert notes(lambda: net(minidl.rand(4, 5))) == ["in layer body.0 (Linear)"]
    assert notes(lambda: nn.Sequential(net)(minidl.rand(4, 5))) == ["in layer 0.body.0 (Linear)"]
    assert notes(lambda: net.head(minidl.rand(4, 5))) == [], "the op's own words are enough"


def test_notes_of_others_stay():
    class Noting(nn.Module):
        def forward(self, x):
            error = KeyError("k")
            error.add_note("mine")
            raise error

    model = nn.Sequential(nn.Sequential(nn.ReLU(), Noting()))
    assert notes(lambda: model(Tensor([1.0]))) == ["mine", "in layer 0.1 (Noting)"]


def test_a_linear_after_images_hears_of_flatten():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(8, 2))
    with pytest.raises(ValueError, match="Flatten") as error:
        model(minidl.rand(2, 6, 6, 1))
    assert error.value.__notes__ == ["in layer 1 (Linear)"]


# --- printing


def test_repr_is_nested_as_in_pytorch():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same", bias=False),
        nn.Sequential(nn.BatchNorm2d(4), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(4, 2),
    )
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=same, bias=False)\n"
        "  (1): Sequential(\n"
        "    (0): BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)\n"
        "    (1): MaxPool2d(kernel_size=(2, 2), stride=(2, 2), padding=0)\n"
        "  )\n"
        "  (2): Flatten(start_dim=1, end_dim=-1)\n"
        "  (3): Dropout(p=0.1)\n"
        "  (4): Linear(in_features=4, out_features=2, bias=True)\n"
        ")"
    )
    assert repr(nn.Conv2d(4, 6, 3, 1, 0, (1, 2), 2)) == (
        "Conv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), dilation=(1, 2), groups=2)"
    )
    assert repr(nn.ReLU()) == "ReLU()"
    assert repr(nn.GELU("tanh")) == "GELU(approximate='tanh')"
    assert repr(nn.LeakyReLU()) == "LeakyReLU(negative_slope=0.01)"
    assert repr(nn.Softplus(2)) == "Softplus(beta=2, threshold=20.0)"
    assert repr(nn.Parameter([1.0])).startswith("Parameter containing:\ntensor([1.]")


def test_summary_counts(capsys):
    relu = nn.ReLU()
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), relu, nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(), nn.Linear(36, 5, bias=False), relu,
    )  # fmt: skip
    model[0].requires_grad_(False)
    model[1].eval()
    state = minidl.random.default_generator().get_state()
    result = model.summary((3, 6, 6, 2))
    rows = {
        (row.path, row.layer): (row.shape, row.parameters, row.flops, row.bytes)
        for row in result.rows
    }
    image = 3 * 6 * 6 * 4
    assert len(result.rows) == 8 and rows == {
        ("0", "Conv2d"): ((3, 6, 6, 4), 76, image * 36, image * 4),
        ("1", "BatchNorm2d"): ((3, 6, 6, 4), 8, image * 2, image * 4),
        ("2", "ReLU"): ((3, 5), 0, 15, 60),
        ("3", "MaxPool2d"): ((3, 3, 3, 4), 0, 108 * 3, 108 * 4),
        ("4", "Flatten"): ((3, 36), 0, 0, 0),
        ("5", "Dropout"): ((3, 36), 0, 0, 0),
        ("6", "Linear"): ((3, 5), 180, 15 * 71, 60),
    }
    assert (result.parameters, result.trainable) == (264, 188)
    assert (result.parameter_bytes, result.buffer_bytes) == (264 * 4, 32)
    assert result.flops == sum(row.flops for row in result.rows)
    assert result.activation_bytes == 3 * image * 4 + 108 * 4 + 60 + 60
    printed = capsys.readouterr().out
    assert printed == f"{result}\n" and "264" in printed and "(3, 6, 6, 4)" in printed
    assert "5.6 KiB" in printed and "not known" not in printed
    # the network is as it was
    assert model.training and not model[1].training and "forward" not in vars(relu)
    assert np.array_equal(model[1].running_mean.numpy(), np.zeros(4))
    assert minidl.random.default_generator().get_state() == state


def test_summary_of_a_layer_it_does_not_know_and_of_a_failing_one(capsys):
    class Own(nn.Module):
        def forward(self, x):
            return x + x

    net = nn.Sequential(Own(), Net())
    result = net.summary(Tensor(np.zeros((2, 3), np.float32)))
    assert result.rows[0].flops is None and "- is not known" in result.text
    paths = ["0", "1.body.0", "1.body.1", "1.body.2", "1.head", "1"]
    assert [row.path for row in result.rows] == paths
    assert sum(row.parameters for row in result.rows) == result.parameters == 36
    with pytest.raises(ValueError, match="features"):
        net.summary((2, 4))
    assert "forward" not in vars(net[0]) and net.training
    assert nn.ReLU().summary((2, 2)).parameters == 0


# --- layers


def network(dtype="float64"):
    """The network of tests/test_optim.py: weights that PyTorch was given too."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12, 4),
    ).astype(dtype)  # fmt: skip
    values = {
        "0.weight": wave(3, 3, 2, 3), "0.bias": wave(3, phase=1),
        "1.weight": 1 + 0.5 * wave(3, phase=2), "1.bias": wave(3, phase=3),
        "1.running_mean": np.zeros(3), "1.running_var": np.ones(3),
        "5.weight": wave(12, 4, phase=4), "5.bias": wave(4, phase=5),
    }  # fmt: skip
    model.load_state_dict({name: value.astype(dtype) for name, value in values.items()})
    return model


def batch(dtype="float64"):
    x = wave(5, 8, 8, 2, phase=6) * wave(5, 8, 8, 2, phase=0.3)
    return Tensor(x.astype(dtype)), Tensor(np.array([0, 3, 1, 2, 2]))


@pytest.mark.parametrize("dtype, bound", [("float64", 1e-13), ("float32", 1e-6)])
def test_the_layers_compute_what_pytorch_computes(dtype, bound):
    model, (x, label) = network(dtype), batch(dtype)
    loss = nn.CrossEntropyLoss()(model(x), label)
    assert loss.dtype == dtype and loss.item() == pytest.approx(1.404357859253477, rel=bound)
    assert [p.grad for p in model.parameters()] == [None] * 6
    loss.backward()
    norm = math.sqrt(sum(float((p.grad.numpy() ** 2).sum()) for p in model.parameters()))
    assert norm == pytest.approx(1.958020790978631, rel=10 * bound)


def test_batch_norm_moves_its_statistics_in_training_alone():
    layer, x = nn.BatchNorm2d(2, momentum=0.5), np.array([[0.0, 2], [4, 2]], np.float32)
    y = layer(Tensor(x)).detach().numpy()
    np.testing.assert_allclose(y, [[-1, 0], [1, 0]], atol=1e-5)
    np.testing.assert_allclose(layer.running_mean, [1, 1])
    np.testing.assert_allclose(layer.running_var, [4.5, 0.5])  # unbiased: 8
    y = layer.eval()(Tensor(x)).detach().numpy()
    np.testing.assert_allclose(y[:, 0], [-1 / 4.5**0.5, 3 / 4.5**0.5], rtol=1e-5)
    np.testing.assert_allclose(layer.running_mean, [1, 1])


def test_batch_norm_without_weights_or_statistics():
    layer = nn.BatchNorm2d(2, affine=False, track_running_stats=False).eval()
    assert not list(layer.parameters()) and not layer.state_dict()
    y = layer(Tensor([[0.0, 2], [4, 2]])).numpy()
    np.testing.assert_allclose(y, [[-1, 0], [1, 0]], atol=1e-5)


def test_dropout_works_in_training_alone():
    minidl.manual_seed(0)
    layer, x = nn.Dropout(0.25), Tensor(np.ones((100, 100), np.float32))
    y = layer(x).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / y.size)
    assert layer.eval()(x) is x and nn.Dropout(0)(x) is x


def test_flatten_linear_and_pool_shapes():
    x = minidl.rand(2, 5, 6, 3)
    assert nn.Flatten()(x).shape == (2, 90) and nn.Flatten(0, 1)(x).shape == (10, 6, 3)
    assert nn.Linear(3, 7)(x).shape == (2, 5, 6, 7)
    assert nn.MaxPool2d((2, 3), stride=1, padding=(0, 1))(x).shape == (2, 4, 6, 3)
    assert nn.Conv2d(3, 4, (1, 3), stride=(2, 1))(x).shape == (2, 3, 4, 4)
    layer = nn.Conv2d(3, 6, 3, 2, "same", dilation=(2, 1), groups=3)
    assert layer.weight.shape == (3, 3, 1, 6) and layer(x).shape == (2, 3, 3, 6)
    assert layer.summary(x.shape).flops == 2 * 3 * 3 * 6 * (2 * 9)


@pytest.mark.parametrize("reduction, expected", [("mean", 1.5), ("sum", 3.0), ("none", [1.0, 2.0])])
def test_cross_entropy_reductions(reduction, expected):
    first, second = -np.log(np.expm1([1.0, 2.0]))  # log(1 + exp(-z)) = 1 and 2
    x = Tensor(np.array([[first, 0.0], [0.0, second]]))
    loss = nn.CrossEntropyLoss(reduction=reduction)(x, Tensor(np.array([0, 1])))
    np.testing.assert_allclose(loss.numpy(), expected)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: nn.Linear(0, 3), ValueError, "Linear: in_features is 0, but must be at least 1"),
        (lambda: nn.Linear(3, 2.0), TypeError, "Linear: out_features is 2.0.* whole number"),
        (lambda: nn.Conv2d(3, True, 3), TypeError, "out_channels is True"),
        (lambda: nn.Conv2d(3, 4, (3, 0)), ValueError, "kernel_size is 0"),
        (lambda: nn.Conv2d(3, 4, "3"), TypeError, "kernel_size is '3'.*pair"),
        (lambda: nn.Conv2d(3, 4, (1, 2, 3)), TypeError, r"kernel_size is \(1, 2, 3\)"),
        (lambda: nn.Conv2d(3, 4, 3, dilation=0), ValueError, "Conv2d: dilation is 0"),
        (lambda: nn.Conv2d(4, 4, 3, groups=0), ValueError, "Conv2d: groups is 0"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "in_channels is 3, which does not div"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), ValueError, "out_channels is 3, which does not d"),
        (lambda: nn.MaxPool2d(2, stride=-1), ValueError, "MaxPool2d: stride is -1"),
        (lambda: nn.BatchNorm2d(3, momentum=None), ValueError, "momentum is None"),
        (lambda: nn.Dropout(1.5), ValueError, "probability p is 1.5"),
        (
            lambda: nn.CrossEntropyLoss(reduction="avg"),
            ValueError,
            "unknown reduction 'avg'.*known: mean",
        ),
        (lambda: nn.Sequential(nn.ReLU), TypeError, r"0 is ReLU.*class: write ReLU\(\)"),
        (lambda: nn.Sequential([nn.ReLU()]), TypeError, r"unpack it: Sequential\(\*layers\)"),
        (lambda: nn.Sequential(minidl.relu), TypeError, "0 is relu, not a Module"),
        (lambda: nn.Parameter([1, 2]), TypeError, "floating"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full")(minidl.rand(1, 4, 4, 1)), ValueError, "'full'"),
    ],
)
def test_bad_input_to_a_layer_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


# --- Sequential


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_does_the_relu_behind_it_bit_for_bit(training):
    minidl.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU(),
        nn.Flatten(), nn.ReLU(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2),
    ).train(training)  # fmt: skip
    data, called = minidl.randn(3, 5, 5, 2).numpy(), []

    def results(forward):
        state = {name: a.copy() for name, a in model.state_dict().items()}
        model.zero_grad()
        x = Tensor(data, requires_grad=True)
        y = forward(x)
        y.sum().backward()
        found = [y.detach(), x.grad, *(p.grad for p in model.parameters()), *model.buffers()]
        found = [t.numpy().tobytes() for t in found]
        model.load_state_dict(state)
        return found

    def one_by_one(x):
        for module in model:
            x = module(x)
        return x

    with mock.patch.object(nn.ReLU, "forward", lambda self, x: called.append(1) or F.relu(x)):
        fused = results(model)
        assert len(called) == 1  # behind Flatten, which does nothing
        assert fused == results(one_by_one)
    assert len(called) == 1 + 5


class Twice(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def test_a_layer_of_your_own_does_no_relu():
    model = nn.Sequential(Twice(3, 3), nn.ReLU())
    x = minidl.randn(4, 3)
    assert model(x).tolist() == F.relu(model[0](x)).tolist()


def test_sequential_is_a_list_of_layers():
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    model = nn.Sequential(a, b).append(c)
    assert list(model) == [a, b, c] and len(model) == 3
    assert model[0] is a and model[-1] is c and list(model[1:]) == [b, c]
    with pytest.raises(IndexError):
        model[3]
    assert model[1:](minidl.rand(4, 3)).shape == (4, 1)
    assert list(model[1:].append(a)) == [b, c, a]
    model[-1] = nn.Linear(3, 5)
    assert model(minidl.rand(4, 2)).shape == (4, 5) and len(model) == 3
    assert list(nn.Sequential(a, b, a, b)) == [a, b, a, b]


def test_sequential_takes_names():
    model = nn.Sequential({"hidden": nn.Linear(2, 3), "act": nn.ReLU()})
    assert list(model.state_dict()) == ["hidden.weight", "hidden.bias"]
    assert model.act is model[1] and len(nn.Sequential()) == 0


# --- names of other frameworks


@pytest.mark.parametrize(
    "name, right",
    [
        ("Conv2D", "Conv2d"), ("Dense", "Linear"), ("MaxPooling2D", "MaxPool2d"),
        ("MaxPooling2d", "MaxPool2d"), ("Relu", "ReLU"), ("BatchNormalization", "BatchNorm2d"),
        ("BatchNorm2D", "BatchNorm2d"), ("Sequental", "Sequential"), ("DropOut", "Dropout"),
        ("Model", "Module"),
    ],
)  # fmt: skip
def test_a_wrong_name_gets_the_right_one(name, right):
    with pytest.raises(AttributeError, match=f"no '{name}'; did you mean nn.{right}"):
        getattr(nn, name)


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(
        AttributeError, match=r"no 'zzz'; it has AvgPool2d, BCELoss, BCEWithLogitsLoss"
    ):
        nn.zzz  # noqa: B018
    assert not hasattr(nn, "__path_to_nothing__")


# --- initial values


def test_default_initial_values_are_pytorchs():
    minidl.manual_seed(3)
    layers = nn.Linear(400, 100), nn.Conv2d(16, 64, 5), nn.Conv2d(64, 64, 5, groups=4)
    for layer, fan in zip(layers, (400, 400, 400)):
        bound = 1 / math.sqrt(fan)
        w, b = layer.weight.numpy_view(), layer.bias.numpy_view()
        assert abs(w).max() <= bound and abs(w).max() > 0.99 * bound
        assert abs(w.std() / (bound / math.sqrt(3)) - 1) < 0.02 and abs(w.mean()) < bound / 50
        assert abs(b).max() <= bound and abs(b).max() > 0.8 * bound
    norm = nn.BatchNorm2d(3)
    assert [t.tolist() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)] == [
        [1] * 3, [0] * 3, [0] * 3, [1] * 3,
    ]  # fmt: skip


def test_a_seed_gives_the_same_network():
    weights = []
    for seed in (5, 5, 6):
        minidl.manual_seed(seed)
        weights.append(nn.Conv2d(2, 3, 3).weight.numpy_view())
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])


@pytest.mark.parametrize("shape, fan_in, fan_out", [((40, 50), 40, 50), ((3, 5, 8, 16), 120, 240)])
def test_fans_and_the_spread_of_each_initialiser(shape, fan_in, fan_out):
    minidl.manual_seed(0)
    assert init.fans(shape) == (fan_in, fan_out)
    w = nn.Parameter(np.zeros(shape, np.float32))
    spread = {
        math.sqrt(2 / fan_in): lambda: init.kaiming_normal_(w, nonlinearity="relu"),
        math.sqrt(2 / fan_out): lambda: init.kaiming_uniform_(w, mode="fan_out"),
        math.sqrt(2 / (fan_in + fan_out)) * 3: lambda: init.xavier_uniform_(w, gain=3),
        0.5: lambda: init.normal_(w, mean=2, std=0.5),
        0.1 / math.sqrt(12): lambda: init.uniform_(w, 0.3, 0.4),
    }
    for std, fill in spread.items():
        assert fill() is w
        assert w.numpy_view().std() == pytest.approx(std, rel=5 / math.sqrt(w.size))
    assert w.numpy_view().min() >= 0.3 and w.numpy_view().max() <= 0.4
    assert init.constant_(w, 2.5).numpy_view().max() == 2.5
    assert init.ones_(w).numpy_view().min() == 1 and not init.zeros_(w).numpy_view().any()


def test_initialisers_work_in_float64_and_refuse_what_they_do_not_know():
    w = nn.Parameter(np.zeros((3, 4)))
    assert init.normal_(w).dtype == np.float64
    with pytest.raises(ValueError, match="at least 2 axes"):
        init.xavier_uniform_(nn.Parameter([1.0]))
    with pytest.raises(ValueError, match="unknown mode 'fan_inn'; did you mean 'fan_in'"):
        init.kaiming_uniform_(w, mode="fan_inn")
    with pytest.raises(ValueError, match="unknown nonlinearity 'gelu'"):
        init.kaiming_normal_(w, nonlinearity="gelu")


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.ReLU6(), F.relu6),
        (nn.LeakyReLU(0.3), lambda x: F.leaky_relu(x, 0.3)),
        (nn.ELU(0.5), lambda x: F.elu(x, 0.5)),
        (nn.GELU(), F.gelu),
        (nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
        (nn.SiLU(), F.silu),
        (nn.Sigmoid(), Tensor.sigmoid),
        (nn.Tanh(), Tensor.tanh),
        (nn.Softplus(2, 3), lambda x: F.softplus(x, 2, 3)),
    ],
    ids=lambda value: str(value) if isinstance(value, nn.Module) else None,
)
def test_an_activation_is_a_layer(layer, function):
    x = Tensor(np.linspace(-8, 8, 33).reshape(3, 11))
    assert nn.Sequential(layer)(x).tolist() == function(x).tolist()
    assert len({*map(float, layer(x).numpy().ravel())}) > 5


def test_an_unknown_approximation_is_refused_by_the_layer():
    with pytest.raises(ValueError, match="'tan'; did you mean 'tanh'"):
        nn.GELU("tan")


# --- losses

F = nn.functional
PAIR = np.array([1.0, 4.0]), np.array([0.0, 1.0])  # differences of 1 and 3


@pytest.mark.parametrize(
    "loss, each",
    [
        (nn.MSELoss, [1, 9]),
        (nn.L1Loss, [1, 3]),
        (lambda reduction: nn.HuberLoss(reduction, delta=2.0), [0.5, 2 * (3 - 1)]),
        (lambda reduction: nn.SmoothL1Loss(reduction, beta=2.0), [0.25, 3 - 1]),
        (lambda reduction: nn.SmoothL1Loss(reduction, beta=0.0), [1, 3]),
        (lambda reduction: nn.KLDivLoss(reduction), [0, -4]),
    ],
)
def test_a_loss_of_each_number_their_sum_and_their_mean(loss, each):
    x, target = map(Tensor, PAIR)
    np.testing.assert_allclose(loss(reduction="none")(x, target).numpy(), each)
    assert loss(reduction="sum")(x, target).item() == pytest.approx(sum(each))
    assert loss(reduction="mean")(x, target).item() == pytest.approx(sum(each) / 2)


def test_batchmean_is_the_divergence():
    x, target = Tensor(np.log([[0.5, 0.5], [0.5, 0.5]])), Tensor(np.array([[1.0, 0], [0.5, 0.5]]))
    assert F.kl_div(x, target, "batchmean").item() == pytest.approx(math.log(2) / 2)
    assert nn.KLDivLoss("batchmean")(x, target).item() == pytest.approx(math.log(2) / 2)


def test_weights_of_binary_losses():
    x, target = Tensor(np.zeros((2, 2))), Tensor(np.array([[1.0, 0], [1, 0]]))
    weight, twice = Tensor(np.array([[1.0, 1], [3, 3]])), Tensor(np.array([2.0, 5]))
    log2 = math.log(2)
    assert nn.BCELoss(weight)(x + 0.5, target).item() == pytest.approx(2 * log2)
    loss = nn.BCEWithLogitsLoss(weight, "none", twice)(x, target)
    np.testing.assert_allclose(loss.numpy() / log2, [[2, 1], [6, 3]])
    assert nn.BCEWithLogitsLoss(pos_weight=twice)(x, target).item() == pytest.approx(1.5 * log2)
    assert set(nn.BCEWithLogitsLoss(weight, pos_weight=twice).state_dict()) == {
        "weight", "pos_weight"
    }  # fmt: skip
    assert not list(nn.BCELoss(weight).parameters())


def test_cross_entropy_takes_weights_smoothing_ignored_labels_and_probabilities():
    x, label = Tensor(np.log([[1.0, 3], [1, 1]])), Tensor(np.array([0, -100]))
    log = [math.log(4), math.log(4 / 3)]
    plain = nn.CrossEntropyLoss(ignore_index=-100)(x, label)
    assert plain.item() == pytest.approx(log[0])
    weighted = nn.CrossEntropyLoss(Tensor(np.array([2.0, 1])), -100, "sum")(x, label)
    assert weighted.item() == pytest.approx(2 * log[0])
    smooth = F.cross_entropy(x, label, ignore_index=-100, label_smoothing=0.5)
    assert smooth.item() == pytest.approx(0.75 * log[0] + 0.25 * log[1])
    soft = F.cross_entropy(x, Tensor(np.array([[0.75, 0.25], [1, 0]])), reduction="none")
    np.testing.assert_allclose(soft.numpy(), [smooth.item(), math.log(2)])
    same = F.nll_loss(F.log_softmax(x), label, ignore_index=-100)
    assert same.item() == pytest.approx(plain.item())
    assert nn.NLLLoss(ignore_index=-100)(F.log_softmax(x), label).item() == same.item()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: F.mse_loss(x, x[:, :1]), r"target needs the shape of x \(x \(2, 3\), target"),
        (lambda x: F.mse_loss(x, x.reshape(6)), "is an axis of 1 missing"),
        (lambda x: F.mse_loss(x, x, reduction="avg"), "unknown reduction 'avg'"),
        (lambda x: F.kl_div(x, x, reduction="avg"), "unknown reduction 'avg'"),
        (lambda x: F.binary_cross_entropy(x + 2, x), "x has 3.0, which is no probability; of log"),
        (lambda x: F.smooth_l1_loss(x, x, beta=-1), "beta is -1, but must be at least 0"),
        (lambda x: F.cross_entropy(x, x, ignore_index=1), "probabilities have no ignore_index"),
        (lambda x: nn.MSELoss("avg"), "unknown reduction 'avg'"),
        (lambda x: nn.MSELoss("batchmean"), "unknown reduction 'batchmean'"),
    ],
)
def test_losses_say_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call(Tensor(np.ones((2, 3))))


def test_a_loss_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'poisson_loss'"):
        F.poisson_loss  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'poisson_loss'"):
        minidl.ops.poisson_loss  # noqa: B018


def test_layer_norm_is_over_the_last_axes_and_the_same_in_evaluation():
    x = Tensor(np.array([[[1, 3], [5, 7]], [[2, 2], [2, 2]]], np.float32))
    layer = nn.LayerNorm((2, 2), eps=4.0)
    assert repr(layer) == "LayerNorm((2, 2), eps=4.0, elementwise_affine=True)"
    assert [(n, p.shape) for n, p in layer.named_parameters()] == [
        ("weight", (2, 2)), ("bias", (2, 2)),
    ]  # fmt: skip
    expected = [[[-1, -1 / 3], [1 / 3, 1]], [[0, 0], [0, 0]]]
    np.testing.assert_allclose(layer(x).detach(), expected, rtol=1e-6)
    np.testing.assert_array_equal(layer.eval()(x).detach(), layer.train()(x).detach())
    assert nn.LayerNorm(3, bias=False).bias is None
    assert list(nn.LayerNorm(3, elementwise_affine=False).parameters()) == []
    with pytest.raises(ValueError, match="normalized_shape is 0, but must be at least 1"):
        nn.LayerNorm(0)


def test_a_depthwise_convolution_and_pools():
    layer = nn.DepthwiseConv2d(2, 3, stride=(1, 2), padding="same", depth_multiplier=2)
    assert repr(layer) == (
        "DepthwiseConv2d(2, kernel_size=(3, 3), stride=(1, 2), padding=same, depth_multiplier=2)"
    )
    assert [(n, p.shape) for n, p in layer.named_parameters()] == [
        ("weight", (3, 3, 2, 2)), ("bias", (4,)),
    ]  # fmt: skip
    # U(-1, 1) / sqrt(fan_in), of a window of one channel
    assert 0.3 < np.abs(nn.DepthwiseConv2d(200, 3).weight.detach().numpy()).max() <= 1 / 3
    x = Tensor(np.arange(32, dtype=np.float32).reshape(1, 4, 4, 2))
    y = layer(x)
    assert y.shape == (1, 4, 2, 4)
    assert layer.flops(x, y) == 32 * 18
    dilated = nn.DepthwiseConv2d(2, 2, dilation=3, bias=False)
    assert repr(dilated).endswith("stride=(1, 1), dilation=(3, 3), bias=False)")
    assert dilated(x).shape == (1, 1, 1, 2)
    np.testing.assert_array_equal(nn.AvgPool2d(2)(x)[0, :, :, 0], [[5, 9], [21, 25]])
    padded = nn.AvgPool2d(3, 2, "same", count_include_pad=False)
    np.testing.assert_array_equal(padded(x)[0, :, :, 0], [[10, 13], [22, 25]])
    np.testing.assert_array_equal(nn.GlobalAvgPool2d()(x), [[15, 16]])
    assert nn.GlobalAvgPool2d(keepdim=True)(x).shape == (1, 1, 1, 2)
    assert repr(padded) == (
        "AvgPool2d(kernel_size=(3, 3), stride=(2, 2), padding=same, count_include_pad=False)"
    )
    with pytest.raises(ValueError, match="x has 2 dimensions, but a batch of images"):
        F.global_avg_pool2d(Tensor(np.ones((2, 3))))
    with pytest.raises(ValueError, match="depth_multiplier is 0, but must be at least 1"):
        nn.DepthwiseConv2d(3, 3, depth_multiplier=0)
    with pytest.raises(AttributeError, match=r"mean nn\.GlobalAvgPool2d, which is Adaptive"):
        nn.AdaptiveAvgPool2d  # noqa: B018


def test_softmax_is_along_its_dim():
    x = Tensor(np.log(np.array([[1, 3], [1, 1]], np.float32)))
    np.testing.assert_allclose(nn.Softmax()(x), [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(nn.Softmax(dim=0)(x), [[0.5, 0.75], [0.5, 0.25]], rtol=1e-6)
    assert repr(nn.Softmax(dim=0)) == "Softmax(dim=0)"
