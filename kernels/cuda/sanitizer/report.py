"""What the sanitizer found, in words: array, index, threads, block, line."""

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Place:
    """A line of a kernel, and a thread that was there."""

    thread: int
    block: tuple[int, int, int]
    does: str
    file: str
    line: int

    def __str__(self) -> str:
        said = f"thread {self.thread} of block {self.block} {self.does}"
        text = linecache.getline(self.file, self.line).strip() if self.line else ""
        return said + f", line {self.line}" * (self.line > 0) + f": {text}" * bool(text)


@dataclass(frozen=True)
class Finding:
    """One mistake: its kind, the array and index, and where it shows. count: how often it did."""

    kind: str
    array: str = ""
    index: tuple[int, ...] = ()
    places: tuple[Place, ...] = ()
    hint: str = ""
    count: int = 1

    @property
    def line(self) -> int:
        """The line at which it showed."""
        return self.places[0].line if self.places else 0

    @property
    def threads(self) -> tuple[int, ...]:
        """The threads that took part, as numbers in their blocks."""
        return tuple(place.thread for place in self.places)

    @property
    def block(self) -> tuple[int, int, int]:
        """The block in which it showed."""
        return self.places[0].block if self.places else (0, 0, 0)

    def __str__(self) -> str:
        where = (
            f" of {self.array}[{', '.join(map(str, self.index))}]"
            if self.index
            else (f" of {self.array}" * bool(self.array))
        )
        head = f"{self.kind}{where}" + f", {self.count:,} times" * (self.count > 1)
        return "\n  ".join([head, *map(str, self.places), *([self.hint] if self.hint else [])])


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each kind, array and lines; the first one stands for the others."""
    found: dict[Any, Finding] = {}
    for one in findings:
        key = one.kind, one.array, frozenset((place.file, place.line) for place in one.places)
        count = found[key].count if key in found else 0
        found[key] = replace(found.get(key, one), count=count + one.count)
    return [*found.values()]


@dataclass(frozen=True)
class Line:
    """What a line of a kernel does to an array, in the whole launch."""

    line: int
    does: str
    shared: bool
    accesses: int  # by single threads
    bytes: int
    requests: int  # by warps
    sectors: int  # of 32 bytes, in global memory
    turns: int  # of shared memory

    @property
    def ideal(self) -> int:
        """The sectors or turns that it would take at least."""
        if self.shared:
            return max(self.requests, -(-self.bytes // 128))
        return -(-self.bytes // 32)


@dataclass(frozen=True)
class Report:
    """What `sanitize` returns: true where nothing was found, and a text when printed."""

    kernel: str
    findings: tuple[Finding, ...]
    threads: int
    barriers: int
    lines: tuple[Line, ...] = field(default=())

    def __bool__(self) -> bool:
        return not self.findings

    @property
    def bytes(self) -> int:
        """Bytes that threads read and wrote, in global and shared memory."""
        return sum(line.bytes for line in self.lines)

    @property
    def sectors(self) -> int:
        """Sectors of 32 bytes of global memory that requests of warps touched."""
        return sum(line.sectors for line in self.lines)

    @property
    def requests(self) -> int:
        """Requests of warps to global memory."""
        return sum(line.requests for line in self.lines if not line.shared)

    @property
    def bank_conflicts(self) -> int:
        """Turns that shared memory took beyond one for each request (of up to 128 bytes)."""
        return sum(line.turns - line.ideal for line in self.lines if line.shared)

    def __str__(self) -> str:
        told = "\n\n".join(map(str, self.findings)) or "nothing found"
        rows = [
            f"{row.line:>5}  {row.does:8} {'shared' if row.shared else 'global':6} "
            f"{row.requests:>9,} {row.bytes:>11,} "
            f"{(row.turns if row.shared else row.sectors):>9,} {row.ideal:>9,}"
            for row in self.lines
        ]
        head = f"{'line':>5}  {'does':8} {'memory':6} {'requests':>9} {'bytes':>11} "
        head += f"{'took':>9} {'at least':>9}"
        counts = f"{self.threads:,} threads, {self.barriers:,} barriers, {self.bytes:,} bytes"
        units = "took: sectors of 32 bytes, or turns of shared memory"
        return "\n".join([f"{self.kernel}: {told}", "", counts, head, *rows, units])


def shared_names(function: Callable[..., Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Names of the shared arrays of a kernel in the order of its source, and their shapes."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return []
    space = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            if called.endswith("shared.array") and isinstance(node.targets[0], ast.Name):
                words = {word.arg: word.value for word in node.value.keywords}
                given = node.value.args[0] if node.value.args else words.get("shape")
                found.append((node.lineno, node.targets[0].id, _shape(given, space)))
    return [(name, shape) for _, name, shape in sorted(found)]


def _shape(node: ast.expr | None, space: dict[str, Any]) -> tuple[int, ...]:
    """A shape that a source gives in numbers and names of them; () where it is not that simple."""
    if isinstance(node, ast.Tuple | ast.List):
        parts = [_shape(element, space) for element in node.elts]
        return tuple(n for part in parts for n in part) if all(parts) else ()
    value: Any = None
    if isinstance(node, ast.Constant):
        value = node.value
    elif isinstance(node, ast.Name):
        value = space.get(node.id)
    elif isinstance(node, ast.BinOp):
        left, right = _shape(node.left, space), _shape(node.right, space)
        operators: dict[type, Any] = {
            ast.Add: int.__add__, ast.Sub: int.__sub__, ast.Mult: int.__mul__,
            ast.FloorDiv: int.__floordiv__,
        }  # fmt: skip
        made = operators.get(type(node.op))
        if made and len(left) == len(right) == 1:
            value = made(left[0], right[0])
    if isinstance(value, int):
        return (value,)
    if isinstance(value, tuple) and all(isinstance(n, int) for n in value):
        return value
    return ()


def index_of(offset: int, itemsize: int, shape: Sequence[int], strides: Sequence[int]) -> tuple:
    """The index of a byte of an array; outside, what would be its index there."""
    found, rest = [0] * len(shape), offset
    axes = [i for i, n in enumerate(shape) if n > 1 and strides[i]]
    rest -= sum((shape[i] - 1) * strides[i] for i in axes if strides[i] < 0)
    for i in sorted(axes, key=lambda i: -abs(strides[i])):
        found[i], rest = divmod(rest, abs(strides[i]))
        if strides[i] < 0:
            found[i] = shape[i] - 1 - found[i]
    if found:
        found[-1] += rest // itemsize  # along an axis of one element
    return tuple(found)
