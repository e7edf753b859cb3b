"""Draws the arguments of kernels: sizes, options, arrays, over a source of choices."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

from .. import shapes
from ..roles import Array

Values = dict[str, Any]


class Blank(NamedTuple):
    """An output to be: its shape, and its dtype (None: that of the example)."""

    shape: tuple[int, ...]
    dtype: str | None = None


class Source(Protocol):
    """Where choices come from: Hypothesis, which can shrink them, or a seed."""

    def integer(self, low: int, high: int) -> int: ...
    def bytes(self, n: int) -> bytes: ...


class Seeded:
    """Choices that follow from a seed."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True, dtype=np.uint64))

    def bytes(self, n: int) -> bytes:
        return self.rng.bytes(n)


def _numbers() -> Array:
    """What a drawn byte stands for: 0 and small numbers first, for examples shrink to those."""
    simple = [0, 1, -1, 2, -2, 0.5, -0.5, 3, -3]
    return np.array([*simple, *np.random.default_rng(0).normal(0, 1.5, 256 - len(simple))])


_NUMBERS = _numbers()
# Just below, on and just past the tiles, warps and blocks of kernels.
EDGES = tuple(n + d for n in (8, 16, 32, 64, 128, 256) for d in (-1, 0, 1))
_MOST = 509  # bytes drawn for one array; prime, so that rows of a longer one do not repeat


class Draw:
    """Draws arguments: `size`, `pick`, `array` ... over a source of choices.

    mode: "any"; "empty" (no batch); "large" (sizes past the tiles of fast kernels); "edges" (sizes
    around those of tiles); "long" (large batches: sums that kernels cut into tasks); "smooth" (no
    ties, so that numeric differences converge). without: parameters that the kernel under test does
    not have, which get their first, simplest value.
    """

    def __init__(
        self, source: Source, dtype: str = "float64", mode: str = "any", without: Iterable = ()
    ):
        self.source, self.dtype, self.mode, self.without = source, np.dtype(dtype), mode, without
        self.spaced = 0  # arrays of distinct numbers so far
        self.lengthened = False

    def size(self, low: int, high: int, large: int | None = None) -> int:
        """A length from low to high, or up to `large` in that mode."""
        if self.mode == "edges" and self.source.integer(0, 1):
            return self.pick(
                "", *[n for n in EDGES if low <= n <= 2 * (large or 3 * high)] or [low]
            )
        if self.mode == "large":
            low, high = high, large or 3 * high
        return self.source.integer(low, high)

    def batch(self) -> int:
        """A length that may be 0."""
        if self.mode == "empty":
            return 0
        if self.mode == "long" and not self.lengthened:
            self.lengthened = True  # one axis is enough
            return self.source.integer(500, 1500)
        return self.size(int(self.mode == "smooth"), 3)

    def shape(self, low: int, high: int) -> tuple[int, ...]:
        """A shape of low to high axes; the first one may be empty."""
        rank = self.source.integer(max(low, self.mode in ("empty", "long")), high)
        return tuple(
            self.size(1, 5, 40 if rank < 4 else 12) if a or self.mode == "large" else self.batch()
            for a in range(rank)
        )

    def pick(self, name: str, *options: Any) -> Any:
        """One of the options for a parameter; the first is the simplest."""
        return options[0 if name in self.without else self.source.integer(0, len(options) - 1)]

    def array(
        self, shape, away: float = 0.0, positive: bool = False, distinct: bool = False
    ) -> Array:
        """An array of the example's dtype; away: the least magnitude of its numbers.

        distinct: in smooth mode no two numbers are equal, here or in another such array, nor 0.
        """
        n = shapes.count(shape)
        raw = np.resize(np.frombuffer(self.source.bytes(min(n, _MOST)), np.uint8), n)
        if distinct and self.mode == "smooth":
            rank = np.argsort(np.argsort(raw, kind="stable"))
            value = (rank - n // 2 + 0.5 + self.spaced / 8) / 2
            self.spaced += 1
        else:
            value = _NUMBERS[raw]
        value = np.abs(value) if positive else value
        value = (value + np.copysign(away, value)).astype(self.dtype).reshape(shape)
        if self.mode != "smooth" and n > 1 and self.source.integer(0, 7) == 7:
            axis = self.source.integer(0, len(shape) - 1)  # as broadcast gradients are
            value = np.repeat(value.take([0], axis), shape[axis], axis)
        return value

    def integers(self, shape, low: int, high: int, dtype: str = "int64") -> Array:
        """An array of integers in [low, high), at most 256 different ones."""
        n = shapes.count(shape)
        raw = np.resize(np.frombuffer(self.source.bytes(min(n, _MOST)), np.uint8), n)
        return (raw.astype(np.int64) % max(high - low, 1) + low).astype(dtype).reshape(shape)

    def pair(self, low: int, high: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Two shapes of low to high axes that broadcast together."""
        full = self.shape(low, high)
        kinds = [self.source.integer(0, 3) for _ in full]  # 2 and 3: length 1 in one of them
        both = [tuple(1 if k == one else n for n, k in zip(full, kinds)) for one in (2, 3)]
        if self.source.integer(0, 3) == 3:  # leading axes of length 1 may be left out
            both = [s[next((a for a, n in enumerate(s) if n != 1), len(s)) :] for s in both]
        return both[0], both[1]

    def key(self) -> Array:
        """Seed and offset of random numbers; an offset whose low half runs over, too."""
        seed = self.source.integer(0, 2**64 - 1)
        return np.array([seed, self.pick("", 0, 5, 2**32 - 1)], np.uint64)

    def window(self, pool: bool) -> tuple[Any, Any, Any]:
        """Size, stride and padding of a window. In pooling it reaches past the padding."""
        size = self.pick("size", (2, 2), (1, 1), (3, 3), (3, 2), (1, 4))
        stride = self.pick("stride", (1, 1), (2, 2), (1, 2), (3, 1))
        pads = (0, 0), (1, 1), (0, 1), (1, 0), (2, 1), (0, 3)
        top, left = ([p for p in pads if not pool or max(p) < n] for n in size)
        pad = self.pick("pad", *((a, b) for a in top for b in left))
        return size, stride, pad

    def image(self, size, pad, channels: int, **kind: bool) -> Array:
        """A batch of images (N, H, W, C) into which a window fits."""
        least = (max(1, k - sum(p)) for k, p in zip(size, pad))
        height, width = (self.size(n, max(n, 7), 12) for n in least)
        return self.array((self.batch(), height, width, channels), **kind)
