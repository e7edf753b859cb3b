"""Reductions and batch norm on CUDA at the edges of warps, blocks, tasks and grids.

The Cases draw small shapes (test_kernels.py). Here are the ones at which the kernels change their
ways. Sums are of small whole numbers, so that in any order they are exact.
"""

import itertools
import math

import numpy as np
import pytest

from minidl.kernels import reference

DTYPES = ("float32", "float64")
LENGTHS = (0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 257, 511, 512, 513, 1025)
NAN, INF = math.nan, math.inf


@pytest.fixture
def in_every_order(device):
    """What a kernel returns, with the same bits in every order of threads and blocks."""
    return device.same_bits


def whole(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)


def real(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def set_to_nan(shape, dtype="float32"):
    return np.full(shape, np.nan, dtype)


def views(n):
    """Shapes that reduce n numbers to few and to many outputs: rows, columns, one number."""
    yield (n,), (1,)
    yield (3, n), (3, 1)
    yield (n, 3), (1, 3)
    yield (n, 33), (1, 33)
    yield (2, n, 5), (2, 1, 5)
    yield (70, n), (70, 1)


@pytest.mark.parametrize("n", LENGTHS)
def test_sums_of_any_length(k, in_every_order, n):
    for shape, kept in views(n):
        x = whole(shape)
        want = reference.sum(x, set_to_nan(kept))
        got = in_every_order(k.sum, x, set_to_nan(kept))
        np.testing.assert_array_equal(got, want, str(shape))


@pytest.mark.parametrize("n", LENGTHS)
def test_maxima_of_any_length_the_first_of_equal_ones(k, in_every_order, n):
    for shape, kept in views(n):
        if not n:
            continue
        x = whole(shape, seed=n)  # 17 different numbers: ties in every row
        want = reference.max(x, set_to_nan(kept), np.empty(kept, np.int64))
        got = in_every_order(k.max, x, set_to_nan(kept), np.full(kept, -1, np.int64))
        for mine, theirs in zip(got, want, strict=True):
            np.testing.assert_array_equal(mine, theirs, str(shape))


def edges(shape):
    """The length at which a shape gets a second task, and whether the kernels really cut it."""
    from minidl.kernels.cuda import reduce

    outer, _, inner = shape
    chunk = reduce.box(*shape)[1] * reduce.WORTH_BARRIERS
    for n in (2 * chunk - 1, 2 * chunk, 2 * chunk + 1, 5 * chunk + 1):
        tasks, size = reduce.tasks_of((outer, n, inner), reduce.box(outer, n, inner))
        assert (tasks > 1) == (n >= 2 * chunk)
        assert (tasks - 1) * size < n <= tasks * size
        yield n


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outer", "inner"), [(1, 1), (1, 3), (1, 33), (3, 1), (2, 40)])
def test_long_reductions_in_two_stages(k, in_every_order, outer, inner, dtype):
    for n in edges((outer, 10**6, inner)):
        x, kept = whole((outer, n, inner), dtype, seed=n), (outer, 1, inner)
        y, arg = set_to_nan(kept, dtype), np.empty(kept, np.int64)
        got = in_every_order(k.sum, x, y)
        np.testing.assert_array_equal(got, reference.sum(x, y.copy()))
        got = in_every_order(k.max, x, y, arg)
        for mine, theirs in zip(got, reference.max(x, y.copy(), arg.copy()), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        one = np.where(np.arange(n) == n - 1, 9, 8).astype(dtype)  # the last one is the largest
        x[...] = one[:, None]
        assert (k.max(x, y, arg)[1] == n - 1).all()
        start, sums = real(inner, dtype), x[0]
        apart = start + k.sum_rows(sums, set_to_nan(inner, dtype), False)
        assert k.sum_rows(sums, start.copy(), True).tobytes() == apart.tobytes()


def test_sums_round_no_more_than_a_sum_in_any_order(k, in_every_order):
    for shape, kept in [*views(5000), ((100_000,), (1,))]:
        x, y = real(shape), set_to_nan(kept)
        axes = tuple(a for a, n in enumerate(kept) if n == 1)
        exact = x.astype(float).sum(axis=axes, keepdims=True)
        terms, size = x.size // y.size, np.abs(x.astype(float)).sum(axis=axes, keepdims=True)
        # 64 terms one after the other, then trees: far below the bound of (terms + 1) / 2
        limit = np.finfo("float32").eps * min(terms, 200) * size
        assert (np.abs(in_every_order(k.sum, x, y) - exact) <= limit).all()


AXES = [axes for n in range(5) for axes in itertools.combinations(range(4), n)]


@pytest.mark.parametrize("axes", AXES)
def test_any_axes_neighbours_or_not(k, axes):
    shape = (3, 34, 2, 5)
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
    x, dy = whole(shape), whole(kept, seed=1)
    for there in (x, x[:, ::-1], whole(shape[::-1]).transpose(3, 2, 1, 0)):
        np.testing.assert_array_equal(
            k.sum(there, set_to_nan(kept)), there.sum(axis=axes, keepdims=True)
        )
        y, arg = k.max(there, set_to_nan(kept), np.empty(kept, np.int64))
        want = reference.max(there, set_to_nan(kept), np.empty(kept, np.int64))
        np.testing.assert_array_equal(y, want[0])
        np.testing.assert_array_equal(arg, want[1])
    for name, given in [("sum_grad", (dy,)), ("mean_grad", (dy,)), ("max_grad", (dy, arg))]:
        for add in (False, True):
            for start in (whole(shape), whole(shape[::-1]).transpose(3, 2, 1, 0)):
                got = getattr(k, name)(*given, start.copy("K"), add)
                want = getattr(reference, name)(*given, start.copy("K"), add)
                np.testing.assert_array_equal(got, want)


def test_more_blocks_than_a_grid_has_in_turns(k, monkeypatch):
    from minidl.kernels.cuda import reduce

    monkeypatch.setattr(reduce, "MOST_BLOCKS", 2)
    for shape in [(1000, 5, 1), (300, 40, 3), (9, 600, 1), (3, 8000, 33)]:
        kept = shape[0], 1, shape[2]
        x, y, arg = whole(shape), set_to_nan(kept), np.empty(kept, np.int64)
        np.testing.assert_array_equal(k.sum(x, y), x.sum(axis=1, keepdims=True))
        got, want = k.max(x, y, arg), reference.max(x, y.copy(), arg.copy())
        np.testing.assert_array_equal(got, want)
        dx = set_to_nan(shape)
        np.testing.assert_array_equal(
            k.max_grad(y, arg, dx, False), reference.max_grad(y, arg, dx.copy(), False)
        )


@pytest.mark.parametrize("n", [1, 40, 300, 9000])
def test_nan_wins_the_first_one_and_zeros_are_equal(k, in_every_order, n):
    y, arg = set_to_nan(1), np.empty(1, np.int64)

    def largest(**put):
        x = np.full(n, -INF, np.float32)
        for value, places in put.items():
            x[places] = {"nan": NAN, "inf": INF, "zero": 0.0, "negative": -0.0}[value]
        got = in_every_order(k.max, x, y, arg)
        return got[0].item(), got[1].item()

    assert largest() == (-INF, 0)
    half, last = n // 2, n - 1
    assert largest(inf=[last]) == (INF, last)
    for place in {0, half, last}:
        value, at = largest(inf=[0, half], nan=[place, last])
        assert (math.isnan(value), at) == (True, place)
    value, at = largest(zero=[last], negative=[half])  # -0.0 and 0.0 tie, the first one stays
    assert (value, at) == (0, half)
    assert math.copysign(1, value) == -1


def test_sums_and_means_of_nothing_of_infinity_and_of_minus_zero(k):
    y = set_to_nan((1, 3))
    assert k.sum(np.empty((0, 3), np.float32), y).tolist() == [[0, 0, 0]]
    assert np.isnan(k.mean(np.empty((0, 3), np.float32), y)).all()
    x = np.zeros((600, 3), np.float32)
    x[7, 0], x[500, 1], x[1, 2], x[599, 2] = INF, NAN, INF, -INF
    assert str(k.sum(x, y)) == str(k.mean(x, y)) == "[[inf nan nan]]"
    assert np.isnan(k.sum_rows(x, np.ones(3, np.float32), True)).tolist() == [False, True, True]


@pytest.mark.parametrize("n", [0, 1, 255, 257, 8191, 8193])
def test_sum_of_squares_in_one_pass(k, n):
    x, y = whole(n), np.full((), 3, np.float32)
    assert k.sum_squares(x, y, False) == np.square(x).sum()
    assert k.sum_squares(x[::-1], y, True) == 2 * np.square(x).sum()


def test_a_mean_divides(k):
    """By 10, which has no exact inverse: to multiply by 0.1 would round twice."""
    for n in (10, 600):
        x = np.arange(7 * n, dtype=np.float32).reshape(n, 7)
        want = x.sum(axis=0, keepdims=True) / np.float32(n)
        np.testing.assert_array_equal(k.mean(x, set_to_nan((1, 7))), want)


# Batch norm

CHANNELS = (1, 3, 16, 31, 32, 33, 257)


def normal_case(rows, channels, dtype="float32"):
    x, dy = (real((rows, channels), dtype, seed) for seed in (0, 1))
    return x, dy, real(channels, dtype, 2), real(channels, dtype, 3)


def close(got, want, eps=2e-5):
    scale = np.abs(want).max(initial=1)
    np.testing.assert_allclose(got, want, rtol=eps, atol=eps * scale)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("rows", [1, 31, 33, 255, 257, 2049])
def test_batch_norm_and_its_gradients(k, in_every_order, rows, channels):
    x, dy, w, b = normal_case(rows, channels)
    wide = [a.astype(np.float64) for a in (x, w, b)]
    like = set_to_nan(x.shape), set_to_nan(channels), set_to_nan(channels)
    exact = [a.astype(np.float64) for a in like]
    got = in_every_order(k.batch_norm, x, w, b, None, *like, 1e-3, False)
    for mine, theirs in zip(
        got, reference.batch_norm(*wide, None, *exact, 1e-3, False), strict=True
    ):
        close(mine, theirs)
    _, mean, var = got
    outs = (*(set_to_nan(n) for n in (x.shape, channels, channels, x.shape)),)
    y = np.where(dy > x, x, np.float32(0))
    for name in ("batch_norm_grad", "batch_norm_eval_grad"):
        given, how = (dy, x, w, mean, var, y), (1e-3, True, (False,) * 4)
        grads = in_every_order(getattr(k, name), *given, *outs, *how)
        want = getattr(reference, name)(*(a.astype(np.float64) for a in (*given, *outs)), *how)
        for mine, theirs in zip(grads, want, strict=True):
            close(mine, theirs)
        for wanted in ((0,), (1,), (2,), (3,), (0, 2)):  # fewer of them: the same bits
            some = [set_to_nan(a.shape) if i in wanted else None for i, a in enumerate(outs)]
            getattr(k, name)(*given, *some, *how)
            for i in wanted:
                assert some[i].tobytes() == grads[i].tobytes()


@pytest.mark.parametrize("channels", CHANNELS)
def test_relu_within_is_relu_after_bit_for_bit(k, channels):
    x, _, w, _ = normal_case(130, channels)
    b = real(channels, seed=5) / 8
    x[3] = [NAN, INF, -INF][channels % 3]
    mean, var = set_to_nan(channels), set_to_nan(channels)
    apart = k.batch_norm(x[5:], w, b, None, set_to_nan((125, channels)), mean, var, 1e-3, False)[0]
    fused = k.batch_norm(x[5:], w, b, None, set_to_nan((125, channels)), mean, var, 1e-3, True)[0]
    assert (apart < 0).any()
    assert fused.tobytes() == reference.relu(apart, apart.copy()).tobytes()
    apart = k.batch_norm_eval(x, w, b, None, mean, var, set_to_nan(x.shape), 1e-3, False)
    fused = k.batch_norm_eval(x, w, b, None, mean, var, set_to_nan(x.shape), 1e-3, True)
    np.testing.assert_array_equal(fused, np.where(apart <= 0, np.float32(0), apart))


def test_the_variance_of_numbers_far_from_zero(k):
    """Two passes: E[x^2] - mean^2 in float32 would have no digit right."""
    x = (4096 + real((5000, 3))).astype(np.float32)
    mean, var = set_to_nan(3), set_to_nan(3)
    k.batch_norm(x, None, None, None, set_to_nan(x.shape), mean, var, 1e-5, False)
    np.testing.assert_allclose(var, x.astype(np.float64).var(axis=0), rtol=1e-4)
