"""Register tiles: the innermost loops of matrix products, written in LLVM IR from Python.

A core multiplies fastest when all that its multipliers need is in registers. A *register tile* is a
small block of the result, `rows` x `vectors` vectors wide, whose sums stay in registers until they
are done. One step of the innermost loop loads `vectors` vectors of b, and for each row one number
of a, copied into all lanes:

    b[k, 0:16]  b[k, 16:32]          two loads
    a[0, k]  ->  sum[0, 0] += a[0, k] b[k, 0:16]     sum[0, 1] += a[0, k] b[k, 16:32]
    a[1, k]  ->  sum[1, 0] += a[1, k] b[k, 0:16]     sum[1, 1] += a[1, k] b[k, 16:32]
    ...                              rows x vectors multiplications with addition (FMA)

Why 12 x 2 on AVX-512: a core there begins two FMAs a cycle and each takes four, so at least eight
sums must be under way; loads are two a cycle, too, and 12 + 2 of them for 24 FMAs leave room for
misses; 24 sums, two vectors of b and one of a are 27 of the 32 registers. AVX2 has 16 registers of
half the width, where 6 x 2 needs 15. Numba's own vectoriser finds none of this in three loops.

A tile takes some steps at a time, two rows at once: what a step costs besides its FMAs, addresses
above all, is then paid once for several (8 to 15 % less time). With more than two steps a tile of
12 x 2 runs out of registers; on AVX2, FMAs then read b where it lies.

The sum runs over pairs of matrices, too ("batch-reduce"): sum over t and k of a_t[m, k] b_t[k, n].
A convolution is one pair for each cell of its window, so nothing is copied and what lies outside of
the image is left out. In the *transposed* twin the numbers of a for one step lie side by side, as
in x' dy, the gradient of weights; else those for one row do.

`assembly(12, 2)` returns the machine code of a tile's innermost loop. To read it: zmm registers are
vectors of 16 (ymm: 8); `vmovups (%rax), %zmm1` loads b, `vbroadcastss` a number of a, and
`vfmadd231ps` multiplies and adds. There are rows x vectors of these for each step, and in a good
tile no vector is kept on the stack (`%rsp`): then all sums are in registers.

MINIDL_SIMD=avx512, avx2 or none chooses the vectors; unset, the best that this CPU has. With none,
matrix products are BLAS's, and convolutions those of `window.py`.
"""

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from ._numba import jit


@dataclass(frozen=True)
class Target:
    """A kind of vectors: floats in one; rows of a tile 1 or 2 vectors wide, and steps at a time."""

    name: str
    width: int
    rows: tuple[int, int]
    steps: tuple[int, int]
    needs: tuple[str, ...]  # features of the CPU, as LLVM calls them


TARGETS = {
    target.name: target
    for target in (
        Target("avx512", 16, (16, 12), (4, 2), ("avx512f",)),
        Target("avx2", 8, (12, 6), (4, 4), ("avx2", "fma")),
    )
}


def choose(name: str = "") -> Target | None:
    """The vectors of a name, without one the best of this CPU. None: it has none, or "none".

    RuntimeError for a name that is not known, or vectors that this CPU does not have.
    """
    if name not in ("", "none", *TARGETS):
        raise RuntimeError(f"MINIDL_SIMD is 'avx512', 'avx2', 'none' or unset, not {name!r}")
    has = dict(binding.get_host_cpu_features())
    if numba.config.CPU_FEATURES:  # what Numba was told to use instead
        has = {f[1:]: f[0] == "+" for f in numba.config.CPU_FEATURES.split(",")}
    able = [t for t in TARGETS.values() if all(has.get(feature) for feature in t.needs)]
    if name in TARGETS and TARGETS[name] not in able:
        raise RuntimeError(f"MINIDL_SIMD is {name!r}, which this CPU does not have")
    return None if name == "none" or not able else TARGETS.get(name, able[0])


