"""minidl bench and minidl export."""

import json
import sys

import numpy as np
import pytest
from fake_nvml import fake

from minidl import data, io, models, prune
from minidl.cli import bench, main
from minidl.energy import Nvml


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    real = data.digits
    monkeypatch.setattr(data, "digits", lambda split: real(split)[:600])
    monkeypatch.setattr(bench, "BLOCK", 0.002)


def test_it_trains_on_the_cpu_and_writes_what_it_measured(capsys, tmp_path):
    file = tmp_path / "bench.json"
    assert not main(
        ["bench", "mnist-mlp", "--seconds", "0.05", "--device", "cpu", "--json", str(file)]
    )
    out = capsys.readouterr().out
    assert out.startswith("mnist-mlp, training, batches of 64\n")
    assert "joules of cpu: not measured" in out or "cpu " in out.splitlines()[2]
    found = json.loads(file.read_text())
    assert (found["model"], found["batch_size"]) == ("mnist-mlp", 64)
    (row,) = found["devices"]
    low, high = row["quartiles"]
    assert 0 < low <= row["milliseconds"] <= high
    assert row["samples_per_second"] == pytest.approx(64e3 / row["milliseconds"])
    assert set(row["joules_per_sample"]) | set(row["not_measured"]) == {"cpu"}
    assert 1.5 < row["loss"] < 2.5


def test_json_alone_for_programs(capsys):
    flags = "--batch-size", "32", "--seconds", "0.05", "--device", "cpu", "--json", "-"
    assert not main(["bench", "mnist-mlp", *flags])
    assert json.loads(capsys.readouterr().out)["batch_size"] == 32


def test_joules_are_those_of_the_steps(monkeypatch):
    class Counter:
        name = "gpu"

        def joules(self):
            steps[0] += 1
            return {1: 0.0, 2: 100.0, 3: 102.0}[steps[0]]

    steps = [0]
    monkeypatch.setattr(bench, "Rapl", Counter)
    recipe = bench.find("mnist-mlp", None)[0]
    batches = [(np.zeros((8, 28, 28, 1), np.float32), np.zeros(8, np.int64))]
    taken = []
    monkeypatch.setattr(bench, "_done", lambda: taken.append(1))
    row = bench.measured("cpu", "mnist-mlp", recipe, batches, 0.01)
    blocks = len(taken) - 1  # the first was to see how long a block is
    assert row.joules_per_sample["gpu"] * 8 * blocks <= 2.0
    assert (2.0 / row.joules_per_sample["gpu"] / 8) % blocks == pytest.approx(0, abs=1e-6)
    assert row.not_measured == {}


def test_the_table_compares_devices_and_tells_what_was_not_measured():
    rows = [
        bench.Row("cpu", "A CPU", 4.0, (3.9, 4.2), 16_000.0, {}, {"cpu": "no RAPL"}, 2.1, 4),
        bench.Row("cuda", "A GPU", 0.5, (0.4, 0.6), 128_000.0, {"gpu": 0.0021}, {}, 2.1, 4),
    ]
    lines = bench.table(rows).splitlines()
    cells = [" ".join(line.split()) for line in lines]
    assert cells[1] == "cpu 4.000 3.900 to 4.200 16,000 not measured A CPU"
    assert cells[2] == "cuda 0.500 0.400 to 0.600 128,000 gpu 0.0021 A GPU"
    assert lines[3] == "loss after 4 steps: cpu 2.100000, cuda 2.100000"
    assert lines[4] == "cuda trains 8.00 times as many samples a second"
    assert lines[5] == "joules of cpu: not measured, no RAPL"


def test_too_few_samples_and_unknown_devices_are_told(capsys):
    assert main(["bench", "mnist-mlp", "--batch-size", "601"]) == 1
    assert "600 samples make no batch of 601" in capsys.readouterr().err
    assert main(["bench", "mnist-mlp", "--device", "tpu"]) == 1
    assert "there is no device 'tpu'" in capsys.readouterr().err


def test_every_device_of_the_machine(monkeypatch):
    for there, names in ((False, ["cpu"]), (True, ["cpu", "cuda"])):
        monkeypatch.setattr(bench.cuda, "is_available", lambda there=there: there)
        assert bench.devices() == names


@pytest.mark.emulator
def test_the_emulator_learns_the_same(monkeypatch, cuda):
    monkeypatch.setitem(sys.modules, "pynvml", fake(energy=1))
    recipe, training, _ = bench.find("mnist-mlp", None)
    loader = data.DataLoader(training, 8, transform=recipe.normalize)
    batches = [next(iter(loader))]
    rows = [bench.measured(name, "mnist-mlp", recipe, batches, 0.01) for name in ("cpu", "cuda")]
    assert rows[0].loss == pytest.approx(rows[1].loss, abs=1e-5)
    assert rows[1].joules_per_sample == {Nvml.name: 0}


def test_export_writes_another_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = models.mnist_mlp(hidden=16)
    prune.magnitude(model, amount=0.95)
    io.save(model, "a.safetensors")
    assert not main(["export", "a.safetensors", "b.safetensors"])
    assert not main(["export", "a.safetensors", "c.safetensors", "--sparse"])
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("b.safetensors: ") and out[0].endswith("for weights of 50,920")
    for name in "bc":
        again = io.load(f"{name}.safetensors")
        for key, value in model.state_dict().items():
            np.testing.assert_array_equal(again.state_dict()[key], value)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in "bc"]
    assert sizes[1] < 0.2 * sizes[0]
