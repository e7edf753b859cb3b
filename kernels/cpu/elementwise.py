"""Elementwise kernels in one pass, where NumPy takes several or one thread is not enough.

Each is the function of `scalars.py` that has its name, in a loop which LLVM turns into vectors, on
arrays of one shape. Few elements, and arrays that are broadcast, are NumPy's.
"""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from .. import reference, scalars
from ..reference.elementwise import silent
from ..roles import Array, Out, roles
from . import maths
from ._numba import PARALLEL, callable_within, loop, widest
from .memory import canonical, memory_order, outward, settle, target

# Elements below which NumPy is as fast, for it is called sooner: `python -m benchmarks.sizes`.
# By what NumPy does there: exp and the like; several passes; one; number by number in Python.
FEW = {"maths": 1 << 10, "passes": 1 << 11, "one pass": PARALLEL, "Python": 0}


def _loop(scalar: Callable[..., Any], arrays: int) -> Callable[..., None]:
    """f(start, stop, y, *inputs, numbers) to loop over so many arrays, compiled.

    The numbers are one tuple: Numba would look for the code of f(*numbers) anew in every call.
    """
    # the same code, in which `math` means functions that become vectors
    code, found = scalar.__code__, {**scalar.__globals__, "math": maths}
    inner = callable_within(FunctionType(code, found, scalar.__name__))

    def of_one(start, stop, y, a, numbers):
        widest()
        a, y = a[start:stop], y[start:stop]
        for i in range(y.size):
            y[i] = inner(a[i], *numbers)

    def of_two(start, stop, y, a, b, numbers):
        widest()
        a, b, y = a[start:stop], b[start:stop], y[start:stop]
        for i in range(y.size):
            y[i] = inner(a[i], b[i], *numbers)

    def of_three(start, stop, y, a, b, c, numbers):
        widest()
        a, b, c, y = a[start:stop], b[start:stop], c[start:stop], y[start:stop]
        for i in range(y.size):
            y[i] = inner(a[i], b[i], c[i], *numbers)

    kernel = (of_one, of_two, of_three)[arrays - 1]
    kernel.__qualname__ = f"_{scalar.__name__}"
    return loop(kernel, key=scalar.__name__)


def _each(
    name: str, few: str = "passes", of: Callable[..., Any] | None = None
) -> Callable[..., Array]:
    """The kernel of that name: its scalar function of each element.

    few: a row of FEW. of: another scalar function.
    """
    definition, scalar = getattr(reference, name), of or getattr(scalars, name)
    kinds = [*roles(definition).items()]
    place = next(i for i, (_, kind) in enumerate(kinds) if kind == "out")
    known = {parameter: i for i, (parameter, _) in enumerate(kinds)}
    order = [known[p] for p in inspect.signature(scalar).parameters if p in known]
    inputs = [i for i in order if i < place]
    numbers = [i for i in order if i > place]
    adds = kinds[-1][0] == "add"
    run = _loop(scalar, len(inputs))
    small = inspect.unwrap(definition)  # one call less: `quiet` is done here

    @functools.wraps(definition)
    def kernel(*args: Any) -> Array:
        y = args[place]
        if y.size < FEW[few] or y.dtype.char != "f":
            return silent().run(small, *args)
        size, shape = y.size, y.shape
        add = adds and args[-1]
        plain = y.flags.carray and not add
        for x in args[:place]:
            if x.shape != shape or x.dtype.char not in "f?":  # ?: conditions
                return definition(*args)
            plain = plain and x.flags.carray
        arrays, static = [args[i] for i in inputs], tuple(np.float32(args[i]) for i in numbers)
        if plain:
            run(size, size, y.ravel(), *[x.ravel() for x in arrays], static)
            return y
        axes = memory_order(y)
        out = outward(y, axes)
        value = target(out, add)
        flat = [canonical(outward(x, axes)).ravel() for x in arrays]
        run(size, size, value.reshape(-1), *flat, static)
        settle(value, out, add)
        return y

    kernel.__module__ = __name__
    return kernel


# NumPy, too, does these in one pass of vectors, but on one thread
add = _each("add", "one pass")
sub = _each("sub", "one pass")
mul = _each("mul", "one pass")
div = _each("div", "one pass")
maximum = _each("maximum", "one pass")
minimum = _each("minimum", "one pass")
neg = _each("neg", "one pass")
abs = _each("abs", "one pass")

sub_grad_b = _each("sub_grad_b")
mul_grad_a = _each("mul_grad_a")
mul_grad_b = _each("mul_grad_b")
div_grad_a = _each("div_grad_a")
div_grad_b = _each("div_grad_b")
maximum_grad_a = _each("maximum_grad_a")
maximum_grad_b = _each("maximum_grad_b")
minimum_grad_a = _each("minimum_grad_a")
minimum_grad_b = _each("minimum_grad_b")
where = _each("where")
where_grad_a = _each("where_grad_a")
where_grad_b = _each("where_grad_b")
neg_grad = _each("neg_grad")
abs_grad = _each("abs_grad")
exp_grad = _each("exp_grad")
log_grad = _each("log_grad")
sqrt_grad = _each("sqrt_grad")
clip = _each("clip")
clip_grad = _each("clip_grad")
relu = _each("relu")
relu_grad = _each("relu_grad")
relu6 = _each("relu6")
relu6_grad = _each("relu6_grad")
leaky_relu = _each("leaky_relu")
leaky_relu_grad = _each("leaky_relu_grad")
sigmoid_grad = _each("sigmoid_grad")
tanh_grad = _each("tanh_grad")

exp = _each("exp")
log = _each("log")
sqrt = _each("sqrt")
tanh = _each("tanh")
sigmoid = _each("sigmoid", "maths")
silu = _each("silu", "maths")
silu_grad = _each("silu_grad", "maths")
elu = _each("elu", "maths")
elu_grad = _each("elu_grad", "maths")
softplus = _each("softplus", "maths")
softplus_grad = _each("softplus_grad", "maths")

_GELU = {
    "none": _each("gelu", "Python"),
    "tanh": _each("gelu", "maths", of=scalars.gelu_tanh),
}
_GELU_GRAD = {
    "none": _each("gelu_grad", "Python"),
    "tanh": _each("gelu_grad", "maths", of=scalars.gelu_tanh_grad),
}


def gelu(x: Array, y: Out, approximate: str) -> Array:
    """y = x times the normal distribution function of x; NaN at -inf.

    approximate: "none", or "tanh" for x sigmoid(w), w = sqrt(8 / pi) (x + 0.044715 x ** 3).
    """
    return _GELU[approximate](x, y, approximate)


def gelu_grad(dy: Array, x: Array, dx: Out, approximate: str, add: bool) -> Array:
    """dx = dy (P + x P'), P being what gelu multiplies x with; NaN at -inf and inf."""
    return _GELU_GRAD[approximate](dy, x, dx, approximate, add)
