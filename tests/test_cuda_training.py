"""Whole networks trained on the device "cuda" learn what they learn on the CPU.

In float64 the losses of five steps differ by less than 1e-9. In float32 rounding differs, and
Adam's first steps have the sign of a gradient however small it is, so there: the first loss, each
gradient within the bound of its kernel's Case, and losses to 1e-4.
"""

import gc
import time

import numpy as np
import pytest

import minidl as md
from minidl import Tensor, models, nn, optim
from minidl.kernels.cases import CASES, Blank, Call, Definition
from minidl.nn import functional as F
from minidl.random import default_generator

STEPS = 5


class Block(nn.Module):
    """Two convolutions with batch norm, and a way around them."""

    def __init__(self, channels):
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + x)


def resnet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        Block(6), nn.Dropout(0.3), Block(6), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 49, 10),
    )  # fmt: skip


NETWORKS = {  # name -> how to build it, and its batch
    "mlp": (lambda: models.mnist_mlp(hidden=32), 16),
    "cnn": (models.mnist_cnn, 4),
    "resnet": (resnet, 4),
}
both = pytest.mark.parametrize("name", ["mlp", "cnn"])
each = pytest.mark.parametrize("name", NETWORKS)


def build(name, where, dtype):
    """A network and a batch on a device, the same numbers on each; dropout starts alike, too."""
    network, size = NETWORKS[name]
    md.manual_seed(1)
    model = network().astype(dtype).to(where)
    default_generator(where).set_state((7, 0))
    rng = np.random.default_rng(2)
    x = rng.random((size, 28, 28, 1)).astype(np.float32).astype(dtype)
    return model, Tensor(x, device=where), Tensor(rng.integers(0, 10, size), device=where)


def train(name, where, dtype, steps=STEPS, kind=optim.Adam):
    """The losses of so many steps, and the parameters after them."""
    model, x, y = build(name, where, dtype)
    optimizer, losses = kind(model.parameters(), lr=1e-3), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()


@each
def test_losses_in_float64_are_the_cpus(cuda, name):
    here, weights = train(name, "cpu", "float64")
    there, weights_there = train(name, "cuda", "float64")
    assert here[-1] != here[0]
    np.testing.assert_allclose(there, here, rtol=1e-9)
    for path, array in weights.items():
        np.testing.assert_allclose(weights_there[path], array, rtol=1e-6, atol=1e-9, err_msg=path)


def test_momentum_and_decay_in_float64_are_the_cpus(cuda):
    def sgd(parameters, lr):
        return optim.SGD(parameters, lr, momentum=0.9, weight_decay=1e-2, nesterov=True)

    here, there = (train("mlp", where, "float64", kind=sgd)[0] for where in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, rtol=1e-9)


@each
def test_the_first_loss_in_float32_is_the_cpus(cuda, name):
    here, there = (train(name, where, "float32", steps=1)[0] for where in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, rtol=1e-5)


@both
def test_losses_in_float32_stay_with_the_cpus(cuda, name):
    here, there = (train(name, where, "float32")[0] for where in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, rtol=1e-4)


def watched(module, seen):
    """Let a layer note its input and its output, whose gradient is kept."""
    forward = module.forward

    def noting(x):
        y = forward(x)
        y.retain_grad()
        seen.append((module, x.detach().numpy(), y))
        return y

    vars(module)["forward"] = noting


def bounds(layer, x, dy):
    """How far a float32 kernel may be off in a layer's gradients, by the Case of the op."""
    w, name = layer.weight.detach().numpy(), "linear"
    args = dict(dy=dy, x=x, dw=Blank(w.shape), add=False)
    if isinstance(layer, nn.Conv2d):
        name, (kh, kw) = "conv2d", layer.kernel_size  # all of padding "same", stride 1
        pad = (((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2))
        args = dict(dy=dy, x=x, dw=Blank(w.shape), stride=(1, 1), pad=pad, add=False)
        args |= dict(dilation=(1, 1), groups=1)
    calls = [Call(f"{name}_grad_w", args, np.dtype("float32"))]
    calls.append(Call("sum_rows", dict(dy=dy, db=Blank(dy.shape[-1:]), add=False), calls[0].dtype))
    for call in calls:
        definition = Definition(call)
        results = definition.all()
        ((_, bound),) = definition.bounds(CASES[name], results).items()
        yield next(iter(results.values())), bound


@both
def test_gradients_in_float32_are_within_the_bounds_of_their_kernels(cuda, name):
    # The bound of a kernel is for the inputs it was given. Here these come out of other kernels,
    # and an input that is nearly 0, because its terms cancelled, has the error of those terms: so
    # the bound is that of the largest element. A gradient lost, or in the wrong place, is far off.
    model, x, y = build(name, "cpu", "float64")
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            watched(module, seen)
    F.cross_entropy(model(x), y).backward()
    other, x, y = build(name, "cuda", "float32")  # the same numbers: float64 held float32's
    F.cross_entropy(other(x), y).backward()
    gradients = {path: p.grad.numpy() for path, p in other.named_parameters()}
    paths = {id(module): path for path, module in model.named_modules()}
    assert len(seen) == len(gradients) / 2
    for layer, inputs, output in seen:
        pairs = bounds(layer, inputs, output.grad.numpy())
        for kind, (want, bound) in zip(("weight", "bias"), pairs):
            np.testing.assert_allclose(getattr(layer, kind).grad.numpy(), want, rtol=1e-9)
            error = np.abs(gradients[f"{paths[id(layer)]}.{kind}"] - want)
            assert error.max() <= bound.max(), f"{kind} of {layer}"
            assert error.max() < 1e-5 * np.abs(want).max(), "the CPU's own are off by up to 9e-7"


@each
def test_two_runs_give_the_same_bits(cuda, name):
    (losses, weights), (again, weights_again) = (train(name, "cuda", "float32", 2) for _ in "ab")
    assert losses == again
    for path, array in weights.items():
        assert array.tobytes() == weights_again[path].tobytes(), path


def resident():
    """Bytes of memory that this process takes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_thousand_steps_take_no_more_memory(cuda):
    md.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.2), nn.Linear(5, 3)).cuda()
    optimizer = optim.Adam(model.parameters())
    x = Tensor(np.random.default_rng(0).random((4, 6)).astype(np.float32), device="cuda")
    y = Tensor(np.array([0, 1, 2, 1]), device="cuda")
    found = []
    for step in range(1, 1001):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            gc.collect()
            live = len(cuda.kernels.memory.live()), md.cuda.memory_allocated()
            found.append((live, md.cuda.max_memory_allocated(), resident()))
    lives, peaks, sizes = zip(*found)
    assert len(set(lives)) == 1, lives
    assert len(set(peaks)) == 1, peaks
    assert sizes[-1] - sizes[0] < 2 * 2**20, sizes


def test_the_cnn_goes_forward_and_back_in_time(cuda):
    model, x, y = build("cnn", "cuda", "float32")
    x = Tensor(np.concatenate([x.numpy()] * 2), device="cuda")
    y = Tensor(np.concatenate([y.numpy()] * 2), device="cuda")
    seconds = []
    for _ in range(2):  # the first compiles what is not on disk
        start = time.perf_counter()
        F.cross_entropy(model(x), y).backward()
        md.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    print(f"forward and backward of the MNIST CNN, batch 8: {seconds[0]:.2f} s, {seconds[1]:.2f} s")
    assert seconds[1] < 10
