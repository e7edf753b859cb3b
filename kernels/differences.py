"""Slopes of functions by differences: what gradients are held against."""

from collections.abc import Callable
from typing import Any

import numpy as np

# of a difference in float64, relative to the size of x: rounding and truncation are equally small
STEP = float(np.finfo(np.float64).eps) ** (1 / 5)


def along(f: Callable[[Any], Any], x: Any, v: Any, step: float = STEP) -> Any:
    """The change of f(x) as x moves along v, per unit of v: the formula of five points.

    Its error is that of step ** 4, where f is smooth over two steps to either side.
    """
    y = {n: f(x + n * step * v) for n in (-2, -1, 1, 2)}
    return (8 * (y[1] - y[-1]) - (y[2] - y[-2])) / (12 * step)


def gradient(f: Callable[[Any], Any], x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """The gradient of <dy, f(x)>, element by element."""
    found = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        unit = np.zeros(x.shape)
        unit[place] = 1
        step = STEP * max(1.0, abs(float(x[place])))
        found[place] = (dy * along(f, x, unit, step)).sum()
    return found
