"""minidl cache: what is kept, compiled ahead, deleted."""

import os
import subprocess
import sys

import pytest

from minidl.cli import main

STEPS = """
import sys
import numpy as np
import minidl as md
from minidl import models, optim
from minidl.nn import functional as F
for make, shape in ((models.mnist_cnn, (28, 28, 1)), (models.cifar10_cnn, (32, 32, 3))):
    model = make()
    optimizer = optim.Adam(model.parameters())
    for n in (4, 256):
        x, label = np.ones((n, *shape), np.float32), np.arange(n) % 10
        loss = F.cross_entropy(model(md.Tensor(x)), md.Tensor(label))
        loss.backward()
        optimizer.step()
"""


def child(code, folder, *flags):
    """What a process says on stderr that has this cache."""
    environment = os.environ | {"MINIDL_CACHE": str(folder), "MINIDL_QUIET": "0"}
    environment.pop("MINIDL_CPU", None)
    command = [sys.executable, *flags, code] if flags else [sys.executable, "-m", "minidl", *code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    kernels = tmp_path / "kernels"
    for name, size in (("0123456789abcdef", 2_000_000), ("cuda", 3_000_000), ("photos", 7)):
        (kernels / name).mkdir(parents=True)
        (kernels / name / "file").write_bytes(bytes(size))
    return kernels


@pytest.mark.numba
def test_what_is_kept(home, capsys):
    assert main(["cache", "info"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith(str(home))
    assert lines[1].startswith("0 files 0.0 MB kernels of the CPU")
    assert lines[2].startswith("1 files 3.0 MB CUDA")
    assert lines[3].startswith("1 files 2.0 MB kernels of other versions")


@pytest.mark.numba
def test_what_is_old_is_deleted_and_what_is_not_ours_never(home, capsys):
    assert main(["cache", "clear", "--older"]) == 0
    assert capsys.readouterr().out == "deleted 1 files, 2.0 MB\n"
    assert {folder.name for folder in home.iterdir()} == {"cuda", "photos"}
    assert main(["cache", "clear"]) == 0
    assert {folder.name for folder in home.iterdir()} == {"photos"}


@pytest.mark.numba
def test_nothing_to_compile_on_numpy_alone(monkeypatch, capsys):
    monkeypatch.setenv("MINIDL_CPU", "reference")
    assert main(["cache", "warm"]) == 1
    assert "nothing to compile" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.numba
def test_after_warming_up_training_compiles_nothing(tmp_path):
    said, _ = child(["cache", "warm"], tmp_path)
    assert int(said.split()[1]) > 20
    every = "from minidl.kernels import ahead; ahead.NOTICEABLE = 0\n"  # not a second's alone
    _, errors = child(every + STEPS, tmp_path, "-c")
    assert errors == ""
    said, _ = child(["cache", "warm"], tmp_path)
    assert said.startswith("compiled 0 kernels")
