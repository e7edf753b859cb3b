"""The command line: what it saves and prints, and one line for what a user can put right."""

import json
import os
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import atomic, data, io, models
from minidl.cli import main, recipes, training
from minidl.data import catalog

ROOT = Path(__file__).parent.parent
RUN = ("model.safetensors", "result.json", "curves.png", "mistakes.png")


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """600 digits to learn from and 200 to test, and small recipes."""
    real = data.digits
    monkeypatch.setattr(data, "digits", lambda split: real(split)[:: 10 if split == "test" else 16])
    for model, small in (
        ("mnist-cnn", {"network": {"channels": (4, 8)}, "epochs": 2, "lr": 0.01}),
        ("mnist-mlp", {"epochs": 3, "lr": 0.1}),
    ):
        recipe = recipes.RECIPES[model]["digits"]
        monkeypatch.setitem(recipes.RECIPES[model], "digits", replace(recipe, **small))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run one command line in an empty folder: (exit code, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIDL_DEBUG", raising=False)

    def call(*argv):
        try:
            code = main(argv)
        except SystemExit as stop:  # argparse
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def fails(result, text, code=1):
    """One line on stderr, no traceback."""
    assert result[0] == code
    line = result[2].splitlines()[-1]
    assert text in line
    assert line.startswith("minidl")
    assert "Traceback" not in result[2]
    if code == 1:
        assert result[2].count("\n") == 1


# train


@pytest.mark.parametrize("model", ["mnist-cnn", "mnist-mlp"])
def test_train_saves_a_run(run, model, tmp_path):
    code, out, _ = run("train", model, "--seed", "3")
    assert code == 0
    folder = tmp_path / "runs" / model
    assert {p.name for p in folder.iterdir()} == set(RUN)
    assert all(f"{Path('runs', model, name)}" in out for name in RUN)
    result = json.loads((folder / "result.json").read_text())
    assert result["seed"] == 3
    assert result["command"] == f"minidl train {model} --seed 3"
    assert 0.5 < result["test_accuracy"] <= 1
    assert result["test_loss"] > 0
    assert result["seconds"] > 0
    assert result["pictures"] == ["curves.png", "mistakes.png"]
    assert {"minidl", "python", "numpy"} <= set(result["versions"])
    assert f"{result['test_accuracy']:.2%}" in out
    assert "epoch 1/" in out
    for name in result["pictures"]:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_saved_network_has_the_accuracy_of_result_json(run, tmp_path):
    run("train", "mnist-mlp")
    model = io.load(tmp_path / "runs" / "mnist-mlp")
    test = data.digits("test")
    loader = data.DataLoader(test, 64, transform=recipes.MNIST)
    result = json.loads((tmp_path / "runs" / "mnist-mlp" / "result.json").read_text())
    found = minidl.train.evaluate(model, loader)
    assert found["accuracy"] == pytest.approx(result["test_accuracy"], abs=1e-12)
    assert found["loss"] == pytest.approx(result["test_loss"], rel=1e-5)


def test_the_same_seed_gives_the_same_network_and_another_one_another(run, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run("train", "mnist-cnn", "--seed", seed, "--epochs", "1", "--name", name)[0] == 0
    a, b, c = ((tmp_path / "runs" / name / RUN[0]).read_bytes() for name in "abc")
    assert a == b != c


def test_a_taken_name_gets_a_number_and_nothing_is_lost(run, tmp_path):
    options = ("train", "mnist-mlp", "--epochs", "1", "--out", "all", "--name", "first")
    assert run(*options)[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "all" / "first").iterdir()}
    code, out, _ = run(*options)
    assert code == 0
    assert str(Path("all", "first-2", "result.json")) in out
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "all" / "first").iterdir()}


def test_flags_reach_the_training(run, tmp_path):
    run("train", "mnist-mlp", "--epochs", "2", "--batch-size", "100", "--lr", "0.05")
    result = json.loads((tmp_path / "runs" / "mnist-mlp" / "result.json").read_text())
    assert result["history"]["lr"] == [0.05, 0.05]
    assert len(result["history"]["loss"]) == 2


