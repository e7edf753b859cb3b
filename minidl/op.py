"""@op: turns a function of (kernels, arrays) into a function of tensors that is recorded.

The function returns its output and one gradient function per input; their closure is the saved
state. A gradient function `grad(dy, out, add)` fills out (or adds to it) and returns it; a pure
view may return a view of dy instead. Gradients that share work are one function
`grad(dy, outs, adds)`. No gradient at all: None.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .autograd import Node, mode
from .tensor import Tensor


def op(
    function: Callable | None = None,
    *,
    integer: tuple[str, ...] = (),
    any_dtype: bool = False,
    view: bool = False,
) -> Any:
    """Make an op. Its inputs are floats of one dtype, but for those named in `integer`.

    any_dtype: no check of dtypes. view: the output may share memory with the first input.
    """
    if function is None:
        return functools.partial(_make, integer, any_dtype, view)
    return _make(integer, any_dtype, view, function)


def _make(integer: tuple[str, ...], any_dtype: bool, view: bool, function: Callable) -> Callable:
    name = function.__name__
    parameters = list(inspect.signature(function).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]

    @functools.wraps(function)
    def call(*inputs: Any, **static: Any) -> Tensor:
        device: Any = None
        dtype: Any = None
        arrays: list = []
        nodes: list = []
        recorded = False
        for i, t in enumerate(inputs):
            if t is None:
                arrays.append(None)
                nodes.append(None)
                continue
            if not isinstance(t, Tensor):
                return call(*_lift(name, inputs), **static)
            array, node = t.data, t.node
            if t.device is not device:
                device = _same_device(name, names, i, device, t.device)
            if (array.dtype is not dtype or integer) and not any_dtype:
                dtype = _same_dtype(name, names, i, array.dtype, dtype, integer)
            arrays.append(array)
            nodes.append(node)
            recorded = recorded or node is not None
        y, grads = function(device.kernels, *arrays, **static)
        result = Tensor.__new__(Tensor)
        result.data, result.node, result.device = y, None, device
        result.version = inputs[0].version if view else [0]
        if recorded and grads is not None and mode.recording:
            result.node = _record(name, inputs, nodes, grads, result)
        return result

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.raw = function  # type: ignore[attr-defined]  # arrays in, arrays out, on any kernels
    return call


def _record(name: str, inputs: tuple, nodes: list, grads: Any, y: Tensor) -> Node:
    if not callable(grads):  # what no input needs must not keep arrays alive
        grads = tuple([g if n is not None else None for g, n in zip(grads, nodes, strict=False)])
        nodes = [n if g is not None else None for g, n in zip(grads, nodes, strict=False)]
    data = y.data
    like = data.shape, data.dtype, y.device.kernels.memory_order(data)
    node = Node(name, tuple(nodes), grads, like, y.device)
    seen = [(t.version, t.version[0], id(t.data)) for t in inputs if t is not None]
    seen.append((y.version, y.version[0], id(data)))
    node.versions = tuple(seen)
    return node


def _lift(name: str, inputs: tuple) -> list:
    """Inputs as tensors: numbers and lists take dtype and device of the first tensor of floats."""
    tensors = [t for t in inputs if isinstance(t, Tensor)]
    guide = max(tensors, key=lambda t: t.dtype.kind == "f", default=None)
    lifted: list = []
    for t in inputs:
        if t is None or isinstance(t, Tensor):
            lifted.append(t)
        elif guide is None or isinstance(t, np.ndarray):
            lifted.append(Tensor(t))
        elif isinstance(t, (bool, int, float, list, tuple, np.number)):
            lifted.append(Tensor(t, dtype=guide.data.dtype, device=guide.device))
        else:
            raise TypeError(f"{name}: cannot make a tensor of a {type(t).__name__}")
    return lifted


def _same_device(name: str, names: list[str], i: int, device: Any, other: Any) -> Any:
    if device is not None:
        raise RuntimeError(
            f"{name}: {names[min(i, len(names) - 1)]} is on {other.name!r}, but the inputs before "
            f"it are on {device.name!r}; move one with .to(...)"
        )
    return other


def _same_dtype(name, names, i, dtype, expected, integer):
    """The dtype that the float inputs share. TypeError where one is of another kind."""
    parameter = names[min(i, len(names) - 1)]  # the last may be *xs
    if parameter in integer:
        if dtype.kind not in "iu":
            raise TypeError(f"{name}: {parameter} is {dtype}, but must be integers")
        return expected
    if dtype.kind != "f":
        raise TypeError(
            f"{name}: {parameter} is {dtype}, but must be float32 or float64; "
            "convert it with .astype('float32')"
        )
    if expected is not None and dtype != expected:
        raise TypeError(
            f"{name}: {parameter} is {dtype}, but the inputs before it are {expected}; nothing is "
            "promoted silently, convert one with .astype(...)"
        )
    return dtype
