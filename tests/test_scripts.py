"""Flags of scripts of a few lines; tests/documents runs such a script as a user does."""

import numpy as np
import pytest

from minidl import data, io, models
from minidl.cli import script


def digits(n):
    return data.digits("train")[:n]


def test_it_goes_on_with_the_file_that_is_there(tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    flags = [f"--model_file={file}", "--num_epochs=2", "--batch_size=50", "--gpustat=on"]
    run = script(argv=flags)
    history = run.fit(run.model(models.mnist_mlp), digits(200), digits(50), lr=0.01)
    assert history.epochs == 2 and "val_accuracy" in history
    said = capsys.readouterr().out
    assert "goes on" not in said
    assert "gpustat: no GPU" in said or "% busy" in said
    run = script(argv=[*flags, "--gpustat", "off"])
    model = run.model(models.mnist_mlp)
    assert capsys.readouterr().out == f"goes on with {file}\n"
    for name, value in io.load(file).state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], value)
    assert run.fit(model, digits(200), lr=0.01)["loss"][0] < history["loss"][0]
    assert "gpu" not in capsys.readouterr().out


def test_help_and_a_wrong_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        script("Learns.", argv=["--batch_size=0"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "--batch_size/--batch-size: '0' is not a whole number from 1 on" in said
    with pytest.raises(SystemExit):
        script("Learns.", argv=["--help"], lr=0.5)
    said = capsys.readouterr().out
    assert "Learns." in said
    for flag in ("--gpustat", "--model_file", "--batch_size", "--num_epochs", "--device", "--lr"):
        assert flag in said


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


def test_the_seed_decides_weights_and_order():
    def learned(seed):
        run = script(argv=[f"--seed={seed}"])
        model = run.model(models.mnist_mlp)
        run.fit(model, digits(64))
        return model.state_dict()["1.weight"]

    np.testing.assert_array_equal(learned(1), learned(1))
    assert (learned(1) != learned(2)).any()


def test_the_file_of_another_network_is_refused(tmp_path):
    file = tmp_path / "mlp.safetensors"
    io.save(models.mnist_mlp(hidden=4), file)
    with pytest.raises(ValueError, match=r"mlp\.safetensors: load_state_dict"):
        script(argv=[f"--model_file={file}"]).model(models.mnist_mlp)
