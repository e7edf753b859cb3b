"""Hypothesis strategies for what kernels are given: lengths, shapes, memory layouts, numbers.

    @given(data=st.data(), n=lengths())
    def test_scale(kernel_runner, data, n):
        x = data.draw(arrays(np.float32, n, special=True))

Small and simple comes first, so that what fails shrinks to it; lengths around those of warps and
blocks come often, 0 is one of them, and views reach over their memory as users' views do.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .cases import Draw
from .cases.draw import EDGES
from .testing import LAYOUTS, Backend, Drawn, Placed

try:
    from hypothesis import settings
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "minidl.kernels.strategies needs Hypothesis: pip install hypothesis"
    ) from error

# What lies before, behind and between the elements of a view: who reads there gets it.
_AROUND = {"f": np.nan, "c": np.nan, "i": -(2**7), "u": 2**7, "b": True}


def register_profiles() -> None:
    """Name the profiles minidl, minidl-ci and minidl-thorough; none has a deadline.

    The first example of a kernel compiles it, which takes longer than any deadline. The pytest
    plugin calls this for `pytest --hypothesis-profile=minidl`.
    """
    settings.register_profile("minidl", max_examples=50, deadline=None)
    settings.register_profile(
        "minidl-ci", max_examples=100, deadline=None, derandomize=True, print_blob=True
    )
    settings.register_profile("minidl-thorough", max_examples=1000, deadline=None)


def lengths(low: int = 0, high: int = 520) -> st.SearchStrategy[int]:
    """Lengths of an axis: any, and every second one just below, on or past a warp or a block."""
    edges = [n for n in EDGES if low <= n <= high]
    few = st.integers(low, high)
    return st.one_of(few, st.sampled_from(edges)) if edges else few


def shapes(
    min_dims: int = 1, max_dims: int = 3, low: int = 0, high: int = 40
) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of some axes."""
    return st.lists(lengths(low, high), min_size=min_dims, max_size=max_dims).map(tuple)


def layouts(*, output: bool = False) -> st.SearchStrategy[str]:
    """How an array lies in memory: "plain", or one of LAYOUTS. output: in each cell once."""
    return st.sampled_from(["plain", *(n for n in LAYOUTS if not output or n != "broadcast")])


def specials(dtype: Any) -> list[Any]:
    """The values of a dtype at which kernels go wrong.

    Floats: NaN, infinities, -0, the smallest and largest subnormal, the smallest normal and the
    largest number, the next one to 1. Integers: the ends of their range and its neighbours, -1.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        of, kind = np.finfo(dtype), dtype.type
        least = of.smallest_subnormal
        ends = [least, of.tiny - least, of.tiny, of.max, 1 + of.eps]
        return [kind(v) for v in (np.nan, np.inf, -np.inf, -0.0, *ends, *(-v for v in ends))]
    if dtype.kind in "iu":
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        return [dtype.type(v) for v in sorted({low, low + 1, max(low, -1), 0, high - 1, high})]
    if dtype.kind == "b":
        return [np.False_, np.True_]
    raise TypeError(f"there are no special values of {dtype}")


@st.composite
def arrays(
    draw: Callable,
    dtype: Any,
    shape: int | Sequence[int] | st.SearchStrategy,
    *,
    layout: str | st.SearchStrategy = layouts(),  # noqa: B008
    special: bool = False,
) -> np.ndarray:
    """Arrays of a dtype and a shape, in any layout: reversed, transposed, with gaps, shifted ...

    special: some elements are `specials`. Around the elements lies what a kernel must not read:
    NaN, or a number that is not drawn.
    """
    given = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    shape = (given,) if isinstance(given, int) else tuple(given)
    dtype, source = np.dtype(dtype), Draw(Drawn(draw), "float64")
    if dtype.kind == "f":
        value = source.array(shape).astype(dtype)
    else:
        value = source.integers(shape, 0, 2 if dtype.kind == "b" else 100, dtype.name)
    if special and value.size:
        where = st.integers(0, value.size - 1)
        for i in draw(st.lists(where, max_size=8)):
            value.flat[i] = draw(st.sampled_from(specials(dtype)))
    return placed(value, draw(layout) if isinstance(layout, st.SearchStrategy) else layout)


def placed(value: np.ndarray, layout: str) -> np.ndarray:
    """A view with these elements, in a layout, of memory that holds other things too."""
    if layout not in ("plain", *LAYOUTS):
        raise ValueError(f"there is no layout {layout!r}; known: plain, {', '.join(LAYOUTS)}")
    return Placed(Backend("here", {}), value, layout, _AROUND).array
