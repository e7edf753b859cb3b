"""The real data sets: their official files, where they lie, and their bytes, verified.

Every file is known by the SHA-256 of its raw (decompressed) bytes, so one table serves every
source: raw idx, .gz, an archive, or a package that holds the same pixels in another wrapping.
"""

import gzip
import hashlib
import io
import os
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

from ..check import known


class File(NamedTuple):
    """One official file: its name, and the size and SHA-256 of its raw bytes."""

    name: str
    size: int
    sha256: str


def _idx_files(*sha256: str) -> dict[str, tuple[File, ...]]:
    """Return the four idx files of an MNIST-like set by split."""
    train_images, train_labels, test_images, test_labels = sha256
    return {
        "train": (
            File("train-images-idx3-ubyte", 16 + 60_000 * 28 * 28, train_images),
            File("train-labels-idx1-ubyte", 8 + 60_000, train_labels),
        ),
        "test": (
            File("t10k-images-idx3-ubyte", 16 + 10_000 * 28 * 28, test_images),
            File("t10k-labels-idx1-ubyte", 8 + 10_000, test_labels),
        ),
    }


def _cifar_files(*sha256: str) -> tuple[File, ...]:
    """Return batches 1, 2, ... of CIFAR-10: 10,000 rows of a label and 32 x 32 x 3 pixels each."""
    rows = 10_000 * (1 + 32 * 32 * 3)
    return tuple(File(f"data_batch_{i}.bin", rows, sha) for i, sha in enumerate(sha256, 1))


FILES = {
    "mnist": _idx_files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": _idx_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "cifar10": {
        "train": _cifar_files(
            "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        ),
        "test": (
            File(
                "test_batch.bin",
                30_730_000,
                "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            ),
        ),
    },
}


def files(name: str) -> tuple[File, ...]:
    """Return all files of the set `name`, or say which sets there are."""
    known("data set", name, FILES)
    return FILES[name]["train"] + FILES[name]["test"]


def cache_folder() -> Path:
    """Return the user's cache folder of this platform, where data sets lie by default."""
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "minidl" / "data"


def folders(name: str, root: str | os.PathLike | None = None) -> list[Path]:
    """Return the folders where the files of `name` may lie, the first one being where fetch writes.

    `root` is the folder of the files itself; without it: $MINIDL_DATA/<name>, the user's cache.
    """
    if root is not None:
        return [Path(root)]
    places = [Path(os.environ["MINIDL_DATA"])] if os.environ.get("MINIDL_DATA") else []
    return [place / name for place in [*places, cache_folder()]]


def verify(data: bytes, file: File, where: object) -> bytes:
    """Return `data` if it is `file` byte for byte; ValueError says what differs."""
    if len(data) != file.size:
        # a reader stops one byte past the expected size, so a longer file has no known length
        got = f"{len(data):,} bytes" if len(data) < file.size else "more bytes than that"
        raise ValueError(f"{where}: expected {file.size:,} bytes of {file.name}, got {got}")
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != file.sha256:
        raise ValueError(f"{where}: SHA-256 is {sha256}, but {file.name} has {file.sha256}")
    return data


def gunzip(data: bytes, file: File, where: object) -> bytes:
    """Return the decompressed bytes, at most one more than `file` has: a .gz may claim any size."""
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(file.size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        size = f"{len(data):,} bytes"
        raise ValueError(
            f"{where}: truncated or damaged gzip file ({size}, {error}); expected {file.name} "
            f"with SHA-256 {file.sha256}"
        ) from error


def read_file(path: Path, file: File) -> bytes:
    """Return the verified raw bytes of `file` from `path`, raw or .gz."""
    if path.suffix == ".gz":
        return verify(gunzip(path.read_bytes(), file, path), file, path)
    with path.open("rb") as stream:
        return verify(stream.read(file.size + 1), file, path)


def read(name: str, file: File, root: str | os.PathLike | None = None) -> bytes:
    """Return the verified raw bytes of `file`: the first place that has it, raw or .gz, counts."""
    places = folders(name, root)
    for folder in places:
        # the official CIFAR-10 archive unpacks into a folder of this name
        for inner in (folder, folder / "cifar-10-batches-bin"):
            for path in (inner / file.name, inner / f"{file.name}.gz"):
                if path.is_file():
                    try:
                        return read_file(path, file)
                    except ValueError as error:
                        error.add_note(f"minidl.data.fetch({name!r}, {str(folder)!r}) repairs it")
                        raise
    raise FileNotFoundError(
        f"{name}: no {file.name} (raw or .gz) in {' or '.join(map(str, places))}. "
        f"`minidl data fetch {name}` or minidl.data.{name}(download=True) gets it, "
        "or put the official files there"
    )
