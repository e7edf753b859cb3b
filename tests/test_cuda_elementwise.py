"""Elementwise CUDA kernels and copies: what their Cases do not see.

Which of several kernels a launch takes, the edges of blocks and vectors, grids that are too long,
and how duplicates are added up.
"""

import math
import re
from unittest import mock

import numpy as np
import pytest
from numba import types

from minidl.kernels import reference, scalars
from minidl.kernels.cuda import elementwise, layout, move
from minidl.kernels.cuda._numba import Kernel, cuda
from minidl.kernels.cuda.pointwise import Pointwise

EDGES = (0, 1, 3, 4, 5, 255, 256, 257, 1023, 1025)
DTYPES = ("bool", "uint8", "int32", "int64", "float32", "float64")
POINTWISE = {
    kernels.dense.__name__: kernels
    for module in (elementwise, move)
    for value in vars(module).values()
    for kernels in (value.values() if isinstance(value, dict) else [value])
    if isinstance(kernels, Pointwise) and kernels.dense
}


def normal(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def launched(call, *args):
    """Names of the kernels that a call launches, in order."""
    names = []

    def note(kernel, *given):
        names.append(kernel.__name__)
        return launch(kernel, *given)

    launch = Kernel._launch
    with mock.patch.object(Kernel, "_launch", note):
        call(*args)
    return names


def misaligned(x):
    """A copy of a contiguous array that starts 4 bytes past a multiple of 16."""
    buffer = np.empty(x.nbytes + 32, np.uint8)
    start = -buffer.ctypes.data % 16 + 4
    y = buffer[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", EDGES)
def test_sizes_at_the_edges_of_vectors_and_blocks(k, n, dtype):
    a, b, y = normal(n, dtype=dtype), normal(n, dtype=dtype, seed=1), np.full(n + 8, 7, dtype)
    k.mul(a, b, y[4:-4])
    np.testing.assert_array_equal(y[4:-4], a * b)
    assert np.all(y[:4] == 7) and np.all(y[-4:] == 7)
    k.mul_grad_a(a, b, y[4:-4], True)
    np.testing.assert_array_equal(y[4:-4], a * b + a * b)


def test_dense_and_aligned_arrays_take_the_vector_kernel_in_any_order_of_axes(k):
    x = normal(6, 5, 8)
    for axes in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        a = x.transpose(axes)
        y = np.empty_like(a)
        assert launched(k.relu, a, y) == ["relu"]
        np.testing.assert_array_equal(y, np.maximum(a, 0))


@pytest.mark.parametrize("spoiled", ["x", "y", "both"])
def test_what_is_not_aligned_is_computed_one_by_one(k, spoiled):
    x, y = normal(103), np.empty(103, "float32")
    x = x if spoiled == "y" else misaligned(x)
    y = y if spoiled == "x" else misaligned(y)
    assert launched(k.relu, x, y) == ["relu_strided"]
    np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_what_is_not_dense_is_computed_one_by_one(k):
    x, y = normal(8, 16), np.empty((8, 16), "float32")
    rows, turned, sparse = np.broadcast_to(x[:1], x.shape), normal(16, 8).T, normal(8, 32)[:, ::2]
    for a in (rows, turned, sparse, x[::-1]):
        assert launched(k.neg, a, y) == ["neg_strided"]
        np.testing.assert_array_equal(y, -a)


@pytest.mark.parametrize("axes", [(5, 0, 3, 1, 4, 2), (0, 3, 1, 4, 2, 5), (5, 4, 3, 2, 1, 0)])
def test_six_axes_in_any_order(k, axes):
    x = normal(2, 3, 4, 5, 2, 3)
    a, b = x.transpose(axes), normal(*x.transpose(axes).shape, seed=1)
    y = np.empty(b.shape, "float32")
    k.add(a, b, y)
    np.testing.assert_array_equal(y, a + b)
    k.copy(a, y, False)
    np.testing.assert_array_equal(y, a)
    k.copy(a, y, True)
    np.testing.assert_array_equal(y, a + a)


def test_heads_split_off_take_one_launch(k):
    x = normal(2, 6, 4, 8)  # (batch, time, head, channel) -> (batch, head, time, channel)
    y = np.empty((2, 4, 6, 8), "float32")
    assert len(launched(k.copy, x.swapaxes(1, 2), y, False)) == 1
    np.testing.assert_array_equal(y, x.swapaxes(1, 2))


@pytest.mark.parametrize("shape", [(8, 8), (31, 33), (32, 32), (3, 65, 40), (2, 9, 12, 33)])
def test_a_copy_that_turns_axes_goes_through_tiles(k, shape):
    x = normal(*shape).swapaxes(-1, -2)
    y, total = np.empty(x.shape, "float32"), np.ones(x.shape, "float32")
    assert launched(k.copy, x, y, False) == ["_copy_turned"]
    np.testing.assert_array_equal(y, x)
    k.copy(x, total, True)
    np.testing.assert_array_equal(total, 1 + x)


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("of", DTYPES)
def test_copies_cast_as_numpy_does(k, of, to):
    x = np.abs(3 * normal(9, 11)).astype(of)
    y, turned = np.empty(x.shape, to), np.empty(x.shape[::-1], to)
    np.testing.assert_array_equal(k.copy(x, y, False), x.astype(to))
    if of == to or "float32" in (of, to):  # the tiles: some dtypes stand for all
        np.testing.assert_array_equal(k.copy(x.T, turned, False), x.T.astype(to))


def test_nan_and_inf_are_true(k):
    x, y = np.array([math.nan, math.inf, -0.0, 0.0, 1e-30], "float32"), np.empty(5, "bool")
    k.copy(x, y, False)
    assert y.tolist() == [True, True, False, False, True]


def test_more_rows_and_planes_than_a_grid_has_blocks(k):
    # blocks of 1 x 1 x 1 threads and at most 3 of them, instead of 65,535: the same loop
    few = mock.patch.multiple(layout, MOST_BLOCKS=3, THREADS=1)
    a, b = normal(5, 7, 9, 2)[..., ::2], normal(7, 1, 1)
    y = np.empty((5, 7, 9, 1), "float32").transpose(1, 0, 2, 3)
    with few:
        k.add(a.transpose(1, 0, 2, 3), b[..., None], y)
    np.testing.assert_array_equal(y, a.transpose(1, 0, 2, 3) + b[..., None])
    x, y = normal(70, 40).T, np.empty((40, 70), "float32")
    with few, mock.patch.object(move, "MOST_BLOCKS", 1):
        k.copy(x, y, False)
    np.testing.assert_array_equal(y, x)


def test_a_hundred_thousand_rows(k):
    rows = 100_000
    x, b = normal(rows, 3), normal(3, seed=1)
    y = np.empty_like(x)
    k.add(x, b, y)
    np.testing.assert_array_equal(y, x + b)
    index = np.arange(rows)[::-1].copy()
    np.testing.assert_array_equal(k.take(x, index, y), x[index])
    x, y = normal(rows, 1, 2, 2)[..., 0], np.empty((rows, 1, 2), "float32")
    np.testing.assert_array_equal(k.copy(x, y, False), x)


@pytest.mark.parametrize("b", range(len(DTYPES)))
@pytest.mark.parametrize("a", range(len(DTYPES)))
def test_comparisons_of_different_dtypes(k, a, b):
    rng = np.random.default_rng(0)
    x, z = (rng.integers(0, 3, (5, 7)).astype(DTYPES[n]) for n in (a, b))
    if z.dtype.kind == "f":
        z[z == 1] = 1 + 2 * np.finfo(z.dtype).eps
        z[0] = math.nan
    relation = list(elementwise._RELATIONS)[(a + b) % 6]
    y, want = np.empty((5, 7), bool), np.empty((5, 7), bool)
    k.compare(x, z, y, relation)
    np.testing.assert_array_equal(y, reference.compare(x, z, want, relation))


SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5, -2.5, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_of_special_values(k, dtype):
    a, b = (x.reshape(-1).astype(dtype) for x in np.meshgrid(SPECIAL, SPECIAL))
    dy, ones = np.ones_like(a), np.empty_like(a)
    with np.errstate(all="ignore"):
        y = np.power(a, b)
    np.testing.assert_allclose(k.pow(a, b, ones), y, rtol=1e-6)
    for name, args in (("pow_grad_a", (dy, a, b)), ("pow_grad_b", (dy, a, y))):
        want = getattr(reference, name)(*args, np.empty_like(a), False)
        got = getattr(k, name)(*args, np.empty_like(a), False)
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=name)


def flat_ptx(kernel):
    flat = types.Array(types.float32, 1, "C")
    signature = (flat,) * 4 + (types.boolean, types.float32, types.float32)
    return cuda.compile(kernel.function, signature, device=False, abi="numba", cc=(8, 0))[0]


@pytest.mark.emulator
@pytest.mark.parametrize("name", POINTWISE)
def test_float32_kernels_load_128_bits_and_stay_float32(name):
    ptx = flat_ptx(POINTWISE[name].dense)
    assert "ld.global.v4.f32" in ptx and "st.global.v4.f32" in ptx
    assert ".f64" not in ptx
    assert not re.search(r"\b(div|rem)\.[su]64", ptx)
    assert f"{len(name)}{name}" in re.search(r"\.entry (\S+)\(", ptx)[1]  # what a profiler shows


@pytest.mark.emulator
@pytest.mark.parametrize("name", ["mul_grad_a", "exp_grad"])
def test_what_is_added_to_is_not_fused_with_the_product(name):
    # fma would round once where a separate add rounds twice
    ptx = flat_ptx(POINTWISE[name].dense)
    assert "add.rn.f32" in ptx and "fma.rn.f32" not in ptx


@pytest.mark.parametrize(
    ("count", "rows"), [(1, 1), (255, 2), (256, 300), (257, 1), (1000, 3), (2100, 700)]
)
def test_rows_put_back_with_many_duplicates(k, device, count, rows):
    rng = np.random.default_rng(count)
    index = rng.integers(-rows, rows, count)
    index[::2] = index[0]  # a row that is taken half of the time
    dy, start = normal(count, 5), normal(rows, 5, seed=1)
    want = np.zeros((rows, 5))
    np.add.at(want, index, dy.astype("float64"))
    result, added = device.same_bits(
        lambda: (
            k.take_grad(dy, index, np.full((rows, 5), np.nan, "float32"), False),
            k.take_grad(dy, index, start.copy(), True),
        )
    )
    np.testing.assert_array_equal(added, start + result)
    terms = np.bincount(index % rows, minlength=rows)[:, None]
    bound = np.zeros((rows, 5))
    np.add.at(bound, index, np.abs(dy))
    assert np.all(np.abs(result - want) <= (terms + 1) / 2 * np.finfo("float32").eps * bound)


def test_few_duplicates_are_added_in_the_order_of_the_index(k):
    big = np.float32(2**24)
    dy = np.array([[1], [big], [1], [-big], [1]], "float32")  # any other order rounds otherwise
    index = np.array([2, 0, 0, 0, 0])
    dx = k.take_grad(dy, index, np.empty((3, 1), "float32"), False)
    np.testing.assert_array_equal(dx, [[((big + 1) - big) + 1], [0], [1]])


def test_numbers_that_are_no_rows_touch_no_strangers_memory(k):
    x, index = normal(3, 2), np.array([0, 3, -4, 2, 10**9, -3])
    y = k.take(x, index, np.empty((6, 2), "float32"))
    assert np.isnan(y[[1, 2, 4]]).all()
    np.testing.assert_array_equal(y[[0, 3, 5]], x[[0, 2, 0]])
    dy = normal(6, 2)
    dx = k.take_grad(dy, index, np.empty((3, 2), "float32"), False)
    np.testing.assert_array_equal(dx, [dy[0] + dy[5], [0, 0], dy[3]])


def test_an_index_of_nothing_puts_back_zeros(k):
    dy, index = np.empty((0, 4), "float32"), np.empty(0, "int64")
    dx = k.take_grad(dy, index, np.full((3, 4), np.nan, "float32"), False)
    np.testing.assert_array_equal(dx, np.zeros((3, 4)))


def test_a_pointwise_kernel_is_given_what_its_function_takes():
    x, y = np.ones(3, np.float32), np.empty(3, np.float32)
    with pytest.raises(TypeError, match="leaky_relu takes 1 arrays and 1 numbers, not 1 and 0"):
        elementwise._leaky_relu((x,), y, 0.5)  # add is forgotten
    with pytest.raises(TypeError, match="leaky_relu takes 2 arrays and 0 numbers, not 1 and 1"):
        Pointwise(scalars.leaky_relu)((x,), y, False, 0.5)
