"""Elementwise maths with broadcasting, and the gradients.

Each kernel is one of the skeletons of `pointwise.py` around a scalar function, which it carries the
name of. A gradient with respect to an input that was broadcast is computed for every element, then
summed over the axes of the broadcast, in a fixed order.
"""

import math
from collections.abc import Sequence

from ..roles import Array, Out
from . import memory
from .move import copy
from .pointwise import Pointwise
from .reduce import add_up


def _gradient(kernel: Pointwise, inputs: Sequence[Array], out: Array, add: bool) -> Array:
    """out = kernel(dy, ...), summed over the axes along which out was broadcast to dy's shape."""
    shape = inputs[0].shape
    if out.shape == shape:
        return kernel(inputs, out, add)
    return _sum_to(kernel(inputs, memory.scratch(shape, out.dtype)), out, add)


def _sum_to(x: Array, out: Array, add: bool) -> Array:
    add_up(x, out[(None,) * (x.ndim - out.ndim)], add)
    return out


_add = Pointwise(lambda a, b: a + b, "add")


def add(a: Array, b: Array, y: Out) -> Array:
    """y = a + b."""
    return _add((a, b), y)


def add_grad_a(dy: Array, da: Out, add: bool) -> Array:
    """da = dy."""
    return copy(dy, da, add) if da.shape == dy.shape else _sum_to(dy, da, add)


def add_grad_b(dy: Array, db: Out, add: bool) -> Array:
    """db = dy."""
    return add_grad_a(dy, db, add)


_sub = Pointwise(lambda a, b: a - b, "sub")


def sub(a: Array, b: Array, y: Out) -> Array:
    """y = a - b."""
    return _sub((a, b), y)


def sub_grad_a(dy: Array, da: Out, add: bool) -> Array:
    """da = dy."""
    return add_grad_a(dy, da, add)


_sub_grad_b = Pointwise(lambda dy: -dy, "sub_grad_b")


def sub_grad_b(dy: Array, db: Out, add: bool) -> Array:
    """db = -dy."""
    return _gradient(_sub_grad_b, (dy,), db, add)


_mul = Pointwise(lambda a, b: a * b, "mul")
_mul_grad_a = Pointwise(lambda dy, b: dy * b, "mul_grad_a")
_mul_grad_b = Pointwise(lambda dy, a: dy * a, "mul_grad_b")


def mul(a: Array, b: Array, y: Out) -> Array:
    """y = a b."""
    return _mul((a, b), y)


def mul_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy b."""
    return _gradient(_mul_grad_a, (dy, b), da, add)


def mul_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db = dy a."""
    return _gradient(_mul_grad_b, (dy, a), db, add)


_div = Pointwise(lambda a, b: a / b, "div")
_div_grad_a = Pointwise(lambda dy, b: dy / b, "div_grad_a")
_div_grad_b = Pointwise(lambda dy, y, b: -dy * y / b, "div_grad_b")


def div(a: Array, b: Array, y: Out) -> Array:
    """y = a / b."""
    return _div((a, b), y)


def div_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy / b."""
    return _gradient(_div_grad_a, (dy, b), da, add)


def div_grad_b(dy: Array, b: Array, y: Array, db: Out, add: bool) -> Array:
    """db = -dy y / b."""
    return _gradient(_div_grad_b, (dy, y, b), db, add)


@Pointwise
def _pow(a, b):
    return math.pow(a, b)


@Pointwise
def _pow_grad_a(dy, a, b):
    one = type(b)(1)
    return dy * (type(a)(0) if b == 0 else b * math.pow(a, b - one))


@Pointwise
def _pow_grad_b(dy, a, y):
    return dy * (type(a)(0) if a == 0 and y == 0 else y * math.log(a))


def pow(a: Array, b: Array, y: Out) -> Array:
    """y = a ** b."""
    return _pow((a, b), y)


def pow_grad_a(dy: Array, a: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy b a ** (b - 1), and 0 where b is 0, at a = 0 too."""
    return _gradient(_pow_grad_a, (dy, a, b), da, add)


