"""minidl cache: what compiled kernels are kept, compiling them ahead, deleting them."""

import argparse
import importlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from ..kernels import disk


class Part(NamedTuple):
    """A folder of the cache: what kernels, of this version and machine or of another."""

    folder: Path
    kind: str
    files: int
    size: int


def parts() -> list[Part]:
    """What is in the cache. Folders that minidl did not make are no part of it."""
    now = importlib.import_module("minidl.kernels.cpu._numba").folder().name
    found = []
    for folder in sorted(disk.home().iterdir()) if disk.home().is_dir() else ():
        if folder.name != "cuda" and not re.fullmatch("[0-9a-f]{16}", folder.name):
            continue
        kind = {now: "CPU", "cuda": "CUDA"}.get(folder.name, "older")
        sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
        found.append(Part(folder, kind, len(sizes), sum(sizes)))
    return found


def info(arguments: argparse.Namespace, argv: list[str]) -> None:
    """Print how much is kept, and where."""
    print(f"{disk.home()} (MINIDL_CACHE names another folder)")
    for kind, what in (
        ("CPU", "kernels of the CPU, for this version of everything and this machine"),
        ("CUDA", "CUDA kernels"),
        ("older", "kernels of other versions or machines; `minidl cache clear --older`"),
    ):
        some = [part for part in parts() if part.kind == kind]
        files, size = sum(part.files for part in some), sum(part.size for part in some)
        print(f"{files:7,} files {size / 1e6:8.1f} MB  {what}")


def warm(arguments: argparse.Namespace, argv: list[str]) -> None:
    """Compile the kernels of the CPU that are not there yet."""
    if os.environ.get("MINIDL_CPU") == "reference":
        raise RuntimeError("MINIDL_CPU=reference runs on NumPy: there is nothing to compile")
    os.environ["MINIDL_QUIET"] = "1"  # not a line from each process
    start = time.perf_counter()
    count = importlib.import_module("minidl.kernels.warm").warm(arguments.jobs)
    print(f"compiled {count} kernels in {time.perf_counter() - start:.0f} s")


def clear(arguments: argparse.Namespace, argv: list[str]) -> None:
    """Delete what is kept: it will be compiled again when it is needed."""
    gone = [part for part in parts() if part.kind == "older" or not arguments.older]
    for part in gone:
        shutil.rmtree(part.folder)
    files, size = sum(part.files for part in gone), sum(part.size for part in gone)
    print(f"deleted {files:,} files, {size / 1e6:.1f} MB")
