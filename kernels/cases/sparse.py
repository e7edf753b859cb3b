"""Cases of products of a sparse matrix and a dense one."""

import numpy as np

from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _small(**changed: list[int]) -> list[np.ndarray]:
    """What the op takes for [[1, 0, 2], [0, 0, 3]] times (3, 4), with some of it changed."""
    lists = dict(
        row=[0, 0, 1], column=[0, 2, 2], row_start=[0, 2, 3], order=[0, 1, 2],
        column_start=[0, 1, 1, 3],
    )  # fmt: skip
    arrays = {name: np.array(changed.get(name, numbers)) for name, numbers in lists.items()}
    return [zeros(3), *arrays.values(), zeros(3, 4)]


@case(
    "csr_matmul",
    rejects=(
        bad("column 3 is out of range [0, 3)", *_small(column=[0, 2, 3]), error=IndexError),
        bad("row 2 is out of range [0, 2)", *_small(row=[0, 0, 2]), error=IndexError),
        bad("row_start 4 is out of range [0, 4)", *_small(row_start=[0, 2, 4]), error=IndexError),
        bad("order -1 is out of range [0, 3)", *_small(order=[0, 1, -1]), error=IndexError),
        bad("column_start 9 is out of", *_small(column_start=[0, 1, 9, 3]), error=IndexError),
        bad("x does not have a's 4 columns", *_small(column_start=[0, 1, 1, 3, 3])),
        bad("column needs a number for each of 3 values", *_small(column=[0, 2])),
        bad("x has 1 dimensions, but a matrix (K, N) has 2", *_small()[:-1], zeros(3)),
    ),
)
def _csr_matmul(d: Draw) -> Values:
    m, k, n = d.batch(), d.size(1, 7, 70), d.size(1, 7, 140)
    share = d.pick("share", 128, 0, 30, 256)  # of 256: how many of the numbers are there
    row, column = np.nonzero(d.integers((m, k), 0, 256) < share)
    x = d.array((k, n))
    return dict(
        value=d.array(row.shape), row=row, column=column, row_start=_starts(row, m),
        order=np.argsort(column, kind="stable"), column_start=_starts(column, k), x=x,
        y=Blank((m, n)),
    )  # fmt: skip


def _starts(numbers: np.ndarray, count: int) -> np.ndarray:
    """How many numbers are below 0, 1 ... count."""
    return np.concatenate([[0], np.bincount(numbers, minlength=count)]).cumsum()