CONTINUE, ADD, RELU, FETCH = 1, 2, 4, 8  # flags of a tile: see `tile`
_WORD, _FLOAT, _BIT = ir.IntType(64), ir.FloatType(), ir.IntType(1)
_SIGNATURE = types.void(types.int64)
# Steps before its turn that a transposed tile asks for a column of a: each lies in lines of its
# own, which the CPU does not foresee: x' dy of 256 x 784 and 256 x 128 takes 0.34 ms for 0.39.
_AHEAD = 4


@functools.cache
def tile(target: Target, rows: int, vectors: int, transposed: bool = False) -> int:
    """Address of compiled code that fills a tile of a matrix product:

    out[m, n] = bias[n] + sum over t < taps and k < depth of a_t[m, k] b_t[k, n]

    a_t begins at a + a_taps[t], b_t at b + b_taps[t]. `call` takes the address, then a, a_taps, b,
    b_taps, taps, depth, a_row, a_step, b_step, out, out_row, bias, columns, flags. Addresses and
    distances are in bytes: a_row from m to m + 1, a_step and b_step from k to k + 1. a_row must be
    4 if transposed, a_step if not. bias is 0 where there is none. b has all of a tile's columns;
    those from `columns` on are not written.

    flags: CONTINUE begins with what is in out, in the place of bias; ADD adds what is there to the
    finished sum; RELU sets to 0 what is below. FETCH, if transposed, asks meanwhile for what will
    be needed later: fetch_step bytes a step, from fetch on. These are two arguments more.
    """
    return _address(_compiled(*_tile(target, rows, vectors, transposed)))


def heights() -> list[tuple[Target, int, int, bool]]:
    """What `tile` can be asked for with the chosen vectors."""
    if chosen is None:
        return []
    return [
        (chosen, rows, vectors, transposed)
        for vectors, most in enumerate(chosen.rows, 1)
        for rows in range(1, most + 1)
        for transposed in (False, True)
    ]


@functools.cache
def transposer(target: Target) -> int:
    """Address of compiled code that copies width x width numbers, rows as columns.

    `call` takes the address, then from, from_row, to, to_row: in bytes.
    """

    def write(builder: Any, source: Any, source_row: Any, to: Any, to_row: Any) -> None:
        _Writer(builder, target.width).transpose(source, source_row, to, to_row)

    return _address(_compiled(f"transpose_{target.name}", 4, write))


def assembly(
    rows: int, vectors: int, target: Target | None = None, transposed: bool = False
) -> str:
    """The innermost loop of a tile, in the assembly language of this CPU."""
    target = target or choose() or TARGETS["avx2"]
    kernel = _compiled(*_tile(target, rows, vectors, transposed), fresh=True)
    blocks = re.split(r"^(?=\.L)", kernel.inspect_asm(_SIGNATURE.args), flags=re.MULTILINE)
    loop = max(blocks, key=lambda block: block.count("vfmadd"))
    return loop[: loop.index("\n", loop.index("\tj")) + 1]  # to the jump back


def _tile(target: Target, rows: int, vectors: int, transposed: bool) -> tuple[str, int, Callable]:
    """A tile's name, how many arguments it has, and who writes it."""

    def write(builder: Any, *words: Any) -> None:
        steps = target.steps[vectors - 1]
        _Writer(builder, target.width).tile(rows, vectors, steps, transposed, *words)

    name = f"tile_{rows}x{vectors}_{target.name}" + "_transposed" * transposed
    return name, 16 if transposed else 14, write


