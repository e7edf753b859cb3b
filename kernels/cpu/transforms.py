"""Winograd's transforms: squares of small matrices, M d M', for whole vectors of d at once.

What they are for, and how exact they are, is told in `winograd.py`. A transform is straight-line
code: n x n vectors are loaded, multiplied by M from both sides with what M's zeros and ones leave
to do, and stored. All of them fit into AVX-512's registers for F(2x2, 3x3).
"""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from . import simd
from .simd import Target

Matrix = tuple[tuple[Fraction, ...], ...]


def _matrix(text: str) -> Matrix:
    return tuple(tuple(map(Fraction, row.split())) for row in text.split(","))


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


class Scheme(NamedTuple):
    """F(m x m, 3 x 3): how many outputs m a tile has along an axis, and A', B' and G."""

    outputs: int
    a: Matrix
    b: Matrix
    g: Matrix

    @property
    def side(self) -> int:
        """Pixels of a tile along an axis."""
        return self.outputs + 2

    def matrix(self, of: str) -> Matrix:
        """What transforms a tile of "images", "filters", "products" or, going back, others."""
        return {
            "images": self.b,
            "filters": self.g,
            "products": self.a,
            "slopes": _transposed(self.a),
            "sums": _transposed(self.g),
        }[of]

    def roundings(self, *of: str) -> int:
        """Of a number on its way through transforms: for each axis, a row's terms and constants."""
        found = 0
        for matrix in map(self.matrix, of):
            inexact = any(x.denominator & (x.denominator - 1) for row in matrix for x in row)
            found += 2 * (max(sum(map(bool, row)) for row in matrix) - 1 + 2 * inexact)
        return found


SCHEMES = {
    2: Scheme(  # section 4.1
        2,
        _matrix("1 1 1 0, 0 1 -1 -1"),
        _matrix("1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1"),
        _matrix("1 0 0, 1/2 1/2 1/2, 1/2 -1/2 1/2, 0 0 1"),
    ),
    4: Scheme(  # section 4.2
        4,
        _matrix("1 1 1 1 1 0, 0 1 -1 2 -2 0, 0 1 1 4 4 0, 0 1 -1 8 -8 1"),
        _matrix(
            "4 0 -5 0 1 0, 0 -4 -4 1 1 0, 0 4 -4 -1 1 0, 0 -2 -1 2 1 0, 0 2 -1 -2 1 0, 0 4 0 -5 0 1"
        ),
        _matrix(
            "1/4 0 0, -1/6 -1/6 -1/6, -1/6 1/6 -1/6, 1/24 1/12 1/6, 1/24 -1/12 1/6, 0 0 1"
        ),
    ),
}  # fmt: skip


@functools.cache
def transform(target: Target, scheme: Scheme, of: str) -> int:
    """Address of compiled code that fills the squares M d M' from squares d, for many d at once.

    `call` takes the address, then from and to (where the addresses lie at which each number of the
    first square is, and its neighbours behind it) and how many squares there are. Of results also
    check: where `width` numbers lie to which 0 times every result is added, so that they are NaN
    from the first one on that is not finite. And of "products" bias, whose numbers are added to
    those of as many squares, and relu (1: what is below 0 becomes 0).
    """

    def write(builder: Any, *words: Any) -> None:
        _Squares(builder, target.width).write(scheme.matrix(of), *words)

    name, words = f"winograd{scheme.outputs}_{of}_{target.name}", {"products": 6, "sums": 4}
    return simd._address(simd._compiled(name, words.get(of, 3), write))


def transforms() -> list[tuple[Target, Scheme, str]]:
    """What `transform` can be asked for with the chosen vectors."""
    kinds = "images", "filters", "products", "slopes", "sums"
    return [(simd.chosen, s, of) for s in SCHEMES.values() for of in kinds if simd.chosen]


