"""What special values give: the rows of docs/special-values.md, and PyTorch's answers to them.

    python -m benchmarks.special_values

Needs PyTorch (pip install torch). Lists each row that says "same" where PyTorch does something else
in float32 or float64, or "differs" where it does not; exit status 1 if there are any. What ours
gives is the business of tests/test_special_values.py.
"""

import math
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

PAGE = Path(__file__).parent.parent / "docs" / "special-values.md"
ROUNDINGS = 16  # of a value that is not exact: more than any of these ops needs


class Row(NamedTuple):
    """The cells of a row, as the page explains them."""

    call: str
    given: str
    result: str
    gradients: str
    pytorch: str


def rows() -> Iterator[Row]:
    """The rows of the page's tables."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            yield Row(*(cell.strip().strip("`") for cell in line.strip("| ").split(" | ")))


_NAMES = {name: getattr(math, name) for name in ("nan", "inf", "log", "log1p", "exp", "sqrt")} | {
    "zeros": lambda *shape: np.zeros(shape),
    "image": lambda lines: np.array(lines, float)[None, :, :, None],
    "filter": lambda lines: np.array(lines, float)[:, :, None, None],
}
_KINDS = dict.fromkeys(("label", "index", "spelled", "steps", "count"), np.int64) | {
    "cond": np.bool_
}


def literal(cell: str) -> Any:
    """The value that a cell spells."""
    return eval(cell, _NAMES)


def literals(cell: str) -> dict[str, Any]:
    """The values of a cell that says name=value, name=value."""
    return literal(f"dict({cell})")


def array(name: str, value: Any, dtype: str) -> np.ndarray:
    """An input of a name, in the dtype of the row unless it holds labels and the like."""
    return np.array(value, _KINDS.get(name, dtype))


def agree(got: np.ndarray, cell: Any, dtype: str) -> bool:
    """Whether an array has the shape and the values of a cell: NaN, inf and 0 where it has them."""
    want = np.array(cell, float if got.dtype.kind == "f" else got.dtype)
    roundings = ROUNDINGS * np.finfo(dtype).eps
    return got.shape == want.shape and np.allclose(got, want, roundings, 0, equal_nan=True)


def error_of(cell: str) -> tuple[str, str] | None:
    """The kind of an error and its message, where the result is one."""
    found = re.match(r"(\w+Error): (.*)", cell)
    return (found[1], found[2]) if found else None


def padded(torch: Any, x: Any, size: Any, stride: int, padding: Any, value: float) -> Any:
    """x (N, H, W, C) as PyTorch has it, padded where that is "same", and what is left to pad."""
    x = x.permute(0, 3, 1, 2)
    if padding != "same":
        return x, padding
    sides = []
    for n, k in zip(x.shape[:1:-1], tuple(size)[::-1]):
        need = max((-(-n // stride) - 1) * stride + k - n, 0)
        sides += [need // 2, need - need // 2]
    return torch.nn.functional.pad(x, sides, value=value), 0


def pytorch(torch: Any) -> dict[str, Any]:
    """F and optim with PyTorch's functions, for images (N, H, W, C) and weights (in, out)."""
    real = torch.nn.functional

    def conv2d(x, w, b=None, stride=1, padding=0):
        x, padding = padded(torch, x, w.shape[:2], stride, padding, 0.0)
        return real.conv2d(x, w.permute(3, 2, 0, 1), b, stride, padding).permute(0, 2, 3, 1)

    def max_pool2d(x, size, stride=None, padding=0):
        x, padding = padded(torch, x, (size, size), stride, padding, -math.inf)
        return real.max_pool2d(x, size, stride, padding).permute(0, 2, 3, 1)

    def avg_pool2d(x, size):
        return real.avg_pool2d(x.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)

    def linear(x, w, b, relu=False):
        y = real.linear(x, w.T, b)
        return y.relu() if relu else y

    F = SimpleNamespace(**vars(real))
    F.conv2d, F.max_pool2d, F.avg_pool2d, F.linear = conv2d, max_pool2d, avg_pool2d, linear
    F.softmax, F.log_softmax = (lambda x: x.softmax(-1)), (lambda x: x.log_softmax(-1))
    F.layer_norm = lambda x, n, *args, **options: real.layer_norm(x, (n,), *args, **options)
    optim = SimpleNamespace(**vars(torch.optim))
    optim.clip_grad_norm_ = torch.nn.utils.clip_grad_norm_
    return {"F": F, "optim": optim}


def same(torch: Any, row: Row, dtype: str) -> bool:
    """Whether PyTorch gives what a row says: the values, or some error."""
    given = literals(row.given)
    if given.pop("on", "cpu") != "cpu":
        return False
    gradients = literals(row.gradients)
    x = {name: torch.from_numpy(array(name, value, dtype)) for name, value in given.items()}
    p, dp = x.get("p"), x.get("dp")
    for name in (*gradients, *(["dp"] if p is not None else [])):
        x[name[1:]].requires_grad_(True)
    try:
        if p is not None:
            p.grad = dp
        y = eval(row.call.replace("axis=", "dim="), {**pytorch(torch), **x})
        y = p if p is not None else y if torch.is_tensor(y) else y.values  # max has indices, too
        if gradients:
            y.backward(x.get("dy", torch.ones_like(y)))
    except (RuntimeError, ValueError, IndexError, TypeError):
        return error_of(row.result) is not None
    return error_of(row.result) is None and all(
        agree(got.detach().numpy(), want, dtype)
        for got, want in [
            (y, literal(row.result)),
            *((x[name[1:]].grad, want) for name, want in gradients.items()),
        ]
    )


def main() -> int:
    import torch  # here: the tests read the page without it

    warnings.simplefilter("ignore")
    wrong = 0
    for row in rows():
        agrees = all(same(torch, row, dtype) for dtype in ("float32", "float64"))
        if agrees != (row.pytorch == "same"):
            wrong += 1
            print(f"{row.call} with {row.given} says {row.pytorch!r}")
    print(f"{wrong} rows of {PAGE.name} are wrong about PyTorch {torch.__version__}")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
