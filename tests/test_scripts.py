"""Scripts of a few lines that take the flags of a command line, run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minidl import data, io, models
from minidl.cli import script

ROOT = Path(__file__).parent.parent
TEN_LINES = '''"""A network learns to read digits: its flags are those of the command line."""

from minidl import data, models
from minidl.cli import script

run = script(lr=0.01)
model = run.model(models.mnist_mlp)
train, test = data.digits("train")[::80], data.digits("test")[::10]
history = run.fit(model, train, test, optimizer="sgd", lr=run.lr)
print("accuracy", max(history["val_accuracy"]))
'''


@pytest.fixture
def folder(tmp_path):
    assert TEN_LINES.count("\n") == 10
    (tmp_path / "run_your_script.py").write_text(TEN_LINES)
    return tmp_path


def shell(folder, command):
    """Run a command line as it is typed, with `python` this interpreter."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    words = [sys.executable if word == "python" else word for word in command.split()]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_a_script_of_ten_lines_takes_the_flags_as_written(folder):
    run = shell(
        folder,
        "python run_your_script.py --gpustat=on --model_file=your_model.safetensors --batch_size=1 "
        "--num_epochs=10",
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("gpustat: no GPU") or any(line.startswith("gpu ") for line in lines)
    assert sum("epoch" in line for line in lines) == 10
    assert float(lines[-1].split()[1]) > 0.5
    saved = io.load(folder / "your_model.safetensors")
    assert saved.config["name"] == "mnist-mlp"

    again = shell(
        folder, "python run_your_script.py --model-file=your_model.safetensors --lr 0.001"
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("goes on with your_model.safetensors\n")
    assert float(again.stdout.split()[-1]) > 0.5


def test_a_wrong_flag_is_one_line(folder):
    run = shell(folder, "python run_your_script.py --batch_size=0")
    assert run.returncode == 2
    assert "--batch_size/--batch-size: '0' is not a whole number from 1 on" in run.stderr
    assert "Traceback" not in run.stderr
    help_ = shell(folder, "python run_your_script.py --help").stdout
    for flag in ("--gpustat", "--model_file", "--batch_size", "--num_epochs", "--device", "--lr"):
        assert flag in help_


def test_flags_have_defaults_and_types():
    run = script(argv=[], lr=0.1, hidden=32, name="x")
    assert (run.batch_size, run.num_epochs, run.gpustat, run.model_file) == (32, 1, "off", None)
    assert (run.lr, run.hidden, run.name) == (0.1, 32, "x")
    run = script(argv=["--hidden", "64", "--gpustat", "--num-epochs=3"], hidden=32)
    assert (run.hidden, run.gpustat, run.num_epochs) == (64, "on", 3)
    with pytest.raises(SystemExit):
        script(argv=["--gpustat=maybe"])
    with pytest.raises(RuntimeError, match="there is no device 'tpu'"):
        script(argv=["--device=tpu"])


def test_the_seed_decides_weights_and_order(tmp_path, capsys):
    def learned(seed):
        run = script(argv=[f"--seed={seed}"])
        model = run.model(models.mnist_mlp)
        run.fit(model, data.digits("train")[:64])
        return model.state_dict()["1.weight"]

    np.testing.assert_array_equal(learned(1), learned(1))
    assert (learned(1) != learned(2)).any()


def test_the_file_of_another_network_is_refused(tmp_path):
    file = tmp_path / "mlp.safetensors"
    io.save(models.mnist_mlp(hidden=4), file)
    with pytest.raises(ValueError, match=r"mlp\.safetensors: load_state_dict"):
        script(argv=[f"--model_file={file}"]).model(models.mnist_mlp)
