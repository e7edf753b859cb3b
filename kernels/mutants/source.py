"""The source of a kernel: which functions a test reaches in it, and the same with one change."""

import ast
import contextlib
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# what stands last in the decorator of a function that Numba compiles
_COMPILERS = {"jit", "njit", "vectorize", "guvectorize", "stencil", "device", "linked"}


class Change(NamedTuple):
    """A piece of a tree, and what takes its place: None where a statement is deleted."""

    node: ast.expr | ast.stmt
    new: ast.expr | ast.stmt | None
    kind: str
    what: str


class Fault(NamedTuple):
    """One mistake in one line: its kind, what it is in words, and the whole source that has it."""

    file: str
    line: int
    function: str
    kind: str
    what: str
    before: str
    after: str
    source: str


class Source:
    """A file with kernels in it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        with tokenize.open(self.path) as file:  # in the encoding that the file names
            self.text = file.read()
        self.tree = ast.parse(self.text, str(self.path))
        self.functions = {f.name: f for f in self.tree.body if isinstance(f, ast.FunctionDef)}
        self._data = self.text.encode()
        self._starts = [0]
        for line in self._data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._parents = {
            id(child): (node, name, at)
            for node in ast.walk(self.tree)
            for name, at, child in _children(node)
        }

    def chosen(self, wanted: Iterable[str], compiled: Iterable[str] = ()) -> list[str]:
        """Which functions to change: what the wanted ones need, in the order of the file.

        Where some of them are compiled, only these, what they call, and who calls them: a
        definition in NumPy that stands beside a kernel is no part of it.
        """
        reached = self.reached(wanted)
        kernels = reached & ({n for n, f in self.functions.items() if is_compiled(f)} | {*compiled})
        if kernels:
            inner = self.reached(kernels)
            reached = {name for name in reached if name in inner or self.reached([name]) & kernels}
        return [name for name in self.functions if name in reached]

    def reached(self, names: Iterable[str]) -> set[str]:
        """Functions of this file by these names, and all that they refer to."""
        found: set[str] = set()
        left = [name for name in names if name in self.functions]
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                inner = ast.walk(self.functions[name])
                left += [n.id for n in inner if isinstance(n, ast.Name) and n.id in self.functions]
        return found

    def plant(self, change: Change, function: str) -> Fault | None:
        """The source with one change; None where it cannot be written so that it means that."""
        node, new = change.node, change.new or ast.Pass()
        wanted = self._dump_with(node, new)
        begin, end = self._span(node)
        written = self._as_written(new)
        bare = written[1:-1] if isinstance(new, ast.Tuple) else written
        for text in (bare, written, f"({written})"):
            source = (self._data[:begin] + text.encode() + self._data[end:]).decode()
            with contextlib.suppress(SyntaxError):
                if ast.dump(ast.parse(source)) == wanted:
                    break
        else:
            return None
        after = "(deleted)" if change.new is None else _line(source, node.lineno)
        before = _line(self.text, node.lineno)
        return Fault(
            str(self.path), node.lineno, function, change.kind, change.what, before, after, source
        )

    def _as_written(self, new: ast.AST) -> str:
        """The text of a tree, with the numbers and texts in it as they were: 0xFF, not 255."""
        text = ast.unparse(new)
        for node in ast.walk(new):
            if isinstance(node, ast.Constant) and id(node) in self._parents:
                was = self._data[slice(*self._span(node))].decode().replace("\\", r"\\")
                text = re.sub(rf"(?<!\w){re.escape(repr(node.value))}(?!\w)", was, text)
        return text

    def _dump_with(self, node: ast.AST, new: ast.AST) -> str:
        parent, name, at = self._parents[id(node)]
        if at is None:
            setattr(parent, name, new)
        else:
            getattr(parent, name)[at] = new
        dump = ast.dump(self.tree)
        if at is None:
            setattr(parent, name, node)
        else:
            getattr(parent, name)[at] = node
        return dump

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Bytes of the file that a piece is written in."""
        begin = self._starts[node.lineno - 1] + node.col_offset
        return begin, self._starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)


def _children(node: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            for at, child in enumerate(value):
                if isinstance(child, ast.expr | ast.stmt):
                    yield name, at, child
        elif isinstance(value, ast.expr | ast.stmt):
            yield name, None, value


def _line(text: str, number: int) -> str:
    return text.split("\n")[number - 1].strip()


def is_compiled(function: ast.FunctionDef) -> bool:
    """Whether a decorator says that Numba compiles it."""
    return any(last_name(d) in _COMPILERS for d in function.decorator_list)


def last_name(node: ast.AST) -> str:
    """`array` of `cuda.shared.array(...)`; "" of what has no name."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
