"""Rewrites of captured steps: what they replace, when they must not, and that losses stay."""

from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn, optim
from minidl.capture.flow import Flow, reads
from minidl.capture.record import Entry, Ref
from minidl.kernels.cases import example
from minidl.kernels.roles import Out, roles
from minidl.kernels.shapes import pool2d
from minidl.nn import functional as F

POOLED, BIAS = "max_pool2d_relu_grad", "bias_relu_grad"


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 5))


def cnn():
    """Convolutions, two of them next to each other, and windows of maxima, like S2's."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


def cnn_with_dropout():
    """As S0's: every convolution is followed by maxima, which overlap here."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 1, padding=1),
        nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(8, 5),
    )  # fmt: skip


def normed():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


class Residual(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), as people write it."""

    def __init__(self, before, after):
        self.first = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm, self.last = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        project = nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential(*project if before != after else ())

    def forward(self, x):
        h = F.relu(self.norm(self.first(x)))
        return F.relu(self.last(self.second(h)) + self.shortcut(x))


def resnet():
    return nn.Sequential(
        Residual(3, 8), Residual(8, 8), Residual(8, 8), nn.Flatten(), nn.Linear(128, 5)
    )


def odd():
    """Windows of 3 x 3 that leave a line and a column of 4 x 4 pixels over."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(3), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


NETS = {net.__name__: net for net in (mlp, cnn, cnn_with_dropout, normed, odd, resnet)}
BATCH, STEPS = 16, 50


def train(make, capture, dtype="float32", clip=0.0, optimizer=optim.Adam, steps=STEPS):
    """The losses of some steps, and the step."""
    minidl.manual_seed(0)
    rng = np.random.default_rng(0)
    model = make().double() if dtype == "float64" else make()
    how = optimizer(model.parameters(), lr=1e-2)

    def step(x, y):
        how.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if clip:
            optim.clip_grad_norm_(model.parameters(), clip)
        how.step()
        return loss

    step = capture(step)
    losses = []
    for _ in range(steps):
        y = rng.integers(0, 5, BATCH)
        x = rng.normal(size=(BATCH, 4, 4, 3)) + y[:, None, None, None] / 4
        losses.append(step(Tensor(x.astype(dtype)), Tensor(y)).item())
    return np.array(losses), step


def eager(step):
    return step


@pytest.mark.parametrize("clip", [0.0, 0.5], ids=["", "clipped"])
@pytest.mark.parametrize("name", NETS)
def test_losses_in_float64_agree_with_eager_ones(name, clip):
    expected, _ = train(NETS[name], eager, "float64", clip)
    losses, step = train(NETS[name], minidl.capture, "float64", clip)
    assert step.replayed and "none rewritten" not in str(step.program)
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", NETS)
def test_losses_in_float32_agree_within_rounding_and_without_rewrites_to_the_bit(name):
    expected, _ = train(NETS[name], eager, optimizer=optim.SGD)
    fused, _ = train(NETS[name], minidl.capture, optimizer=optim.SGD)
    plain, step = train(NETS[name], minidl.capture(fuse=False), optimizer=optim.SGD)
    np.testing.assert_allclose(fused, expected, rtol=1e-4)
    assert plain.tobytes() == expected.tobytes() and "none rewritten" in str(step.program)


# ---- each fused kernel against what it replaces


def special(x, rng):
    """x with NaN, infinities and zeros of both signs here and there."""
    odd = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], x.shape)
    return np.where(rng.random(x.shape) < 0.1, odd, x).astype(x.dtype)


def alike(got, want):
    """The same bits, where they are not those of NaN."""
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[got == got]), np.signbit(want[want == want]))


def summed(db, slopes):
    """db = the sum of slopes over all rows, but for the rounding of both."""
    rows = slopes.reshape(-1, db.size).astype(np.float64)
    with np.errstate(invalid="ignore"):
        want, scale = rows.sum(axis=0), np.abs(rows).sum(axis=0)
        error = np.abs(db - want)
    sane = np.isfinite(want)
    assert np.all(error[sane] <= np.finfo(db.dtype).eps * (4 + len(rows)) * scale[sane])
    np.testing.assert_array_equal(db[~sane], want[~sane].astype(db.dtype))


