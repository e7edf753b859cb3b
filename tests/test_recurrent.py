"""GRU against PyTorch's numbers and its own definition, TimeDistributed, and both in training."""

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn, ops, optim
from minidl.nn import functional as F

# PyTorch 2.13: parameters are cos(i + 0, 1, 2 ...), i being how many came before, x is the sine
OUTPUT = [
    [[0.22029459010316388, -0.4079266413254708, -0.29838962595679297,
      -0.19737857285917126, -0.5253738301222647, -0.5659444605025898],
     [0.17150988800629974, -0.0992299776495515, -0.5887300840224878,
      -0.013266453340413986, -0.36085464877700413, -0.5329260682147179]],
    [[-0.41139928107529916, -0.0878700302938139, -0.22306337986111208,
      -0.41941633892013885, -0.006626129575769912, -0.4988186017117233],
     [0.24601389121911943, -0.36611450786795996, -0.6152413198835328,
      -0.1309862708410996, -0.37763671579762725, -0.111569163895931]],
    [[-0.24718308185349613, -0.24823858532762966, -0.650181569732724,
      0.14837519249662612, -0.35710623445837447, -0.5787980401454695],
     [-0.29498252866237973, 0.040324135261037286, -0.5398667427896445,
      -0.5036007650366544, 0.07896309119331302, -0.010215989152555118]],
]  # fmt: skip
SLOPE = [-1.41993916882438, -1.5098090344224344, 0.8229736751208743, 1.8457837227158405]
SLOPES = {
    "weight_ih_l0": 10.479863957833539, "weight_hh_l0": 4.113021586052106,
    "bias_ih_l0": 9.278291177537152, "bias_hh_l0": 4.6996942672813,
    "weight_ih_l0_reverse": 11.928414198894679, "weight_hh_l0_reverse": 3.6561857355891885,
    "bias_ih_l0_reverse": 11.251465682439054, "bias_hh_l0_reverse": 5.718361644816506,
}  # fmt: skip


def test_both_directions_are_those_of_pytorch():
    layer, start = nn.GRU(2, 3, bidirectional=True), 0
    for name, p in list(layer.named_parameters()):
        values = np.cos(start + np.arange(p.size)).reshape(p.shape[::-1]).T
        setattr(layer, name, nn.Parameter(values))
        start += p.size
    x = Tensor(np.sin(np.arange(12)).reshape(3, 2, 2), requires_grad=True)
    y, last = layer(x)
    np.testing.assert_allclose(y.detach(), OUTPUT, rtol=1e-13)
    np.testing.assert_array_equal(last.detach()[0], y.detach()[-1, :, :3])
    np.testing.assert_array_equal(last.detach()[1], y.detach()[0, :, 3:])
    (y.sum() + last.sum()).backward()
    np.testing.assert_allclose(x.grad.numpy()[[0, -1], [0, -1]].ravel(), SLOPE, rtol=1e-12)
    found = {name: abs(p.grad.numpy()).sum() for name, p in layer.named_parameters()}
    assert found == pytest.approx(SLOPES, rel=1e-12)


def by_steps(x, h, w, b, reverse):
    """gru composed of ops on single steps."""
    size, states = w.shape[0], {}
    for t in range(x.shape[1])[:: -1 if reverse else 1]:
        inner, now = h @ w + b, x[:, t]
        r, z = (ops.sigmoid(now[:, i : i + size] + inner[:, i : i + size]) for i in (0, size))
        new = ops.tanh(now[:, 2 * size :] + r * inner[:, 2 * size :])
        h = states[t] = (1 - z) * new + z * h
    return ops.stack([states[t] for t in sorted(states)], axis=1)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_op_is_its_formula_step_by_step(reverse):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in ((3, 5, 12), (3, 4), (4, 12), (12,))]
    dy, found = Tensor(rng.normal(size=(3, 5, 4))), []
    for unit in (ops.gru, by_steps):
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        y = unit(*tensors, reverse=reverse)
        y.backward(dy)
        found.append([y.detach().numpy(), *(t.grad.numpy() for t in tensors)])
    for whole, steps in zip(*found, strict=True):
        np.testing.assert_allclose(whole, steps, rtol=1e-10, atol=1e-13)


