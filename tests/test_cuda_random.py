"""Random numbers of the CUDA kernels: those of the definition, in any layout and thread order."""

import math

import numpy as np
import pytest

from minidl.kernels import reference

# A thread makes four numbers and a block 1024: their edges, and nothing at all.
SIZES = [0, 1, 2, 3, 4, 5, 1023, 1024, 1025, 1026]
# The counter's low half runs over, then all of it.
KEYS = [(0, 0), (2**64 - 1, 5), (1234567, 2**32 - 2), (99, 2**64 - 3)]
DTYPES = ["float32", "float64"]


def array(*numbers):
    return np.array(numbers, np.uint64)


def same(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("key", KEYS)
def test_uniforms_have_the_bits_of_the_definition(k, key, dtype):
    for n in SIZES:
        mine, theirs = np.full(n, np.nan, dtype), np.full(n, np.nan, dtype)
        same(k.uniform(array(*key), mine, 0, 1), reference.uniform(array(*key), theirs, 0, 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("key", KEYS)
def test_masks_have_the_bits_of_the_definition(k, key, dtype):
    for n in SIZES:
        x, dy = np.random.default_rng(n).normal(size=(2, n)).astype(dtype)
        for p in (0.0, 0.1, 0.5, 1.0):
            there = x, array(*key), np.empty_like(x), p
            same(k.dropout(*there).copy(), reference.dropout(*there))
            for add in (False, True):
                back, again = x.copy(), x.copy()
                k.dropout_grad(dy, array(*key), back, p, add)
                same(back, reference.dropout_grad(dy, array(*key), again, p, add))


def test_about_as_many_are_kept_as_asked(k):
    x = np.ones(40_000, np.float32)
    for p in (0.1, 0.5, 0.9):
        kept = np.count_nonzero(k.dropout(x, array(3, 0), np.empty_like(x), p))
        assert abs(kept / x.size - (1 - p)) < 5 * math.sqrt(p * (1 - p) / x.size)


def test_the_edge_of_p_is_the_definitions(k):
    """The word that equals floor(p 2**32) is kept, the one below it is not."""
    words = reference.random.words(array(7, 0), 1)
    x = np.ones(1, np.float64)
    for above in (-1, 0, 1):
        p = (int(words[0]) + above) / 2**32
        there = x, array(7, 0), np.empty_like(x), p
        assert (k.dropout(*there)[0] != 0) == (above <= 0)
        same(k.dropout(*there).copy(), reference.dropout(*there))


def test_infinite_and_nan_inputs_that_are_dropped_are_zero(k):
    x = np.array([np.inf, np.nan, -np.inf, 1] * 64, np.float32)
    y = k.dropout(x, array(1, 0), np.empty_like(x), 1.0)
    same(y, np.zeros_like(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_depend_on_the_logical_index_alone(k, dtype):
    """Views of other strides, and arrays that no 128-bit load may touch, get the same numbers."""
    x = np.arange(1, 3 * 5 * 7 + 1).reshape(3, 5, 7).astype(dtype)
    want = k.dropout(x, array(5, 1), np.empty_like(x), 0.5)
    numbers = k.uniform(array(5, 1), np.empty_like(x), 0, 1)
    for axes in ((0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)):
        back = np.argsort(axes)
        view = np.ascontiguousarray(x.transpose(axes)).transpose(back)
        y = np.empty(x.transpose(axes).shape, dtype).transpose(back)
        same(k.dropout(view, array(5, 1), y, 0.5).copy(), want)
        same(k.uniform(array(5, 1), y, 0, 1).copy(), numbers)
        mirrored = np.empty_like(x)[::-1, :, ::-1]
        same(k.dropout(view, array(5, 1), mirrored, 0.5).copy(), want)
    for start in (1, 2, 3):
        flat, out = np.zeros((2, x.size + 4), dtype)
        flat[start : start + x.size] = x.reshape(-1)
        there = flat[start : start + x.size], array(5, 1), out[start : start + x.size], 0.5
        same(k.dropout(*there), want.reshape(-1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_key_gives_the_same_bits_under_every_schedule(k, device, dtype):
    def all_of_it():
        key, y = array(11, 2**32 - 1), np.empty(1026, dtype)
        yield from (k.uniform(key, y, -2, 3).copy(), k.normal(key, y).copy())
        yield from (k.dropout(y.copy(), key, y, 0.5).copy(), k.dropout(y.copy(), key, y, 0.5))

    first = device.same_bits(all_of_it)
    same(first[-1][first[-1] != 0], 2 * first[-2][first[-1] != 0])  # the same mask, twice
    assert np.array_equal(first[-1] != 0, first[-2] != 0)


def test_reserve_moves_on_by_whole_blocks(k):
    for n in (*SIZES, 2**40 + 1):
        state, key = array(2**64 - 1, 2**64 - 5), array(0, 0)
        k.reserve_(state, key, n)
        same(key, array(2**64 - 1, 2**64 - 5))
        same(state, array(2**64 - 1, (2**64 - 5 + -(-n // 4)) % 2**64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_normals_are_right_at_every_edge(device, dtype):
    """Words that a test of random ones would not meet: the ends, and where the formulas change."""
    from minidl.kernels.cuda._numba import cuda, jit
    from minidl.kernels.cuda.random import _cos_sin, _radius

    @jit
    def parts(word, radius, cosine, sine):
        i = cuda.grid(1)
        radius[i] = _radius(word[i], radius.dtype.type)
        cosine[i], sine[i] = _cos_sin(word[i], radius.dtype.type)

    edges = np.arange(17) * 2**28
    near = np.concatenate([edges + d for d in (-3, -2, -1, 0, 1, 2, 3)])
    word = np.unique(near[(near >= 0) & (near < 2**32)]).astype(np.uint64)
    radius, cosine, sine = np.empty((3, word.size), dtype)
    device(parts[1, word.size])(word, radius, cosine, sine)
    u = (word.astype(np.float64) + 1) * 2.0**-32
    angle = 2 * math.pi * word.astype(np.float64) * 2.0**-32
    eps = np.finfo(dtype).eps
    # where u is near 1, log1p keeps what log of the rounded u would lose; NumPy's u is exact
    np.testing.assert_allclose(radius, np.sqrt(-2 * np.log(u)), rtol=3 * eps)
    np.testing.assert_allclose(cosine, np.cos(angle), rtol=0, atol=4 * eps)
    np.testing.assert_allclose(sine, np.sin(angle), rtol=0, atol=4 * eps)


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_crops_and_mirrors_are_the_definitions(k, seed):
    """The same draws, one for each image, whatever the batch; numbers of 24 bits are exact."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 6, 5, 3), np.uint8)
    index = rng.permutation(50)
    unit, none = np.ones(3, np.float32), np.zeros(3, np.float32)
    mine, theirs = np.empty((2, 50, 6, 5, 3), np.float32)
    for pad, flip in ((2, True), (1, False), (0, True), (0, False)):
        how = seed, 3, pad, flip
        k.image_batch(images, index, unit, none, mine, *how)
        same(mine, reference.image_batch(images, index, unit, none, theirs, *how))
        alone = np.empty_like(mine[:1])
        k.image_batch(images, index[7:8], unit, none, alone, *how)
        same(alone[0], mine[7])


def test_an_image_that_does_not_exist_is_nan(k):
    images, index = np.ones((2, 2, 2, 1), np.uint8), np.array([1, 2, -1, 2**40])
    y = np.empty((4, 2, 2, 1), np.float32)
    k.image_batch(images, index, np.ones(1, np.float32), np.zeros(1, np.float32), y, 0, 0, 1, True)
    assert not np.isnan(y[0]).any()
    assert np.isnan(y[1:]).all()


@pytest.mark.emulator
def test_a_float32_kernel_stays_in_registers_and_in_float32(k):
    from minidl.kernels.cuda import cubin
    from minidl.kernels.cuda._numba import recording

    x, y = np.ones((2, 8), np.float32)
    key, image = array(0, 0), np.ones((2, 2, 2, 1), np.float32)
    with recording() as launches:
        k.reserve_(array(0, 0), key, 4)
        k.uniform(key, y, 0, 1)
        k.normal(key, y)
        k.dropout(x, key, y, 0.5)
        k.image_batch(image, np.arange(2), x[:1], x[:1], image.copy(), 0, 0, 1, True)
    assert len(launches) == 6
    for kernel, signature, threads, _ in launches:
        for cc in ((7, 5), (8, 0), (9, 0)):
            taken = cubin.compiled(kernel, signature, cc).resources
            assert taken[2:] == (0, 0, 0, 0), (kernel, cc, taken)  # stack, spills, f64, divisions
            assert taken.registers * threads <= 65536
