"""What an operator of faults asks about a function: its threads, loops, numbers and indices."""

import ast
import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .source import Change, last_name

Node = TypeVar("Node", bound=ast.AST)
Operator = Callable[[Any, "Scope"], Iterator[Change]]
COORDINATES = {"threadIdx", "blockIdx", "laneid"}
ROOM = {"array", "array_like", "empty", "zeros", "ones"}  # their sizes are room


class Scope:
    """One function: what stands above each node, and which names depend on the thread."""

    def __init__(self, function: ast.FunctionDef) -> None:
        self.function = function
        self.above = {c: n for n in ast.walk(function) for c in ast.iter_child_nodes(n)}
        self.threads: set[str] = set()
        stores = [n for n in ast.walk(function) if isinstance(n, ast.Assign)]
        both = [pair for store in stores for pair in pairs(store)]
        self.places = {t.id for t, v in both if isinstance(t, ast.Name) and coordinate(v)}
        before = -1
        while before < len(self.threads):
            before = len(self.threads)
            for node in ast.walk(function):
                if isinstance(node, ast.Assign | ast.AugAssign | ast.For):
                    given = node.iter if isinstance(node, ast.For) else node.value
                    to = node.targets if isinstance(node, ast.Assign) else [node.target]
                    if self.by_thread(given):
                        self.threads |= {n for t in to for n in stored(t)}
        self.loops = {n for f in ast.walk(function) if isinstance(f, ast.For)
                      for n in stored(f.target)}  # fmt: skip
        # names that a while waits for: a fault there would only never end
        self.awaited = {n.id for w in ast.walk(function) if isinstance(w, ast.While)
                        for n in ast.walk(w.test) if isinstance(n, ast.Name)}  # fmt: skip

    def nodes(self) -> Iterator[ast.AST]:
        """What can be wrong: not texts, errors that are raised, annotations, sizes of room."""
        left: list[ast.AST] = list(reversed(self.function.body))
        while left:
            node = left.pop()
            errors = isinstance(node, ast.If) and all(isinstance(s, ast.Raise) for s in node.body)
            texts = ast.Raise, ast.Assert, ast.JoinedStr, ast.FunctionDef, ast.Lambda
            if errors or isinstance(node, texts):
                continue
            yield node
            if isinstance(node, ast.Call) and last_name(node) in ROOM:
                continue
            inner = [
                c for c in ast.iter_child_nodes(node) if c is not getattr(node, "annotation", 0)
            ]
            left += reversed(inner)

    def launching(self, node: ast.AST) -> bool:
        """Whether a number says how many threads are launched."""
        launches = [c.func for c in ast.walk(self.function) if isinstance(c, ast.Call)
                    and isinstance(c.func, ast.Subscript)]  # fmt: skip
        inner = [n for launch in launches for n in ast.walk(launch)]
        names = {n.id for n in inner if isinstance(n, ast.Name)}
        stores = [s for s in ast.walk(self.function) if isinstance(s, ast.Assign)]
        both = [pair for store in stores for pair in pairs(store)]
        return node in inner or any(t.id in names and node in ast.walk(v)
                                    for t, v in both if isinstance(t, ast.Name))  # fmt: skip

    def by_thread(self, node: ast.AST) -> bool:
        """Whether a value differs between threads."""
        return any(
            (isinstance(n, ast.Attribute) and n.attr in COORDINATES)
            or (isinstance(n, ast.Name) and n.id in self.threads)
            or (isinstance(n, ast.Call) and last_name(n) == "grid")
            for n in ast.walk(node)
        )

    def inside(self, node: ast.AST, found: Callable[[ast.AST], object]) -> bool:
        """Whether something is true of a node or of one above it, in the same statement."""
        while not found(node):
            if isinstance(node, ast.stmt) or node not in self.above:
                return False
            node = self.above[node]
        return True

    def is_place(self, sides: tuple[ast.expr, ast.expr]) -> bool:
        """Whether a sum is block * size + thread.

        With a minus it hits all elements, too: negative indices count from the end.
        """
        block, thread = sides
        named = isinstance(thread, ast.Name) and thread.id in self.places
        return isinstance(block, ast.BinOp) and (named or coordinate(thread))

    def axes(self, array: ast.expr) -> int:
        """How many axes of an array this function speaks of."""
        most, name = 0, ast.unparse(array)
        for node in ast.walk(self.function):
            if isinstance(node, ast.Subscript):
                index: Any = node.slice
                if ast.unparse(node.value) == f"{name}.shape" and whole(index):
                    most = max(most, index.value + 1)
                if ast.unparse(node.value) == name:
                    most = max(most, len(index.elts) if isinstance(index, ast.Tuple) else 1)
        return most