def of_pooled_relu(device, seed, dtype):
    """Gradients of a max_pool2d and the relu before it, in one and one by one."""
    k, rng = device.kernels, np.random.default_rng(seed)
    drawn = example("max_pool2d", dtype, seed, "large" if seed % 2 else "any")
    how = drawn["size"], drawn["stride"], drawn["pad"]
    shape = pool2d(drawn["x"].shape, *how)
    x = special(drawn["x"], rng) if seed % 3 else np.maximum(drawn["x"], 0)
    x, dy = device.array(x), device.array(special(rng.normal(size=shape).astype(dtype), rng))
    y, arg = k.max_pool2d(x, k.empty(shape, x.dtype), k.empty(shape, "int32"), *how)
    made = k.empty_like(x), k.empty(x.shape[3:], x.dtype)
    dx, db = map(device.numpy, k.max_pool2d_relu_grad(dy, y, arg, *made, *how, (False, False)))
    apart = k.max_pool2d_grad(dy, arg, k.empty_like(x), *how, False)
    apart = device.numpy(k.relu_grad(apart, x, k.empty_like(x), False))
    alike(dx, apart)
    summed(db, apart)


def of_bias_relu(device, seed, dtype):
    k, rng = device.kernels, np.random.default_rng(seed)
    rows = [rng.integers(1, 700)] if seed % 2 else rng.integers(1, 5, 3)
    shape = *rows, rng.integers(1, 70)
    y, dy = (device.array(special(rng.normal(size=shape).astype(dtype), rng)) for _ in range(2))
    made = k.empty_like(y), k.empty(shape[-1:], y.dtype)
    dx, db = map(device.numpy, k.bias_relu_grad(dy, y, *made, (False, False)))
    apart = device.numpy(k.relu_grad(dy, y, k.empty_like(y), False))
    alike(dx, apart)
    summed(db, apart)


def normalised(device, seed, dtype):
    """Arguments of a batch norm: x, w, b; and r and dy like x, with NaN and infinities."""
    rng = np.random.default_rng(seed)
    shape = *rng.integers(1 + seed % 8, 9, 3), rng.integers(1, 70)
    x, (w, b) = rng.normal(size=shape), rng.normal(size=(2, shape[-1]))
    r, dy = (
        special(rng.normal(size=shape), rng) if seed % 3 else rng.normal(size=shape) for _ in "rd"
    )
    return [device.array(a.astype(dtype)) for a in (x, w, b, r, dy)]


def of_norm_add_relu(device, seed, dtype):
    """relu(batch_norm(x) + r), of which r and relu may be missing."""
    k = device.kernels
    x, w, b, r, _ = normalised(device, seed, dtype)
    like = k.empty_like(w), k.empty_like(w)
    value, mean, var = k.batch_norm(x, w, b, None, k.empty_like(x), *like, 1e-3, False)
    for more in (r, None):
        apart = value if more is None else k.add(value, more, k.empty_like(x))
        for relu in (True, False):
            want = k.relu(apart, k.empty_like(x)) if relu else apart
            y = k.batch_norm(x, w, b, more, k.empty_like(x), *like, 1e-3, relu)[0]
            again = k.batch_norm_eval(x, w, b, more, mean, var, k.empty_like(x), 1e-3, relu)
            for found in (y, again):
                np.testing.assert_array_equal(device.numpy(found), device.numpy(want))


def of_norm_relu_grad(device, seed, dtype):
    k = device.kernels
    x, w, _, y, dy = normalised(device, seed, dtype)
    mean, var = (device.array(np.abs(device.numpy(w)) + n) for n in (0, 1))
    dx, dw, db, dr = (k.fill(k.empty_like(a), 2.0) for a in (x, w, w, x))
    how = dy, x, w, mean, var
    slopes = k.relu_grad(dy, y, k.empty_like(x), False)
    for name in ("batch_norm_grad", "batch_norm_eval_grad"):
        kernel, outs = getattr(k, name), [k.empty_like(a) for a in (x, w, w)]
        kernel(slopes, *how[1:], None, *outs, None, 1e-3, False, (False,) * 4)
        kernel(*how, y, dx, dw, db, None, 1e-3, True, (False,) * 4)
        for got, want in zip((dx, dw, db), outs, strict=True):
            alike(device.numpy(got), device.numpy(want))
        for adds in (False, True):
            k.fill(dr, 2.0)
            kernel(*how, y, dx, dw, db, dr, 1e-3, True, (False, False, False, adds))
            want = device.numpy(slopes)
            alike(device.numpy(dr), want + want.dtype.type(2) if adds else want)
            for got, want in zip((dx, dw, db), outs, strict=True):
                alike(device.numpy(got), device.numpy(want))