class _Squares(simd._Writer):
    """Writes the IR of a transform."""

    def write(self, matrix, source, to, count, check=None, bias=None, relu=None):
        """For every vector of squares: load it, M d M', store it."""
        build, (m, n) = self.builder, (len(matrix), len(matrix[0]))
        sources = [self.load(simd._WORD, self.at(source, 8 * i)) for i in range(n * n)]
        places = [self.load(simd._WORD, self.at(to, 8 * i)) for i in range(m * m)]
        low = self.floor(relu) if relu else None
        shift = ir.Constant(simd._WORD, self.width.bit_length() - 1)
        with self.loop(build.ashr(self.at(count, self.width - 1), shift)) as v:
            first = self.times(v, self.width)
            mask, skip = self.mask(build.sub(count, first), 0), self.times(first, 4)
            square = [self.masked_load(self.at(place, skip), mask) for place in sources]
            done = self.sandwich(matrix, square)
            if check:
                self.look(done, check)
            if bias:
                done = self.finish(done, self.masked_load(self.at(bias, skip), mask), low)
            for place, value in zip(places, done, strict=True):
                self.masked_store(value, self.at(place, skip), mask)

    def sandwich(self, matrix: Matrix, square: Sequence[Any]) -> list[Any]:
        """M d M' of n x n vectors, row by row."""
        n = len(matrix[0])
        columns = [self.product(matrix, square[j::n]) for j in range(n)]  # of M d
        return [x for row in zip(*columns, strict=True) for x in self.product(matrix, row)]

    def product(self, matrix: Matrix, numbers: Sequence[Any]) -> list[Any]:
        """M d of n vectors. Each sum begins with a factor of 1 if it can."""
        return [self.sum(row, numbers) for row in matrix]

    def sum(self, row: Sequence[Fraction], numbers: Sequence[Any]) -> Any:
        """The sum of vectors times constants."""
        build, fma = self.builder, self.intrinsic("llvm.fma", self.vector, *[self.vector] * 3)
        terms = sorted(((c, x) for c, x in zip(row, numbers, strict=True) if c), key=_not_one)
        (c, total), *rest = terms
        if c != 1:
            total = build.fneg(total) if c == -1 else build.fmul(self.constant(c), total)
        for c, x in rest:
            if abs(c) == 1:
                total = build.fadd(total, x) if c == 1 else build.fsub(total, x)
            else:
                total = build.call(fma, [self.constant(c), x, total])
        return total

    def look(self, results: Sequence[Any], check: Any) -> None:
        """check += 0 times the sum of results: NaN if one of them is not finite."""
        build = self.builder
        total, *rest = results
        for x in rest:
            total = build.fadd(total, x)
        fma = self.intrinsic("llvm.fma", self.vector, *[self.vector] * 3)
        place = self.pointer(check, self.vector)
        old = build.load(place, align=4)
        build.store(build.call(fma, [total, self.constant(0), old]), place, align=4)

    def floor(self, relu: Any) -> Any:
        """0 in all lanes with relu, else -inf: what is below becomes that. NaN is not below."""
        build = self.builder
        chosen = build.icmp_signed("!=", relu, ir.Constant(simd._WORD, 0))
        return build.select(chosen, self.constant(0), self.constant(float("-inf")))

    def finish(self, results: Sequence[Any], bias: Any, low: Any) -> list[Any]:
        """Results with bias, and none below low."""
        build = self.builder
        values = [build.fadd(x, bias) for x in results]
        return [build.select(build.fcmp_ordered("<=", x, low), low, x) for x in values]

    def constant(self, c: Any) -> Any:
        return ir.Constant(self.vector, [float(np.float32(float(c)))] * self.width)

    def masked_store(self, value: Any, place: Any, mask: Any) -> None:
        kinds = self.vector, self.vector.as_pointer(), ir.IntType(32), self.lanes
        store = self.intrinsic("llvm.masked.store", ir.VoidType(), *kinds)
        four = ir.Constant(ir.IntType(32), 4)
        self.builder.call(store, [value, self.pointer(place, self.vector), four, mask])


def _not_one(term: tuple[Fraction, Any]) -> tuple[bool, bool]:
    c, _ = term
    return c != 1, abs(c) != 1