def test_without_matplotlib_it_says_how_to_get_the_pictures(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, _ = run("train", "mnist-mlp", "--epochs", "1")
    assert code == 0
    assert 'pip install "minidl[plot]"' in out.splitlines()[-1]
    folder = tmp_path / "runs" / "mnist-mlp"
    assert {p.name for p in folder.iterdir()} == set(RUN[:2])
    result = json.loads((folder / "result.json").read_text())
    assert result["pictures"] == []
    assert "minidl[plot]" in result["note"]


def test_a_folder_of_files_that_are_not_there(run, tmp_path):
    fails(run("train", "cifar10-cnn", "--data", "here"), "minidl data fetch cifar10")
    fails(run("train", "mnist-cnn", "--data", "here"), "minidl data fetch mnist")
    fails(run("train", "cifar10-cnn", "--data", "digits"), "photographs")
    assert not (tmp_path / "runs").exists()


def test_unknown_names_are_told_with_the_nearest(run, monkeypatch):
    monkeypatch.setenv("MINIDL_CUDA", "no such choice")
    fails(run("train", "mnist-cn"), "unknown model 'mnist-cn'; did you mean 'mnist-cnn'?", code=2)
    fails(run("data", "fetch", "cifar"), "did you mean 'cifar10'?")
    fails(run("train", "mnist-mlp", "--device", "cuda"), "MINIDL_CUDA is 'no such choice'")
    fails(run("train", "mnist-mlp", "--device", "tpu"), "known: 'cpu'")


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("--epochs", "0", "a whole number from 1 on"),
        ("--epochs", "two", "a whole number from 1 on"),
        ("--batch-size", "-3", "a whole number from 1 on"),
        ("--lr", "0", "a number above 0"),
        ("--lr", "nan", "a number above 0"),
        ("--seed", "-1", "a whole number from 0 on"),
        ("--name", "../elsewhere", "not the name of a folder"),
        ("--name", "", "not the name of a folder"),
    ],
)
def test_flags_that_make_no_sense(run, flag, value, text):
    fails(run("train", "mnist-mlp", flag, value), text, code=2)


def test_a_loss_that_explodes_is_told_and_leaves_no_folder(run, tmp_path):
    with np.errstate(all="ignore"):
        result = run("train", "mnist-mlp", "--lr", "1e30")
    fails(result, "try a smaller learning rate")
    assert list((tmp_path / "runs").iterdir()) == []


def test_ctrl_c_leaves_no_folder(run, tmp_path, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", stop)
    code, _, err = run("train", "mnist-mlp")
    assert code == 130
    assert "stopped, nothing was saved" in err
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_full_disk_is_told_and_earlier_runs_stay(run, tmp_path, monkeypatch):
    run("train", "mnist-mlp", "--epochs", "1")
    before = (tmp_path / "runs" / "mnist-mlp" / RUN[0]).read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    fails(run("train", "mnist-mlp", "--epochs", "1"), "No space left on device")
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["mnist-mlp"]
    assert (tmp_path / "runs" / "mnist-mlp" / RUN[0]).read_bytes() == before


def test_debug_shows_where_it_happened(run, monkeypatch):
    monkeypatch.setenv("MINIDL_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["predict", "nowhere", "x.png"])


# predict


@pytest.fixture
def trained(run, tmp_path):
    """A run of the small network, and pictures of digits that it knows."""
    assert run("train", "mnist-cnn", "--epochs", "6")[0] == 0
    test = data.digits("test")
    loader = data.DataLoader(test, 64, transform=recipes.MNIST)
    sure = minidl.train.predict(io.load("runs/mnist-cnn"), loader)
    sure = [int(i) for i in np.argsort(-sure.max(1)) if sure[i].argmax() == test.labels[i]][:3]
    return [(test.images[i, :, :, 0], str(test.labels[i])) for i in sure]


def write_png(path, pixels):
    """Write an 8-bit PNG: grey (H, W), or (H, W, 3) colour, or (H, W, 4) with opacity."""

    def chunk(kind, body):
        whole = kind + body
        return len(body).to_bytes(4, "big") + whole + zlib.crc32(whole).to_bytes(4, "big")

    height, width = pixels.shape[:2]
    kind = {2: 0, 3: {3: 2, 4: 6}.get(pixels.shape[-1])}[pixels.ndim]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)))
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, kind, 0, 0, 0])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows.tobytes()))
        + chunk(b"IEND", b"")
    )


