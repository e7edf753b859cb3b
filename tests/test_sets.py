"""Speech, boxes and ratings: what their loaders read, from every place and wrapping."""

import hashlib
import io
import os
import tarfile
import wave
import zipfile

import numpy as np
import pytest

from minidl import data
from minidl.cli import main
from minidl.data import catalog, sources, speech
from minidl.data.catalog import File


def raw(content):
    """Bytes of an .npz that are hashed: names and arrays."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return b"".join(f"{n}\n".encode() + archive.read(n) for n in sorted(archive.namelist()))


def known(name, content):
    content = raw(content) if name.endswith(".npz") else content
    return File(name, len(content), hashlib.sha256(content).hexdigest())


def wav(samples, rate=8000, channels=1, width=2):
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())
    return out.getvalue()


WAVS = {
    "0_ann_0.wav": wav([1, -2, 3]),
    "0_ann_10.wav": wav([4, 5]),
    "0_ann_5.wav": wav([-32768]),
    "7_bob_4.wav": wav([6, 7, 8, 9]),
}
CSV = b"userId,movieId,rating,timestamp\r\n1,10,4.0,100\r\n1,7,0.5,90\r\n3,10,5.0,200\r\n"
MOVIES = b'movieId,title,genres\r\n7,"Kid, The (1921)",Comedy\r\n10,"\xc3\x89t\xc3\xa9",Drama\r\n'


@pytest.fixture(autouse=True)
def small_world(tmp_path, monkeypatch):
    """The sets are tiny, and the cache is a folder of the test."""
    packed = known("fsdd.npz", speech.pack(WAVS))
    monkeypatch.setitem(catalog.FILES, "fsdd", {"all": (packed,)})
    both = known("ratings.csv", CSV), known("movies.csv", MOVIES)
    monkeypatch.setitem(catalog.FILES, "movielens", {"all": both})
    monkeypatch.setattr(catalog, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("MINIDL_DATA", raising=False)


@pytest.fixture
def real(monkeypatch):
    """The true catalogue again, and where the machine keeps data."""
    monkeypatch.undo()


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


RATINGS = {"ratings.csv": CSV, "movies.csv": MOVIES}


# --- MINIDL_DATA is a list of folders


def test_every_folder_of_the_list_is_read_and_the_first_is_written(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setenv("MINIDL_DATA", os.pathsep.join([str(one), "", str(two)]))
    names = [place / "movielens" for place in (one, two, tmp_path / "cache")]
    assert catalog.folders("movielens") == names
    with pytest.raises(FileNotFoundError, match=r"one.* or .*two.* or .*cache"):
        data.movielens()
    put(names[1], RATINGS)
    assert len(data.movielens()) == 3
    monkeypatch.setitem(sources.SOURCES, "movielens", [(lambda *_: by_name(RATINGS), "here")])
    assert sources.fetch("movielens") == names[0]
    assert sorted(p.name for p in names[0].iterdir()) == ["movies.csv", "ratings.csv"]


def by_name(contents):
    return {file: contents[file.name] for file in catalog.files("movielens")}


def test_the_first_folder_that_has_a_file_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_DATA", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    put(tmp_path / "a" / "movielens", {"ratings.csv": b"damaged"})
    put(tmp_path / "b" / "movielens", RATINGS)
    with pytest.raises(ValueError, match=r"a.movielens.ratings\.csv: expected"):
        data.movielens()


@pytest.mark.parametrize("inside", ["movielens", "ml-latest-small", "movielens/ml-latest-small"])
def test_folders_as_the_official_archive_unpacks(tmp_path, monkeypatch, inside):
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    put(tmp_path / inside, RATINGS)
    assert len(data.movielens()) == 3
    assert len(data.movielens(root=tmp_path / inside)) == 3


def test_a_file_named_after_its_set_may_lie_beside_the_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    put(tmp_path, {"fsdd.npz": speech.pack(WAVS), **RATINGS})
    assert len(data.fsdd("all")) == 4
    with pytest.raises(FileNotFoundError):  # ratings.csv could be anybody's
        data.movielens()


# --- speech


@pytest.mark.parametrize("inside", ["", "recordings", "free-spoken-digit-dataset/recordings"])
def test_fsdd_reads_the_repositorys_wavs(tmp_path, monkeypatch, inside):
    put(tmp_path / "fsdd" / inside, WAVS)
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    if inside.startswith("free"):
        monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "fsdd"))
    found = data.fsdd("all")
    assert [a.tolist() for a in found.audio] == [[1, -2, 3], [4, 5], [-32768], [6, 7, 8, 9]]
    assert found.labels.tolist() == [0, 0, 0, 7] and found.speakers.tolist() == [0, 0, 0, 1]
    assert found.names == ("ann", "bob") and found.rate == 8000


def test_fsdd_splits_by_the_number_of_the_recording(tmp_path):
    put(tmp_path, {"fsdd.npz": speech.pack(WAVS)})
    train, test = data.fsdd(root=tmp_path), data.fsdd("test", root=tmp_path)
    assert train.index.tolist() == [10, 5] and test.index.tolist() == [0, 4]
    sound, label = train[1]
    assert sound.tolist() == [-1.0] and sound.dtype == np.float32 and label == 0
    assert [len(part) for part in (test[:1], test[np.array([1, 1])])] == [1, 2]
    assert repr(test) == "Recordings(2 of 2 speakers, 0 s)"
    with pytest.raises(ValueError, match="split is 'train', 'test' or 'all', got 'val'"):
        data.fsdd("val")


def test_one_sample_that_differs_is_refused(tmp_path):
    changed = WAVS | {"0_ann_5.wav": wav([-32767])}
    put(tmp_path / "wavs", changed)
    put(tmp_path / "npz", {"fsdd.npz": speech.pack(changed)})
    for folder, words in ("wavs", "4 .wav in .*SHA-256"), ("npz", r"fsdd\.npz: SHA-256 is"):
        with pytest.raises(ValueError, match=words):
            data.fsdd(root=tmp_path / folder)


def test_arrays_count_however_they_are_compressed(tmp_path):
    out = io.BytesIO()
    with np.load(io.BytesIO(speech.pack(WAVS))) as file:
        np.savez(out, **{name: file[name] for name in reversed(file.files)})
    assert len(data.fsdd("all", root=put(tmp_path, {"fsdd.npz": out.getvalue()}))) == 4


@pytest.mark.parametrize("cut", [0, 100, -30])
def test_a_truncated_npz_is_refused(tmp_path, cut):
    put(tmp_path, {"fsdd.npz": speech.pack(WAVS)[:cut]})
    with pytest.raises(ValueError, match=r"fsdd\.npz: truncated or damaged \.npz"):
        data.fsdd(root=tmp_path)


def test_an_npz_that_unpacks_to_too_much_is_refused(tmp_path):
    out = io.BytesIO()
    np.savez_compressed(out, audio=np.zeros(1_000_000))
    with pytest.raises(ValueError, match="got more bytes than that"):
        data.fsdd(root=put(tmp_path, {"fsdd.npz": out.getvalue()}))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"RIFF", "x: not a .wav that can be read"),
        (wav([1, 2], channels=2), "x: one channel of 16 bits is read, got 2 of 16 bits"),
        (wav([1, 2], width=1), "x: one channel of 16 bits is read, got 1 of 8 bits"),
        (wav([1, 2, 3])[:-2], "x: 3 samples are announced, 2 follow"),
    ],
)
def test_a_wav_that_is_none_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        speech.read_wav(content, "x")


# --- ratings


def test_movielens_counts_users_and_films_from_0(tmp_path):
    found = data.movielens(root=put(tmp_path, RATINGS))
    assert found.users.tolist() == [0, 0, 2] and found.items.tolist() == [1, 0, 1]
    assert found.ratings.tolist() == [4.0, 0.5, 5.0] and found.timestamps.tolist() == [100, 90, 200]
    assert found.movie_ids.tolist() == [7, 10] and found.titles == ("Kid, The (1921)", "Été")
    assert (found.n_users, found.n_items, repr(found)) == (
        3, 2, "Ratings(3 of 3 users, 2 films)"
    )  # fmt: skip
    part = found[np.array([2, 0])]
    assert part.users.tolist() == [2, 0] and part.n_users == 3 and part.titles == found.titles
    _, items, stars = next(iter(data.DataLoader((part.users, part.items, part.ratings))))
    assert items.numpy().tolist() == [1, 1] and stars.dtype == np.float32


def test_movielens_reads_packed_ratings_without_titles(tmp_path, monkeypatch):
    out = io.BytesIO()
    np.savez(out, user=[0, 2], item=[1, 0], rating=[4, 5], timestamp=[9, 8], movie_id=[7, 10])
    packed = known("ratings.npz", out.getvalue())
    monkeypatch.setitem(catalog.PACKED, "movielens", (packed,))
    found = data.movielens(root=put(tmp_path, {"ratings.npz": out.getvalue()}))
    assert found.titles == ("film 7", "film 10") and found.n_users == 3
    assert found.ratings.tolist() == [4.0, 5.0]


def test_what_is_missing_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        data.movielens()
    for words in ("no ratings.csv", "`minidl data fetch movielens`", "movielens(download=True)"):
        assert words in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"no bccd_160x120\.npz.*clone https://github"):
        data.bccd()
    with pytest.raises(ConnectionError, match=r"no source(.|\n)*clone https://github"):
        data.fetch("bccd")


def test_the_list_says_what_is_here_and_how_to_get_the_rest(tmp_path, capsys):
    put(tmp_path / "cache" / "movielens", RATINGS)
    main(["data", "list"])
    shown = capsys.readouterr().out
    assert f"movielens      in {tmp_path / 'cache' / 'movielens'}\n" in shown
    assert "bccd           not here; put bccd_160x120.npz there, or clone" in shown
    assert "fsdd           not here; `minidl data fetch fsdd` downloads it" in shown


def test_fetching_tells_the_licence(tmp_path, capsys):
    put(tmp_path / "cache" / "movielens", RATINGS)
    main(["data", "fetch", "movielens"])
    assert "licence: research, nothing commercial" in capsys.readouterr().out
    assert set(catalog.LICENCES) == set(catalog.FILES) == set(sources.SOURCES)


# --- where they come from


def test_files_of_a_zip_are_found_in_any_folder(monkeypatch, tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in RATINGS.items():
            archive.writestr(f"ml-latest-small/{name}", content)
    monkeypatch.setattr(sources, "get", lambda url: out.getvalue())
    assert len(data.movielens(download=True)) == 3
    monkeypatch.setattr(sources, "get", lambda url: out.getvalue()[:-9])
    with pytest.raises(ConnectionError, match="not a zip file"):
        data.fetch("movielens", tmp_path / "new")


def test_recordings_of_the_repositorys_archive_are_packed(monkeypatch, tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in WAVS.items() | {("README.md", b"words")}:
            entry = tarfile.TarInfo(f"free-spoken-digit-dataset-1.0.10/recordings/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(sources, "get", lambda url: out.getvalue())
    assert len(data.fsdd("all", download=True)) == 4
    assert (tmp_path / "cache" / "fsdd" / "fsdd.npz").is_file()


# --- boxes


CELL = """<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""


