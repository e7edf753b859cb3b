"""Faults of code that runs in many threads: limits, guards, barriers, axes, grids."""

import ast
from collections.abc import Iterator
from typing import Any

from .scope import (
    COORDINATES,
    Operator,
    Scope,
    is_,
    like,
    plain,
    rounded_up,
    same,
    short,
    stride,
    text,
    whole,
)
from .source import Change, last_name

_WHERE = COORDINATES | {"blockDim", "gridDim"}
_EDGES = {ast.Lt: ("<", ast.LtE, "<="), ast.LtE: ("<=", ast.Lt, "<"),
          ast.Gt: (">", ast.GtE, ">="), ast.GtE: (">=", ast.Gt, ">")}  # fmt: skip


# ---- limits, guards, conditions


def edge(node: Any, scope: Scope) -> Iterator[Change]:
    if not isinstance(node, ast.Compare) or len(node.ops) != 1 or type(node.ops[0]) not in _EDGES:
        return
    before, other, after = _EDGES[type(node.ops[0])]
    above = scope.above[node]
    chosen = above if isinstance(above, ast.If | ast.IfExp) else None
    if chosen and _picks(node, chosen):  # at the limit both sides are the same
        back = ast.Lt() if isinstance(node.ops[0], ast.Gt | ast.GtE) else ast.Gt()
        yield Change(node, like(node, ops=[back]), "min for max", f"`{before}` turned round")
    elif not (isinstance(above, ast.While) and is_(node.comparators[0], 0)):  # 0 // 2 is 0
        yield Change(node, like(node, ops=[other()]), "edge", f"`{after}` for `{before}`")


def _picks(test: ast.Compare, node: ast.If | ast.IfExp) -> bool:
    """Whether a condition only picks one of the values that it compares, or multiples at 0."""
    sides = test.left, test.comparators[0]

    def at_the_limit(value: ast.expr) -> bool:
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult) and is_(sides[1], 0):
            return any(same(v, sides[0]) for v in (value.left, value.right))
        return any(same(value, side) for side in sides)

    if isinstance(node, ast.IfExp):
        return at_the_limit(node.body) and at_the_limit(node.orelse)
    stores = [s for s in (*node.body, *node.orelse) if isinstance(s, ast.Assign)]
    if len(node.body) != 1 or len(stores) != len(node.body) + len(node.orelse):
        return False
    if node.orelse:
        one = len(stores) == 2 and same(stores[0].targets[0], stores[1].targets[0])
        return one and all(at_the_limit(s.value) for s in stores)
    return at_the_limit(stores[0].targets[0]) and at_the_limit(stores[0].value)


def guard(node: Any, scope: Scope) -> Iterator[Change]:
    if not isinstance(node, ast.If | ast.IfExp):
        return
    test = node.test
    of_thread = scope.by_thread(test)
    kind = "guard" if of_thread else "condition"
    if isinstance(test, ast.BoolOp):
        for part in test.values:
            rest = [v for v in test.values if v is not part]
            new = rest[0] if len(rest) == 1 else like(test, values=rest)
            yield Change(test, new, kind, f"`{short(part)}` is not asked")
        return
    if not isinstance(test, ast.Compare) or isinstance(test.ops[0], ast.Is | ast.IsNot):
        return
    # who alone may write is not missed where all write the same; it is where each one adds
    if of_thread and isinstance(test.ops[0], ast.Eq) and not (
        isinstance(node, ast.If) and any(map(_adds, ast.walk(node)))
    ):  # fmt: skip
        return
    if isinstance(node, ast.If) and not node.orelse and isinstance(node.body[0], ast.Return):
        yield Change(node, None, kind, "the early return is missing")
    elif isinstance(node, ast.IfExp) or not node.orelse:
        what = "the guard is missing" if of_thread else "the condition is ignored"
        yield Change(test, ast.Constant(True), kind, what)


def _adds(node: Any) -> bool:
    atomic = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return (atomic and last_name(node.func.value) == "atomic") or isinstance(node, ast.AugAssign)


# ---- threads


