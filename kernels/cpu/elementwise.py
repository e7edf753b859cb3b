"""Elementwise kernels that NumPy does in several passes, or number by number; all others are its.

What is mostly one exp or tanh stays NumPy's: it computes many of them at once, Numba does not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import reference, scalars
from ..roles import Array, Out
from ._numba import callable_within, loop
from .memory import canonical, memory_order, outward, rare, settle, target


def _each(scalar: Callable[..., Any], work: int = 1) -> Callable[..., Array]:
    """f(inputs, y, add, *numbers): y = scalar of each element, in one pass in y's memory order.

    work: 1, or 4 where much is done to each element.
    """
    inner = callable_within(scalar)

    def of_one(start, stop, y, a, *numbers):
        a, y = a[start:stop], y[start:stop]
        for i in range(y.size):
            y[i] = inner(a[i], *numbers)

    def of_two(start, stop, y, a, b, *numbers):
        a, b, y = a[start:stop], b[start:stop], y[start:stop]
        for i in range(y.size):
            y[i] = inner(a[i], b[i], *numbers)

    for kernel in (of_one, of_two):
        kernel.__qualname__ = f"_{scalar.__name__}"
    loops = loop(of_one), loop(of_two)

    def run(inputs: Sequence[Array], y: Array, add: bool, *numbers: float) -> Array:
        order = memory_order(y)
        out = outward(y, order)
        value = target(out, add)
        arrays = [value, *(canonical(outward(x, order)) for x in inputs)]
        flat = [x.reshape(-1) for x in arrays]
        loops[len(inputs) - 1](y.size, work * y.size, *flat, *map(np.float32, numbers))
        settle(value, out, add)
        return y

    return run


_abs_grad = _each(scalars.abs_grad)
_clip_grad = _each(scalars.clip_grad)
_relu_grad = _each(scalars.relu_grad)
_relu6_grad = _each(scalars.relu6_grad)
_leaky_relu = _each(scalars.leaky_relu)
_leaky_relu_grad = _each(scalars.leaky_relu_grad)
_sigmoid_grad = _each(scalars.sigmoid_grad)
_tanh_grad = _each(scalars.tanh_grad)
_silu_grad = _each(scalars.silu_grad, work=4)
_gelu = _each(scalars.gelu, work=4)
_GELU_GRAD = {
    "none": _each(scalars.gelu_grad, work=4),
    "tanh": _each(scalars.gelu_tanh_grad, work=4),
}


def abs_grad(dy: Array, x: Array, dx: Out, add: bool) -> Array:
    """dx = dy where x > 0, -dy where x < 0, 0 at 0 and at NaN."""
    if rare(dy, x):
        return reference.abs_grad(dy, x, dx, add)
    return _abs_grad((dy, x), dx, add)


def clip_grad(dy: Array, x: Array, dx: Out, low: float, high: float, add: bool) -> Array:
    """dx = dy where low <= x <= high, else 0; 0 at NaN, too."""
    if rare(dy, x):
        return reference.clip_grad(dy, x, dx, low, high, add)
    return _clip_grad((dy, x), dx, add, low, high)


def relu_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = 0 where y <= 0, else dy: the slope at 0 is 0, and NaN lets the gradient through."""
    if rare(dy, y):
        return reference.relu_grad(dy, y, dx, add)
    return _relu_grad((dy, y), dx, add)


def relu6_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = 0 where y <= 0 or y >= 6, else dy: as in relu, NaN lets the gradient through."""
    if rare(dy, y):
        return reference.relu6_grad(dy, y, dx, add)
    return _relu6_grad((dy, y), dx, add)


def leaky_relu(x: Array, y: Out, negative_slope: float) -> Array:
    """y = x where x > 0, else negative_slope x."""
    if rare(x):
        return reference.leaky_relu(x, y, negative_slope)
    return _leaky_relu((x,), y, False, negative_slope)


def leaky_relu_grad(dy: Array, x: Array, dx: Out, negative_slope: float, add: bool) -> Array:
    """dx = dy where x > 0, else negative_slope dy: at 0 and at NaN, too."""
    if rare(dy, x):
        return reference.leaky_relu_grad(dy, x, dx, negative_slope, add)
    return _leaky_relu_grad((dy, x), dx, add, negative_slope)


def sigmoid_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy y (1 - y)."""
    if rare(dy, y):
        return reference.sigmoid_grad(dy, y, dx, add)
    return _sigmoid_grad((dy, y), dx, add)


def tanh_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy (1 - y y), as a product, in which nothing cancels."""
    if rare(dy, y):
        return reference.tanh_grad(dy, y, dx, add)
    return _tanh_grad((dy, y), dx, add)


def silu_grad(dy: Array, x: Array, dx: Out, add: bool) -> Array:
    """dx = dy (s + x s (1 - s)), s = sigmoid(x); NaN at -inf and inf."""
    if rare(dy, x):
        return reference.silu_grad(dy, x, dx, add)
    return _silu_grad((dy, x), dx, add)


def gelu(x: Array, y: Out, approximate: str) -> Array:
    """y = x times the normal distribution function of x; NaN at -inf.

    approximate: "none", or "tanh" for x sigmoid(w), w = sqrt(8 / pi) (x + 0.044715 x ** 3).
    """
    if approximate == "tanh" or rare(x):
        return reference.gelu(x, y, approximate)
    return _gelu((x,), y, False)


def gelu_grad(dy: Array, x: Array, dx: Out, approximate: str, add: bool) -> Array:
    """dx = dy (P + x P'), P being what gelu multiplies x with; NaN at -inf and inf."""
    if rare(dy, x):
        return reference.gelu_grad(dy, x, dx, approximate, add)
    return _GELU_GRAD[approximate]((dy, x), dx, add)