FUSED = pytest.mark.parametrize(
    "compare", [of_pooled_relu, of_bias_relu, of_norm_add_relu, of_norm_relu_grad]
)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@FUSED
@DTYPES
def test_a_fused_kernel_does_what_it_replaces(compare, dtype):
    for seed in range(30):
        compare(minidl.device("cpu"), seed, dtype)


@FUSED
@DTYPES
def test_a_fused_kernel_does_what_it_replaces_on_cuda(compare, dtype, cuda):
    for seed in range(6):
        compare(cuda, seed, dtype)


# ---- what a rewrite finds, and what it leaves alone

RNG = np.random.default_rng(0)
X = Tensor(RNG.normal(size=(2, 8, 8, 3)).astype(np.float32))
W = RNG.normal(size=(3, 3, 3, 16)).astype(np.float32)


def parameters():
    return Tensor(W, True), Tensor(np.zeros(16, np.float32), True)


def rewritten(step):
    """The fused kernels of a step, with notes; its gradients agree with those of the eager one."""
    found = {}
    for fuse in (False, True):
        given = parameters()
        captured = minidl.capture(lambda x, given=given: step(x, *given), fuse=fuse)
        for _ in range(4):
            for p in given:
                p.grad = None
            results = captured(X)
        assert captured.replayed
        found[fuse] = [t.numpy() for t in (*results, *(p.grad for p in given))]
    for plain, fused in zip(found[False], found[True], strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-5, atol=1e-5)
    entries = captured.program.entries
    table = str(captured.program)
    assert all(e.note in table for e in entries)
    return [(e.name, e.note) for e in entries if e.note]


def block(x, w, b, relu=True):
    return minidl.ops.conv2d(x, w, b, padding="same", relu=relu)


def test_maxima_of_a_convolution():
    def step(x, w, b):
        loss = (F.max_pool2d(block(x, w, b), 2) ** 2).sum()
        loss.backward()
        return [loss]

    note = "max_pool2d_grad, relu_grad, sum_rows"
    assert rewritten(step) == [(POOLED, note)]


def test_a_convolution_without_a_pool():
    def step(x, w, b):
        loss = (block(x, w, b) ** 2).sum()
        loss.backward()
        return [loss]

    assert rewritten(step) == [(BIAS, "relu_grad, sum_rows")]


def test_what_the_relu_returned_may_have_other_readers():
    def step(x, w, b):  # only its gradient may not
        h = block(x, w, b)
        loss = (F.max_pool2d(h, 2) ** 2).sum() + h.detach().sum()
        loss.backward()
        return [loss, h.detach()]

    assert [name for name, _ in rewritten(step)] == [POOLED]


def test_gradients_that_add_up_over_two_passes():
    def step(x, w, b):
        for scale in (1.0, 2.0):
            loss = (F.max_pool2d(block(x * scale, w, b), 2) ** 2).sum()
            loss.backward()
        return [loss]

    assert [name for name, _ in rewritten(step)] == [POOLED, POOLED]


def test_not_where_the_gradient_between_has_another_part():
    def step(x, w, b):
        h = block(x, w, b)
        loss = (F.max_pool2d(h, 2) ** 2).sum() + (h * h).sum()
        loss.backward()
        return [loss]

    assert [name for name, _ in rewritten(step)] == [BIAS]  # of the sum of both


def test_not_where_the_gradient_between_is_returned():
    def step(x, w, b):
        seen = []
        h = block(x, w, b)
        h.register_hook(lambda g: seen.append(g))
        loss = (F.max_pool2d(h, 2) ** 2).sum()
        loss.backward()
        return [loss, *seen]

    assert [name for name, _ in rewritten(step)] == [BIAS]


def test_not_where_the_gradient_between_is_used():
    def step(x, w, b):
        h = block(x, w, b)
        h.register_hook(lambda g: g * 2)
        loss = (F.max_pool2d(h, 2) ** 2).sum()
        loss.backward()
        return [loss]

    assert [name for name, _ in rewritten(step)] == [BIAS]


def test_not_where_the_gradient_between_is_retained():
    def step(x, w, b):
        h = block(x, w, b)
        h.retain_grad()
        loss = (F.max_pool2d(h, 2) ** 2).sum()
        loss.backward()
        return [loss, h.grad]

    assert [name for name, _ in rewritten(step)] == [BIAS]


def test_not_where_the_relu_is_another_one_than_before_the_maxima():
    def step(x, w, b):
        h = block(x, w, b, relu=False)
        loss = (F.relu(F.max_pool2d(h, 2)) ** 2).sum()
        loss.backward()
        return [loss]

    assert rewritten(step) == []


