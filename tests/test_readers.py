"""Files of numbers, split into parts and batches, without being believed or unpickled."""

import gzip
import hashlib
import itertools
import pickle

import numpy as np
import pytest

from minidl import data
from minidl.data import DataLoader, Splits, catalog, sources


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("minidl.data.readers.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("MINIDL_DATA", raising=False)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


# --- text


def test_text_is_rows_of_numbers(tmp_path):
    path = written(tmp_path / "x.txt", " 1 2.5\t3 \n\n-4 5e1 6\n")
    found = data.load_text(path)
    assert found.dtype == np.float32 and found.tolist() == [[1, 2.5, 3], [-4, 50, 6]]
    whole = data.load_text(written(tmp_path / "i.txt", "1;2\n3;9007199254740993\n"),
                           dtype=np.int64, delimiter=";")  # fmt: skip
    assert whole.dtype == np.int64 and whole[1, 1] == 9007199254740993
    assert data.load_text(written(tmp_path / "no.txt", "\n")).shape == (0, 0)


@pytest.mark.parametrize(
    "text, dtype, message",
    [
        ("1 2\n\n3\n", np.float32, r"x\.txt, line 3: 1 numbers, but the first line has 2"),
        ("1 2\n3 four\n", np.float32, r"x\.txt, line 2: .*'four'; float32 is wanted"),
        ("1 2\n3 4.5\n", np.int64, r"x\.txt, line 2: .*'4\.5'; int64 is wanted"),
    ],
)
def test_text_that_is_no_table_is_refused(tmp_path, text, dtype, message):
    with pytest.raises(ValueError, match=message):
        data.load_text(written(tmp_path / "x.txt", text), dtype=dtype)


# --- CSV

TABLE = 'name,size,weight,day\r\n"Kid, The",3,1.5,1\r\nÉté,4,,x\r\n'


def test_csv_columns_have_the_kind_of_their_cells(tmp_path):
    table = data.load_csv(written(tmp_path / "t.csv", "\ufeff" + TABLE))
    assert list(table) == ["name", "size", "weight", "day"] and table.rows == 2 and len(table) == 4
    assert [table[c].dtype.kind for c in table] == ["U", "i", "f", "U"]
    assert table["name"].tolist() == ["Kid, The", "Été"] and table["size"].tolist() == [3, 4]
    np.testing.assert_array_equal(table["weight"], [1.5, np.nan])
    both = table.array("size", "weight")
    assert both.dtype == np.float32 and both.shape == (2, 2)
    assert repr(table) == "Table(2 rows: name <U8, size int64, weight float64, day <U1)"
    with pytest.raises(KeyError, match="no column 'sice'; there are name, size"):
        table["sice"]


def test_csv_round_trip(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3))
    lines = [",".join(map(repr, row)) for row in x.tolist()]
    table = data.load_csv(written(tmp_path / "t.csv", "\n".join(["a,b,c", *lines])))
    np.testing.assert_array_equal(table.array(dtype=np.float64), x)
    empty = data.load_csv(written(tmp_path / "e.csv", "a,b\n"))
    assert empty.rows == 0 and len(empty) == 2


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the first line names the columns"),
        ("a,a\n1,2\n", "each once, got"),
        ("a,b\n1,2\n1,2,3\n", r"line 3: 3 cells, but 2 columns"),
    ],
)
def test_csv_that_is_no_table_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        data.load_csv(written(tmp_path / "t.csv", text))


# --- arrays


def test_arrays_round_trip(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(3))
    np.testing.assert_array_equal(data.load_npy(tmp_path / "x.npy"), x)
    mapped = data.load_npy(tmp_path / "x.npy", mapped=True)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    found = data.load_npz(tmp_path / "x.npz")
    assert list(found) == ["x", "y"] and found["y"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("compress", [lambda b: b, gzip.compress])
def test_idx_round_trip(tmp_path, compress):
    head = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3])
    (tmp_path / "x").write_bytes(compress(head + bytes(range(6))))
    assert data.load_idx(tmp_path / "x").tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "x").write_bytes(compress(head + bytes(5)))
    with pytest.raises(ValueError, match=r"x: idx: header says \(2, 3\), but 5 elements follow"):
        data.load_idx(tmp_path / "x")


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "o.npy", np.array([Evil()], object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", x=np.array([Evil()], object))
    (tmp_path / "p.npy").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Evil()))
    for name, read in (
        ("o.npy", data.load_npy), ("o.npz", data.load_npz), ("p.npy", data.load_npy),
        ("p.npz", data.load_npz), ("o.npy", data.read_arrays),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}: not an? .npy|{name}: not an .npz"):
            read(tmp_path / name)


