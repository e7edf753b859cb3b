"""The ops under PyTorch's names and argument names. Images are (N, H, W, C), weights (in, out)."""

from typing import Any

from .. import check, ops
from ..later import later
from ..ops import exp, log, relu, sqrt
from ..random import Generator, default_generator
from ..tensor import Tensor

__getattr__, _later = later(
    __name__,
    ctc="ctc_loss",
    depthwise="depthwise_conv2d",
    pool="avg_pool2d global_avg_pool2d",
    losses="binary_cross_entropy binary_cross_entropy_with_logits huber_loss kl_div l1_loss "
    "mse_loss nll_loss smooth_l1_loss",
    activation="elu gelu leaky_relu relu6 sigmoid silu softplus tanh",
    embedding="embedding",
    padding="pad",
    sequence="conv1d",
)
__all__ = [
    "batch_norm", "conv2d", "cross_entropy", "dropout", "exp", "flatten", "layer_norm", "linear",
    "log", "log_softmax", "max_pool2d", "relu", "softmax", "sqrt", *_later,
]  # fmt: skip


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """input (..., I) times weight (I, O), plus bias (O,) -> (..., O): see ops.linear."""
    if input.ndim in (0, 2) or input.shape[-1] != weight.shape[0]:
        return ops.linear(input, weight, bias, relu=relu)
    rows = ops.linear(ops.reshape(input, shape=(-1, input.shape[-1])), weight, bias, relu=relu)
    return ops.reshape(rows, shape=(*input.shape[:-1], weight.shape[1]))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    relu: bool = False,
) -> Tensor:
    """Convolution of input (N, H, W, C) with weight (KH, KW, C / groups, F): see ops.conv2d."""
    how = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    return ops.conv2d(input, weight, bias, **how, relu=relu)


def max_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """The maximum of each window of input (N, H, W, C)."""
    return ops.max_pool2d(input, size=kernel_size, stride=stride, padding=padding)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    relu: bool = False,
) -> Tensor:
    """Normalise each channel of input (..., C); training moves the running statistics."""
    statistics = [t for t in (running_mean, running_var) if t is not None]
    y = ops.batch_norm(
        input, weight, bias, running_mean, running_var,
        training=training, momentum=momentum, eps=eps, relu=relu,
    )  # fmt: skip
    for t in statistics if training else ():
        t.changed()
    return y


def layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each row of input (..., *normalized_shape) over its last axes."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    return ops.layer_norm(input, weight, bias, normalized_shape=shape, eps=eps)


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Tensor:
    """Zero each element with probability p and scale the rest by 1 / (1 - p), in training."""
    if not 0 <= p <= 1:
        check.fail("dropout", f"the probability p is {p}, but must lie in [0, 1]")
    if not training or p == 0:
        return input
    generator = generator or default_generator(input.device)
    return ops.dropout(input, generator.state, p=p)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from start_dim to end_dim made one."""
    return input.flatten(start_dim, end_dim)


def softmax(input: Tensor, dim: int = -1) -> Tensor:
    """exp x / sum of exp x along dim."""
    return ops.softmax(input, axis=dim)


def log_softmax(input: Tensor, dim: int = -1) -> Tensor:
    """log(exp x / sum of exp x) along dim."""
    return ops.log_softmax(input, axis=dim)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target] of logits (N, C) and class numbers (N,), or probabilities (N, C).

    Rows whose target is ignore_index do not count. It is unset here, not -100, so that a wrong
    label is an error; the mean divides by the weights of the rows that count.
    """
    soft = target.ndim == 2 and getattr(target, "dtype", None) in ("float32", "float64")
    if weight is None and ignore_index is None and not label_smoothing and not soft:
        return ops.cross_entropy(input, target, reduction=reduction)
    from . import losses  # when first used: few networks need more

    return losses.cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)