class Layers:
    """A convolution with a batch norm, and one more of each for a shortcut."""

    def __init__(self):
        minidl.manual_seed(1)
        self.norm, self.other = nn.BatchNorm2d(16), nn.BatchNorm2d(16)

    def body(self, x, w, b):
        return self.norm(block(x, w, b, relu=False))


NORM, GRAD = "batch_norm", "batch_norm_grad"


def test_batch_norm_and_relu_apart():
    layers = Layers()

    def step(x, w, b):
        loss = (F.relu(layers.body(x, w, b)) ** 2).sum()
        loss.backward()
        return [loss]

    assert rewritten(step) == [(NORM, "batch_norm, relu"), (GRAD, "relu_grad, batch_norm_grad")]


def test_a_residual_whose_gradient_is_written_where_it_is_wanted():
    layers = Layers()

    def step(x, w, b):
        r = block(x, w, b, relu=False)
        loss = (F.relu(r + layers.norm(r * r)) ** 2).sum()
        loss.backward()
        return [loss]

    grad = GRAD, "relu_grad, batch_norm_grad, copy"
    assert rewritten(step) == [(NORM, "batch_norm, add, relu"), grad]


def test_two_batch_norms_in_one_sum():
    layers = Layers()

    def step(x, w, b):
        loss = (F.relu(layers.body(x, w, b) + layers.other(block(x, w * 2, b))) ** 2).sum()
        loss.backward()
        return [loss]

    grad = GRAD, "relu_grad, batch_norm_grad"  # which writes it for the other one, too
    found = rewritten(step)
    assert [f for f in found if f[0] in (NORM, GRAD)] == [(NORM, "batch_norm, add, relu"), grad]


def test_a_residual_without_relu():
    layers = Layers()

    def step(x, w, b):
        h = block(x, w, b, relu=False)
        loss = ((layers.norm(h * h) + h) ** 2).sum()
        loss.backward()
        return [loss]

    assert rewritten(step) == [(NORM, "batch_norm, add")]


def test_not_where_what_the_batch_norm_returned_is_used_or_added_to_itself():
    layers = Layers()

    def step(x, w, b):
        h = layers.body(x, w, b)
        loss = (F.relu(h) ** 2).sum()
        loss.backward()
        return [loss, h.detach()]

    assert rewritten(step) == [(GRAD, "relu_grad, batch_norm_grad")]

    def doubled(x, w, b):
        h = layers.body(x, w, b)
        loss = (F.relu(h + h) ** 2).sum()
        loss.backward()
        return [loss]

    assert NORM not in dict(rewritten(doubled))


def test_not_where_the_residual_comes_after_the_batch_norm_or_broadcasts():
    layers = Layers()

    def late(x, w, b):
        h = layers.body(x, w, b)
        loss = (F.relu(h + x.mean(axis=3, keepdims=True).exp()) ** 2).sum()
        loss.backward()
        return [loss]

    assert NORM not in dict(rewritten(late))

    def later(x, w, b):
        h = layers.body(x, w, b)
        loss = (F.relu(h + block(x, w, b).exp()) ** 2).sum()
        loss.backward()
        return [loss]

    assert NORM not in dict(rewritten(later))


def test_pixels_that_no_window_covers():
    def step(x, w, b):
        h = F.max_pool2d(block(x, w, b), 3)
        loss = (h * h).sum() + (F.max_pool2d(block(h, w.reshape(3, 3, 16, 3), None), 2) ** 2).sum()
        loss.backward()
        return [loss]

    found = rewritten(step)
    names = ["conv2d", "max_pool2d", POOLED, "conv2d_grad_w"]
    assert [name for name, note in found if note.endswith("cropped")] == names


def test_no_pass_of_a_network_touches_pixels_that_no_window_covers():
    _, step = train(odd, minidl.capture, steps=4)
    cut = [e.name for e in step.program.entries if e.note.endswith("cropped")]
    assert cut == ["conv2d", "max_pool2d", POOLED, "conv2d_grad_x", "conv2d_grad_w"]


def test_all_pixels_are_computed_where_they_are_returned():
    def step(x, w, b):
        h = block(x, w, b)
        loss = (F.max_pool2d(h, 3) ** 2).sum()
        loss.backward()
        return [loss, h.detach()]

    names = [name for name, note in rewritten(step) if note.endswith("cropped")]
    assert names == [POOLED, "conv2d_grad_w"]  # what is left over has no gradient, returned or not