def pow_grad_b(dy: Array, a: Array, y: Array, db: Out, add: bool) -> Array:
    """db = dy y log a, and 0 where a and y are 0: the limit for positive b."""
    return _gradient(_pow_grad_b, (dy, a, y), db, add)


@Pointwise
def _maximum(a, b):
    return a if a > b or a != a else b  # the built-in max would lose a NaN


@Pointwise
def _maximum_grad_a(dy, a, b):
    share = type(a)(0.5) if a == b else type(a)(a > b)
    return dy * share


@Pointwise
def _maximum_grad_b(dy, a, b):
    share = type(a)(0.5) if a == b else type(a)(b > a)
    return dy * share


def maximum(a: Array, b: Array, y: Out) -> Array:
    """y = the larger of a and b; NaN where either is NaN."""
    return _maximum((a, b), y)


def maximum_grad_a(dy: Array, a: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy where a is larger, dy / 2 where a = b."""
    return _gradient(_maximum_grad_a, (dy, a, b), da, add)


def maximum_grad_b(dy: Array, a: Array, b: Array, db: Out, add: bool) -> Array:
    """db = dy where b is larger, dy / 2 where a = b."""
    return _gradient(_maximum_grad_b, (dy, a, b), db, add)


_neg = Pointwise(lambda x: -x, "neg")
_neg_grad = Pointwise(lambda dy: -dy, "neg_grad")


def neg(x: Array, y: Out) -> Array:
    """y = -x."""
    return _neg((x,), y)


def neg_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = -dy."""
    return _gradient(_neg_grad, (dy,), dx, add)


_exp = Pointwise(lambda x: math.exp(x), "exp")
_exp_grad = Pointwise(lambda dy, y: dy * y, "exp_grad")


def exp(x: Array, y: Out) -> Array:
    """y = e ** x."""
    return _exp((x,), y)


def exp_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy y."""
    return _gradient(_exp_grad, (dy, y), dx, add)


_log = Pointwise(lambda x: math.log(x), "log")
_log_grad = Pointwise(lambda dy, x: dy / x, "log_grad")


def log(x: Array, y: Out) -> Array:
    """y = natural logarithm of x: -inf at 0, NaN below."""
    return _log((x,), y)


def log_grad(dy: Array, x: Array, dx: Out, add: bool) -> Array:
    """dx = dy / x."""
    return _gradient(_log_grad, (dy, x), dx, add)


_sqrt = Pointwise(lambda x: math.sqrt(x), "sqrt")
_sqrt_grad = Pointwise(lambda dy, y: dy / (y + y), "sqrt_grad")


def sqrt(x: Array, y: Out) -> Array:
    """y = square root of x: NaN below 0."""
    return _sqrt((x,), y)


def sqrt_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy / (2 y)."""
    return _gradient(_sqrt_grad, (dy, y), dx, add)


@Pointwise
def _relu(x):
    return type(x)(0) if x <= 0 else x


@Pointwise
def _relu_grad(dy, y):
    return type(dy)(0) if y <= 0 else dy


def relu(x: Array, y: Out) -> Array:
    """y = x where x > 0, else 0; NaN stays NaN."""
    return _relu((x,), y)


def relu_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = 0 where y <= 0, else dy: the slope at 0 is 0, and NaN lets the gradient through."""
    return _gradient(_relu_grad, (dy, y), dx, add)


_RELATIONS = {
    "lt": Pointwise(lambda a, b: a < b, "lt", floats=False),
    "le": Pointwise(lambda a, b: a <= b, "le", floats=False),
    "gt": Pointwise(lambda a, b: a > b, "gt", floats=False),
    "ge": Pointwise(lambda a, b: a >= b, "ge", floats=False),
    "eq": Pointwise(lambda a, b: a == b, "eq", floats=False),
    "ne": Pointwise(lambda a, b: a != b, "ne", floats=False),
}


def compare(a: Array, b: Array, y: Out, relation: str) -> Array:
    """y = (a relation b), booleans; relation is "lt", "le", "gt", "ge", "eq" or "ne"."""
    return _RELATIONS[relation]((a, b), y)