def _compiled(name: str, count: int, write: Callable[..., None], fresh: bool = False) -> Any:
    """A function of the address of `count` words, with what `write` writes of them.

    fresh: not from the disk, where there is machine code alone.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.ArrayType(_WORD, count)
        given = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()))
        write(builder, *(builder.extract_value(given, i) for i in range(count)))
        return context.get_dummy_value()

    @intrinsic
    def body(typing, words):
        return _SIGNATURE, generate

    def function(words):
        body(words)

    function.__qualname__ = name
    kernel = jit(function, key=None if fresh else name)
    kernel.compile(_SIGNATURE)
    return kernel


def _address(kernel: Any) -> int:
    code = kernel.overloads[_SIGNATURE.args]
    return code.library.get_pointer_to_function(code.fndesc.llvm_cfunc_wrapper_name)


class _Writer:
    """Writes the IR of a tile."""

    def __init__(self, builder: Any, width: int):
        self.builder, self.width = builder, width
        self.vector, self.lanes = ir.VectorType(_FLOAT, width), ir.VectorType(_BIT, width)

    def tile(
        self, rows, vectors, steps, transposed, a, a_taps, b, b_taps, taps, depth, a_row, a_step,
        b_step, out, out_row, bias, columns, flags, fetch=None, fetch_step=None,
    ):  # fmt: skip
        """All of a tile: the first values of the sums, the loops, and what becomes of the sums."""
        self.rows, self.vectors = range(rows), range(vectors)
        self.cells = [(m, v) for m in self.rows for v in self.vectors]
        with self.builder.goto_entry_block():  # LLVM turns these variables into registers
            self.sums = {cell: self.builder.alloca(self.vector) for cell in self.cells}
        build, four = self.builder, ir.Constant(_WORD, 4)
        a_row, a_step = (four, a_step) if transposed else (a_row, four)
        masks = [self.mask(columns, v) for v in self.vectors]
        places = {
            (m, v): self.at(out, self.times(out_row, m), v * 4 * self.width) for m, v in self.cells
        }
        fetch = self.fetched(flags, fetch, fetch_step, b) if transposed else None
        self.begin(places, bias, masks, flags)
        with self.loop(taps) as t:
            a_t = build.add(a, self.load(_WORD, self.at(a_taps, self.times(t, 8))))
            b_t = build.add(b, self.load(_WORD, self.at(b_taps, self.times(t, 8))))
            for first, count, some in self.portions(depth, steps):
                with self.loop(count) as n:
                    k = build.add(first, self.times(n, some))
                    column = self.at(a_t, build.mul(k, a_step))
                    if fetch and some == steps:
                        self.ahead(column, a_step, some)
                        self.prefetch(fetch(build.add(build.mul(t, depth), k)), near=2)
                    row = self.at(b_t, build.mul(k, b_step))
                    self.steps(some, column, a_row, a_step, row, b_step)
        self.end(places, masks, flags)

    def begin(self, places: dict, bias: Any, masks: list, flags: Any) -> None:
        """sums = 0, bias, or what is in out."""
        build = self.builder
        for cell in self.cells:
            build.store(ir.Constant(self.vector, None), self.sums[cell])
        with build.if_then(build.icmp_signed("!=", bias, ir.Constant(_WORD, 0))):
            for v in self.vectors:
                first = self.masked_load(self.at(bias, v * 4 * self.width), masks[v])
                for m in self.rows:
                    build.store(first, self.sums[m, v])
        with self.where(flags, CONTINUE):
            for m, v in self.cells:
                build.store(self.masked_load(places[m, v], masks[v]), self.sums[m, v])

    def fetched(self, flags: Any, fetch: Any, step: Any, b: Any) -> Callable[[Any], Any]:
        """What a step asks for: without FETCH always the same, which is there."""
        build, zero = self.builder, ir.Constant(_WORD, 0)
        on = build.icmp_signed("!=", build.and_(flags, ir.Constant(_WORD, FETCH)), zero)
        first, step = build.select(on, fetch, b), build.select(on, step, zero)
        return lambda k: build.add(first, build.mul(k, step))

    def ahead(self, column: Any, a_step: Any, some: int) -> None:
        """Ask for the columns of a that come _AHEAD steps later."""
        if len(self.vectors) == 1:  # whose loads are already as many as its FMAs
            return
        for k in range(some):
            place = self.at(column, self.times(a_step, _AHEAD + k))
            self.prefetch(place)
            self.prefetch(self.at(place, 4 * len(self.rows) - 4))

    def portions(self, depth: Any, some: int) -> Iterator[tuple[Any, Any, int]]:
        """Steps `some` at a time, then those left: where each begins, how often, how many."""
        build, zero = self.builder, ir.Constant(_WORD, 0)
        whole = build.udiv(depth, ir.Constant(_WORD, some))
        yield zero, whole, some
        if some > 1:
            done = self.times(whole, some)
            yield done, build.sub(depth, done), 1

    def steps(self, some: int, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any) -> None:
        """sums += some columns of a times as many rows of b."""
        build = self.builder
        fma = self.intrinsic("llvm.fma", self.vector, *[self.vector] * 3)
        rows = [
            [self.load(self.vector, self.at(b, self.times(b_step, k), v * 4 * self.width))
             for v in self.vectors]
            for k in range(some)
        ]  # fmt: skip
        # two rows at once: one at a time LLVM loads the others too early, and runs out of registers
        for first in self.rows[::2]:
            for k, m in itertools.product(range(some), self.rows[first : first + 2]):
                place = self.at(a, self.times(a_row, m), self.times(a_step, k))
                spread = self.spread(self.load(_FLOAT, place), self.vector)
                for v in self.vectors:
                    given = spread, rows[k][v], build.load(self.sums[m, v])
                    build.store(build.call(fma, given), self.sums[m, v])

    def end(self, places: dict, masks: list, flags: Any) -> None:
        """out = sums, with what is there added or negative ones cut off where the flags say so."""
        build, zero = self.builder, ir.Constant(self.vector, None)
        with self.where(flags, ADD):
            for m, v in self.cells:
                old = self.masked_load(places[m, v], masks[v])
                build.store(build.fadd(old, build.load(self.sums[m, v])), self.sums[m, v])
        with self.where(flags, RELU):
            for cell in self.cells:
                total = build.load(self.sums[cell])
                below = build.fcmp_ordered("<=", total, zero)  # false for NaN, which stays
                build.store(build.select(below, zero, total), self.sums[cell])
        kinds = self.vector, self.vector.as_pointer(), ir.IntType(32), self.lanes
        store = self.intrinsic("llvm.masked.store", ir.VoidType(), *kinds)
        for m, v in self.cells:
            total = build.load(self.sums[m, v])
            align = ir.Constant(ir.IntType(32), 4)
            build.call(store, [total, self.pointer(places[m, v], self.vector), align, masks[v]])

    def transpose(self, source: Any, source_row: Any, to: Any, to_row: Any) -> None:
        """A square: numbers (i, l + d) and (i + d, l) change places, for d = 1, 2, 4 ..."""
        build, width, word = self.builder, self.width, ir.IntType(32)
        places = [self.at(source, self.times(source_row, i)) for i in range(width)]
        rows = [self.load(self.vector, place) for place in places]
        for d in (1 << n for n in range(width.bit_length() - 1)):
            upper = [n - d + width if n & d else n for n in range(width)]
            lower = [n + width if n & d else n + d for n in range(width)]
            masks = [ir.Constant(ir.VectorType(word, width), m) for m in (upper, lower)]
            for i in (i for i in range(width) if not i & d):
                pair = rows[i], rows[i + d]
                rows[i], rows[i + d] = (build.shuffle_vector(*pair, mask) for mask in masks)
        for i, row in enumerate(rows):
            place = self.pointer(self.at(to, self.times(to_row, i)), self.vector)
            build.store(row, place).align = 4

    # What the lines above are made of.

    def mask(self, columns: Any, v: int) -> Any:
        """Which lanes of vector v lie before `columns`."""
        numbers = ir.VectorType(_WORD, self.width)
        first = range(v * self.width, (v + 1) * self.width)
        lanes = ir.Constant(numbers, [ir.Constant(_WORD, n) for n in first])
        return self.builder.icmp_signed("<", lanes, self.spread(columns, numbers))

    def spread(self, value: Any, vector: Any) -> Any:
        """A vector with a value in all lanes."""
        word = ir.IntType(32)
        one = self.builder.insert_element(
            ir.Constant(vector, ir.Undefined), value, ir.Constant(word, 0)
        )
        lanes = ir.Constant(ir.VectorType(word, vector.count), None)
        return self.builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)

    def at(self, address: Any, *distances: Any) -> Any:
        for d in distances:
            address = self.builder.add(address, ir.Constant(_WORD, d) if isinstance(d, int) else d)
        return address

    def times(self, value: Any, n: int) -> Any:
        return self.builder.mul(value, ir.Constant(_WORD, n))

    def pointer(self, address: Any, kind: Any) -> Any:
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, kind: Any, address: Any) -> Any:
        loaded = self.builder.load(self.pointer(address, kind))
        loaded.align = 8 if kind is _WORD else 4
        return loaded

    def masked_load(self, address: Any, mask: Any) -> Any:
        kinds = self.vector.as_pointer(), ir.IntType(32), self.lanes, self.vector
        load = self.intrinsic("llvm.masked.load", self.vector, *kinds)
        align, zero = ir.Constant(ir.IntType(32), 4), ir.Constant(self.vector, None)
        return self.builder.call(load, [self.pointer(address, self.vector), align, mask, zero])

    def prefetch(self, address: Any, near: int = 3) -> None:
        """Ask for the line of the cache at an address, which may be none of ours.

        near: 3 for the first-level cache, 2 for the second.
        """
        word, byte = ir.IntType(32), ir.IntType(8)
        kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), word, word, word])
        module, name = self.builder.module, "llvm.prefetch.p0"
        function = module.globals.get(name) or ir.Function(module, kind, name)
        how = [ir.Constant(word, n) for n in (0, near, 1)]  # to read data
        self.builder.call(function, [self.pointer(address, byte), *how])

    def intrinsic(self, name: str, result: Any, *kinds: Any) -> Any:
        """A function of LLVM's own on vectors."""
        name += f".v{self.width}f32" + ".p0" * name.startswith("llvm.masked")
        module = self.builder.module
        kind = ir.FunctionType(result, kinds)
        return module.globals.get(name) or ir.Function(module, kind, name)

    def where(self, flags: Any, flag: int) -> Any:
        set_ = self.builder.and_(flags, ir.Constant(_WORD, flag))
        return self.builder.if_then(
            self.builder.icmp_signed("!=", set_, ir.Constant(_WORD, 0)), likely=False
        )

    @contextmanager
    def loop(self, count: Any) -> Iterator[Any]:
        """A loop over range(count), whose body is what is written inside."""
        build = self.builder
        before, body, after = build.block, *(build.append_basic_block() for _ in range(2))
        zero, one = (ir.Constant(_WORD, n) for n in (0, 1))
        build.cbranch(build.icmp_signed(">", count, zero), body, after)
        build.position_at_end(body)
        number = build.phi(_WORD)
        number.add_incoming(zero, before)
        yield number
        following = build.add(number, one)
        number.add_incoming(following, build.block)
        build.cbranch(build.icmp_signed("<", following, count), body, after)
        build.position_at_end(after)


@intrinsic
def call(typing, code, *words):
    """Run a tile or a transposer, in compiled code: its address, then its arguments."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, given = arguments
        with builder.goto_entry_block():
            place = builder.alloca(given.type)
        builder.store(given, place)
        kind = ir.FunctionType(ir.VoidType(), [_WORD])
        function = builder.inttoptr(address, kind.as_pointer())
        builder.call(function, [builder.ptrtoint(place, _WORD)])
        return context.get_dummy_value()

    return types.void(types.int64, types.StarArgTuple(words)), generate


chosen = choose(os.environ.get("MINIDL_SIMD", ""))
