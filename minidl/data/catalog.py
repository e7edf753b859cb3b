"""The real data sets: their official files, where they lie, and their bytes, verified.

Every file is known by the SHA-256 of its raw (decompressed) bytes, so one table serves every
source: raw idx, .gz, an archive, or a package that holds the same pixels in another wrapping.
"""

import gzip
import hashlib
import io
import os
import sys
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from ..check import known


class File(NamedTuple):
    """One official file: its name, and the size and SHA-256 of its raw bytes.

    Raw bytes of an .npz are those of `members`: the same, however it was compressed.
    """

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


FILES: dict[str, dict[str, tuple[File, ...]]] = {
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
    "fsdd": {
        "all": (
            File(
                "fsdd.npz",
                21_031_028,
                "378accc0e852ff61031a79eac4e8ae5e6cf63b527c81a5af178aadc7ec5cfe96",
            ),
        ),
    },
    "bccd": {
        "all": (
            File(
                "bccd_160x120.npz",
                21_084_237,
                "4b762b968f0a8a48aba04e7ad4dadc81e042ce2becc2c5cf10b99353f400caa5",
            ),
        ),
    },
    "movielens": {
        "all": (
            File(
                "ratings.csv",
                2_483_723,
                "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
            ),
            File(
                "movies.csv",
                494_431,
                "5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07",
            ),
        ),
    },
}
# the same in arrays, where not all official files are
PACKED = {
    "movielens": (
        File(
            "ratings.npz",
            2_056_312,
            "212355421808ab8979a1024a440c5467bfe0e5c409d20cc829c3bad9515e5576",
        ),
    )
}
# as official archives unpack
UNPACKED = {
    "mnist": "MNIST/raw",  # these two by torchvision
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-bin",
    "fsdd": "free-spoken-digit-dataset",
    "bccd": "BCCD_Dataset",
    "movielens": "ml-latest-small",
}
LICENCES = {
    "mnist": "CC BY-SA 3.0 (LeCun and Cortes)",
    "fashion_mnist": "MIT (Zalando SE)",
    "cifar10": "none is stated, so pass it on to nobody; Krizhevsky (2009) made it",
    "fsdd": "CC BY-SA 4.0 (https://github.com/Jakobovski/free-spoken-digit-dataset)",
    "bccd": "MIT (https://github.com/Shenggan/BCCD_Dataset)",
    "movielens": "research, nothing commercial without GroupLens's permission; cite Harper and "
    "Konstan (2015), https://grouplens.org/datasets/movielens",
}
# how to get what no source has as it is
HOW = {
    "bccd": "Put bccd_160x120.npz there, or clone https://github.com/Shenggan/BCCD_Dataset: "
    "minidl.data.bccd(root='BCCD_Dataset') reads that too"
}


def files(name: str) -> tuple[File, ...]:
    """Return all files of the set `name`, or say which sets there are."""
    known("data set", name, FILES)
    return tuple(file for split in FILES[name].values() for file in split)


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

    `root` is the folder of the files itself; without it: `name` inside each folder of $MINIDL_DATA,
    a list like PATH, and then inside the user's cache.
    """
    if root is not None:
        return [Path(root)]
    places = os.environ.get("MINIDL_DATA", "").split(os.pathsep)
    return [place / name for place in [*map(Path, filter(None, places)), cache_folder()]]


def find(name: str, file: File, root: str | os.PathLike | None = None) -> Path | None:
    """Return where `file` lies, raw or .gz, in the first place that has it."""
    for folder in folders(name, root):
        inside = [folder, folder / UNPACKED.get(name, "")]
        if root is None:
            inside.append(folder.parent / UNPACKED.get(name, name))
            if file.name.startswith(name):  # it says itself what it is
                inside.append(folder.parent)
        for home in inside:
            for path in (home / file.name, home / f"{file.name}.gz"):
                if path.is_file():
                    return path
    return None


def verify(data: bytes, file: File, where: object) -> bytes:
    """Return `data` if it is `file` byte for byte; ValueError says what differs."""
    raw = members(data, file, where) if file.name.endswith(".npz") else data
    if len(raw) != file.size:
        # a reader stops one byte past the expected size, so a longer file has no known length
        got = f"{len(raw):,} bytes" if len(raw) < file.size else "more bytes than that"
        raise ValueError(f"{where}: expected {file.size:,} bytes of {file.name}, got {got}")
    sha256 = hashlib.sha256(raw).hexdigest()
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


def members(data: bytes, file: File, where: object) -> bytes:
    """Return the names and bytes of an .npz's arrays in the order of names, as `gunzip` does."""
    found, left = [], file.size + 1
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in sorted(archive.namelist()):
                with archive.open(name) as stream:
                    found += [f"{name}\n".encode(), stream.read(max(left, 0))]
                left -= len(found[-2]) + len(found[-1])
    except (EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{where}: truncated or damaged .npz file ({len(data):,} bytes, {error}); expected "
            f"{file.name}, whose arrays have SHA-256 {file.sha256}"
        ) from error
    return b"".join(found)[: file.size + 1]


def read_file(path: Path, file: File) -> bytes:
    """Return the verified raw bytes of `file` from `path`, raw or .gz."""
    if path.suffix == ".gz":
        return verify(gunzip(path.read_bytes(), file, path), file, path)
    with path.open("rb") as stream:
        # compressed, arrays are no longer than raw, but for the zip's own tables
        most = file.size + (1 << 16 if path.suffix == ".npz" else 1)
        return verify(stream.read(most), file, path)


def read(name: str, file: File, root: str | os.PathLike | None = None) -> bytes:
    """Return the verified bytes of `file`: the first place that has it, raw or .gz, counts."""
    path = find(name, file, root)
    if path is None:
        raise missing(name, file, root)
    try:
        return read_file(path, file)
    except ValueError as error:
        error.add_note(f"minidl.data.fetch({name!r}, {str(path.parent)!r}) repairs it")
        raise


def missing(name: str, file: File, root: str | os.PathLike | None) -> FileNotFoundError:
    """Return the error that says where `file` was looked for, and how to get it."""
    places = " or ".join(map(str, folders(name, root)))
    get = (
        f"`minidl data fetch {name}` or minidl.data.{name}(download=True) gets it, or put the "
        "official files there"
    )
    return FileNotFoundError(
        f"{name}: no {file.name} (raw or .gz) in {places}. {HOW.get(name, get)}"
    )
