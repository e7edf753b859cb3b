"""What the documents say of pruning, sparse matrices, energy, speed and command lines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import Tensor, data, io, models, nn, optim, prune, sparse
from minidl.cli import main
from minidl.energy import EnergyMonitor
from minidl.nn import functional as F
from minidl.train import fit

ROOT = Path(__file__).parents[2]


@pytest.fixture
def few_digits(monkeypatch):
    real = data.digits
    monkeypatch.setattr(data, "digits", lambda split: real(split)[:200])


def learner():
    model = models.mnist_mlp(hidden=16)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @minidl.capture
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = minidl.rand(8, 784), Tensor(np.arange(8) % 10)
    for _ in range(4):
        step(x, y)
    return step, x, y


def test_row_11_the_same_network_timed_on_every_device(few_digits, capsys):
    flags = "--batch-size", "32", "--seconds", "0.05", "--json", "-"
    assert not main(["bench", "mnist-mlp", *flags])
    rows = json.loads(capsys.readouterr().out)["devices"]
    assert rows[0]["device"] == "cpu"
    assert [row["device"] for row in rows[1:]] == ["cuda"] * minidl.cuda.is_available()
    for row in rows:
        assert row["quartiles"][0] <= row["milliseconds"] <= row["quartiles"][1]


def test_row_22_a_profile_has_bytes_operations_and_the_roof_of_each_kernel():
    step, x, y = learner()
    profile = minidl.profile(step, x, y)
    text = str(profile)
    for column in ("KB", "MFLOP", "GB/s", "GFLOP/s", "bound by", "of bound"):
        assert column in text
    product = next(line for line in text.splitlines() if line.startswith("linear"))
    assert f"{2 * 8 * 784 * 16 / 1e6:.3f}" in product  # M K N multiplications and additions
    assert f"{4 * (8 * 784 + 784 * 16 + 16 + 8 * 16) / 1e3:,.1f}" in product  # in and out, once


def test_row_33_small_weights_become_zero_and_stay_so(tmp_path):
    minidl.manual_seed(0)
    model = models.mnist_mlp(hidden=32)
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    loader = data.DataLoader(data.digits("train")[:1000], 50, shuffle=True, seed=0)
    fit(model, loader, epochs=2, optimizer=optimizer, progress=False)
    pruner = prune.magnitude(model, optimizer, amount=0.9)
    history = fit(
        model, loader, epochs=2, optimizer=optimizer, callbacks=[pruner], progress=False,
        validation=data.DataLoader(data.digits("test"), 500),
    )  # fmt: skip
    assert history["sparsity"] == pytest.approx([0.9, 0.9], abs=1e-4)
    assert history["val_accuracy"][-1] > 0.75
    sizes = io.save_csr(model, tmp_path / "small.safetensors")
    assert sizes.stored < 0.2 * sizes.dense
    again = minidl.load(tmp_path / "small.safetensors")
    for name, weight in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], weight)


TEN_LINES = '''"""A network learns to read digits: its flags are those of the command line."""

from minidl import data, models
from minidl.cli import script

run = script(lr=0.01)
model = run.model(models.mnist_mlp)
train, test = data.digits("train")[::100], data.digits("test")[::10]
history = run.fit(model, train, test, optimizer="sgd", lr=run.lr)
print("accuracy", max(history["val_accuracy"]))
'''
COMMAND = "python run_your_script.py --gpustat=on --model_file=your_model.{} --batch_size=1 "
COMMAND += "--num_epochs=10"


@pytest.mark.parametrize("ending", ["h5", "safetensors"])
def test_row_50_a_script_of_ten_lines_takes_the_flags_as_written(tmp_path, ending):
    if ending == "h5":
        pytest.importorskip("h5py")
    assert TEN_LINES.count("\n") == 10
    (tmp_path / "run_your_script.py").write_text(TEN_LINES)
    _python, *words = COMMAND.format(ending).split()
    run = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("gpustat: no GPU") or any("% busy" in line for line in lines)
    assert sum("epoch" in line for line in lines) == 10
    assert float(lines[-1].split()[1]) > 0.5
    minidl.load(tmp_path / f"your_model.{ending}", models.mnist_mlp())


def test_row_53_a_sparse_matrix_is_multiplied_both_ways():
    scipy = pytest.importorskip("scipy.sparse")
    theirs = scipy.random_array((50, 40), density=0.1, rng=0, format="csr", dtype=np.float64)
    ours = sparse.CSR.from_scipy(theirs)
    ours.value.requires_grad = True
    x = Tensor(np.random.default_rng(0).standard_normal((40, 8)), requires_grad=True)
    y = ours @ x
    y.sum().backward()
    np.testing.assert_allclose(y.numpy_view(), theirs @ x.numpy_view(), atol=1e-13)
    np.testing.assert_allclose(x.grad.numpy(), theirs.T @ np.ones((50, 8)), atol=1e-13)
    slopes = np.ones((50, 8)) @ x.numpy_view().T
    np.testing.assert_allclose(ours.value.grad.numpy(), slopes[theirs.nonzero()], atol=1e-13)
    assert (ours.to_scipy() != theirs).nnz == 0


def test_row_57_joules_are_counted_or_told_as_not_measured():
    monitor = EnergyMonitor(samples=8)
    batch = np.ones((8, 4), np.float32), np.zeros(8, np.int64)
    model = nn.Sequential(nn.Linear(4, 2))
    history = fit(model, [batch], epochs=1, callbacks=[monitor], progress=False)
    measured = {counter.name for counter in monitor.meter.counters}
    assert {name for name in ("gpu", "cpu") if f"{name}_joules_per_sample" in history} == measured
    for name in {"gpu", "cpu"} - measured:
        assert f"{name}: not measured (" in str(monitor)


def test_row_59_devices_and_what_they_are():
    found = minidl.cuda.devices()
    assert minidl.cuda.device_count() == len(found) == int(minidl.cuda.is_available())
    if found:
        assert minidl.cuda.get_device_properties(0) == found[0]
    with pytest.raises(IndexError, match=f"there is no device {len(found)}: "):
        minidl.cuda.get_device_properties(len(found))


@pytest.mark.emulator
def test_row_59_the_device_there_is(cuda):
    (device,) = minidl.cuda.devices()
    assert minidl.cuda.get_device_properties() == device
    assert device.name and device.compute_capability >= (7, 0) and device.memory > 1e9
    with pytest.raises(IndexError, match="minidl computes on one device, 0"):
        minidl.cuda.get_device_properties(1)


def test_row_60_a_sum_of_products_and_accuracy_are_two_things():
    a, b = minidl.rand(100), minidl.rand(100)
    assert (a @ b).item() == pytest.approx(float(a.numpy() @ b.numpy()), rel=1e-5)
    step, x, y = learner()
    profile = minidl.profile(step, x, y)
    assert len(profile.seconds) == len(profile.program.entries) > 5
    assert "matmul" in str(profile) or "linear" in str(profile)
    model = models.mnist_mlp()
    loader = data.DataLoader(data.digits("test"), 500)
    accuracy = minidl.train.evaluate(model, loader)["accuracy"]
    right = minidl.train.predict(model, loader).argmax(1) == data.digits("test").labels
    assert accuracy == pytest.approx(right.mean())


@pytest.mark.emulator
def test_row_68_the_report_tells_how_many_threads_fit():
    from minidl.kernels import report

    rows = report.rows(((8, 0),), only="sparse")
    assert {row.kernel for row in rows} == {"sparse._sum_lines", "sparse._dots"}
    assert all(0 < row.occupancy <= 1 for row in rows)


def test_row_68_a_trained_network_predicts_and_is_exported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = models.mnist_cnn(channels=(2,))
    vars(model)["config"] |= {
        "shape": [28, 28, 1], "mean": 0.1307, "std": 0.3081, "classes": list("0123456789"),
    }  # fmt: skip
    io.save(model, "model.safetensors")
    np.save("digit.npy", data.digits("test").images[0])
    assert not main(["predict", "model.safetensors", "digit.npy"])
    assert "%" in capsys.readouterr().out
    assert not main(["export", "model.safetensors", "small.safetensors", "--sparse"])
    assert not main(["predict", "small.safetensors", "digit.npy"])
