"""Training loops: what is measured, what is restored, what is refused."""

import io as text
import math

import numpy as np
import pytest

import minidl
from minidl import Tensor, models, nn, optim
from minidl.data import DataLoader
from minidl.train import History, accuracy, evaluate, fit, predict


def points(n=90, seed=0):
    """Points in three clouds that a line separates."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, 4)) + 4 * np.eye(3, 4)[y]
    return x.astype(np.float32), y


@pytest.fixture
def net():
    minidl.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def loader(batch_size=16, **options):
    return DataLoader(points(), batch_size, shuffle=True, seed=0, **options)


# fit


def test_fit_learns_and_tells_what_it_measured(net):
    history = fit(
        net, loader(), epochs=8, optimizer="adam", lr=0.02, validation=loader(7), progress=False
    )
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"}
    assert all(len(values) == 8 == history.epochs for values in history.values())
    assert len(history.batch_loss) == 8 * 6
    assert history["loss"][-1] < history["loss"][0] / 3
    assert history["val_accuracy"][-1] > 0.95
    assert history["lr"] == [0.02] * 8


def test_fit_is_the_plain_loop(net):
    fit(net, loader(), epochs=2, optimizer=optim.SGD(net.parameters(), lr=0.1), progress=False)
    minidl.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer, batches = optim.SGD(plain.parameters(), lr=0.1), loader()
    for _ in range(2):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
    for mine, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        assert np.array_equal(mine.numpy_view(), theirs.numpy_view())


def test_the_loss_of_an_epoch_counts_every_sample_the_same(net):
    net.eval()
    fixed = optim.SGD(net.parameters(), lr=1e-12)
    net.train = lambda mode=True: net  # no dropout: then the training loss is known
    history = fit(net, loader(40), epochs=1, optimizer=fixed, progress=False)
    x, y = points()
    expected = nn.functional.cross_entropy(net(Tensor(x)), Tensor(y)).item()
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert history["accuracy"][0] == pytest.approx(
        (net(Tensor(x)).numpy_view().argmax(1) == y).mean()
    )


def test_schedules_step_by_batch_or_by_epoch(net):
    optimizer = optim.SGD(net.parameters(), lr=1.0)
    schedule = optim.StepLR(optimizer, step_size=1, gamma=0.5)
    history = fit(net, loader(), epochs=3, optimizer=optimizer, schedule=schedule, progress=False)
    assert history["lr"] == [1.0, 0.5, 0.25]
    optimizer = optim.SGD(net.parameters(), lr=1.0)
    schedule = optim.OneCycleLR(optimizer, max_lr=0.1, total_steps=12)
    fit(net, loader(), epochs=2, optimizer=optimizer, schedule=schedule, progress=False)
    assert schedule.last_epoch == 2 * 6
    optimizer = optim.SGD(net.parameters(), lr=1.0)
    schedule = optim.StepLR(optimizer, step_size=1, gamma=0.5)
    options = {"optimizer": optimizer, "schedule": schedule, "progress": False}
    fit(net, loader(), epochs=1, schedule_every="batch", **options)
    assert optimizer.param_groups[0]["lr"] == 0.5**6
    with pytest.raises(ValueError, match="unknown schedule_every 'step'"):
        fit(net, loader(), epochs=1, schedule_every="step", **options)


def test_gradients_are_clipped(net):
    before = [p.numpy_view().copy() for p in net.parameters()]
    fit(net, loader(90), epochs=1, optimizer="sgd", lr=1.0, clip_grad_norm=1e-3, progress=False)
    moved = [p.numpy_view() - b for p, b in zip(net.parameters(), before, strict=True)]
    assert math.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(1e-3, rel=1e-2)


def test_loss_and_metrics_of_ones_own(net):
    def half(output, y):
        return nn.functional.cross_entropy(output, y) * 0.5

    def share_of_class_0(output, y):
        return (output.argmax(1) == 0).mean()

    theirs = evaluate(net, loader())["loss"]
    found = evaluate(net, loader(), loss=half, metrics=["accuracy", share_of_class_0])
    assert found["loss"] == pytest.approx(theirs / 2)
    assert set(found) == {"loss", "accuracy", "share_of_class_0"}


def test_training_ends_when_on_epoch_says_so(net):
    seen = []
    history = fit(
        net, loader(), epochs=9, progress=False,
        on_epoch=lambda h: seen.append(h.epochs) or h.epochs == 2,
    )  # fmt: skip
    assert seen == [1, 2]
    assert history.epochs == 2


def test_a_history_goes_on(net, capsys):
    history = fit(net, loader(), epochs=1)
    assert fit(net, loader(), epochs=1, history=history) is history
    assert history.epochs == 2
    assert "epoch 2/2" in capsys.readouterr().out


# progress


def test_a_log_gets_one_plain_line_per_epoch(net, capsys):
    fit(net, loader(), epochs=2, validation=loader())
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2
    assert err == ""
    assert lines[1].startswith("epoch 2/2  loss 1.")
    assert "val accuracy" in lines[1]
    assert "%" in lines[1]


def test_a_terminal_gets_a_bar_that_goes_away(net, capsys, monkeypatch):
    class Terminal(text.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", screen := Terminal())
    fit(net, loader(), epochs=1)
    assert "epoch 1/1:" in screen.getvalue()
    assert screen.getvalue().endswith("\r")
    assert capsys.readouterr().out.startswith("epoch 1/1  loss")


# evaluate and predict


def test_evaluate_counts_every_sample_the_same(net):
    x, y = points()
    net.eval()
    logits = net(Tensor(x)).numpy_view()
    net.train()
    for batch_size in (1, 7, 64, 90):
        found = evaluate(net, DataLoader((x, y), batch_size))
        assert found["accuracy"] == pytest.approx((logits.argmax(1) == y).mean(), abs=1e-12)
        wanted = nn.functional.cross_entropy(Tensor(logits), Tensor(y)).item()
        assert found["loss"] == pytest.approx(wanted, rel=1e-5)


def test_modes_are_restored_each_layers_own(net):
    net.train()
    net[0].eval()  # frozen by the user
    modes = [m.training for m in net.modules()]
    evaluate(net, loader())
    predict(net, points()[0])
    with pytest.raises(ValueError, match="4"):
        predict(net, np.zeros((2, 5), np.float32))
    assert [m.training for m in net.modules()] == modes
    assert minidl.autograd.mode.recording


def test_predict_gives_probabilities_however_the_data_comes(net):
    x, y = points()
    whole = predict(net, x)
    assert whole.shape == (90, 3)
    assert np.allclose(whole.sum(1), 1, atol=1e-6)
    for data in (Tensor(x), DataLoader((x, y), 7), DataLoader((x,), 90), [Tensor(x)]):
        assert np.allclose(predict(net, data), whole, atol=1e-6)
    assert np.allclose(predict(net, x, batch_size=1), whole, atol=1e-6)


def test_accuracy_is_a_fraction():
    assert accuracy(np.eye(4), np.array([0, 1, 2, 0])) == 0.75


# bad input


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_harmed(net, bad):
    x, y = points()
    x[50] = bad
    batches = DataLoader((x, y), 16)  # sample 50 is in batch 4
    with pytest.raises(FloatingPointError, match=r"epoch 1, batch 4; try a smaller learning rate"):
        fit(net, batches, epochs=2, optimizer="sgd", lr=0.01, progress=False)
    assert all(np.isfinite(p.numpy_view()).all() for p in net.parameters())


def test_empty_data_is_refused(net):
    nothing = np.zeros((0, 4), np.float32)
    for call in (
        lambda: fit(net, [], epochs=1, progress=False),
        lambda: evaluate(net, []),
        lambda: predict(net, []),
        lambda: predict(net, nothing),
    ):
        with pytest.raises(ValueError, match="the data set is empty"):
            call()


def test_unknown_names_are_told_with_the_nearest(net):
    with pytest.raises(ValueError, match=r"unknown optimizer 'adm'; did you mean 'adam'\?"):
        fit(net, loader(), epochs=1, optimizer="adm")
    with pytest.raises(ValueError, match=r"unknown loss 'crossentropy'; did you mean"):
        fit(net, loader(), epochs=1, loss="crossentropy")
    with pytest.raises(ValueError, match=r"unknown metric 'acuracy'; did you mean 'accuracy'\?"):
        evaluate(net, loader(), metrics=["acuracy"])
    with pytest.raises(ValueError, match=r"unknown model 'mnist-cn'; did you mean 'mnist-cnn'\?"):
        models.build("mnist-cn")


def test_what_is_no_pair_is_refused(net):
    with pytest.raises(TypeError, match=r"batches are \(x, y\)"):
        fit(net, DataLoader((points()[0],), 9), epochs=1, progress=False)


def test_a_rate_for_an_optimizer_that_has_one_is_refused(net):
    with pytest.raises(ValueError, match="lr goes with an optimizer given by name"):
        fit(net, loader(), epochs=1, optimizer=optim.SGD(net.parameters(), lr=1.0), lr=2.0)
    with pytest.raises(ValueError, match="epochs is -1"):
        fit(net, loader(), epochs=-1)


# models


@pytest.mark.parametrize(
    ("build", "shape", "parameters"),
    [
        (models.mnist_mlp, (28, 28, 1), 101_770),
        (models.mnist_cnn, (28, 28, 1), 104_202),
        (models.cifar10_cnn, (32, 32, 3), 167_562),
    ],
)
def test_models_have_the_documented_size(build, shape, parameters):
    model = build()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(Tensor(np.zeros((2, *shape), np.float32))).shape == (2, 10)


def test_a_history_is_part_of_a_checkpoint():
    history = History()
    history.add({"loss": 1.0})
    history.batch_loss.append(2.0)
    back = History()
    back.load_state_dict(history.state_dict())
    assert back == history
    assert back.batch_loss == [2.0]


@pytest.mark.parametrize("capture", [False, True])
def test_fit_reads_each_loss_from_the_device_once(capture, monkeypatch):
    read = []
    item = Tensor.item
    monkeypatch.setattr(Tensor, "item", lambda self: read.append(1) or item(self))
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    loader = DataLoader((x, np.arange(40) % 3), 8)
    history = fit(nn.Linear(4, 3), loader, epochs=3, lr=0.1, capture=capture, progress=False)
    assert len(read) == len(history.batch_loss) == 15
    assert history["loss"][0] == pytest.approx(np.mean(history.batch_loss[:5]))
    assert len(set(history.batch_loss)) == 15


# --- several batches for one step


def several(capture, accumulate=4, size=8, **options):
    minidl.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).double()
    x = np.sin(np.arange(64 * 784)).reshape(64, 28, 28, 1)
    loader = DataLoader((x, np.arange(64) % 10), size)
    optimizer = minidl.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    history = fit(model, loader, epochs=3, optimizer=optimizer, accumulate=accumulate,
                  capture=capture, progress=False, **options)  # fmt: skip
    return model.state_dict(), history


@pytest.mark.parametrize("capture", [False, True])
def test_accumulated_batches_are_one_large_batch(capture):
    small, history = several(capture)
    large, _ = several(capture, accumulate=1, size=32)
    for name, value in large.items():
        np.testing.assert_allclose(small[name], value, rtol=1e-10, atol=1e-12)
    assert len(history.batch_loss) == 3 * 8


def test_accumulated_steps_are_captured_and_counted_by_schedules():
    class Counting:
        by_batch, steps = True, 0

        def step(self):
            self.steps += 1

    schedule = Counting()
    several(True, accumulate=3, schedule=schedule)  # 24 batches
    assert schedule.steps == 8
    eager, replayed = several(False, 3)[0], several(True, 3)[0]
    for name, value in eager.items():
        np.testing.assert_allclose(replayed[name], value, rtol=1e-12)
    with pytest.raises(ValueError, match="accumulate is 0, but must be at least 1"):
        several(False, 0)
