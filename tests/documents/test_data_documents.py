"""What the documents say of data: files, parts, batches, transforms, settings."""

import hashlib

import numpy as np
import pytest

import minidl
from minidl import data, nn, tune
from minidl.data import DataLoader, catalog, transforms


def test_row_12_load_data_from_a_file(tmp_path):
    """S0: load_data(file_name), rows of line.strip().split(): strings there, numbers here."""
    rows = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    (tmp_path / "data.txt").write_text("\n".join(" ".join(map(str, r)) for r in rows.tolist()))
    found = data.load_text(tmp_path / "data.txt")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows)
    np.save(tmp_path / "data.npy", found)
    np.savez(tmp_path / "data.npz", x=found)
    np.testing.assert_array_equal(data.load_npy(tmp_path / "data.npy"), rows)
    np.testing.assert_array_equal(data.load_npz(tmp_path / "data.npz")["x"], rows)
    (tmp_path / "data.csv").write_text("size,rating\n1,4.5\n2,3.0\n")
    table = data.load_csv(tmp_path / "data.csv")
    assert table["size"].dtype == np.int64 and table["rating"].tolist() == [4.5, 3.0]
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    (tmp_path / "data.idx").write_bytes(
        bytes([0, 0, 8, 3, *(0, 0, 0, 1), *(0, 0, 0, 2), *(0, 0, 0, 3)]) + image.tobytes()
    )
    np.testing.assert_array_equal(data.load_idx(tmp_path / "data.idx"), image)


def test_row_18_train_eval_and_test_parts():
    """S0: data.train, data.eval, data.test."""
    splits = data.Splits.random(data.digits("test"), val=0.1, test=0.2, seed=0)
    assert [len(part) for part in splits] == [1400, 200, 400]
    assert splits.eval is splits.val and isinstance(splits.train, data.Dataset)
    keys = [{image.tobytes() for image in part.images} for part in splits]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert set.union(*keys) == {image.tobytes() for image in data.digits("test").images}
    again = data.Splits.random(data.digits("test"), val=0.1, test=0.2, seed=0)
    np.testing.assert_array_equal(splits.test.labels, again.test.labels)


def test_row_24_batches_of_an_npy_file(tmp_path):
    """S1: np.load("data.npy"), data[i:i+32].reshape(32, 28, 28, 1), which fails on the rest."""
    np.save(tmp_path / "data.npy", np.arange(70 * 28 * 28, dtype=np.float32).reshape(70, 28, 28, 1))
    whole = data.load_npy(tmp_path / "data.npy", mapped=True)
    sizes = [x.shape for (x,) in DataLoader((whole,), 32)]
    assert sizes == [(32, 28, 28, 1), (32, 28, 28, 1), (6, 28, 28, 1)]
    sizes = [len(x) for (x,) in DataLoader((whole,), 32, drop_last=True)]
    assert sizes == [32, 32]
    assert np.shares_memory(DataLoader((whole,), 32).arrays[0], whole)  # it stays on the disk


def test_row_47_load_data_from_a_path_or_url(tmp_path, monkeypatch):
    """S3: cuda_load_data(url, batch_size), which no library has."""
    x, y = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32), np.arange(10)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    loader = DataLoader(tmp_path / "data.npz", batch_size=4, shuffle=True, workers=2, prefetch=3)
    seen = np.concatenate([labels.numpy() for _, labels in loader])
    assert sorted(seen.tolist()) == y.tolist() and len(loader) == 3
    monkeypatch.setattr("minidl.data.sources.get", lambda url: (tmp_path / "data.npz").read_bytes())
    monkeypatch.setattr("minidl.data.readers.cache_folder", lambda: tmp_path / "cache")
    ((images, labels),) = DataLoader("https://example.org/data.npz", batch_size=10)
    np.testing.assert_array_equal(images.numpy(), x)
    assert labels.numpy().tolist() == y.tolist()


def test_row_51_an_array_becomes_a_tensor():
    """S3: cuda_array_from_numpy(data, dtype=cuda_float32)."""
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    x = minidl.tensor(array, dtype="float32")
    assert x.dtype == np.float32 and x.device.name == "cpu"
    array[:] = -1  # it is a copy
    np.testing.assert_array_equal(x.numpy(), np.arange(6).reshape(2, 3))


def test_row_51_an_array_becomes_a_tensor_on_cuda(cuda):
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    x = minidl.tensor(array, dtype="float32", device=cuda)
    assert x.dtype == np.float32 and x.device.name == "cuda"
    np.testing.assert_array_equal(x.numpy(), array)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("inside", ["", "MNIST/raw"])
def test_row_62_torchvisions_names(tmp_path, monkeypatch, inside):
    """S4: Compose([ToTensor(), Normalize((0.1307,), (0.3081,))]), MNIST(root, train, transform)."""
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4))
    entries, folder = [], tmp_path / inside
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images", images), ("labels", np.arange(5))):
        content = idx(array)
        (folder / name).write_bytes(content)
        entries.append(catalog.File(name, len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setitem(catalog.FILES, "mnist", {"train": tuple(entries), "test": tuple(entries)})

    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    train = data.MNIST(root=tmp_path, train=True, transform=transform, download=True)
    expected = ((images / 255 - 0.1307) / 0.3081)[..., None]
    assert len(train) == 5 and train.images.dtype == np.uint8
    image, label = train[3]
    assert image.shape == (4, 4, 1) and image.dtype == np.float32 and label == 3
    np.testing.assert_allclose(image, expected[3], rtol=1e-5, atol=1e-6)
    x, y = next(iter(DataLoader(train, batch_size=5)))
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert y.numpy().tolist() == [0, 1, 2, 3, 4]
    part = next(iter(DataLoader(train[2:], batch_size=5)))[0]
    np.testing.assert_allclose(part.numpy(), expected[2:], rtol=1e-5, atol=1e-6)
    assert data.MNIST(root=tmp_path, train=False)[0][0].dtype == np.uint8  # no transform: as it is


def test_row_65_tuning_of_settings(tmp_path):
    """S4: hyperparameters. Which learning rate, which width? By validation, written down."""
    splits = data.Splits.random(data.digits("test")[:600], val=100, test=100, seed=0)

    def train(lr: float, width: int) -> float:
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
        loader = DataLoader(splits.train, 50, shuffle=True)
        minidl.train.fit(model, loader, epochs=1, lr=lr, progress=False)
        return minidl.train.evaluate(model, DataLoader(splits.val, 100))["accuracy"]

    path = tmp_path / "search.jsonl"
    space = {"lr": tune.log_uniform(1e-5, 1e-1), "width": [8, 32]}
    search = tune.random_search(train, space, trials=6, mode="max", path=path)
    assert search.best.value == max(t.value for t in search.trials) > 0.5
    assert len(path.read_text().splitlines()) == 7
    assert train(**search.best.params) > 0.3
    again = tune.random_search(train, space, trials=6, mode="max", path=path)
    assert again.trials == search.trials  # read from the file, not trained
