"""Functions of numbers, written once: what a kernel does to each element, on CUDA and on the CPU.

Each is named after its kernel and takes the kernel's inputs, then its static numbers, all of one
dtype; NaN and inf come out where the definition has them. Constants are put in the dtype of an
argument by `type(x)(...)`, for a plain one would turn float32 into float64. They call nothing but
`math`: so each skeleton can compile them in its own way.
"""

import math

_ROOT_HALF = math.sqrt(1 / 2)
_BELL = 1 / math.sqrt(2 * math.pi)  # the normal density at 0
_SLOPE = math.sqrt(8 / math.pi)  # of gelu's approximation: x sigmoid(_SLOPE (x + _CUBIC x ** 3))
_CUBIC = 0.044715


def copy(x):
    return x


def add(a, b):
    return a + b


def sub(a, b):
    return a - b


def sub_grad_b(dy):
    return -dy


def mul(a, b):
    return a * b


def mul_grad_a(dy, b):
    return dy * b


def mul_grad_b(dy, a):
    return dy * a


def div(a, b):
    return a / b


def div_grad_a(dy, b):
    return dy / b


def div_grad_b(dy, y, b):
    return -dy * y / b


def pow(a, b):
    return math.pow(a, b)


def pow_grad_a(dy, a, b):
    one = type(b)(1)
    return dy * (type(a)(0) if b == 0 else b * math.pow(a, b - one))


def pow_grad_b(dy, a, y):
    return dy * (type(a)(0) if a == 0 and y == 0 else y * math.log(a))


def maximum(a, b):
    return a if a > b or a != a else b  # the built-in max would lose a NaN


def maximum_grad_a(dy, a, b):
    share = type(a)(0.5) if a == b else type(a)(not a < b)
    return dy * share


def maximum_grad_b(dy, a, b):
    share = type(a)(0.5) if a == b else type(a)(not b < a)
    return dy * share


def minimum(a, b):
    return a if a < b or a != a else b


def minimum_grad_a(dy, a, b):
    share = type(a)(0.5) if a == b else type(a)(not a > b)
    return dy * share


def minimum_grad_b(dy, a, b):
    share = type(a)(0.5) if a == b else type(a)(not b > a)
    return dy * share


def where(cond, a, b):
    return a if cond else b


def where_grad_a(dy, cond):
    return dy if cond else type(dy)(0)


def where_grad_b(dy, cond):
    return type(dy)(0) if cond else dy


def neg(x):
    return -x


def neg_grad(dy):
    return -dy


def abs(x):
    return math.fabs(x)


def abs_grad(dy, x):
    return dy if x > 0 else -dy if x < 0 else type(dy)(0)


def exp(x):
    return math.exp(x)


def exp_grad(dy, y):
    return dy * y


def log(x):
    return math.log(x)


def log_grad(dy, x):
    return dy / x


def sqrt(x):
    return math.sqrt(x)


def sqrt_grad(dy, y):
    return dy / (y + y)


def clip(x, low, high):
    at_least = low if x < low else x
    return high if at_least > high else at_least


def clip_grad(dy, x, low, high):
    return dy if low <= x and x <= high else type(dy)(0)


def relu(x):
    return type(x)(0) if x <= 0 else x


def relu_grad(dy, y):
    return type(dy)(0) if y <= 0 else dy


def relu6(x):
    at_least = type(x)(0) if x <= 0 else x
    return type(x)(6) if at_least > 6 else at_least


def relu6_grad(dy, y):
    return type(dy)(0) if y <= 0 or y >= 6 else dy


def leaky_relu(x, negative_slope):
    return x if x > 0 else x * negative_slope


def leaky_relu_grad(dy, x, negative_slope):
    return dy if x > 0 else dy * negative_slope


def elu(x, alpha):
    return alpha * math.expm1(x) if x <= 0 else x


def elu_grad(dy, x, alpha):
    return dy * alpha * math.exp(x) if x <= 0 else dy


def sigmoid(x):
    one = type(x)(1)
    return one / (one + math.exp(-x))


def sigmoid_grad(dy, y):
    return dy * y * (type(y)(1) - y)


def tanh(x):
    return math.tanh(x)


def tanh_grad(dy, y):
    one = type(y)(1)
    return dy * (one - y) * (one + y)  # 1 - y y would cancel


def silu(x):
    one = type(x)(1)
    return x / (one + math.exp(-x))


def silu_grad(dy, x):
    one = type(x)(1)
    z = math.exp(-math.fabs(x))  # at most 1, so that nothing overflows
    total = one + z
    sigmoid = (one if x >= 0 else z) / total
    return dy * (sigmoid + x * (z / (total * total)))


def gelu(x):
    return type(x)(0.5) * x * math.erfc(-x * type(x)(_ROOT_HALF))


def gelu_grad(dy, x):
    half = type(x)(0.5)
    share = half * math.erfc(-x * type(x)(_ROOT_HALF))
    return dy * (share + x * (type(x)(_BELL) * math.exp(-half * x * x)))


def gelu_tanh(x):
    one = type(x)(1)
    w = type(x)(_SLOPE) * (x + type(x)(_CUBIC) * x * x * x)
    return x / (one + math.exp(-w))


def gelu_tanh_grad(dy, x):
    one, slope = type(x)(1), type(x)(_SLOPE)
    w = slope * (x + type(x)(_CUBIC) * x * x * x)
    z = math.exp(-math.fabs(w))
    total = one + z
    sigmoid = (one if w >= 0 else z) / total
    steep = slope * (one + type(x)(3 * _CUBIC) * x * x)
    return dy * (sigmoid + x * (z / (total * total)) * steep)


def softplus(x, beta, threshold):
    w = beta * x
    if w > threshold:
        return x
    return ((type(x)(0) if w <= 0 else w) + math.log1p(math.exp(-math.fabs(w)))) / beta


def softplus_grad(dy, x, beta, threshold):
    one, w = type(x)(1), beta * x
    return dy if w > threshold else dy / (one + math.exp(-w))


def lt(a, b):
    return a < b


def le(a, b):
    return a <= b


def gt(a, b):
    return a > b


def ge(a, b):
    return a >= b


def eq(a, b):
    return a == b


def ne(a, b):
    return a != b