def test_nothing_is_left_out_where_windows_reach_the_end():
    def step(x, w, b):
        h = block(x, w, b)
        loss = (F.max_pool2d(h, 3, padding=1) ** 2).sum() + (F.max_pool2d(h, 4, 1) ** 2).sum()
        loss.backward()
        return [loss]

    assert not any("cropped" in note for _, note in rewritten(step))


# ---- who reads and writes what

CPU = minidl.device("cpu")


def store(x, y: Out, add):
    """A kernel that is never called."""


def store_both(x, y: Out, z: Out, add):
    """Another one."""


class Memory:
    """Storages a, b ... of ten numbers each, and entries that read and write parts of them."""

    def __init__(self):
        self.storages = {}

    def ref(self, name, start=0, n=10, step=1):
        kind = "input" if name == "x" else "temporary"
        storage = self.storages.setdefault(name, SimpleNamespace(kind=kind, nbytes=40))
        return Ref(storage, 4 * start, ((n,), np.dtype("float32"), (4 * step,)), CPU)

    def entry(self, x, y, add=False, host=False):
        x, y = (a if isinstance(a, Ref) else self.ref(a) for a in (x, y))
        return Entry("store", store, (x, y, add), tuple(roles(store).values()), "", "", host)

    def joint(self, *names, add):
        args = (*map(self.ref, names), add)
        return Entry("store_both", store_both, args, tuple(roles(store_both).values()), "", "")


def test_the_only_reader_of_an_array():
    m = Memory()
    first, second = m.entry("x", "a"), m.entry("a", "b")
    assert Flow([first, second], []).only_reader(m.ref("a")) is second
    assert Flow([first, second], [m.ref("a")]).only_reader(m.ref("a")) is None  # returned
    assert Flow([first, second], [m.ref("a", 4, 2)]).only_reader(m.ref("a")) is None
    assert Flow([second], []).only_reader(m.ref("a")) is None  # written by nobody
    assert Flow([second, m.entry("x", "y")], []).only_reader(m.ref("x")) is None  # an input
    third = m.entry("a", "c")
    assert Flow([first, second, third], []).only_reader(m.ref("a")) is None
    adds = m.entry("b", "a", add=True)
    assert Flow([first, second, adds], []).only_reader(m.ref("a")) is None  # it reads and writes
    joint = m.joint("b", "a", "c", add=(False, True))
    assert [r.storage for r in reads(joint)] == [m.ref(name).storage for name in "bc"]
    part = m.entry(m.ref("a", 0, 5), "b")
    assert Flow([first, part], []).only_reader(m.ref("a")) is None
    turned = m.entry(m.ref("a", 9, 10, -1), "b")
    assert Flow([first, turned], []).only_reader(m.ref("a")) is None
    outside = Ref(None, 4096, ((4,), np.dtype("float32"), (4,)), CPU)
    flow = Flow([m.entry("x", outside), m.entry(outside, "b")], [])
    assert flow.only_reader(outside) is None and flow.writer(outside) is None


@pytest.mark.parametrize(
    ("x", "y", "moves"),
    [
        ("p", "q", True),
        ("b", "q", False),  # reads what the second one writes
        ("p", "b", False),  # writes that too
        ("p", "c", False),  # writes what the second one reads
        ("c", "q", True),  # both read it
    ],
)
def test_an_entry_moves_past_what_does_not_touch_its_memory(x, y, moves):
    m = Memory()
    first, between, second = m.entry("x", "a"), m.entry(x, y), m.entry("c", "b")
    new = m.entry("x", "b")
    flow = Flow([first, between, second], [])
    assert flow.replace([first, second], first, new) is moves
    assert flow.entries == ([new, between] if moves else [first, between, second])


def test_an_entry_does_not_move_past_the_host():
    m = Memory()
    first, second = m.entry("x", "a"), m.entry("c", "b")
    flow = Flow([first, m.entry("p", "q", host=True), second], [])
    assert not flow.replace([first, second], second, m.entry("x", "b"))


def test_parts_of_a_storage_that_lie_apart():
    m = Memory()
    first = m.entry("x", m.ref("a", 0, 5))
    between, second = m.entry(m.ref("a", 5, 5), "q"), m.entry("c", "b")
    assert Flow([first, between, second], []).replace([first, second], second, first)
    between = m.entry(m.ref("a", 8, 5, -2), "q")  # 8, 6, 4, 2, 0
    assert not Flow([first, between, second], []).replace([first, second], second, first)
