"""Rows of docs/documents.md on the machine: what is installed, bounds, one code on every device."""

import json
import subprocess
import sys

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.nn import functional as F


def test_row_03_the_doctor_tells_what_is_installed_and_what_to_type(tmp_path):
    command = [sys.executable, "-m", "minidl", "doctor", "--json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = json.loads(run.stdout)
    found = {check["name"]: check for check in told["checks"]}
    assert {"numpy", "numba", "driver", "cache", "kernel"} <= found.keys()
    wrong = [name for name, check in found.items() if check["state"] == "broken"]
    assert run.returncode == bool(wrong)
    assert all(check["fix"] for check in found.values() if check["state"] in ("broken", "missing"))


@pytest.mark.emulator
def test_row_35_an_access_out_of_bounds_is_caught_and_named():
    from minidl.kernels.cuda import cuda, jit

    @jit
    def shift(x, y):
        i = cuda.grid(1)
        y[i] = x[i + 1]  # the last thread reads behind the end

    x, y = np.zeros(8, np.float32), np.zeros(8, np.float32)
    with pytest.raises(RuntimeError, match=r"shift.*past the end"):
        shift[1, 8](x, y)


def test_row_37_one_program_on_every_device(cuda):
    losses = {}
    for device in ("cpu", "cuda"):
        minidl.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        ).to(device)
        optimizer = optim.Adam(model.parameters(), lr=1e-2)
        x = minidl.rand(6, 8, 8, 1).to(device)
        y = minidl.tensor(np.arange(6) % 3).to(device)
        losses[device] = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses[device].append(loss.item())
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-5)
    assert losses["cpu"][-1] < losses["cpu"][0]