def test_layers_stand_on_each_other_and_batches_may_come_first():
    minidl.manual_seed(0)
    layer = nn.GRU(3, 4, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)
    assert repr(layer) == (
        "GRU(3, 4, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)"
    )
    shapes = {name: p.shape for name, p in layer.named_parameters()}
    assert shapes["weight_ih_l0"] == (3, 12) and shapes["weight_ih_l1_reverse"] == (8, 12)
    assert sum(p.size for p in layer.parameters()) == 2 * (3 + 4 + 2) * 12 + 2 * (8 + 4 + 2) * 12
    assert 0.4 < max(abs(p.numpy_view()).max() for p in layer.parameters()) <= 0.5
    x, first = minidl.randn(5, 7, 3), minidl.randn(4, 5, 4)
    assert (layer(x)[0].detach().numpy() != layer(x)[0].detach().numpy()).any()  # dropout
    y, last = layer.eval()(x, first)
    assert y.shape == (5, 7, 8) and last.shape == (4, 5, 4)
    lower = nn.GRU(3, 4, batch_first=True, bidirectional=True)
    upper = nn.GRU(8, 4, batch_first=True, bidirectional=True, bias=True)
    for name, p in list(layer.named_parameters()):
        setattr(lower if "_l0" in name else upper, name.replace("_l1", "_l0"), p)
    middle, below = lower(x, first[:2])
    above, top = upper(middle, first[2:])
    np.testing.assert_array_equal(y.detach(), above.detach())
    np.testing.assert_array_equal(last.detach(), ops.concat([below, top]).detach())
    layer.batch_first = False
    turned, _ = layer(x.permute(1, 0, 2), first)
    np.testing.assert_array_equal(turned.permute(1, 0, 2).detach(), y.detach())


def test_a_layer_at_every_step_is_a_loop_over_the_steps():
    minidl.manual_seed(0)
    x = minidl.randn(2, 5, 6, 6, 3)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 7))
    y = nn.TimeDistributed(layer)(x)
    loop = ops.stack([layer(x[:, t]) for t in range(5)], axis=1)
    assert y.shape == (2, 5, 7)
    np.testing.assert_allclose(y.detach(), loop.detach(), atol=1e-6)
    y.sum().backward()
    ours = layer[3].weight.grad.numpy()
    layer.zero_grad()
    loop.sum().backward()
    np.testing.assert_allclose(ours, layer[3].weight.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_a_captured_step_learns_which_number_came_first():
    minidl.manual_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 128)
    x = rng.normal(size=(128, 10, 4)).astype("float32") / 2
    x[:, 0] = np.eye(4)[y]

    class Network(nn.Module):
        def __init__(self):
            self.rows = nn.TimeDistributed(nn.Linear(4, 16))
            self.units = nn.GRU(16, 24, batch_first=True)
            self.head = nn.Linear(24, 4)

        def forward(self, x):
            return self.head(self.units(self.rows(x))[1][0])

    model = Network()
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    @minidl.capture
    def learn(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    losses = [learn(minidl.tensor(x), minidl.tensor(y)).item() for _ in range(120)]
    assert learn.program is not None and losses[0] > 1.2 and losses[-1] < 0.05


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nn.GRU(3, 4)(Tensor(np.ones((5, 3)))), ValueError, "GRU: x has 2 dim.*batch axis"),
        (
            lambda: nn.GRU(3, 4)(Tensor(np.ones((5, 2, 4)))),
            ValueError,
            r"x has 4 features, but input_size is 3 \(x \(5, 2, 4\)\); x is \(T, N, input_size\)",
        ),
        (
            lambda: nn.GRU(3, 4)(minidl.rand(5, 2, 3), minidl.rand(2, 4)),
            ValueError,
            r"hx needs the shape \(1, 2, 4\)",
        ),
        (lambda: nn.GRU(3, 0), ValueError, "GRU: hidden_size is 0"),
        (lambda: nn.GRU(3, 4, dropout=2), ValueError, "probability dropout is 2"),
        (lambda: nn.TimeDistributed(nn.ReLU())(minidl.rand(2, 3)), ValueError, "x has no steps"),
        (lambda: nn.TimeDistributed(nn.ReLU), TypeError, r"TimeDistributed\(ReLU\): it takes a l"),
    ],
)
def test_sequence_layers_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
