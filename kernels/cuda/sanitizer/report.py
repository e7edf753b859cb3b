"""What the sanitizer found, in words: array, index, threads, block, line."""

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


def named(at: Sequence[int], size: Sequence[int]) -> str:
    """Where a thread is in its block, or a block in the grid: "3"; "(3, 1)" if it has two axes."""
    axes = max([i for i, n in enumerate(size) if n > 1], default=0) + 1
    return str(at[0]) if axes == 1 else str(tuple(at[:axes]))


@dataclass(frozen=True)
class Place:
    """A line of a kernel, and a thread that was there, in a block of `threads` of `blocks`.

    note: what the thread had in its hands.
    """

    thread: int
    block: tuple[int, int, int]
    does: str
    file: str
    line: int
    threads: tuple[int, int, int] = (1024, 1, 1)
    blocks: tuple[int, int, int] = (2**31 - 1, 1, 1)
    note: str = ""

    @property
    def index(self) -> tuple[int, int, int]:
        """The thread's x, y and z."""
        x, y, _ = self.threads
        return self.thread % x, self.thread // x % y, self.thread // (x * y)

    @property
    def position(self) -> tuple[int, ...]:
        """Where the thread is in the grid, as `cuda.grid` tells it."""
        return tuple(b * n + t for b, n, t in zip(self.block, self.threads, self.index))

    @property
    def who(self) -> str:
        """The thread by its name in its block."""
        return f"thread {named(self.index, self.threads)}"

    @property
    def where(self) -> str:
        """The thread and its block by name."""
        return f"{self.who} of block {named(self.block, self.blocks)}"

    @property
    def code(self) -> str:
        """The line of the source."""
        return linecache.getline(self.file, self.line).strip() if self.line else ""

    @property
    def said(self) -> str:
        """What happened where, without the source."""
        who = self.where + f" ({self.note})" * bool(self.note)
        return f"{who} {self.does}" + f", line {self.line}" * (self.line > 0)

    def __str__(self) -> str:
        return self.said + f": {self.code}" * bool(self.code)


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

    @property
    def cell(self) -> str:
        """The element of the array."""
        index = ", ".join(map(str, self.index))
        return f"{self.array}[{index}]" if index else self.array

    def __str__(self) -> str:
        where = f" of {self.cell}" if self.array else ""
        head = f"{self.kind}{where}" + f", {self.count:,} times" * (self.count > 1)
        told = list(map(str, self.places))
        if len({(place.file, place.line) for place in self.places}) == 1:
            told = [*(place.said for place in self.places), *_excerpt(self.places[0])]
        return "\n  ".join([head, *told, *([self.hint] if self.hint else [])])


def _excerpt(place: Place) -> list[str]:
    """The line of a place, and the one above, which often says what leads to it."""
    if not place.code:
        return []
    above = linecache.getline(place.file, place.line - 1) if place.line > 1 else ""
    here = linecache.getline(place.file, place.line)
    if not above.strip() or above.lstrip().startswith(("@", "def ", "#", '"')):
        return [f"  {place.line:>4}  {here.strip()}"]
    both = textwrap.dedent(above + here).splitlines()
    return [f"  {n:>4}  {line}" for n, line in enumerate(both, place.line - 1)]


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


@dataclass(frozen=True)
class Extent:
    """How an array lies in memory."""

    start: int  # the address of its first element
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def index(self, offset: int) -> tuple[int, ...]:
        """The index of a byte; outside, what would be its index there."""
        found, rest = [0] * len(self.shape), offset
        axes = [i for i, n in enumerate(self.shape) if n > 1 and self.strides[i]]
        rest -= sum((self.shape[i] - 1) * self.strides[i] for i in axes if self.strides[i] < 0)
        for i in sorted(axes, key=lambda i: -abs(self.strides[i])):
            found[i], rest = divmod(rest, abs(self.strides[i]))
            if self.strides[i] < 0:
                found[i] = self.shape[i] - 1 - found[i]
        if found:
            found[-1] += rest // self.itemsize  # along an axis of one element
        return tuple(found)

    def at(self, position: Sequence[int], offset: int) -> tuple[int, ...]:
        """The index outside at which a thread is by its position, if that is this byte; or ()."""
        axes = len(self.shape)
        for index in (tuple(position[:axes][::-1]), tuple(position[:axes])):
            outside = any(i >= n for i, n in zip(index, self.shape))
            there = sum(i * stride for i, stride in zip(index, self.strides))
            if len(index) == axes and outside and there == offset:
                return index
        return ()
