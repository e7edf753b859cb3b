"""Files of numbers -> arrays: text, CSV, .npy, .npz, idx. All is checked, nothing unpickled."""

import csv
import gzip
import hashlib
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import formats
from .catalog import cache_folder

File = str | os.PathLike


def load_text(path: File, *, dtype: Any = np.float32, delimiter: str | None = None) -> np.ndarray:
    """Read lines of numbers -> (rows, columns) of a dtype.

    delimiter: what stands between two numbers; any white space if not given. Empty lines are left
    out. ValueError names the line that is not as long as the first, or not numbers.
    """
    rows: list[list[float]] = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(
                    _numbers(line.strip().split(delimiter), dtype, f"{path}, line {number}")
                )
                if len(rows[-1]) != len(rows[0]):
                    raise ValueError(
                        f"{path}, line {number}: {len(rows[-1])} numbers, but the first line has "
                        f"{len(rows[0])}"
                    )
    return np.array(rows, dtype).reshape(len(rows), -1 if rows else 0)


def _numbers(words: list[str], dtype: Any, where: str) -> list[Any]:
    kind = int if np.dtype(dtype).kind in "iu" else float
    try:
        return [kind(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{where}: {error}; {np.dtype(dtype)} is wanted") from None


class Table(Mapping[str, np.ndarray]):
    """Columns of one length by name: `table["rating"]`; `table.array("x1", "x2")` is (rows, 2)."""

    def __init__(self, columns: Mapping[str, np.ndarray]):
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            raise KeyError(f"there is no column {name!r}; there are {', '.join(self._columns)}")
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def rows(self) -> int:
        """How long the columns are."""
        return len(next(iter(self._columns.values())))

    def array(self, *names: str, dtype: Any = np.float32) -> np.ndarray:
        """The named columns, or all, side by side: (rows, columns) of one dtype."""
        return np.stack([self[name].astype(dtype) for name in names or self], axis=1)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{name} {column.dtype}" for name, column in self._columns.items())
        return f"Table({self.rows} rows: {kinds})"


def load_csv(path: File, *, delimiter: str = ",") -> Table:
    """Read a CSV file whose first line names the columns.

    A column of whole numbers is int64, one of numbers float64 (empty cells are NaN), any other
    text. ValueError names the line that has more or fewer cells than there are names.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        names = next(reader, [])
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{path}: the first line names the columns, each once, got {names}")
        rows = []
        for row in filter(None, reader):
            if len(row) != len(names):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(row)} cells, but {len(names)} columns"
                )
            rows.append(row)
    cells: Iterable[tuple[str, ...]] = zip(*rows, strict=True) if rows else [()] * len(names)
    return Table({name: _typed(column) for name, column in zip(names, cells, strict=True)})


def _typed(column: tuple[str, ...]) -> np.ndarray:
    """Cells as the narrowest kind that holds them all."""
    for kind, dtype in ((int, np.int64), (lambda s: float(s) if s else math.nan, np.float64)):
        try:
            return np.array([kind(cell) for cell in column], dtype)
        except (ValueError, OverflowError):
            continue
    return np.array(column, np.str_)


def load_npy(path: File, *, mapped: bool = False) -> np.ndarray:
    """Read an array from a .npy file. mapped: leave it there; what is used of it is read then.

    An array of objects, which would have to be unpickled, is refused.
    """
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise ValueError(f"{path}: not a .npy file that is read: {error}") from None


def load_npz(path: File) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file, by name. Objects are refused, as by load_npy."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (AttributeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not an .npz file that is read: {error}") from None


def load_idx(path: File) -> np.ndarray:
    """Read an array of unsigned bytes from an idx file, the format of MNIST, raw or .gz."""
    data = Path(path).read_bytes()
    try:
        return formats.idx(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def read_arrays(path: File) -> tuple[np.ndarray, ...]:
    """The arrays of a file, by its ending: what a DataLoader given a path makes batches of.

    .npy: one, mapped; .npz: all, in the file's order; .csv: all columns but the last (N, columns),
    float32, and the last, (N,); .txt: one. A URL is downloaded first.
    """
    if str(path).startswith(("http://", "https://")):
        path = download(str(path))
    kinds: dict[str, Callable[[File], tuple[np.ndarray, ...]]] = {
        ".npy": lambda p: (load_npy(p, mapped=True),),
        ".npz": lambda p: tuple(load_npz(p).values()),
        ".csv": _features,
        ".txt": lambda p: (load_text(p),),
    }
    kind = Path(path).suffix
    if kind not in kinds:
        raise ValueError(f"{path}: what is in a file says its ending: {', '.join(kinds)}")
    return kinds[kind](path)


def _features(path: File) -> tuple[np.ndarray, ...]:
    table = load_csv(path)
    *names, last = table
    return table.array(*names), table[last]


def download(url: str, sha256: str = "") -> Path:
    """Bring a file from the web into the user's cache, once, and return where it is.

    sha256: of its bytes; with other ones it is refused. Without it, they are whatever the web says.
    """
    from .sources import get, write

    key = hashlib.sha256(f"{url} {sha256}".encode()).hexdigest()[:16]
    path = cache_folder() / "web" / key / (url.split("?")[0].rsplit("/", 1)[-1] or "file")
    if not path.is_file():
        data = get(url)
        found = hashlib.sha256(data).hexdigest()
        if sha256 and found != sha256.lower():
            raise ValueError(f"{url}: SHA-256 is {found}, but {sha256} is wanted")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, data)
    return path
