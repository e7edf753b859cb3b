"""Files: what is saved comes back, and nothing that fails harms what was there."""

import errno
import importlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

import minidl
from minidl import atomic, io, models, nn, optim
from minidl.data import DataLoader, PadCrop
from minidl.train import History, fit


@pytest.fixture
def model():
    minidl.manual_seed(1)
    return models.mnist_mlp(hidden=4)


def same(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def files(folder) -> set[str]:
    return {p.name for p in folder.iterdir()}


# What is saved comes back.


SMALL = {
    "vgg16": dict(input_shape=(32, 32, 3), width=1 / 16, hidden=8, batch_norm=True),
    "mobilenet": dict(alpha=0.1, blocks=(1, 2), classes=3),
    "resnet18": dict(width=0.05, include_top=False),
}


@pytest.mark.parametrize("kind", [".safetensors", ".npz"])
@pytest.mark.parametrize("name", models.names())
def test_a_model_comes_back_from_its_file_alone(name, kind, tmp_path):
    model = models.build(name, **SMALL.get(name, {}))
    io.save(model, tmp_path / f"model{kind}")
    back = io.load(tmp_path if kind == ".safetensors" else tmp_path / f"model{kind}")
    assert same(back, model)
    assert back.config == json.loads(json.dumps(model.config))
    assert getattr(back, "input_shape", None) == getattr(model, "input_shape", None)


def test_arguments_of_a_model_come_back(tmp_path):
    io.save(models.mnist_cnn((2, 3), dropout=0.25, classes=7), tmp_path / "m.safetensors")
    config = io.load(tmp_path / "m.safetensors").config
    assert config == {
        "name": "mnist-cnn",
        "args": {"channels": [2, 3], "dropout": 0.25, "batch_norm": False, "classes": 7},
    }


def test_a_network_of_ones_own_is_loaded_into_one_like_it(tmp_path):
    path = tmp_path / "own.safetensors"
    io.save(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2)), path)
    with pytest.raises(ValueError, match="holds weights, but not which network"):
        io.load(path)
    like = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2))
    assert io.load(path, like) is like


@pytest.mark.parametrize(
    "array",
    [
        np.float32(3),
        np.zeros((0, 3), np.float64),
        np.arange(12, dtype=np.int64).reshape(3, 4).T,
        np.array([True, False]),
        np.array([2**64 - 1], np.uint64),
        np.array([np.nan, np.inf, -0.0], np.float32),
    ],
)
def test_every_kind_of_tensor_comes_back(array, tmp_path):
    array = np.asarray(array)
    io.save_tensors({"x": array}, tmp_path / "x.safetensors")
    back = io.load_tensors(tmp_path / "x.safetensors")["x"].numpy()
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


def test_other_programs_read_our_files_and_we_read_theirs(tmp_path):
    from safetensors.numpy import load_file, save_file

    io.save_tensors({"x": np.arange(3.0)}, tmp_path / "a")
    assert load_file(tmp_path / "a")["x"].tolist() == [0, 1, 2]
    save_file({"x": np.arange(3.0)}, tmp_path / "b")
    assert io.load_tensors(tmp_path / "b")["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["", ".npz"])
def test_the_same_content_gives_the_same_bytes(model, kind, tmp_path):
    for name in "ab":
        io.save(model, tmp_path / f"{name}{kind}")
    assert (tmp_path / f"a{kind}").read_bytes() == (tmp_path / f"b{kind}").read_bytes()


@pytest.mark.parametrize("kind", [".safetensors", ".npz", ".h5"])
def test_a_file_tells_versions_and_one_of_a_later_format_is_refused(
    model, kind, tmp_path, monkeypatch
):
    if kind == ".h5":
        pytest.importorskip("h5py")
    file = tmp_path / f"m{kind}"
    monkeypatch.setattr(io.tensors, "FORMAT", 2)
    monkeypatch.setattr(io.tensors, "__version__", "9.8.7")
    io.save(model, file)
    form = {".safetensors": io.tensors, ".npz": io.npz}.get(kind) or importlib.import_module(
        "minidl.io.h5"
    )
    assert form.content(file)[1]["versions"] == {"format": 2, "minidl": "9.8.7"}
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"written by minidl 9\.8\.7, in a format .*upgrade"):
        io.load(file)


