"""A table of a network's layers: what leaves each of them, and what it costs."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..tensor import Tensor
from .module import evaluating


class Row(NamedTuple):
    """One call of a layer."""

    path: str
    layer: str
    shape: tuple
    parameters: int
    flops: int | None  # None: the layer does not say
    bytes: int  # of its output; 0 for a view of its input


@dataclass
class Summary:
    """What summary() found, for a forward pass of the whole batch in evaluation."""

    rows: list[Row] = field(repr=False)
    parameters: int
    trainable: int
    parameter_bytes: int
    buffer_bytes: int
    flops: int  # of the layers that say
    activation_bytes: int
    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.text


def summarize(model: Any, input: Any) -> Summary:
    """Run model on input (a Tensor, or zeros of a shape) and note every layer that is called.

    input: None for one image of model.input_shape.
    """
    if input is None:
        if not hasattr(model, "input_shape"):
            raise ValueError("summary: give the shape of a batch, for the network does not say")
        input = (1, *model.input_shape)
    parameters, buffers = list(model.parameters()), list(model.buffers())
    if not isinstance(input, Tensor):
        floats = [p for p in parameters if p.dtype.kind == "f"]
        like = floats[0] if floats else Tensor(0.0)
        input = Tensor(np.zeros(input, like.dtype), device=like.device)
    rows: list[Row] = []
    with evaluating(model), _watched(model, rows):
        model(input)
    result = Summary(
        rows,
        parameters=sum(p.size for p in parameters),
        trainable=sum(p.size for p in parameters if p.requires_grad),
        parameter_bytes=sum(p.data.nbytes for p in parameters),
        buffer_bytes=sum(b.data.nbytes for b in buffers),
        flops=sum(row.flops or 0 for row in rows),
        activation_bytes=sum(row.bytes for row in rows),
    )
    result.text = _table(result, input.shape)
    return result


@contextmanager
def _watched(model: Any, rows: list[Row]) -> Any:
    """Within it, a layer, and a module with parameters of its own, adds a Row per call."""
    watched: list[Any] = []
    seen: set[int] = set()
    for path, module in model.named_modules():
        if _works(module) or list(module.parameters(recurse=False)):
            # An attribute of the instance hides the method, so calls cost nothing otherwise.
            vars(module)["forward"] = _watch(path, module, rows, seen)
            watched.append(module)
    try:
        yield
    finally:
        for module in watched:
            del vars(module)["forward"]


def _works(module: Any) -> bool:
    """Whether it is a layer, not just a box of layers: one that says what it computes itself."""
    return not list(module.children()) or "flops" in vars(type(module))


def _watch(path: str, module: Any, rows: list[Row], seen: set[int]) -> Any:
    forward, works = module.forward, _works(module)

    def watched(*inputs: Any, **options: Any) -> Any:
        y = forward(*inputs, **options)
        new = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, new))  # a second call, or a tied parameter, costs no more memory
        shape = y.shape if isinstance(y, Tensor) else ()
        flops, size = None, 0
        if works and isinstance(y, Tensor):
            flops, size = module.flops(inputs[0], y), y.data.nbytes
            if any(isinstance(x, Tensor) and x.version is y.version for x in inputs):
                size = 0  # a view: it shares the count of changes
        own = sum(p.size for p in new)
        rows.append(Row(path, type(module).__name__, shape, own, flops, size))
        return y

    return watched


def _table(result: Summary, input_shape: tuple) -> str:
    head = ("layer", "", "output", "parameters", "FLOPs", "bytes")
    body = [
        (r.path, r.layer, str(r.shape), *map(_number, (r.parameters, r.flops, r.bytes)))
        for r in result.rows
    ]
    total = (result.parameters, result.flops, result.activation_bytes)
    foot = ("total", "", "", *map(_number, total))
    lines = [("input", "", str(input_shape), "", "", ""), *body]
    widths = [max(map(len, column)) for column in zip(head, *lines, foot)]

    def line(cells: tuple) -> str:
        pairs = list(zip(cells, widths))
        left = [c.ljust(w) for c, w in pairs[:3]]
        return "  ".join([*left, *(c.rjust(w) for c, w in pairs[3:])]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    notes = [
        f"{result.trainable:,} parameters are trained, {result.parameters - result.trainable:,} "
        f"are frozen; they take {_bytes(result.parameter_bytes)}, buffers "
        f"{_bytes(result.buffer_bytes)}, outputs {_bytes(result.activation_bytes)}",
        "one forward pass of this batch in evaluation; multiply and add count as two FLOPs"
        + "; - is not known" * any(r.flops is None for r in result.rows),
    ]
    return "\n".join([line(head), rule, *map(line, lines), rule, line(foot), *notes])


def _number(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _bytes(n: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if n < 1024:
            return f"{n:,.0f} {unit}" if unit == "bytes" else f"{n:,.1f} {unit}"
        n /= 1024  # type: ignore[assignment]
    return f"{n:,.1f} GiB"
