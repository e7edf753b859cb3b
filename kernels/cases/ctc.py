"""The Case of CTC."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ..roles import Array
from .case import bad, case, zeros
from .draw import Blank, Draw, Values


def _size(v: SimpleNamespace) -> Array:
    """How far a sum of logarithms may be off, for each sequence (N,).

    log(e ** a + e ** b) passes the larger error of a and b on and adds a few roundings to the size
    of the result or 1; x + that adds one. Three of them are done for each step.
    """
    finite = np.where(np.isfinite(v.alpha), np.abs(v.alpha), 0).max(axis=(1, 2), initial=0)
    most = np.where(np.isfinite(v.x), np.abs(v.x), 0).max(axis=(0, 2), initial=0)
    return 16 * (1 + v.x.shape[0]) * (1 + finite + most)


def _ctc(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    n, size = len(v.target), _size(v)
    share = 1 / (np.maximum(v.target_length, 1) * n) if v.mean else np.ones(n)
    y = size if v.y.ndim else (4 + n) * (share * size).sum()
    return {"y": y, "nll": size, "alpha": np.broadcast_to(size[:, None, None], v.alpha.shape)}


def _ctc_grad(v: SimpleNamespace, run: Any) -> Any:
    # exp takes the errors of three logarithms, beta's as large as alpha's, as a relative one; beta
    # may be larger than any alpha, by as many steps of x
    most = np.where(np.isfinite(v.x), np.abs(v.x), 0).max(axis=(0, 2), initial=0)
    relative = 3 * _size(v) + 16 * (1 + v.x.shape[0]) ** 2 * most
    return (8 + v.alpha.shape[2] + relative)[:, None] * np.abs(run())


@case(
    "ctc_loss",
    bound={"ctc_loss": _ctc, "": _ctc_grad},
    specials=lambda v: ["x"],  # as in cross_entropy_weighted
    static=lambda v: dict(
        blank=v["blank"],
        zero_infinity=v["zero_infinity"],
        reduction="none" if v["y"].shape else "mean" if v["mean"] else "sum",
    ),
    rejects=(
        bad("x has 2 dimensions", zeros(4, 3), np.ones((1, 1), int), np.array([4]), np.array([1])),
        bad("target needs a row of labels for each of 2 sequences (x (4, 2, 3), target (2,))",
            zeros(4, 2, 3), np.ones(2, int), np.array([4, 4]), np.array([1, 1])),
        bad("input_length needs one number for each of 2 sequences", zeros(4, 2, 3),
            np.ones((2, 1), int), np.array([4]), np.array([1, 1])),
        bad("input_length 5 is out of range [0, 5)", zeros(4, 1, 3), np.ones((1, 1), int),
            np.array([5]), np.array([1]), error=IndexError),
        bad("target_length 2 is out of range [0, 2)", zeros(4, 1, 3), np.ones((1, 1), int),
            np.array([4]), np.array([2]), error=IndexError),
        bad("target 3 is out of range [0, 3)", zeros(4, 1, 3), np.array([[3, 9]]),
            np.array([4]), np.array([1]), error=IndexError),
        bad("a target holds the blank, 0", zeros(4, 1, 3), np.array([[1, 0]]),
            np.array([4]), np.array([2])),
        bad("blank 3 is out of range for 3 classes", zeros(4, 1, 3), np.ones((1, 1), int),
            np.array([4]), np.array([1]), blank=3),
        bad("x has no steps", zeros(0, 1, 3), np.ones((1, 1), int), np.array([0]), np.array([1])),
    ),
)  # fmt: skip
def _ctc_case(d: Draw) -> Values:
    n, labels, classes = d.batch(), d.size(0, 3, 40), d.size(2, 4, 40)
    steps = d.size(1, 6, 30)
    if d.mode == "smooth":  # where no path spells the target there is no slope
        steps += 2 * labels
    blank = d.pick("blank", 0, classes - 1)
    target = (blank + d.integers((n, labels), 1, classes)) % classes
    target_length = d.integers((n,), 0, labels + 1)
    target[np.arange(labels) >= target_length[:, None]] = -7  # is not read
    least = steps if d.mode == "smooth" else 0
    input_length = d.integers((n,), least, steps + 1)
    y = Blank(d.pick("y", (), (n,)))
    statics = dict(zero_infinity=d.pick("", False, True), blank=blank)
    mean = d.pick("mean", False, True) and not y.shape
    outs = dict(y=y, nll=Blank((n,)), alpha=Blank((n, steps, 2 * labels + 1)), mean=mean)
    lengths = dict(input_length=input_length, target_length=target_length)
    return dict(x=d.array((steps, n, classes)), target=target) | lengths | statics | outs
