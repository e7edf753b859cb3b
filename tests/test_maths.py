"""exp, log, tanh ... of the CPU's loops: how exact they are, and that they become vectors."""

import math
import re

import numpy as np
import pytest

from minidl.kernels import cpu, reference
from minidl.kernels.cpu import _numba as numba_
from minidl.kernels.cpu import maths

pytestmark = pytest.mark.numba

TRUE = {name: getattr(np, name) for name in maths.ULPS if hasattr(np, name)}
TRUE["erfc"] = np.vectorize(math.erfc, otypes="d")
INF, NAN = math.inf, math.nan


def compiled(function):
    def loop(x, y):
        numba_.widest()
        for i in range(y.size):
            y[i] = function(x[i])

    return numba_.jit(loop, key=None)


def every(step: int) -> np.ndarray:
    """float32 numbers of all magnitudes, both signs, NaN and infinities among them."""
    bits = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32)
    edges = np.array([0, 0.5, 1, 88.72, 88.73, 89, 103.9, 104.1, 10.2, 9.2, INF, NAN], np.float32)
    return np.concatenate([bits.view(np.float32), edges, -edges, np.spacing(edges[:3])])


@pytest.mark.parametrize("name", maths.ULPS)
def test_a_function_is_as_exact_as_it_says(name):
    x = every(9973)  # a prime: all patterns of low bits
    y = np.empty_like(x)
    compiled(getattr(maths, name))(x, y)
    with np.errstate(all="ignore"):
        true = TRUE[name](x.astype(np.float64))
        near = true.astype(np.float32)
    finite = np.isfinite(near)
    np.testing.assert_array_equal(y[~finite], near[~finite])
    unit = np.maximum(np.spacing(np.abs(near[finite])), 2.0**-149).astype(np.float64)
    ulps = np.abs(y[finite] - true[finite]) / unit
    assert ulps.max() <= maths.ULPS[name], x[finite][ulps.argmax()]
    assert ulps.max() > 0.5 * maths.ULPS[name]  # what is said is no more than what is


@pytest.mark.parametrize("name", ["expm1", "tanh", "log1p"])
def test_what_is_odd_at_zero_keeps_tiny_numbers_and_the_sign_of_zero(name):
    x = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-20], np.float32)
    y = np.empty_like(x)
    compiled(getattr(maths, name))(x, y)
    np.testing.assert_array_equal(y.view(np.int32)[2:], x.view(np.int32)[2:])
    np.testing.assert_array_equal(y[:2], x[:2])


def test_both_ways_to_multiply_by_a_power_of_two_agree():
    at_once, in_two_steps = maths._at_once, maths._in_two_steps

    def loop(k, a, b):
        for i in range(k.size):
            a[i], b[i] = at_once(np.float32(1.3), k[i]), in_two_steps(np.float32(1.3), k[i])

    k = np.arange(-252, 255, dtype=np.int32)
    a, b = np.empty((2, k.size), np.float32)
    numba_.jit(loop, key=None)(k, a, b)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(a, np.ldexp(np.float32(1.3), k))
    np.testing.assert_array_equal(b, a)


@pytest.mark.parametrize("name", maths.ULPS)
def test_loops_are_made_of_vectors(name):
    loop = compiled(getattr(maths, name))
    x = np.ones(64, np.float32)
    loop(x, x.copy())
    (assembly,) = loop.inspect_asm().values()
    assert not re.search(r"\b(expf?|logf?|erfcf?|tanhf?|ldexpf?)\b", assembly)  # no library
    features = maths._FEATURES
    if features.get("avx512f"):
        assert re.search(r"vfmadd\d+ps.*%zmm", assembly)
    elif features.get("fma"):
        assert re.search(r"vfmadd\d+ps.*%ymm", assembly)


def test_ranks_are_in_the_order_of_numbers():
    rank, ranked = maths.rank, maths.ranked

    def loop(x, place, back):
        for i in range(x.size):
            place[i] = rank(x[i])
            back[i] = ranked(place[i])

    x = np.array([-INF, -2, -1e-45, -0.0, 0, 1e-45, 1, 3e38, INF, NAN], np.float32)
    place, back = np.empty(x.size, np.int32), np.empty_like(x)
    numba_.jit(loop, key=None)(x, place, back)
    assert (np.diff(place.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("width", [1, 3, 10, 16, 100, 1000])
def test_a_row_with_a_nan_anywhere_is_nan_after_softmax(width):
    x = np.random.default_rng(width).normal(size=(2 * width, width)).astype(np.float32)
    for i in range(width):  # of both signs
        x[2 * i, i], x[2 * i + 1, i] = NAN, -NAN
    rows = np.concatenate([x, np.full((1, width), -1e30, np.float32)])
    for kernel in ("softmax", "log_softmax"):
        y = getattr(cpu, kernel)(rows, np.empty_like(rows))
        assert np.isnan(y[:-1]).all()
        expected = getattr(reference, kernel)(rows[-1:], np.empty_like(rows[-1:]))
        np.testing.assert_allclose(y[-1:], expected, rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_is_no_column_is_an_error_on_any_thread(label):
    x, labels = np.zeros((40_000, 10), np.float32), np.zeros(40_000, np.int64)  # threads share it
    labels[39_990] = label
    loss, lse = np.empty((), np.float32), np.empty(40_000, np.float32)
    with pytest.raises(IndexError, match="not a column"):
        cpu.cross_entropy(x, labels, loss, lse, 1.0)
    with pytest.raises(IndexError, match="not a column"):
        cpu.cross_entropy_grad(loss, x, labels, lse, np.empty_like(x), 1.0, False)
