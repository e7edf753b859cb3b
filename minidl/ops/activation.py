"""Functions of each element that some networks put between their layers; `relu` has no part here.

Loaded when the first of them is asked for.
"""

from .. import check
from ..op import op


@op
def relu6(k, x):
    """x between 0 and 6, which it does not leave; its slope at both is 0."""
    y = k.relu6(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.relu6_grad(dy, y, dx, add)

    return y, (grad_x,)


@op
def leaky_relu(k, x, *, negative_slope=0.01):
    """x where it is positive, else negative_slope x."""
    negative_slope = float(negative_slope)
    y = k.leaky_relu(x, k.empty_like(x), negative_slope)

    def grad_x(dy, dx, add):
        return k.leaky_relu_grad(dy, x, dx, negative_slope, add)

    return y, (grad_x,)


@op
def elu(k, x, *, alpha=1.0):
    """x where it is positive, else alpha (e ** x - 1)."""
    alpha = float(alpha)
    y = k.elu(x, k.empty_like(x), alpha)

    def grad_x(dy, dx, add):
        return k.elu_grad(dy, x, dx, alpha, add)

    return y, (grad_x,)


@op
def silu(k, x):
    """x sigmoid(x)."""
    y = k.silu(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.silu_grad(dy, x, dx, add)

    return y, (grad_x,)


@op
def gelu(k, x, *, approximate="none"):
    """x times the share of a normal distribution that lies below x.

    approximate: "none", or "tanh" for a formula without the error function.
    """
    if approximate not in ("none", "tanh"):
        check.fail("gelu", f"unknown approximation {approximate!r}; known: none, tanh", x=x)
    y = k.gelu(x, k.empty_like(x), approximate)

    def grad_x(dy, dx, add):
        return k.gelu_grad(dy, x, dx, approximate, add)

    return y, (grad_x,)


@op
def softplus(k, x, *, beta=1.0, threshold=20.0):
    """log(1 + e ** (beta x)) / beta; x itself where beta x is above the threshold."""
    beta, threshold = float(beta), float(threshold)
    if not beta > 0:
        check.fail("softplus", f"beta is {beta:g}, but must be positive", x=x)
    y = k.softplus(x, k.empty_like(x), beta, threshold)

    def grad_x(dy, dx, add):
        return k.softplus_grad(dy, x, dx, beta, threshold, add)

    return y, (grad_x,)


@op
def sigmoid(k, x):
    """1 / (1 + e ** -x)."""
    y = k.sigmoid(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.sigmoid_grad(dy, y, dx, add)

    return y, (grad_x,)


@op
def tanh(k, x):
    """The hyperbolic tangent of x."""
    y = k.tanh(x, k.empty_like(x))

    def grad_x(dy, dx, add):
        return k.tanh_grad(dy, y, dx, add)

    return y, (grad_x,)