def test_bccd_reads_a_clone_of_the_repository(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow comes with the extra plot")
    for part in ("JPEGImages", "Annotations"):
        (tmp_path / "BCCD" / part).mkdir(parents=True)
    cells = {"b": [("RBC", 10, 20, 30, 40), ("WBC", 0, 0, 640, 480)], "a": []}
    for i, (name, boxes) in enumerate(cells.items()):
        picture = image.fromarray(np.full((480, 640, 3), 100 * i + 50, np.uint8))
        picture.save(tmp_path / "BCCD" / "JPEGImages" / f"{name}.jpg")
        text = f"<annotation>{''.join(CELL.format(*box) for box in boxes)}</annotation>"
        (tmp_path / "BCCD" / "Annotations" / f"{name}.xml").write_text(text)
    found = data.bccd(root=tmp_path)
    assert found.images.shape == (2, 120, 160, 3) and found.images[:, 5, 5, 0].tolist() == [150, 50]
    assert found.boxes[0].shape == (0, 4) and found.labels[1].tolist() == [0, 1]
    assert found.boxes[1].tolist() == [[2.5, 5.0, 7.5, 10.0], [0.0, 0.0, 160.0, 120.0]]
    picture, boxes, labels = found[1]
    assert picture.shape == (120, 160, 3) and len(boxes) == len(labels) == len(found[1:].boxes[0])


# --- the real sets: fetched, or in a folder of $MINIDL_DATA


@pytest.mark.download
@pytest.mark.usefixtures("real")
def test_the_real_sets_are_whole():
    train, test = data.fsdd("train"), data.fsdd("test")
    assert (len(train), len(test), train.rate) == (2700, 300, 8000)
    assert np.bincount(test.labels).tolist() == [30] * 10
    assert sum(map(len, train.audio)) + sum(map(len, test.audio)) == 10_498_424
    cells = data.bccd()
    assert cells.images.shape == (364, 120, 160, 3) and sum(map(len, cells.boxes)) == 4888
    assert np.bincount(np.concatenate(cells.labels)).tolist() == [4155, 372, 361]
    stars = data.movielens()
    assert (len(stars), stars.n_users, stars.n_items) == (100_836, 610, 9724)
    assert round(float(stars.ratings.mean()), 6) == 3.501557
