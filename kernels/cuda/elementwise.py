"""Elementwise maths with broadcasting, and the gradients.

Each kernel is one of the skeletons of `pointwise.py` around a scalar function, which it carries the
name of. A gradient with respect to an input that was broadcast is computed for every element, then
summed over the axes of the broadcast, in a fixed order.
"""

from collections.abc import Sequence

from .. import scalars
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


_add = Pointwise(scalars.add)


def add(a: Array, b: Array, y: Out) -> Array:
    """y = a + b."""
    return _add((a, b), y)


def add_grad_a(dy: Array, da: Out, add: bool) -> Array:
    """da = dy."""
    return copy(dy, da, add) if da.shape == dy.shape else _sum_to(dy, da, add)


def add_grad_b(dy: Array, db: Out, add: bool) -> Array:
    """db = dy."""
    return add_grad_a(dy, db, add)


_sub = Pointwise(scalars.sub)


def sub(a: Array, b: Array, y: Out) -> Array:
    """y = a - b."""
    return _sub((a, b), y)


def sub_grad_a(dy: Array, da: Out, add: bool) -> Array:
    """da = dy."""
    return add_grad_a(dy, da, add)


_sub_grad_b = Pointwise(scalars.sub_grad_b)


def sub_grad_b(dy: Array, db: Out, add: bool) -> Array:
    """db = -dy."""
    return _gradient(_sub_grad_b, (dy,), db, add)


_mul = Pointwise(scalars.mul)
_mul_grad_a = Pointwise(scalars.mul_grad_a)
_mul_grad_b = Pointwise(scalars.mul_grad_b)


def mul(a: Array, b: Array, y: Out) -> Array:
    """y = a b."""
    return _mul((a, b), y)


def mul_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy b."""
    return _gradient(_mul_grad_a, (dy, b), da, add)


def mul_grad_b(dy: Array, a: Array, db: Out, add: bool) -> Array:
    """db = dy a."""
    return _gradient(_mul_grad_b, (dy, a), db, add)


_div = Pointwise(scalars.div)
_div_grad_a = Pointwise(scalars.div_grad_a)
_div_grad_b = Pointwise(scalars.div_grad_b)


def div(a: Array, b: Array, y: Out) -> Array:
    """y = a / b."""
    return _div((a, b), y)


def div_grad_a(dy: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy / b."""
    return _gradient(_div_grad_a, (dy, b), da, add)


def div_grad_b(dy: Array, b: Array, y: Array, db: Out, add: bool) -> Array:
    """db = -dy y / b."""
    return _gradient(_div_grad_b, (dy, y, b), db, add)


_pow = Pointwise(scalars.pow)


_pow_grad_a = Pointwise(scalars.pow_grad_a)


_pow_grad_b = Pointwise(scalars.pow_grad_b)


def pow(a: Array, b: Array, y: Out) -> Array:
    """y = a ** b."""
    return _pow((a, b), y)