def barrier(node: Any, scope: Scope) -> Iterator[Change]:
    name = last_name(node.value) if isinstance(node, ast.Expr) else ""
    if name in ("syncthreads", "syncwarp") and node is not scope.function.body[-1]:
        yield Change(node, None, "barrier", f"the {name} is missing")


def atomic(node: Any, scope: Scope) -> Iterator[Change]:
    """atomic.add(a, i, v) as `a[i] += v`; what is read between the two is lost on a GPU."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return
    name = call.func.attr
    if last_name(call.func.value) != "atomic" or len(call.args) != 3:
        return
    a, i, v = (ast.unparse(arg) for arg in call.args)
    i = i[1:-1] if isinstance(call.args[1], ast.Tuple) else i
    ways = {"add": f"{a}[{i}] += {v}", "sub": f"{a}[{i}] -= {v}"}
    ways |= {m: f"{a}[{i}] = {m}({a}[{i}], {v})" for m in ("min", "max")}
    if name in ways:
        (new,) = ast.parse(ways[name]).body
        yield Change(node, new, "atomic", f"not atomic: a plain {name}")
    if name == "add":
        (new,) = ast.parse(f"{a}[{i}] = {v}").body
        yield Change(node, new, "overwrite", "overwrites instead of adding")


def shuffle(node: Any, scope: Scope) -> Iterator[Change]:
    turned = {"shfl_down_sync": "shfl_up_sync", "shfl_up_sync": "shfl_down_sync"}
    if isinstance(node, ast.Attribute) and node.attr in turned:
        new = like(node, attr=turned[node.attr])
        yield Change(node, new, "shuffle", "the shuffle goes the other way")
    if whole(node) and node.value == 0xFFFFFFFF:
        yield Change(node, ast.Constant(0xFFFF), "shuffle", "half of the warp is left out")


def axis(node: Any, scope: Scope) -> Iterator[Change]:
    """x for y, shape[0] for shape[1], axis=0 for axis=1, rows for columns."""
    where = last_name(node.value) if isinstance(node, ast.Attribute) and node.attr in "xyz" else ""
    if where in _WHERE and not scope.inside(node, stride):
        to = "x" if node.attr == "y" else "y"
        what = f"{where}.{to} for .{node.attr}"
        yield Change(node, like(node, attr=to), "axis", what)
    if isinstance(node, ast.Subscript) and last_name(node.value) == "shape" and whole(node.slice):
        array = node.value
        if isinstance(array, ast.Attribute) and scope.axes(array.value) > 1:
            was: Any = node.slice
            now = was.value - 1 if was.value else 1
            new = like(node, slice=ast.Constant(now))
            yield Change(node, new, "axis", f"shape[{now}] for shape[{was.value}]")
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
        names = node.targets[0].elts
        if last_name(node.value) in ("shape", "grid", "gridsize") and len(names) > 1:
            turned = like(node.targets[0], elts=[names[1], names[0], *names[2:]])
            a, b = map(ast.unparse, names[:2])
            yield Change(node.targets[0], turned, "axis", f"{a} and {b} exchanged")
    if isinstance(node, ast.keyword) and node.arg == "axis":
        value = ast.literal_eval(node.value) if plain(node.value) else None
        if type(value) is int:
            other = {0: 1, 1: 0, -1: 0}.get(value, value - 1)
            yield Change(node.value, ast.Constant(other), "axis", f"axis={other} for axis={value}")


def grid(node: Any, scope: Scope) -> Iterator[Change]:
    """Which block a thread is in forgotten; a grid without its last block; a stride too long."""
    if isinstance(node, ast.Call) and last_name(node) == "grid" and is_(node.args[0], 1):
        new = text("cuda.threadIdx.x")
        yield Change(node, new, "grid", "forgets which block the thread is in")
        yield Change(node, text("{} + 1", node), "neighbour", "one element further")
    if isinstance(node, ast.expr) and stride(node):
        yield Change(node, text("{} + 1", node), "grid", "the stride is one too long")
    if parts := rounded_up(node):
        new = text("{} // {}", *parts)
        yield Change(node, new, "grid", "the last block, which is not full, is missing")


OPERATORS: tuple[Operator, ...] = (edge, guard, barrier, atomic, shuffle, axis, grid)
