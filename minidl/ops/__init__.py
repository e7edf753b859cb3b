"""The ops, and the table that makes them Tensor's operators and methods."""

from typing import Any

from ..kernels import shapes
from ..later import later
from ..tensor import Tensor
from .elementwise import add, compare, div, exp, log, maximum, mul, neg, pow, relu, sqrt, sub
from .linear import linear, matmul
from .loss import cross_entropy, log_softmax, softmax
from .norm import batch_norm, layer_norm
from .random import dropout
from .reduce import argmax, argmin, max, mean, min, std, sum, var
from .shape import astype, getitem, permute, reshape, take
from .window import conv2d, max_pool2d

# What few networks need: file and names.
_load, _later = later(
    __name__,
    activation="elu gelu leaky_relu relu6 sigmoid silu softplus tanh",
    ctc="ctc_loss",
    depthwise="depthwise_conv2d",
    distance="binary_cross_entropy binary_cross_entropy_with_logits huber_loss kl_div l1_loss "
    "mse_loss smooth_l1_loss",
    index="embedding gather pad",
    join="cat chunk concat split stack",
    pool="avg_pool2d",
    recurrent="gru",
    select="abs clip minimum where",
    sequence="conv1d",
    likelihood="cross_entropy_soft cross_entropy_weighted nll_loss",
)
__getattr__ = _load
__all__ = [
    "add", "argmax", "argmin", "astype", "batch_norm", "compare", "conv2d", "cross_entropy", "div",
    "dropout", "exp", "getitem", "layer_norm", "linear", "log", "log_softmax", "matmul", "max",
    "max_pool2d", "maximum", "mean", "min", "mul", "neg", "permute", "pow", "relu", "reshape",
    "softmax", "sqrt", "std", "sub", "sum", "take", "var", *_later,
]  # fmt: skip


def _reversed(op: Any) -> Any:
    return lambda self, other: op(other, self)


def _relation(relation: str) -> Any:
    return lambda self, other: compare(self, other, relation=relation)


def _loaded(name: str) -> Any:
    return lambda *inputs, **static: _load(name)(*inputs, **static)


def _reduction(op: Any) -> Any:
    def method(
        self: Tensor,
        axis: Any = None,
        keepdims: bool = False,
        *,
        dim: Any = None,
        keepdim: bool = False,
        **static: Any,
    ) -> Tensor:
        axis = dim if axis is None else axis  # PyTorch's names are welcome
        return op(self, axis=axis, keepdims=keepdims or keepdim, **static)

    method.__doc__, method.__name__ = op.__doc__, op.__name__
    return method


def _is_array(key: Any) -> bool:
    return isinstance(key, list) or bool(getattr(key, "shape", ()))


def _index(self: Tensor, key: Any) -> Tensor:
    """x[key]: a view for numbers, slices, None and ...; rows for a list or array of integers."""
    if isinstance(key, Tensor):
        key = key.data
    if _is_array(key):
        none = isinstance(key, list) and not key  # or Tensor would make floats of nothing
        index = Tensor(key, dtype="int64" if none else None, device=self.device)
        if index.dtype.kind == "b":
            raise TypeError("getitem: index with a mask is not there; use np.flatnonzero(mask)")
        return take(self, index)
    return getitem(self, key=key)


def _clip(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """x, but at least min and at most max, of which one may be None; the slope at both is 1."""
    return _load("clip")(self, min=min, max=max)


def _shape_of(shape: tuple) -> tuple:
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape


def _flatten(self: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from start_dim to end_dim made one."""
    shape = self.shape or (1,)
    first, last = range(len(shape))[start_dim], range(len(shape))[end_dim]
    middle = shapes.count(shape[first : last + 1])
    return reshape(self, shape=(*shape[:first], middle, *shape[last + 1 :]))


_METHODS = {
    "__add__": add,
    "__radd__": _reversed(add),
    "__sub__": sub,
    "__rsub__": _reversed(sub),
    "__mul__": mul,
    "__rmul__": _reversed(mul),
    "__truediv__": div,
    "__rtruediv__": _reversed(div),
    "__pow__": pow,
    "__rpow__": _reversed(pow),
    "__matmul__": matmul,
    "__rmatmul__": _reversed(matmul),
    "__neg__": neg,
    "__lt__": _relation("lt"),
    "__le__": _relation("le"),
    "__gt__": _relation("gt"),
    "__ge__": _relation("ge"),
    "__eq__": _relation("eq"),
    "__ne__": _relation("ne"),
    "__getitem__": _index,
    "exp": exp,
    "log": log,
    "sqrt": sqrt,
    "relu": relu,
    **{name: _loaded(name) for name in ("abs", "chunk", "minimum", "sigmoid", "split", "tanh")},
    "__abs__": _loaded("abs"),
    "maximum": maximum,
    "clip": _clip,
    "clamp": _clip,
    "where": lambda self, condition, other: _load("where")(condition, self, other),
    "gather": lambda self, dim, index: _load("gather")(self, index, axis=dim),
    "softmax": lambda self, dim=-1: softmax(self, axis=dim),
    "log_softmax": lambda self, dim=-1: log_softmax(self, axis=dim),
    "sum": _reduction(sum),
    "mean": _reduction(mean),
    "var": _reduction(var),
    "std": _reduction(std),
    "max": _reduction(max),
    "min": _reduction(min),
    "argmax": _reduction(argmax),
    "argmin": _reduction(argmin),
    "reshape": lambda self, *shape: reshape(self, shape=_shape_of(shape)),
    "view": lambda self, *shape: reshape(self, shape=_shape_of(shape)),
    "permute": lambda self, *axes: permute(self, axes=_shape_of(axes)),
    "transpose": lambda self, *axes: permute(
        self, axes=_shape_of(axes) if axes else tuple(reversed(range(self.ndim)))
    ),
    "T": property(lambda self: permute(self, axes=tuple(reversed(range(self.ndim))))),
    "flatten": _flatten,
    "astype": lambda self, dtype: astype(self, dtype=dtype),
}
for _name, _method in _METHODS.items():
    setattr(Tensor, _name, _method)
