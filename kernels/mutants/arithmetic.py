"""Faults of any kernel: arithmetic, numbers, indices, loops, what a sum begins with."""

import ast
from collections.abc import Iterator
from typing import Any

from .scope import (
    Operator,
    Scope,
    is_,
    like,
    plain,
    rounded_up,
    same,
    short,
    stored,
    text,
)
from .source import Change, last_name

_OPPOSITE = {
    "min": "max", "fmin": "fmax", "minimum": "maximum", "argmin": "argmax", "floor": "ceil",
    "all": "any",
}  # fmt: skip
_OPPOSITE |= {b: a for a, b in _OPPOSITE.items()}


def sum_of_two(node: Any, scope: Scope) -> Iterator[Change]:
    """+ for -, and a term that was forgotten."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add | ast.Sub):
        return
    if scope.inside(node, rounded_up) or is_(node.right, 0):
        return
    if any(isinstance(side, ast.Constant) and isinstance(side.value, str)
           for side in (node.left, node.right)):  # fmt: skip
        return
    sides = node.left, node.right
    if not scope.is_place(sides) and not scope.is_place(sides[::-1]):
        op, signs = (ast.Sub(), "`-` for `+`") if isinstance(node.op, ast.Add) else (
            ast.Add(), "`+` for `-`")  # fmt: skip
        yield Change(node, like(node, op=op), "sign", signs)
    else:
        yield Change(node, node.right, "term", f"`{short(node.left)}` is missing")
    yield Change(node, node.left, "term", f"`{short(node.right)}` is missing")


def division(node: Any, scope: Scope) -> Iterator[Change]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        what = "`//` for `/`: the rest is lost"
        yield Change(node, like(node, op=ast.FloorDiv()), "whole numbers", what)
    minus = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    if (
        minus
        and not isinstance(node.operand, ast.Constant)
        and not _endless(node.operand)
        and not scope.inside(node, rounded_up)
    ):
        yield Change(node, node.operand, "sign", "the minus is missing")


def kept_as_whole(node: Any, scope: Scope) -> Iterator[Change]:
    """A shared or local array of int32 where it was of floats."""
    if not isinstance(node, ast.Call) or last_name(node) != "array":
        return
    for value in (*node.args[1:], *(k.value for k in node.keywords if k.arg == "dtype")):
        if isinstance(value, ast.Attribute) and value.attr in ("float32", "float64"):
            new = like(value, attr="int32")
            yield Change(value, new, "whole numbers", f"int32 for {value.attr}")


def number(node: Any, scope: Scope) -> Iterator[Change]:
    value: Any = node.value if isinstance(node, ast.Constant) else None
    if type(value) not in (int, float) or value == 0xFFFFFFFF:
        return
    above = scope.above[node]
    if isinstance(above, ast.keyword) or scope.inside(node, _fixed):
        return
    one = isinstance(above, ast.Compare) and isinstance(above.ops[0], ast.Eq | ast.NotEq)
    if one and scope.by_thread(above):  # any one thread will do
        return
    started = scope.inside(node, lambda n: isinstance(n, ast.Assign) and plain(n.value))
    to = value + 1 if type(value) is int or value == 0 else 2 * value
    if scope.launching(node):  # more threads than needed do nothing
        to = value - 1
        if to < 1:
            return
    kind = "start" if started and value == 0 else "number"
    yield Change(node, ast.Constant(to), kind, f"{to} for {value}")


def _fixed(node: ast.AST) -> bool:
    """Where a number is a name or a mode and no quantity: shape[0], grid(1), rounding up."""
    if isinstance(node, ast.keyword) and node.arg == "axis":
        return True
    if isinstance(node, ast.Subscript) and last_name(node.value) == "shape":
        return True
    if isinstance(node, ast.Call) and last_name(node) in ("grid", "gridsize", "range"):
        return not (last_name(node) == "range" and len(node.args) > 2)
    return rounded_up(node) is not None


def indices(node: Any, scope: Scope) -> Iterator[Change]:
    """a[j, i] for a[i, j]; a[i + 1] for a[i]."""
    if not isinstance(node, ast.Subscript) or last_name(node.value) == "shape":
        return
    above = scope.above[node]
    if isinstance(above, ast.Call) and above.func is node:  # kernel[grid, block](...)
        return
    index = node.slice
    if isinstance(index, ast.Tuple) and len(index.elts) > 1:
        *first, a, b = index.elts
        mixed = any(isinstance(n, ast.Slice) or is_(n, ...) or is_(n, None) for n in (a, b))
        if not mixed and not same(a, b):
            turned = like(node, slice=like(index, elts=[*first, b, a]))
            what = f"{ast.unparse(a)} and {ast.unparse(b)} exchanged"
            yield Change(node, turned, "indices", what)
    last = index.elts[-1] if isinstance(index, ast.Tuple) and index.elts else index
    loaded = isinstance(node.ctx, ast.Load)
    if loaded and isinstance(last, ast.Name) and last.id in scope.threads | scope.loops:
        yield Change(last, text("{} + 1", last), "neighbour", "one element further")


def loop(node: Any, scope: Scope) -> Iterator[Change]:
    """range that leaves out its first or its last number."""
    if not isinstance(node, ast.For) or last_name(node.iter) not in ("range", "prange"):
        return
    call = node.iter
    if not isinstance(call, ast.Call) or call.keywords:
        return
    at = 0 if len(call.args) == 1 else 1
    less = [text("{} - 1", a) if i == at else a for i, a in enumerate(call.args)]
    yield Change(call, like(call, args=less), "loop", "the loop ends one too early")
    used = any(isinstance(n, ast.Name) and n.id in stored(node.target)
               for s in node.body for n in ast.walk(s))  # fmt: skip
    if used and len(call.args) < 3:
        first = text("{} + 1", call.args[0]) if len(call.args) == 2 else ast.Constant(1)
        new = like(call, args=[first, call.args[-1]])
        yield Change(call, new, "loop", "the loop begins one too late")


# ---- what a sum and a maximum begin with, and how they go on


def start(node: Any, scope: Scope) -> Iterator[Change]:
    """An array that is not set to its first value; a maximum that begins with 0."""
    stored = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)
    if stored and plain(node.value) and not isinstance(node.value, ast.Name):
        yield Change(node, None, "start", f"`{short(node.targets[0])}` is not set")
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and _endless(node.operand):
        yield Change(node, ast.Constant(0.0), "start", "begins with 0 and not with -inf")


def _endless(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute | ast.Name) and last_name(node) in ("inf", "INFINITY")


def running(node: Any, scope: Scope) -> Iterator[Change]:
    """total = v, and total -= v, for total += v."""
    if not isinstance(node, ast.AugAssign) or not isinstance(node.op, ast.Add | ast.Sub):
        return
    if isinstance(node.target, ast.Name) and node.target.id in scope.awaited:
        return
    new = ast.Assign(targets=[node.target], value=node.value, lineno=node.lineno)
    yield Change(node, new, "overwrite", "overwrites instead of adding")
    op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
    signs = "`-=` for `+=`" if isinstance(node.op, ast.Add) else "`+=` for `-=`"
    yield Change(node, like(node, op=op), "sign", signs)


def opposite(node: Any, scope: Scope) -> Iterator[Change]:
    """min for max, floor for ceil."""
    if not isinstance(node, ast.Call) or last_name(node) not in _OPPOSITE:
        return
    to = _OPPOSITE[last_name(node)]
    func: Any = node.func
    new: ast.expr
    if isinstance(func, ast.Attribute):
        new = like(func, attr=to)
    elif isinstance(func, ast.Name) and to in ("min", "max", "all", "any"):
        new = ast.Name(to, ast.Load())
    else:
        return
    yield Change(func, new, "min for max", f"{to} for {last_name(node)}")


def turned(node: Any, scope: Scope) -> Iterator[Change]:
    """A matrix that is not transposed."""
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield Change(node, node.value, "indices", "not transposed")


OPERATORS: tuple[Operator, ...] = (
    sum_of_two,
    division,
    kept_as_whole,
    number,
    indices,
    loop,
    start,
    running,
    opposite,
    turned,
)