def test_numpy_reads_our_npz_and_we_read_what_it_writes(model, tmp_path):
    io.save(model, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        assert {*file} == {*model.state_dict(), "minidl"}
        assert np.array_equal(file["1.weight"], model[1].weight.numpy_view())
    np.savez_compressed(tmp_path / "n.npz", **model.state_dict())
    other = models.mnist_mlp(hidden=4)
    assert same(io.load(tmp_path / "n.npz", other), model)
    with pytest.raises(ValueError, match="no tensor can be called 'minidl'"):
        io.npz.save_tensors({"minidl": np.zeros(1)}, tmp_path / "m.npz")


# Files that are not what they should be.


def test_a_missing_file_is_told_with_what_is_there(model, tmp_path):
    io.save(model, tmp_path / "mine.safetensors")
    with pytest.raises(FileNotFoundError, match=r"in that folder: mine\.safetensors"):
        io.load(tmp_path / "yours.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        io.load(tmp_path / "no" / "yours.safetensors")
    with pytest.raises(FileNotFoundError):
        io.load(tmp_path)


def test_a_truncated_file_is_refused(model, tmp_path):
    path = tmp_path / "m.safetensors"
    io.save(model, path)
    whole = path.read_bytes()
    for length in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            io.load(path)


def test_a_file_with_any_byte_changed_is_refused(model, tmp_path):
    path = tmp_path / "m.safetensors"
    io.save(model, path)
    whole = path.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    rng = random.Random(0)
    noted = range(whole.index(b'"minidl"'), whole.index(b'"minidl"') + 8)  # where the sum is
    places = [*range(8), *rng.sample(sorted({*range(8, 8 + header)} - {*noted}), 60)]
    for place in places + rng.sample(range(8 + header, len(whole)), 20):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(7)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|not a whole"):
            io.load(path)


def test_a_pickle_is_not_opened(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        io.load(tmp_path)


@pytest.mark.parametrize(
    "config",
    [7, [], {"name": "mnist-mpl", "args": {}}, {"name": "mnist-mlp", "args": {"a": 1}}],
)
def test_a_file_that_names_no_network_of_ours_is_refused(model, config, tmp_path):
    io.save_tensors(model.state_dict(), tmp_path / "m.safetensors", {"config": config})
    with pytest.raises(ValueError, match="cannot build the network it names"):
        io.load(tmp_path / "m.safetensors")


def test_weights_of_another_network_are_refused_and_change_nothing(model, tmp_path):
    path = tmp_path / "other.safetensors"
    for other in (models.mnist_mlp(hidden=5), models.mnist_cnn((2,))):
        before = model.state_dict()
        io.save(other, path)
        with pytest.raises((ValueError, RuntimeError), match=r"other\.safetensors") as caught:
            io.load(path, model)
        assert "weight" in str(caught.value)
        after = model.state_dict()
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_damaged_npz_is_refused(model, tmp_path):
    path = tmp_path / "m.npz"
    io.save(model, path)
    whole = path.read_bytes()
    rng = random.Random(1)
    array = np.arange(3.0)
    np.save(tmp_path / "one.npy", array)
    bad = [b"", whole[:-1], whole[: len(whole) // 2], (tmp_path / "one.npy").read_bytes()]
    data = whole.index(model[1].weight.numpy_view().tobytes()[:64])  # all after it is weights
    for place in rng.sample(range(data, data + 9_000), 20):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(7)
        bad.append(bytes(damaged))
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"m\.npz: not a whole"):
            io.load(path, model)
    np.savez(path, **model.state_dict(), minidl=np.array("0123 {}"))
    with pytest.raises(ValueError, match="does not have the SHA-256"):
        io.load(path, model)
    np.savez(path, x=np.array([None]))
    with pytest.raises(ValueError, match="not a whole"):
        io.load(path, model)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl"])
def test_pytorchs_pickles_are_refused_with_what_to_do(model, suffix, tmp_path):
    for action in (io.load, lambda path: io.save(model, path)):
        with pytest.raises(ValueError, match=r"run any code.*safetensors\.torch\.save_file"):
            action(tmp_path / f"m{suffix}")


# Writing: whole or not at all.


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(model, step, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    io.save(model, path)
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "write":
        real = atomic.Path.open

        def opens(self, *args):
            stream = real(self, *args)
            stream.raw.close()  # what was written so far lies there; the rest fails
            return type("Stream", (), {
                "__enter__": lambda s: s, "__exit__": lambda s, *e: None, "write": full,
            })()  # fmt: skip

        monkeypatch.setattr(atomic.Path, "open", opens)
    else:
        monkeypatch.setattr(atomic.os, step, full)
    with pytest.raises(OSError, match="No space left"):
        io.save(models.mnist_mlp(hidden=5), path)
    monkeypatch.undo()
    assert files(tmp_path) == {"m.safetensors"}
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes there")
def test_a_write_that_stops_halfway_leaves_the_old_file(model, tmp_path):
    path = tmp_path / "m.safetensors"
    io.save(model, path)
    before = path.read_bytes()
    code = (
        "import resource, sys; from minidl import io, models\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: io.save(models.mnist_mlp(hidden=9), sys.argv[1])\n"
        "except OSError as error: print(type(error).__name__, error.strerror)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    assert files(tmp_path) == {"m.safetensors"}
    assert path.read_bytes() == before


ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_killed_at_any_instant_the_file_is_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "m.safetensors"
    code = (
        "import sys, itertools, numpy as np; from minidl import io\n"
        "for i in itertools.count(int(sys.argv[2])):\n"
        "    io.save_tensors({'x': np.full(300_000, i), 'y': np.full(9, i)}, sys.argv[1])\n"
        "    print(i, flush=True)"
    )
    rng, number = random.Random(0), 0
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", code, path, str(number)], cwd=ROOT, stdout=subprocess.PIPE
        ) as writer:
            saved = int(writer.stdout.readline())
            time.sleep(rng.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            saved = max([saved, *map(int, writer.stdout.read().split()[:-1])])
        tensors = io.load_tensors(path)
        (number,) = set(tensors["x"].tolist()) | set(tensors["y"].tolist())
        assert number >= saved


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_stays_a_link(model, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "real" / "m.safetensors")
    io.save(model, tmp_path / "link.safetensors")
    assert (tmp_path / "link.safetensors").is_symlink()
    assert files(tmp_path / "real") == {"m.safetensors"}


# Training goes on where it stopped.


def parts(seed: int):
    """A small run with everything that has a state."""
    minidl.manual_seed(seed)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 6, 6, 1), np.uint8)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.4), nn.Flatten(),
        nn.Linear(48, 4),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    schedule = optim.OneCycleLR(optimizer, max_lr=1e-2, total_steps=2 * 4)
    loader = DataLoader(
        (images, rng.integers(0, 4, 60)), 16, shuffle=True, seed=seed, transform=PadCrop(1)
    )
    return {
        "model": model,
        "optimizer": optimizer,
        "schedule": schedule,
        "loader": loader,
        "history": History(),
    }


def train_on(run, epochs):
    fit(
        run["model"], run["loader"], epochs=epochs, optimizer=run["optimizer"],
        schedule=run["schedule"], history=run["history"], progress=False,
    )  # fmt: skip


def test_resuming_gives_the_same_bits(tmp_path):
    path = tmp_path / "run.safetensors"
    whole = parts(seed=3)
    train_on(whole, 2)

    first = parts(seed=3)
    train_on(first, 1)
    io.save_checkpoint(path, **first)
    second = parts(seed=99)  # everything different, until it is loaded
    io.load_checkpoint(path, **second)
    train_on(second, 1)

    assert same(second["model"], whole["model"])
    assert second["history"].batch_loss == whole["history"].batch_loss
    assert second["history"]["lr"] == whole["history"]["lr"]
    assert second["history"].epochs == 2


def test_resuming_in_the_middle_of_an_epoch_gives_the_same_bits(tmp_path):
    path = tmp_path / "run.safetensors"

    def steps(run, number):
        losses = []
        for x, y in run["loader"]:
            run["optimizer"].zero_grad()
            loss = nn.functional.cross_entropy(run["model"](x), y)
            loss.backward()
            run["optimizer"].step()
            run["schedule"].step()
            losses.append(loss.item())
            if len(losses) == number:
                break
        return losses

    whole = steps(parts(seed=3), 4)
    first = parts(seed=3)
    start = steps(first, 2)
    io.save_checkpoint(path, **first)
    second = parts(seed=99)
    io.load_checkpoint(path, **second)
    assert start + steps(second, 9) == whole


def test_a_checkpoint_of_other_parts_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    run = parts(seed=3)
    train_on(run, 1)
    io.save_checkpoint(path, **run)
    with pytest.raises(ValueError, match="but you gave"):
        io.load_checkpoint(path, model=run["model"])
    io.save(models.mnist_mlp(hidden=4), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="not a training checkpoint"):
        io.load_checkpoint(tmp_path / "weights.safetensors", **run)
    other = parts(seed=3) | {"model": models.mnist_mlp(hidden=4)}
    with pytest.raises((ValueError, RuntimeError), match=r"run\.safetensors: model: "):
        io.load_checkpoint(path, **other)
