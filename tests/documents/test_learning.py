"""Rows of docs/documents.md on learning: losses, optimizers, augmentation, mistakes, kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import Tensor, data, metrics, nn, optim
from minidl.data import DataLoader, digits
from minidl.nn import functional as F
from minidl.train import fit, predict

ROOT = Path(__file__).parents[2]


def wave(*shape):
    return np.sin(np.arange(np.prod(shape)) * 0.7).reshape(shape)


def linear():
    minidl.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def learnt(optimizer, steps=60):
    """How far from the least value of a bowl an optimizer ends, as a part of where it began."""
    p = nn.Parameter(np.array([2.0, -1.0]))
    stepper = optim.get(optimizer[0], [p], **optimizer[1])
    for _ in range(steps):
        stepper.zero_grad()
        ((p - Tensor(np.array([1.0, 1.0]))) ** 2.0).sum().backward()
        stepper.step()
    return float(np.abs(p.numpy_view() - 1).max()) / 2


def test_row_04_move_a_model_and_its_data_to_a_device(cuda):
    model, x = linear(), Tensor(wave(4, 784).astype(np.float32))
    there = x.to("cuda")
    np.testing.assert_array_equal(there.to("cpu").numpy(), x.numpy())
    y = model(x).detach().numpy()
    model.to("cuda")
    np.testing.assert_allclose(model(there).detach().numpy(), y, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"is on 'cpu'.* move one with \.to\(\.\.\.\)|on 'cuda'"):
        model(x)


def test_row_16_train_and_eval_are_modes_and_fit_trains():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3))
    x = Tensor(wave(6, 3).astype(np.float32))
    assert (model.train()(x).detach().numpy() != model.eval()(x).detach().numpy()).any()
    assert not model.training and not model[0].training
    for wrong in (
        lambda: model.train(x, optimizer="adam", loss="mse"),
        lambda: model.train(x),
        lambda: model.train(True, optimizer="adam"),
    ):
        with pytest.raises(TypeError, match=r"takes True or False.*to train on data, use fit"):
            wrong()


def test_row_17_accuracy_is_of_the_whole_set_and_each_epoch_is_told(capsys):
    output, target = np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 1, 2])
    assert metrics.accuracy(output, target) == 0.75  # as sklearn.metrics.accuracy_score
    batches = [(np.eye(3, dtype=np.float32)[[0, 1, 2]], np.array([0, 1, 1])),
               (np.eye(3, dtype=np.float32)[[2]], np.array([2]))]  # fmt: skip
    same = nn.Linear(3, 3, bias=False)
    same.load_state_dict({"weight": np.eye(3, dtype=np.float32)})
    assert minidl.train.evaluate(same, batches)["accuracy"] == 0.75  # not the mean of 2/3 and 1
    history = fit(linear(), DataLoader(digits("test")[:60], 32), epochs=2, lr=0.25)
    told = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in told] == ["epoch 1/2", "epoch 2/2"]
    assert "accuracy" in told[0] and history["lr"] == [0.25, 0.25]  # the rate that was given


def test_row_20_backward_gives_the_slopes_that_differences_give():
    w, x = wave(4, 3), wave(5, 4) + 0.3

    def loss(w):
        return F.cross_entropy((Tensor(x) @ w).tanh(), Tensor([0, 2, 1, 1, 0]))

    t = Tensor(w, requires_grad=True)
    loss(t).backward()
    for place in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[place] = 1e-6
        slope = (loss(Tensor(w + step)).item() - loss(Tensor(w - step)).item()) / 2e-6
        assert t.grad.numpy()[place] == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["tpu", "rocm", "xla:0"])
def test_row_21_and_46_other_devices_are_refused_by_name(name):
    with pytest.raises(RuntimeError, match=f"there is no device '{name}'; known: 'cpu', 'cuda'"):
        minidl.device(name)
    with pytest.raises(RuntimeError, match="known: 'cpu', 'cuda'"):
        linear().to(name)


test_row_46_rocm_is_no_device = test_row_21_and_46_other_devices_are_refused_by_name


def test_row_32_results_are_written_drawn_and_analysed(tmp_path):
    pytest.importorskip("matplotlib")
    from minidl import plot
    from minidl.callbacks import CSVLogger, JSONLLogger

    test = digits("test")[:200]
    model = linear()
    logs = [CSVLogger(tmp_path / "run.csv"), JSONLLogger(tmp_path / "run.jsonl")]
    history = fit(model, DataLoader(test, 50), epochs=2, callbacks=logs, progress=False)
    names, *rows = (tmp_path / "run.csv").read_text().splitlines()
    assert names.split(",")[:2] == ["epoch", "loss"] and len(rows) == 2
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == history["loss"]
    assert plot.curves(history).axes
    found = metrics.report(predict(model, DataLoader(test, 50)), test.labels, test.classes)
    assert found.matrix.sum() == 200 and found.accuracy > 0.5
    assert plot.confusion(found.matrix, test.classes).axes
    assert "weighted avg" in str(found)


def test_row_36_a_kernel_of_ones_own_becomes_an_op():
    def forward(x, y):
        y[...] = x * x * x

    def backward(dy, x, dx):
        dx[...] = dy * 3 * x * x

    @minidl.op(forward=forward, backward=backward, reference=lambda x: x**3)
    def cube(x):
        """x x x."""

    cube.check(wave(7))
    x = Tensor(np.array([2.0]), requires_grad=True)
    cube(x).backward()
    assert x.grad.item() == 12


def test_row_42_a_learning_rate_is_found_warmed_up_and_scheduled():
    found = minidl.find_lr(linear(), DataLoader(digits("test")[:320], 32), start=1e-4, end=1e3)
    assert 1e-2 < found.suggestion < 100
    optimizer = optim.SGD(linear().parameters(), lr=0.4)
    warm = optim.LinearLR(optimizer, 0.25, total_iters=3)
    schedule = optim.SequentialLR(optimizer, [warm, optim.CosineAnnealingLR(optimizer, 4)], [3])
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    root = 0.5**0.5  # of half a cosine, at a quarter and at three quarters
    falling = [0.4, 0.2 * (1 + root), 0.2, 0.2 * (1 - root)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, *falling])


@pytest.mark.parametrize(
    "transform",
    [
        data.Flip(), data.PadCrop(2), data.RandomRotation(15), data.RandomAffine(9, (0.1, 0.1)),
        data.ColorJitter(0.3, 0.3, 0.3, 0.1), data.Cutout(8), data.MixUp(0.4, 10),
        data.CutMix(1.0, 10),
    ],
)  # fmt: skip
def test_row_43_augmentation_follows_from_the_seed(transform):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (9, 12, 12, 3)).astype(np.uint8), np.arange(9)

    def batches(seed):
        loader = DataLoader((images, labels), 4, shuffle=True, seed=seed, transform=transform)
        return np.concatenate([x.numpy().ravel() for x, _ in loader])

    np.testing.assert_array_equal(batches(3), batches(3))
    assert (batches(3) != batches(4)).any()


def softplus(x):
    return np.logaddexp(0, x)


X, Y = wave(4, 3), 0.5 + 0.4 * wave(4, 3)[::-1]
LABELS, TERNARY = np.array([0, 2, 1, 1]), np.sign(wave(4, 3) + 0.01)
P = np.exp(X) / np.exp(X).sum(1, keepdims=True)
FAR = np.abs(X - Y)
LOSSES = {
    "mse_loss": (Y, (FAR**2).mean()),
    "l1_loss": (Y, FAR.mean()),
    "huber_loss": (Y, np.where(FAR < 1, FAR**2 / 2, FAR - 0.5).mean()),
    "smooth_l1_loss": (Y, np.where(FAR < 1, FAR**2 / 2, FAR - 0.5).mean()),
    "binary_cross_entropy_with_logits": (Y, (softplus(X) - X * Y).mean()),
    "cross_entropy": (LABELS, -np.log(P[np.arange(4), LABELS]).mean()),
    "kl_div": (Y, (Y * (np.log(Y) - X)).mean()),
    "hinge_loss": (TERNARY, np.maximum(0, 1 - TERNARY * X).mean()),
    "multi_margin_loss": (
        LABELS,
        (np.maximum(0, 1 - X[np.arange(4), LABELS][:, None] + X).sum(1) - 1).mean() / 3,
    ),
    "sigmoid_focal_loss": (
        np.ones_like(X), 0.25 * softplus(-X) / (1 + np.exp(X)) ** 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_row_44_losses_are_their_formulas(name):
    target, expected = LOSSES[name]
    value = getattr(F, name)(Tensor(X), Tensor(target))
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12)


def test_row_44_cross_entropy_takes_soft_smoothed_and_weighted_labels():
    log_p, smooth = np.log(P), np.eye(3)[LABELS] * 0.9 + 0.1 / 3
    x, labels = Tensor(X), Tensor(LABELS)
    expected = -(smooth * log_p).sum(1).mean()
    assert F.cross_entropy(x, labels, label_smoothing=0.1).item() == pytest.approx(expected)
    assert F.cross_entropy(x, Tensor(smooth)).item() == pytest.approx(expected)
    w = np.array([1.0, 2.0, 0.5])
    weighed = -(w[LABELS] * log_p[np.arange(4), LABELS]).sum() / w[LABELS].sum()
    assert F.cross_entropy(x, labels, Tensor(w)).item() == pytest.approx(weighed)


def test_row_44_triplet_and_contrastive_losses_are_their_formulas():
    a, p, n = X, Y, X[::-1].copy()
    near, far = (np.linalg.norm(a - b + 1e-6, axis=1) for b in (p, n))
    triplet = nn.TripletMarginLoss()(*map(Tensor, (a, p, n))).item()
    assert triplet == pytest.approx(np.maximum(0, near - far + 1).mean())
    alike = np.array([1.0, 0, 1, 0])
    expected = (alike * near**2 + (1 - alike) * np.maximum(0, 1 - near) ** 2).mean() / 2
    pairs = nn.ContrastiveLoss()(Tensor(a), Tensor(p), Tensor(alike)).item()
    assert pairs == pytest.approx(expected)


@pytest.mark.parametrize(
    "optimizer",
    [
        ("sgd", {"lr": 0.1}), ("sgd", {"lr": 0.05, "momentum": 0.8}),
        ("sgd", {"lr": 0.05, "momentum": 0.8, "nesterov": True}), ("adam", {"lr": 0.1}),
        ("adamw", {"lr": 0.1, "weight_decay": 0.0}), ("rmsprop", {"lr": 0.05}),
        ("adagrad", {"lr": 0.7}), ("lion", {"lr": 0.05, "betas": (0.5, 0.5)}),
        ("lamb", {"lr": 0.05, "betas": (0.5, 0.9), "weight_decay": 0.0}),
    ],
)  # fmt: skip
def test_row_45_optimizers_find_the_bottom_of_a_bowl(optimizer):
    assert learnt(optimizer) < 0.12


@pytest.mark.emulator
def test_row_56_a_kernel_is_launched_by_blocks_and_threads():
    from minidl.kernels.cuda import cuda, jit

    @jit
    def number(y):
        i = cuda.grid(1)
        if i < y.size:
            y[i] = cuda.blockIdx.x * 100 + cuda.threadIdx.x

    y = np.zeros(16, np.float32)
    number[2, 8](y)  # kernel<<<2, 8>>>
    np.testing.assert_array_equal(y, [*range(8), *range(100, 108)])
    y = np.zeros(300, np.float32)
    number[minidl.cuda.launch_config(y.size)](y)
    assert minidl.cuda.launch_config(300) == (3, 128) and y[-1] == 200 + 43


@pytest.mark.emulator
def test_row_58_the_first_kernel_with_its_guard_put_right():
    from minidl.kernels.cases import Blank
    from minidl.kernels.cuda import blocks, cuda, jit
    from minidl.kernels.roles import Out
    from minidl.kernels.testing import check

    @jit
    def kernel(x, y):
        i = cuda.grid(1)
        if i + 3 < x.size:
            y[i] = x[i] * x[i + 1] + x[i + 2] * x[i + 3]

    def neighbours(x, y):
        kernel[blocks(x.size, 8), 8](x, y)

    def definition(x, y: Out):
        y[...] = x[:-3] * x[1:-2] + x[2:-1] * x[3:]

    def draw(d):
        n = d.size(4, 300)
        return dict(x=d.array((n,)), y=Blank((n - 3,)))

    check(neighbours, against=definition, draw=draw)
    x, y = np.arange(100, dtype=np.float32), np.zeros(97, np.float32)
    kernel[2, 8](x, y)  # as the document launches it: 16 of 97 are computed
    assert np.count_nonzero(y) == 16


def test_row_61_an_optimizer_step_is_one_kernel_over_all_parameters(monkeypatch):
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    before = [p.detach().numpy().copy() for p in model.parameters()]
    F.cross_entropy(model(Tensor(wave(6, 5))), Tensor(np.arange(6) % 3)).backward()
    k, calls = minidl.device("cpu").kernels, []
    kernel = k.adam_step_
    monkeypatch.setattr(k, "adam_step_", lambda *args: calls.append(1) or kernel(*args))
    optimizer.step()
    assert calls == [1]
    for p, old in zip(model.parameters(), before):
        g = p.grad.numpy()  # the first step of Adam: 0.1 g / (|g| + eps)
        np.testing.assert_allclose(p.numpy_view(), old - 0.1 * g / (np.abs(g) + 1e-8), rtol=1e-9)


class Net(nn.Module):
    """The fourth document's, relu on the logits included."""

    def __init__(self):
        super(Net, self).__init__()  # noqa: UP008  (as it is there)
        self.fc1 = nn.Linear(28 * 28, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = x.view(-1, 28 * 28)
        x = minidl.relu(self.fc1(x))
        x = minidl.relu(self.fc2(x))
        return x  # noqa: RET504  (as it is there)


def test_row_63_the_documents_mistakes_are_told():
    """Its loop, with a DataLoader: no zero_grad, no backward, no step."""
    model, criterion = Net(), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    running_loss = 0.0
    with pytest.warns(minidl.LintWarning) as caught:
        for inputs, labels in DataLoader(digits("train"), 64):
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            running_loss += loss.item()
    told = " ".join({str(w.message) for w in caught})
    assert "comes from relu" in told and "no relu behind the last layer" in told
    assert "none is learnt from" in told and "optimizer.step()" in told
    with pytest.raises(RuntimeError, match="detach"):  # its accuracy
        np.argmax(outputs, axis=1)
    _, label = digits("train")[0]  # its loop as it stands: one sample at a time
    with pytest.raises(ValueError, match=r"one label per row.*a DataLoader makes batches"):
        criterion(model.fc2(Tensor(np.zeros((1, 128), np.float32))), label)
    assert optimizer.defaults["lr"] == 0.01


def test_row_63_a_step_without_zero_grad_is_told():
    model, criterion = linear(), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    with pytest.warns(minidl.LintWarning, match=r"no zero_grad\(\) since the last step"):
        for inputs, labels in DataLoader(digits("test")[:300], 64):
            criterion(model(inputs), labels).backward()
            optimizer.step()


def test_row_63_the_corrected_program_learns(tmp_path):
    command = [sys.executable, str(ROOT / "examples/documents/s4_mnist.py"), "--quick"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    run = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["epochs"][-1]["test_accuracy"] > 0.82
    assert "weighted avg" in run.stdout


@pytest.mark.emulator
def test_row_64_a_sum_and_a_linear_layer_are_kernels():
    from minidl.kernels import cuda as kernels
    from minidl.kernels.cuda import ladder

    x, w, b = (wave(*shape).astype(np.float32) for shape in ((37, 20), (20, 9), (9,)))
    total = kernels.sum(x, np.empty((1, 1), np.float32))
    assert float(total[0, 0]) == pytest.approx(x.sum(dtype=np.float64), abs=1e-4)
    y = kernels.linear(x, w, b, np.empty((37, 9), np.float32), False)
    np.testing.assert_allclose(y, x @ w + b, atol=1e-5)
    np.testing.assert_allclose(ladder.tiled(x, w, np.empty((37, 9), np.float32)), x @ w, atol=1e-5)


def test_row_67_the_first_nan_is_found_and_named():
    x = Tensor(np.array([4.0, 0.0, -1.0]), requires_grad=True)
    with (
        minidl.detect_anomaly(),
        pytest.raises(FloatingPointError, match=r"log in log at .*y \(3,\) is -inf at \(1,\)"),
    ):
        x.log()
    with minidl.detect_anomaly(), pytest.raises(FloatingPointError, match=r"sqrt_grad .*is inf"):
        Tensor(np.array([4.0, 0.0]), requires_grad=True).sqrt().sum().backward()
    model = linear()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @minidl.capture
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    batches = list(DataLoader(digits("test")[:128], 32))
    for x, y in batches:
        step(x, y)
    bad = Tensor(batches[0][0].numpy() + np.float32(np.inf))
    with (
        minidl.detect_anomaly(),
        pytest.raises(FloatingPointError, match=r"linear in linear at .*with \d+ not finite"),
    ):
        step(bad, batches[0][1])
    assert step(*batches[0]).item() < 5  # nothing was spoilt, and it is replayed as before
