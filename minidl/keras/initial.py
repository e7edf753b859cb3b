"""Initial values of weights, by Keras's names. Normal ones are not cut at two deviations."""

from collections.abc import Callable

from ..nn import init
from ..tensor import Tensor

INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "glorot_uniform": init.xavier_uniform_,
    "he_uniform": lambda w: init.kaiming_uniform_(w, nonlinearity="relu"),
    "he_normal": lambda w: init.kaiming_normal_(w, nonlinearity="relu"),
    "random_normal": lambda w: init.normal_(w, 0.0, 0.05),
    "random_uniform": lambda w: init.uniform_(w, -0.05, 0.05),
    "uniform": lambda w: init.uniform_(w, -0.05, 0.05),
    "zeros": init.zeros_,
    "ones": init.ones_,
}
