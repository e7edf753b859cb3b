"""Elementwise maths with broadcasting, and the gradients."""

import numpy as np

from ..roles import Array, Out

quiet = np.errstate(all="ignore")  # inf and NaN are results here, as on every other device
_RELATIONS = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


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


def add(a: Array, b: Array, y: Out) -> Array:
    """y = a + b."""
    return np.add(a, b, out=y)


def add_grad_a(dy: Array, da: Out, add: bool) -> Array:
    """da = dy."""
    return store(dy, da, add)


def add_grad_b(dy: Array, db: Out, add: bool) -> Array:
    """db = dy."""
    return store(dy, db, add)


def sub(a: Array, b: Array, y: Out) -> Array:
    """y = a - b."""
    return np.subtract(a, b, out=y)


def sub_grad_a(dy: Array, da: Out, add: bool) -> Array:
    """da = dy."""
    return store(dy, da, add)


def sub_grad_b(dy: Array, db: Out, add: bool) -> Array:
    """db = -dy."""
    return store(-dy, db, add)


def mul(a: Array, b: Array, y: Out) -> Array:
    """y = a b."""
    return np.multiply(a, b, out=y)


def mul_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy b."""
    return store(dy * b, da, add)


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


def maximum_grad_a(dy: Array, a: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy where a is larger, dy / 2 where a = b."""
    return store(dy * _share(a, b), da, add)


def maximum_grad_b(dy: Array, a: Array, b: Array, db: Out, add: bool) -> Array:
    """db = dy where b is larger, dy / 2 where a = b."""
    return store(dy * _share(b, a), db, add)


def _share(mine: Array, other: Array) -> Array:
    half = mine.dtype.type(0.5)
    return np.where(mine == other, half, (mine > other).astype(mine.dtype))


def neg(x: Array, y: Out) -> Array:
    """y = -x."""
    # not np.negative: from x with strides of 16 or 64 bytes to a strided y, NumPy 2.4 with AVX-512
    # leaves cells unwritten
    return np.multiply(x, x.dtype.type(-1), out=y)


def neg_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = -dy."""
    return store(-dy, dx, add)


@quiet
def exp(x: Array, y: Out) -> Array:
    """y = e ** x."""
    return np.exp(x, out=y)


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


def relu(x: Array, y: Out) -> Array:
    """y = x where x > 0, else 0; NaN stays NaN."""
    return np.maximum(x, x.dtype.type(0), out=y)


def relu_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = 0 where y <= 0, else dy: the slope at 0 is 0, and NaN lets the gradient through."""
    return store(np.where(y <= 0, dy.dtype.type(0), dy), dx, add)


def compare(a: Array, b: Array, y: Out, relation: str) -> Array:
    """y = (a relation b), booleans; relation is "lt", "le", "gt", "ge", "eq" or "ne"."""
    return _RELATIONS[relation](a, b, out=y)
