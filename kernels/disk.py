"""Compiled code on disk, kept for the next process.

A file begins with the SHA-256 of the rest and is written under a temporary name that is then
changed, so processes may race for it, and one may be killed at any moment. What is damaged or
belongs to another user is never read: it is compiled again.
"""

import contextlib
import hashlib
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

_DIGEST = 32  # bytes of a SHA-256
PATIENCE = 20.0  # seconds: longer than any kernel takes, but on a machine that does not get on


def home() -> Path:
    """$MINIDL_CACHE, else minidl in the user's cache folder of this platform."""
    if given := os.environ.get("MINIDL_CACHE"):
        return Path(given) / "kernels"
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "minidl" / "kernels"


def read(path: Path) -> bytes | None:
    """What `write` put in a file; None where there is none, or it is not to be trusted."""
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST] and _mine(path):
            return data[_DIGEST:]
    return None


def write(path: Path, data: bytes) -> None:
    """Put data in a file that `read` trusts. OSError where the folder cannot be written."""
    unfinished = path.with_suffix(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(hashlib.sha256(data).digest() + data)
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def claim(path: Path) -> bytes | None:
    """What another process is just making, when it is done; None: it is ours to make.

    Then others wait for `release`, but for no process that is gone, nor longer than PATIENCE.
    """
    if sys.platform == "win32":  # there two processes may make the same thing
        return None
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(OSError):  # what cannot be claimed can still be made
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(path).open("ab")
        while time.monotonic() < end:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            found = read(path)
            if found is None:
                _claims[path] = file
            else:
                file.close()
            return found
        file.close()
    return None


def release(path: Path) -> None:
    """What was claimed is made, or will not be."""
    if file := _claims.pop(path, None):
        with contextlib.suppress(OSError):
            _lock(path).unlink(missing_ok=True)
        file.close()


def _lock(path: Path) -> Path:
    return path.with_suffix(".lock")


_claims: dict[Path, Any] = {}


def _mine(path: Path) -> bool:
    """Whether this user wrote a file: code of anybody else must not run."""
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