def test_a_damaged_npz_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.arange(100))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[:200])
    with pytest.raises(ValueError, match=r"x\.npz: not an \.npz file that is read"):
        data.load_npz(tmp_path / "x.npz")


# --- a DataLoader of a file


def test_a_loader_takes_a_path(tmp_path):
    x, y = np.arange(10, dtype=np.float32).reshape(5, 2), np.arange(5)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    written(
        tmp_path / "x.csv", "a,b,y\n" + "\n".join(f"{r[0]},{r[1]},{i}" for i, r in enumerate(x))
    )
    written(tmp_path / "x.txt", "\n".join(f"{a} {b}" for a, b in x))
    for name in "x.npy", "x.npz", "x.csv", "x.txt":
        batches = list(DataLoader(tmp_path / name, 2))
        assert [len(b[0]) for b in batches] == [2, 2, 1]
        np.testing.assert_array_equal(np.concatenate([b[0].numpy() for b in batches]), x)
        if name[2:] in ("npz", "csv"):
            assert np.concatenate([b[1].numpy() for b in batches]).tolist() == y.tolist()
    with pytest.raises(ValueError, match=r"x\.pkl: .*ending: \.npy, \.npz, \.csv, \.txt"):
        DataLoader(str(tmp_path / "x.pkl"))


@pytest.mark.parametrize("shape", [(23, 6), (23, 4, 4, 1)])
def test_a_mapped_array_is_not_copied(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    mapped = data.load_npy(tmp_path / "x.npy", mapped=True)
    loader = DataLoader((mapped, np.arange(23)), 5, shuffle=True, seed=3)
    assert np.shares_memory(loader.arrays[0], mapped)
    for x, y in loader:
        np.testing.assert_array_equal(x.numpy(), mapped[y.numpy()])


def test_a_url_is_downloaded_once_and_verified(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.arange(4.0))
    content, asked = (tmp_path / "x.npy").read_bytes(), []
    monkeypatch.setattr(sources, "get", lambda url: asked.append(url) or content)
    url = "https://example.org/data/x.npy?raw=1"
    for _ in range(2):
        (x,) = next(iter(DataLoader(url, 4)))
        assert x.numpy().tolist() == [0, 1, 2, 3]
    assert asked == [url]
    good = hashlib.sha256(content).hexdigest()
    assert data.download(url, good).read_bytes() == content
    with pytest.raises(ValueError, match=f"SHA-256 is {good}, but {'0' * 64} is wanted"):
        data.download(url, "0" * 64)
    assert len(list((tmp_path / "cache").rglob("x.npy"))) == 2


# --- parts


def kinds(n):
    labels = np.arange(n)
    yield (labels[:, None] * 1.0, labels), lambda part: part[1]
    yield data.Dataset(np.zeros((n, 2, 2, 1), np.uint8), labels), lambda part: part.labels
    yield list(range(n)), lambda part: np.array([part[i] for i in range(len(part))], int)


@pytest.mark.parametrize("val, test", [(0.1, 0.2), (3, 1), (0, 0.5), (0, 0)])
def test_splits_lose_and_repeat_nothing(val, test):
    for whole, numbers in kinds(20):
        splits = Splits.random(whole, val, test, seed=5)
        parts = [numbers(part).tolist() for part in splits]
        want = [int(n * 20) if n < 1 else n for n in (val, test)]
        assert [len(p) for p in parts[1:]] == want
        assert sorted(itertools.chain(*parts)) == list(range(20))
        again = [numbers(part).tolist() for part in Splits.random(whole, val, test, seed=5)]
        assert parts == again and splits.eval is splits.val
        other = [numbers(part).tolist() for part in Splits.random(whole, val, test, seed=6)]
        assert parts != other


def test_splits_that_leave_nothing_are_refused():
    for val, test in ((0.5, 0.5), (10, 0), (-1, 0)):
        with pytest.raises(ValueError, match="leave nothing to train on of 10 samples"):
            Splits.random(list(range(10)), val, test)
    with pytest.raises(ValueError, match=r"one length .* \(3,\), \(4,\)"):
        data.random_split((np.zeros(3), np.zeros(4)), [0.5, 0.5])


# --- torchvision's names


def test_a_dataset_brings_its_transform():
    whole = data.Dataset(
        np.full((4, 2, 2, 1), 51, np.uint8), np.arange(4), (), data.Normalize(0.1, 2)
    )
    for part in (whole, whole[1:], data.random_split(whole, [1, 3])[1]):
        x, _ = next(iter(DataLoader(part)))
        np.testing.assert_allclose(x.numpy(), 0.05, rtol=1e-6)
    x, _ = next(iter(DataLoader(whole, transform=data.Scale(1))))
    assert x.numpy().max() == 51
