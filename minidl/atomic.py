"""A file is written whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path


def write(path: str | os.PathLike, data: bytes) -> None:
    """Replace the file at path by data, in one instant.

    The bytes go to a hidden file beside it, down to the disk, and only then get its name. On any
    error the old file stays as it was and the hidden one is deleted; a process killed halfway
    leaves the old file too.
    """
    path = Path(os.path.realpath(path))  # through a link: the link stays one
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Bring the new name down to the disk. Windows has no way to ask for that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