def pairs(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Target and value, also of `a, b = 1, 2`."""
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts)
        else:
            yield target, node.value


def stored(target: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(target) if isinstance(n, ast.Name)} if isinstance(
        target, ast.Name | ast.Tuple) else set()  # fmt: skip


def like(node: Node, **fields: object) -> Node:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def text(template: str, *nodes: ast.AST) -> ast.expr:
    """An expression from a text with pieces of the tree in it."""
    return ast.parse(template.format(*(f"({ast.unparse(n)})" for n in nodes)), mode="eval").body


def short(node: ast.AST) -> str:
    return ast.unparse(node).replace("cuda.", "")


def whole(node: Any) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def is_(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def plain(node: ast.AST) -> bool:
    """A number written down: 0, -1.5, float32(0), y.dtype.type(0), a bare name."""
    if isinstance(node, ast.Call):
        return not node.keywords and len(node.args) == 1 and isinstance(node.args[0], ast.Constant)
    node = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(node, ast.Constant | ast.Name)


def same(a: ast.AST, b: ast.AST) -> bool:
    """The same value, as far as one can read: 0 and 0.0 are."""
    if isinstance(a, ast.Constant) and isinstance(b, ast.Constant):
        return bool(a.value == b.value)
    return ast.dump(_loaded(a)) == ast.dump(_loaded(b))


def _loaded(node: ast.AST) -> ast.AST:
    return ast.parse(ast.unparse(node))


def stride(node: ast.AST) -> bool:
    """The number of all threads: cuda.gridsize(1), gridDim.x * blockDim.x."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return {last_name(getattr(side, "value", side)) for side in (node.left, node.right)} == {
            "gridDim", "blockDim"
        }  # fmt: skip
    return isinstance(node, ast.Call) and last_name(node) == "gridsize"


def coordinate(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and last_name(node.value) in COORDINATES


def rounded_up(node: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """n and size of (n + size - 1) // size, -(-n // size), blocks(n, size)."""
    if isinstance(node, ast.Call) and last_name(node) in ("blocks", "cdiv", "ceildiv"):
        return (node.args[0], node.args[1]) if len(node.args) == 2 else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = node.operand
        if not isinstance(inner, ast.BinOp) or not isinstance(inner.op, ast.FloorDiv):
            return None
        if isinstance(inner.left, ast.UnaryOp) and isinstance(inner.left.op, ast.USub):
            return inner.left.operand, inner.right
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv):
        up, size = node.left, ast.unparse(node.right)
        if isinstance(up, ast.BinOp) and isinstance(up.op, ast.Add | ast.Sub):
            less = up.left if isinstance(up.op, ast.Sub) and is_(up.right, 1) else None
            if isinstance(less, ast.BinOp) and isinstance(less.op, ast.Add):
                return (less.left, node.right) if ast.unparse(less.right) == size else None
            rest = [f"{size} - 1", *([str(int(size) - 1)] if size.isdigit() else [])]
            if isinstance(up.op, ast.Add) and ast.unparse(up.right) in rest:
                return up.left, node.right
    return None