def pow_grad_a(dy: Array, a: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy b a ** (b - 1), and 0 where b is 0, at a = 0 too."""
    return _gradient(_pow_grad_a, (dy, a, b), da, add)


def pow_grad_b(dy: Array, a: Array, y: Array, db: Out, add: bool) -> Array:
    """db = dy y log a, and 0 where a and y are 0: the limit for positive b."""
    return _gradient(_pow_grad_b, (dy, a, y), db, add)


_maximum = Pointwise(scalars.maximum)


_maximum_grad_a = Pointwise(scalars.maximum_grad_a)


_maximum_grad_b = Pointwise(scalars.maximum_grad_b)


def maximum(a: Array, b: Array, y: Out) -> Array:
    """y = the larger of a and b; NaN where either is NaN."""
    return _maximum((a, b), y)


def maximum_grad_a(dy: Array, a: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy where a is larger or either is NaN, dy / 2 where a = b."""
    return _gradient(_maximum_grad_a, (dy, a, b), da, add)


def maximum_grad_b(dy: Array, a: Array, b: Array, db: Out, add: bool) -> Array:
    """db = dy where b is larger or either is NaN, dy / 2 where a = b."""
    return _gradient(_maximum_grad_b, (dy, a, b), db, add)


_minimum = Pointwise(scalars.minimum)
_minimum_grad_a = Pointwise(scalars.minimum_grad_a)
_minimum_grad_b = Pointwise(scalars.minimum_grad_b)


def minimum(a: Array, b: Array, y: Out) -> Array:
    """y = the smaller of a and b; NaN where either is NaN."""
    return _minimum((a, b), y)


def minimum_grad_a(dy: Array, a: Array, b: Array, da: Out, add: bool) -> Array:
    """da = dy where a is smaller or either is NaN, dy / 2 where a = b."""
    return _gradient(_minimum_grad_a, (dy, a, b), da, add)


def minimum_grad_b(dy: Array, a: Array, b: Array, db: Out, add: bool) -> Array:
    """db = dy where b is smaller or either is NaN, dy / 2 where a = b."""
    return _gradient(_minimum_grad_b, (dy, a, b), db, add)


_where = Pointwise(scalars.where, floats=False)
_where_grad_a = Pointwise(scalars.where_grad_a, floats=False)
_where_grad_b = Pointwise(scalars.where_grad_b, floats=False)


def where(cond: Array, a: Array, b: Array, y: Out) -> Array:
    """y = a where cond, else b."""
    return _where((cond, a, b), y)


def where_grad_a(dy: Array, cond: Array, da: Out, add: bool) -> Array:
    """da = dy where cond, else 0."""
    return _gradient(_where_grad_a, (dy, cond), da, add)


def where_grad_b(dy: Array, cond: Array, db: Out, add: bool) -> Array:
    """db = 0 where cond, else dy."""
    return _gradient(_where_grad_b, (dy, cond), db, add)


_neg = Pointwise(scalars.neg)
_neg_grad = Pointwise(scalars.neg_grad)


def neg(x: Array, y: Out) -> Array:
    """y = -x."""
    return _neg((x,), y)


def neg_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = -dy."""
    return _gradient(_neg_grad, (dy,), dx, add)


_abs = Pointwise(scalars.abs)
_abs_grad = Pointwise(scalars.abs_grad)


def abs(x: Array, y: Out) -> Array:
    """y = |x|."""
    return _abs((x,), y)


def abs_grad(dy: Array, x: Array, dx: Out, add: bool) -> Array:
    """dx = dy where x > 0, -dy where x < 0, 0 at 0 and at NaN."""
    return _abs_grad((dy, x), dx, add)


_exp = Pointwise(scalars.exp)
_exp_grad = Pointwise(scalars.exp_grad)


def exp(x: Array, y: Out) -> Array:
    """y = e ** x."""
    return _exp((x,), y)


def exp_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy y."""
    return _gradient(_exp_grad, (dy, y), dx, add)


_log = Pointwise(scalars.log)
_log_grad = Pointwise(scalars.log_grad)


def log(x: Array, y: Out) -> Array:
    """y = natural logarithm of x: -inf at 0, NaN below."""
    return _log((x,), y)


def log_grad(dy: Array, x: Array, dx: Out, add: bool) -> Array:
    """dx = dy / x."""
    return _gradient(_log_grad, (dy, x), dx, add)


_sqrt = Pointwise(scalars.sqrt)
_sqrt_grad = Pointwise(scalars.sqrt_grad)


def sqrt(x: Array, y: Out) -> Array:
    """y = square root of x: NaN below 0."""
    return _sqrt((x,), y)


def sqrt_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy / (2 y)."""
    return _gradient(_sqrt_grad, (dy, y), dx, add)


_clip = Pointwise(scalars.clip, 2)
_clip_grad = Pointwise(scalars.clip_grad, 2)


def clip(x: Array, y: Out, low: float, high: float) -> Array:
    """y = x, but at least low and at most high (high wins); NaN stays NaN."""
    return _clip((x,), y, False, low, high)


def clip_grad(dy: Array, x: Array, dx: Out, low: float, high: float, add: bool) -> Array:
    """dx = dy where low <= x <= high, else 0; 0 at NaN, too."""
    return _clip_grad((dy, x), dx, add, low, high)


_relu = Pointwise(scalars.relu)


_relu_grad = Pointwise(scalars.relu_grad)


def relu(x: Array, y: Out) -> Array:
    """y = x where x > 0, else 0; NaN stays NaN."""
    return _relu((x,), y)


def relu_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = 0 where y <= 0, else dy: the slope at 0 is 0, and NaN lets the gradient through."""
    return _gradient(_relu_grad, (dy, y), dx, add)


_relu6 = Pointwise(scalars.relu6)
_relu6_grad = Pointwise(scalars.relu6_grad)


def relu6(x: Array, y: Out) -> Array:
    """y = x between 0 and 6, 0 below and 6 above; NaN stays NaN."""
    return _relu6((x,), y)


def relu6_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = 0 where y <= 0 or y >= 6, else dy: as in relu, NaN lets the gradient through."""
    return _relu6_grad((dy, y), dx, add)


_leaky_relu = Pointwise(scalars.leaky_relu, 1)
_leaky_relu_grad = Pointwise(scalars.leaky_relu_grad, 1)


def leaky_relu(x: Array, y: Out, negative_slope: float) -> Array:
    """y = x where x > 0, else negative_slope x."""
    return _leaky_relu((x,), y, False, negative_slope)


def leaky_relu_grad(dy: Array, x: Array, dx: Out, negative_slope: float, add: bool) -> Array:
    """dx = dy where x > 0, else negative_slope dy: at 0 and at NaN, too."""
    return _leaky_relu_grad((dy, x), dx, add, negative_slope)


_elu = Pointwise(scalars.elu, 1)
_elu_grad = Pointwise(scalars.elu_grad, 1)


def elu(x: Array, y: Out, alpha: float) -> Array:
    """y = x where x > 0, else alpha (e ** x - 1)."""
    return _elu((x,), y, False, alpha)


def elu_grad(dy: Array, x: Array, dx: Out, alpha: float, add: bool) -> Array:
    """dx = dy where x > 0, else alpha e ** x dy: at 0, too."""
    return _elu_grad((dy, x), dx, add, alpha)


_sigmoid = Pointwise(scalars.sigmoid)
_sigmoid_grad = Pointwise(scalars.sigmoid_grad)


def sigmoid(x: Array, y: Out) -> Array:
    """y = 1 / (1 + e ** -x)."""
    return _sigmoid((x,), y)


def sigmoid_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy y (1 - y)."""
    return _sigmoid_grad((dy, y), dx, add)


_tanh = Pointwise(scalars.tanh)
_tanh_grad = Pointwise(scalars.tanh_grad)


def tanh(x: Array, y: Out) -> Array:
    """y = (e ** x - e ** -x) / (e ** x + e ** -x)."""
    return _tanh((x,), y)


def tanh_grad(dy: Array, y: Array, dx: Out, add: bool) -> Array:
    """dx = dy (1 - y y), as a product, in which nothing cancels."""
    return _tanh_grad((dy, y), dx, add)


_silu = Pointwise(scalars.silu)
_silu_grad = Pointwise(scalars.silu_grad)


def silu(x: Array, y: Out) -> Array:
    """y = x sigmoid(x); NaN at -inf."""
    return _silu((x,), y)


def silu_grad(dy: Array, x: Array, dx: Out, add: bool) -> Array:
    """dx = dy (s + x s (1 - s)), s = sigmoid(x); NaN at -inf and inf."""
    return _silu_grad((dy, x), dx, add)


_GELU = {"none": Pointwise(scalars.gelu), "tanh": Pointwise(scalars.gelu_tanh)}
_GELU_GRAD = {"none": Pointwise(scalars.gelu_grad), "tanh": Pointwise(scalars.gelu_tanh_grad)}


def gelu(x: Array, y: Out, approximate: str) -> Array:
    """y = x times the normal distribution function of x; NaN at -inf.

    approximate: "none", or "tanh" for x sigmoid(w), w = sqrt(8 / pi) (x + 0.044715 x ** 3).
    """
    return _GELU[approximate]((x,), y)


def gelu_grad(dy: Array, x: Array, dx: Out, approximate: str, add: bool) -> Array:
    """dx = dy (P + x P'), P being what gelu multiplies x with; NaN at -inf and inf."""
    return _GELU_GRAD[approximate]((dy, x), dx, add)


_softplus = Pointwise(scalars.softplus, 2)
_softplus_grad = Pointwise(scalars.softplus_grad, 2)


def softplus(x: Array, y: Out, beta: float, threshold: float) -> Array:
    """y = log(1 + e ** (beta x)) / beta, and x itself where beta x > threshold."""
    return _softplus((x,), y, False, beta, threshold)


def softplus_grad(dy: Array, x: Array, dx: Out, beta: float, threshold: float, add: bool) -> Array:
    """dx = dy sigmoid(beta x), and dy where beta x > threshold."""
    return _softplus_grad((dy, x), dx, add, beta, threshold)


_RELATIONS = {
    scalar.__name__: Pointwise(scalar, floats=False)
    for scalar in (scalars.lt, scalars.le, scalars.gt, scalars.ge, scalars.eq, scalars.ne)
}


def compare(a: Array, b: Array, y: Out, relation: str) -> Array:
    """y = (a relation b), booleans; relation is "lt", "le", "gt", "ge", "eq" or "ne"."""
    return _RELATIONS[relation]((a, b), y)
