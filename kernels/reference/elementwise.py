"""Elementwise maths with broadcasting, and the gradients."""

import contextvars
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..roles import Array, Out

_silent = contextvars.Context()
_silent.run(np.seterr, all="ignore")
silent = _silent.copy  # a context for one call: of several threads, and one within another
_RELATIONS = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def quiet(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel without NumPy's warnings: inf and NaN are results, as on every other device."""

    @functools.wraps(kernel)
    def call(*args: Any, **named: Any) -> Any:
        return silent().run(kernel, *args, **named)  # np.errstate takes twice as long

    return call


def store(value: Array, out: Array, add: bool) -> Array:
    """Write value into out, or add it; summed over the axes along which out was broadcast."""
    if value.shape != out.shape:
        lead = value.ndim - out.ndim
        wide = [a + lead for a, n in enumerate(out.shape) if n == 1 != value.shape[a + lead]]
        value = value.sum(axis=(*range(lead), *wide), keepdims=True).reshape(out.shape)
    if add:
        out += value
    else:
        out[...] = value
    return out


@quiet
def add(a: Array, b: Array, y: Out) -> Array:
    """y = a + b."""
    return np.add(a, b, out=y)


@quiet
def add_grad_a(dy: Array, da: Out, add: bool) -> Array:
    """da = dy."""
    return store(dy, da, add)


@quiet
def add_grad_b(dy: Array, db: Out, add: bool) -> Array:
    """db = dy."""
    return store(dy, db, add)


@quiet
def sub(a: Array, b: Array, y: Out) -> Array:
    """y = a - b."""
    return np.subtract(a, b, out=y)


@quiet
def sub_grad_a(dy: Array, da: Out, add: bool) -> Array:
    """da = dy."""
    return store(dy, da, add)


@quiet
def sub_grad_b(dy: Array, db: Out, add: bool) -> Array:
    """db = -dy."""
    return store(-dy, db, add)


@quiet
def mul(a: Array, b: Array, y: Out) -> Array:
    """y = a b."""
    return np.multiply(a, b, out=y)


@quiet
def mul_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy b."""
    return store(dy * b, da, add)


@quiet
def mul_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db = dy a."""
    return store(dy * a, db, add)


@quiet
def div(a: Array, b: Array, y: Out) -> Array:
    """y = a / b."""
    return np.divide(a, b, out=y)


@quiet
def div_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy / b."""
    return store(dy / b, da, add)


@quiet
def div_grad_b(dy: Array, b: Array, y: Array, db: Out, add: bool) -> Array:
    """db = -dy y / b."""
    return store(-dy * y / b, db, add)


@quiet
def pow(a: Array, b: Array, y: Out) -> Array:
    """y = a ** b."""
    return np.power(a, b, out=y)


@quiet
def pow_grad_a(dy: Array, a: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy b a ** (b - 1), and 0 where b is 0, at a = 0 too."""
    slope = np.where(b == 0, a.dtype.type(0), b * np.power(a, b - 1))
    return store(dy * slope, da, add)


@quiet
def pow_grad_b(dy: Array, a: Array, y: Array, db: Out, add: bool) -> Array:
    """db = dy y log a, and 0 where a and y are 0: the limit for positive b."""
    slope = np.where((a == 0) & (y == 0), a.dtype.type(0), y * np.log(a))
    return store(dy * slope, db, add)


def maximum(a: Array, b: Array, y: Out) -> Array:
    """y = the larger of a and b; NaN where either is NaN."""
    return np.maximum(a, b, out=y)


@quiet
def maximum_grad_a(dy: Array, a: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy where a is larger or either is NaN, dy / 2 where a = b."""
    return store(dy * _share(a, b), da, add)


@quiet
def maximum_grad_b(dy: Array, a: Array, b: Array, db: Out, add: bool) -> Array:
    """db = dy where b is larger or either is NaN, dy / 2 where a = b."""
    return store(dy * _share(b, a), db, add)


def minimum(a: Array, b: Array, y: Out) -> Array:
    """y = the smaller of a and b; NaN where either is NaN."""
    return np.minimum(a, b, out=y)


@quiet
def minimum_grad_a(dy: Array, a: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy where a is smaller or either is NaN, dy / 2 where a = b."""
    return store(dy * _share(b, a), da, add)


@quiet
def minimum_grad_b(dy: Array, a: Array, b: Array, db: Out, add: bool) -> Array:
    """db = dy where b is smaller or either is NaN, dy / 2 where a = b."""
    return store(dy * _share(a, b), db, add)


def _share(mine: Array, other: Array) -> Array:
    half = mine.dtype.type(0.5)
    return np.where(mine == other, half, (~(mine < other)).astype(mine.dtype))


def where(cond: Array, a: Array, b: Array, y: Out) -> Array:
    """y = a where cond, else b."""
    y[...] = np.where(cond, a, b)
    return y


@quiet
def where_grad_a(dy: Array, cond: Array, da: Out, add: bool) -> Array:
    """da = dy where cond, else 0."""
    return store(np.where(cond, dy, dy.dtype.type(0)), da, add)


@quiet
def where_grad_b(dy: Array, cond: Array, db: Out, add: bool) -> Array:
    """db = 0 where cond, else dy."""
    return store(np.where(cond, dy.dtype.type(0), dy), db, add)


def neg(x: Array, y: Out) -> Array:
    """y = -x."""
    # not np.negative: from x with strides of 16 or 64 bytes to a strided y, NumPy 2.4 with AVX-512
    # leaves cells unwritten
    return np.multiply(x, x.dtype.type(-1), out=y)


@quiet
def neg_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = -dy."""
    return store(-dy, dx, add)


def abs(x: Array, y: Out) -> Array:
    """y = |x|."""
    return np.absolute(x, out=y)


@quiet
def abs_grad(dy: Array, x: Array, dx: Out, add: bool) -> Array:
    """dx = dy where x > 0, -dy where x < 0, 0 at 0 and at NaN."""
    return store(np.select([x > 0, x < 0], [dy, -dy], dy.dtype.type(0)), dx, add)


@quiet
def exp(x: Array, y: Out) -> Array:
    """y = e ** x."""
    return np.exp(x, out=y)


@quiet
def exp_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy y."""
    return store(dy * y, dx, add)


@quiet
def log(x: Array, y: Out) -> Array:
    """y = natural logarithm of x: -inf at 0, NaN below."""
    return np.log(x, out=y)


@quiet
def log_grad(dy: Array, x: Array, dx: Out, add: bool) -> Array:
    """dx = dy / x."""
    return store(dy / x, dx, add)


@quiet
def sqrt(x: Array, y: Out) -> Array:
    """y = square root of x: NaN below 0."""
    return np.sqrt(x, out=y)


@quiet
def sqrt_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy / (2 y)."""
    return store(dy / (y + y), dx, add)


def clip(x: Array, y: Out, low: float, high: float) -> Array:
    """y = x, but at least low and at most high (high wins); NaN stays NaN."""
    return np.minimum(np.maximum(x, low), high, out=y)


@quiet
def clip_grad(dy: Array, x: Array, dx: Out, low: float, high: float, add: bool) -> Array:
    """dx = dy where low <= x <= high, else 0; 0 at NaN, too."""
    return store(np.where((low <= x) & (x <= high), dy, dy.dtype.type(0)), dx, add)


def relu(x: Array, y: Out) -> Array:
    """y = x where x > 0, else 0; NaN stays NaN."""
    return np.maximum(x, x.dtype.type(0), out=y)


@quiet
def relu_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = 0 where y <= 0, else dy: the slope at 0 is 0, and NaN lets the gradient through."""
    return store(np.where(y <= 0, dy.dtype.type(0), dy), dx, add)


def relu6(x: Array, y: Out) -> Array:
    """y = x between 0 and 6, 0 below and 6 above; NaN stays NaN."""
    return clip(x, y, 0, 6)


@quiet
def relu6_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = 0 where y <= 0 or y >= 6, else dy: as in relu, NaN lets the gradient through."""
    return store(np.where((y <= 0) | (y >= 6), dy.dtype.type(0), dy), dx, add)


@quiet
def leaky_relu(x: Array, y: Out, negative_slope: float) -> Array:
    """y = x where x > 0, else negative_slope x."""
    y[...] = np.where(x > 0, x, x * x.dtype.type(negative_slope))
    return y


@quiet
def leaky_relu_grad(dy: Array, x: Array, dx: Out, negative_slope: float, add: bool) -> Array:
    """dx = dy where x > 0, else negative_slope dy: at 0 and at NaN, too."""
    return store(np.where(x > 0, dy, dy * dy.dtype.type(negative_slope)), dx, add)


@quiet
def elu(x: Array, y: Out, alpha: float) -> Array:
    """y = x where x > 0, else alpha (e ** x - 1)."""
    y[...] = np.where(x <= 0, x.dtype.type(alpha) * np.expm1(x), x)
    return y


@quiet
def elu_grad(dy: Array, x: Array, dx: Out, alpha: float, add: bool) -> Array:
    """dx = dy where x > 0, else alpha e ** x dy: at 0, too."""
    return store(np.where(x <= 0, dy * x.dtype.type(alpha) * np.exp(x), dy), dx, add)


@quiet
def sigmoid(x: Array, y: Out) -> Array:
    """y = 1 / (1 + e ** -x)."""
    y[...] = 1 / (1 + np.exp(-x))
    return y


@quiet
def sigmoid_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy y (1 - y)."""
    return store(dy * y * (1 - y), dx, add)


def tanh(x: Array, y: Out) -> Array:
    """y = (e ** x - e ** -x) / (e ** x + e ** -x)."""
    return np.tanh(x, out=y)


@quiet
def tanh_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy (1 - y y), as a product, in which nothing cancels."""
    return store(dy * (1 - y) * (1 + y), dx, add)


@quiet
def silu(x: Array, y: Out) -> Array:
    """y = x sigmoid(x); NaN at -inf."""
    y[...] = x * _sigmoid(x)
    return y


@quiet
def silu_grad(dy: Array, x: Array, dx: Out, add: bool) -> Array:
    """dx = dy (s + x s (1 - s)), s = sigmoid(x); NaN at -inf and inf."""
    s = _sigmoid(x)
    return store(dy * (s + x * (s * _sigmoid(-x))), dx, add)


@quiet
def gelu(x: Array, y: Out, approximate: str) -> Array:
    """y = x times the normal distribution function of x; NaN at -inf.

    approximate: "none", or "tanh" for x sigmoid(w), w = sqrt(8 / pi) (x + 0.044715 x ** 3).
    """
    y[...] = x * _share_below(x, approximate)
    return y


@quiet
def gelu_grad(dy: Array, x: Array, dx: Out, approximate: str, add: bool) -> Array:
    """dx = dy (P + x P'), P being what gelu multiplies x with; NaN at -inf and inf."""
    below = _share_below(x, approximate)
    if approximate == "none":
        density = np.exp(-x * x / 2) / np.sqrt(x.dtype.type(2 * math.pi))
        return store(dy * (below + x * density), dx, add)
    steep = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return store(dy * (below + x * (below * _sigmoid(-_cubic(x))) * steep), dx, add)


def _share_below(x: Array, approximate: str) -> Array:
    """How much of the normal distribution lies below x."""
    if approximate == "tanh":
        return _sigmoid(_cubic(x))  # 0.5 (1 + tanh(w / 2)), whose tail would cancel
    erfc = np.vectorize(math.erfc, otypes="d")  # NumPy has none
    return (erfc(-x / math.sqrt(2)) / 2).astype(x.dtype)


def _cubic(x: Array) -> Array:
    return math.sqrt(8 / math.pi) * (x + 0.044715 * (x * x * x))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@quiet
def softplus(x: Array, y: Out, beta: float, threshold: float) -> Array:
    """y = log(1 + e ** (beta x)) / beta, and x itself where beta x > threshold."""
    w = x * x.dtype.type(beta)
    smooth = np.maximum(w, 0) + np.log1p(np.exp(-np.absolute(w)))
    y[...] = np.where(w > threshold, x, smooth / x.dtype.type(beta))
    return y


@quiet
def softplus_grad(dy: Array, x: Array, dx: Out, beta: float, threshold: float, add: bool) -> Array:
    """dx = dy sigmoid(beta x), and dy where beta x > threshold."""
    w = x * x.dtype.type(beta)
    return store(np.where(w > threshold, dy, dy * _sigmoid(w)), dx, add)


def compare(a: Array, b: Array, y: Out, relation: str) -> Array:
    """y = (a relation b), booleans; relation is "lt", "le", "gt", "ge", "eq" or "ne"."""
    return _RELATIONS[relation](a, b, out=y)