def test_predict_names_digits_however_they_are_stored(trained, run, tmp_path):
    grey, digit = trained[0]
    write_png(tmp_path / "grey.png", grey)
    write_png(tmp_path / "colour.png", np.repeat(grey[..., None], 3, 2))
    opacity = np.full((28, 28, 1), 255, np.uint8)
    write_png(tmp_path / "opacity.png", np.concatenate([*[grey[..., None]] * 3, opacity], 2))
    np.save(tmp_path / "bytes.npy", grey)
    np.save(tmp_path / "floats.npy", grey[..., None] / 255)
    names = ["grey.png", "colour.png", "opacity.png", "bytes.npy", "floats.npy"]
    code, out, err = run("predict", "runs/mnist-cnn", *names)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows] == names
    assert {row[1] for row in rows} == {digit}
    chances = [float(row[2].rstrip("%")) for row in rows]
    assert max(chances) - min(chances) <= 0.02
    assert min(chances) > 50


def test_predict_asks_about_dark_digits_on_light(trained, run, tmp_path):
    grey, digit = trained[1]
    np.save(tmp_path / "paper.npy", 255 - grey)
    code, out, err = run("predict", "runs/mnist-cnn/model.safetensors", "paper.npy")
    assert code == 0
    assert "try --invert" in err
    code, out, err = run("predict", "runs/mnist-cnn", "paper.npy", "--invert")
    assert (code, err) == (0, "")
    assert out.split()[1] == digit


def test_predict_refuses_what_is_no_picture_for_it(trained, run, tmp_path):
    np.save(tmp_path / "large.npy", np.zeros((32, 30), np.uint8))
    np.save(tmp_path / "ints.npy", np.zeros((28, 28), np.int64))
    np.save(tmp_path / "many.npy", np.zeros((2, 28, 28, 1), np.uint8))
    np.save(tmp_path / "nan.npy", np.full((28, 28), np.nan))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name, text in (
        ("large.npy", "28 high and 28 wide; this one has shape (32, 30, 1)"),
        ("many.npy", "shape (2, 28, 28, 1)"),
        ("ints.npy", "pixels are bytes (uint8) or floats from 0 to 1"),
        ("nan.npy", "pixels are bytes"),
        ("broken.png", "broken.png: not a picture that can be read"),
        ("broken.npy", "broken.npy: not a .npy file"),
        ("objects.npy", "objects.npy: not a .npy file"),
        ("nowhere.png", "nowhere.png: no such file"),
    ):
        fails(run("predict", "runs/mnist-cnn", name), text)


def test_predict_without_a_network_or_with_another_one(run, tmp_path):
    fails(run("predict", "runs/nothing", "x.png"), "no such file")
    io.save(models.mnist_mlp(), tmp_path / "bare.safetensors")
    fails(run("predict", "bare.safetensors", "x.png"), "does not say what images it takes")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "bare.safetensors").read_bytes()[:999])
    fails(run("predict", "cut.safetensors", "x.png"), "not a whole safetensors file")


# data, and the command itself


def test_data_list_tells_which_sets_are_here(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mnist").mkdir()
    for file in catalog.files("mnist"):
        (tmp_path / "mnist" / f"{file.name}.gz").touch()
    code, out, _ = run("data", "list")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert set(lines) == {"digits", *catalog.FILES}
    assert str(tmp_path / "mnist") in lines["mnist"]
    assert "minidl data fetch cifar10" in lines["cifar10"]


def test_data_fetch_tells_where_the_files_are(run, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "fetch", lambda name, root: Path(root) / name)
    code, out, _ = run("data", "fetch", "mnist", "--root", "there")
    assert code == 0
    assert str(Path("there", "mnist")) in out


def test_version_and_help(run):
    assert run("--version")[:2] == (0, f"minidl {minidl.__version__}\n")
    assert run()[0] == 2
    assert run("data")[0] == 2
    for command in ((), ("train",), ("predict",), ("data",), ("data", "fetch")):
        code, out, _ = run(*command, "--help")
        assert code == 0
        assert "usage: minidl" in out


def test_python_m_minidl_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "--version"],
        cwd=ROOT, env=os.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"minidl {minidl.__version__}\n")


@pytest.mark.slow
def test_the_main_job(tmp_path, monkeypatch):
    """The whole recipe on all shipped digits, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "train", "mnist-cnn", "--out", tmp_path],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "mnist-cnn" / "result.json").read_text())
    assert result["test_accuracy"] >= 0.985
