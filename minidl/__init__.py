"""minidl: a small deep-learning framework whose every kernel can be read, run and checked."""

import importlib as _importlib
from pathlib import Path as _Path
from typing import Any as _Any

_here = _Path(__file__).parent
if not (_here / "kernels").is_dir():  # a checkout: kernels/ lies beside minidl/, not inside it
    __path__.append(str(_here.parent))

from . import ops  # noqa: E402
from .autograd import no_grad  # noqa: E402
from .backend import Device, device  # noqa: E402
from .capture import capture, profile  # noqa: E402
from .ops import (  # noqa: E402
    add,
    argmax,
    div,
    exp,
    log,
    matmul,
    max,
    maximum,
    mean,
    mul,
    neg,
    permute,
    pow,
    relu,
    reshape,
    sqrt,
    sub,
    sum,
    take,
)
from .ops.linear import set_matmul  # noqa: E402
from .random import Generator, manual_seed, rand, randn  # noqa: E402
from .tensor import Tensor, from_dlpack, tensor  # noqa: E402
from .version import __version__  # noqa: E402


def op(function: _Any = None, **options: _Any) -> _Any:
    """Make an op, of kernels of your own (forward=, backward=, reference=): see custom.op."""
    from .custom import op as make

    return make(function, **options)


__all__ = [
    "__version__", "abs", "add", "argmax", "capture", "cat", "chunk", "clip", "concat", "Device",
    "device", "div", "exp", "from_dlpack", "Generator", "log", "manual_seed", "matmul", "max",
    "maximum", "mean", "minimum", "mul", "neg", "no_grad", "op", "ops", "permute", "pow", "profile",
    "rand", "randn", "relu", "reshape", "set_matmul", "sigmoid", "split", "sqrt", "stack", "sub",
    "sum", "take", "tanh", "Tensor", "tensor", "where",
]  # fmt: skip

_LATER = (
    "callbacks", "cuda", "data", "io", "keras", "kernels", "metrics", "models", "nn", "optim",
    "plot", "prune", "sparse", "train", "tune",
)  # fmt: skip
_ELSEWHERE = {
    "load": "io", "save": "io", "set_num_threads": "threads", "get_num_threads": "threads",
    "set_conv": "convolution", "get_conv": "convolution", "lint": "linting",
    "find_lr": "lr_finder", "LintWarning": "mistakes",
    "detect_anomaly": "anomaly", "check_op": "custom", "from_nchw": "layout", "to_nchw": "layout",
}  # fmt: skip


def __getattr__(name: str) -> _Any:
    """minidl.nn, minidl.data ...: imported when first used, so that `import minidl` is quick."""
    if name in _LATER:
        return _importlib.import_module(f"minidl.{name}")
    if name in __all__:
        return getattr(ops, name)  # of those that ops loads when they are asked for
    if name in _ELSEWHERE:
        return getattr(_importlib.import_module(f"minidl.{_ELSEWHERE[name]}"), name)
    raise AttributeError(f"module 'minidl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_ELSEWHERE})
