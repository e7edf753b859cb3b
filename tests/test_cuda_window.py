"""Convolution and pooling on CUDA at the edges of tiles, tasks and images.

The Cases draw small shapes (test_kernels.py). Here are the ones at which the kernels change their
ways. Factors are small whole numbers, so that sums are exact in any order.
"""

import functools
import itertools
import math

import numpy as np
import pytest

from minidl.kernels import reference, shapes

ONE, NONE = (1, 1), ((0, 0), (0, 0))
PLAIN = ONE, NONE, ONE, 1
NAN, INF = math.nan, math.inf


@pytest.fixture
def in_every_order(device):
    """What a kernel returns, with the same bits in every order of threads and blocks."""
    return device.same_bits


@pytest.fixture
def check_convolution(k, in_every_order):
    return functools.partial(convolutions, k, in_every_order)


def window_module():
    from minidl.kernels.cuda import window

    return window


def whole(shape, dtype="float32", seed=0):
    return np.random.default_rng((seed, *shape)).integers(-4, 5, shape).astype(dtype)


def unset(shape, dtype="float32"):
    return np.full(shape, NAN, dtype)


def crooked(x):
    """The same numbers at an address that is no multiple of 16: nothing may be loaded in fours."""
    buffer = np.empty(x.size + 8, x.dtype)
    first = next(i for i in range(8) if buffer[i:].ctypes.data % 16 == x.itemsize)
    place = buffer[first : first + x.size].reshape(x.shape)
    place[...] = x
    return place


def convolutions(
    k, in_every_order, x, w, stride=ONE, pad=NONE, dilation=ONE, groups=1, dtype="float32"
):
    """All three kernels against the definition: in every order, in fours and one by one."""
    y, how = shapes.conv2d(x, w, stride, pad, dilation), (stride, pad, dilation, groups)
    x, w, b, dy = (whole(s, dtype, i) for i, s in enumerate((x, w, w[3:], y)))
    for relu in (False, True):
        want = reference.conv2d(x, w, b, unset(y, dtype), *how, relu)
        got = in_every_order(k.conv2d, x, w, b, unset(y, dtype), *how, relu)
        np.testing.assert_array_equal(got, want)
    got = k.conv2d(crooked(x), crooked(w), b, crooked(unset(y, dtype)), *how, True)
    np.testing.assert_array_equal(got, want)
    for name, (a, b, shape) in {
        "conv2d_grad_x": (dy, w, x.shape),
        "conv2d_grad_w": (dy, x, w.shape),
    }.items():
        want = getattr(reference, name)(a, b, unset(shape, dtype), *how, False)
        got = in_every_order(getattr(k, name), a, b, unset(shape, dtype), *how, False)
        np.testing.assert_array_equal(got, want, name)
        start = crooked(whole(shape, dtype, 9))
        want = want + start
        got = getattr(k, name)(crooked(a), crooked(b), start, *how, True)
        np.testing.assert_array_equal(got, want, f"{name}, add")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("filters", [1, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128])
def test_filters_at_the_edges_of_tiles(check_convolution, filters, dtype):
    check_convolution((2, 6, 7, 4), (2, 2, 4, filters), dtype=dtype)


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 7, 8, 9, 16, 31, 32, 33, 64, 65])
def test_channels_and_long_sums(check_convolution, channels):
    """K = 2 C and 6 C: 16 is a step, 16 the rows of the lowest tile of dw, 64 and 128 of others."""
    check_convolution((1, 5, 6, channels), (1, 2, channels, 20))
    check_convolution((1, 5, 6, channels), (2, 3, channels, 36), pad=((1, 0), (0, 2)))


@pytest.mark.parametrize("pixels", [1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 513])
def test_pixels_at_the_edges_of_tiles_and_of_tasks(check_convolution, pixels):
    check_convolution((1, 1, pixels, 4), (1, 1, 4, 8))
    check_convolution((pixels, 1, 1, 3), (1, 1, 3, 34))


@pytest.mark.parametrize("filters", [33, 64, 65])
@pytest.mark.parametrize("pixels", [127, 128, 129])
def test_the_large_tile(check_convolution, monkeypatch, filters, pixels):
    monkeypatch.setattr(window_module(), "ENOUGH_BLOCKS", 2)  # a GPU that two blocks fill
    check_convolution((1, 1, pixels, filters), (1, 4, filters, filters), pad=((0, 0), (1, 2)))


GEOMETRIES = [
    ((2, 7, 9, 3), (3, 2), (2, 3), ((1, 0), (0, 1))),  # odd strides, padding on one side
    ((2, 7, 9, 4), (2, 2), (3, 3), NONE),  # strides beyond the window: pixels that nobody reads
    ((1, 2, 3, 5), (5, 6), ONE, ((3, 1), (2, 2))),  # a window larger than the image
    ((1, 1, 1, 2), (1, 1), (4, 4), ((5, 2), (0, 3))),  # strides beyond the image, windows of zeros
    ((3, 5, 4, 8), (1, 4), (1, 2), ((0, 0), (1, 1))),
    ((3, 4, 4, 8), (4, 4), ONE, NONE),  # one window
    ((0, 5, 5, 4), (3, 3), ONE, NONE),  # no image
    ((2, 5, 5, 0), (3, 3), ONE, NONE),  # no channel
]


@pytest.mark.parametrize(("x", "size", "stride", "pad"), GEOMETRIES)
@pytest.mark.parametrize("filters", [8, 33])
def test_strides_and_padding(check_convolution, x, size, stride, pad, filters):
    check_convolution(x, (*size, x[3], filters), stride, pad)


GAPS = [  # x, window, groups, stride, padding, dilation
    ((2, 9, 11, 4), (3, 2), 1, ONE, ((2, 1), (0, 3)), (2, 3)),
    ((2, 9, 8, 3), (2, 3), 1, (2, 3), NONE, (2, 2)),  # pixels that no window of a part can see
    ((1, 13, 13, 2), (4, 4), 1, (4, 6), ((3, 0), (0, 3)), (2, 4)),  # with a common factor
    ((1, 2, 3, 5), (3, 2), 1, ONE, ((9, 2), (4, 4)), (5, 6)),  # gaps larger than the image
    ((3, 4, 5, 8), (1, 1), 1, (2, 1), NONE, (3, 3)),  # windows of one pixel have no gaps
    ((2, 6, 5, 8), (2, 2), 2, ONE, ((0, 1), (1, 0)), ONE),
    ((2, 6, 5, 9), (3, 1), 3, (2, 1), ((1, 1), (0, 0)), ONE),
    ((2, 6, 5, 6), (3, 3), 6, (1, 2), ((1, 1), (1, 1)), (2, 1)),  # a group for each channel
    ((0, 5, 5, 4), (2, 2), 2, ONE, NONE, (2, 2)),
    ((2, 5, 5, 0), (2, 2), 2, ONE, NONE, (2, 2)),
]


@pytest.mark.parametrize(("x", "size", "groups", "stride", "pad", "dilation"), GAPS)
@pytest.mark.parametrize("filters", [1, 8, 33])
def test_dilation_and_groups(check_convolution, x, size, groups, stride, pad, dilation, filters):
    w = (*size, x[3] // groups, filters * groups)
    check_convolution(x, w, stride, pad, dilation, groups)


@pytest.mark.parametrize("filters", [16, 17, 33, 65])
@pytest.mark.parametrize("channels", [1, 4, 6, 17])
def test_groups_at_the_edges_of_tiles(check_convolution, channels, filters):
    """Tiles of windows and of weights end inside a group, and the next group begins anew."""
    pad = ((1, 1), (1, 1))
    check_convolution((2, 7, 7, 3 * channels), (3, 3, channels, 3 * filters), ONE, pad, ONE, 3)


def test_nan_and_inf_go_where_they_belong(k):
    x, w = whole((1, 5, 6, 3)), whole((3, 3, 3, 20))
    w[1, 2, 0, 17] = NAN
    y = k.conv2d(x, w, None, unset((1, 3, 4, 20)), *PLAIN, True)
    assert np.isnan(y[..., 17]).all()  # NaN passes relu, too
    assert not np.isnan(np.delete(y, 17, axis=3)).any()
    w[1, 2, 0, 17], x[0, 0, 0, 1] = 1, INF
    w[0, 0, 1, :] = np.where(w[0, 0, 1] == 0, 1, w[0, 0, 1])
    y = k.conv2d(x, w, None, unset((1, 3, 4, 20)), *PLAIN, False)
    np.testing.assert_array_equal(y[0, 0, 0], np.copysign(INF, w[0, 0, 1]))
    assert np.isfinite(y[0, 1:]).all()
    assert np.isfinite(y[0, 0, 1:]).all()


@pytest.mark.emulator
def test_a_batch_of_too_many_pixels_is_refused():
    pixel = np.zeros((1, 1, 1, 1), np.float32)
    many = np.broadcast_to(pixel[0, 0, 0, 0], (2**16, 2**15, 2, 1))  # takes no memory
    how = ONE, (0, 0), (0, 0, 0), ONE, 1, False, False
    with pytest.raises(ValueError, match=r"4294967296 pixels .* split the batch"):
        window_module()._convolve(pixel, pixel, pixel.reshape(-1), many, many.shape[:3], *how)


POOLS = [
    ((2, 8, 8, 3), (2, 2), (2, 2), NONE),
    ((2, 7, 9, 5), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((1, 7, 6, 4), (3, 2), (1, 2), ((0, 2), (1, 0))),  # windows overlap
    ((2, 7, 7, 2), (2, 2), (3, 4), NONE),  # pixels that nobody reads
    ((2, 5, 5, 2), (1, 2), (2, 3), ((2, 2), (3, 3))),  # windows of padding alone
    ((0, 4, 4, 2), (2, 2), (2, 2), NONE),
]


def with_ties(shape, dtype):
    x = whole(shape, dtype).reshape(-1)
    x[::7], x[::11], x[1::13] = -INF, NAN, INF
    return x.reshape(shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("x", "size", "stride", "pad"), POOLS)
def test_pooling_and_its_gradient(k, in_every_order, x, size, stride, pad, dtype):
    y, x = shapes.pool2d(x, size, stride, pad), with_ties(x, dtype)
    how = size, stride, pad
    want = reference.max_pool2d(x, unset(y, dtype), np.full(y, -1, np.int32), *how)
    got = in_every_order(k.max_pool2d, x, unset(y, dtype), np.full(y, -1, np.int32), *how)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    dy = whole(y, dtype)
    for add, start in ((False, unset(x.shape, dtype)), (True, whole(x.shape, dtype, 3))):
        theirs = reference.max_pool2d_grad(dy, want[1], start.copy(), *how, add)
        mine = k.max_pool2d_grad(dy, got[1], start.copy(), *how, add)
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("channels", [1, 2, 31, 32, 33, 63, 64, 65, 129])
def test_pooling_of_many_channels_and_wide_images(k, in_every_order, channels):
    x = with_ties((1, 3, 260 if channels < 3 else 12, channels), "float32")
    y = shapes.pool2d(x.shape, (2, 3), (1, 2), NONE)
    how = (2, 3), (1, 2), NONE
    want = reference.max_pool2d(x, unset(y), np.empty(y, np.int32), *how)
    got = k.max_pool2d(x, unset(y), np.empty(y, np.int32), *how)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])
    mine = in_every_order(k.max_pool2d_grad, whole(y), got[1], unset(x.shape), *how, False)
    theirs = reference.max_pool2d_grad(whole(y), want[1], unset(x.shape), *how, False)
    np.testing.assert_array_equal(mine, theirs)


def test_where_every_cell_is_minus_inf_the_first_real_one_wins(k):
    x = np.full((1, 2, 2, 1), -INF, np.float32)
    y, arg = unset((1, 2, 2, 1)), np.full((1, 2, 2, 1), -1, np.int32)
    k.max_pool2d(x, y, arg, (2, 2), ONE, ((1, 0), (1, 0)))
    assert arg.reshape(-1).tolist() == [3, 2, 1, 0]
    assert (y == -INF).all()


def launches(k, dtype):
    """A launch of each kernel of window.py by name, as it would be compiled."""
    from minidl.kernels.cuda._numba import recording

    with recording() as found:
        sizes = [
            ((1, 300, 300, 1), (1, 2, 1, 64)),  # the large tile of conv2d, the low one of dw
            ((1, 4, 6, 64), (1, 3, 64, 64)),  # the large tile of dw
            *(((1, 4, 4, 32), (1, 2, 32, filters)) for filters in (16, 32, 64)),
        ]
        for (x, w), dilation in itertools.product(sizes, (1, 2)):
            how = ONE, NONE, (1, dilation), 1
            y = shapes.conv2d(x, w, *how[:3])
            x, w, y = np.zeros(x, dtype), np.zeros(w, dtype), np.zeros(y, dtype)
            k.conv2d(x, w, None, y, *how, False)
            k.conv2d_grad_w(y, x, w, *how, False)
        arg = np.zeros(y.shape, np.int32)
        k.max_pool2d(y, y, arg, ONE, ONE, NONE)
        k.max_pool2d_grad(y, arg, y, ONE, ONE, NONE, False)
    ours = window_module().__name__
    return {a.kernel.__name__: a for a in found if a.kernel.function.__module__ == ours}


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("dtype", "cc"),
    [*itertools.product(["float32"], [(7, 5), (8, 0), (9, 0)]), ("float64", (8, 0))],
)
def test_no_float64_no_spills_no_stack(k, dtype, cc):
    from minidl.kernels.cuda import cubin

    found = launches(k, dtype)
    assert len(found) == (20 if dtype == "float32" else 16)  # float64 has no large tiles
    for name, launch in found.items():
        used = cubin.compiled(launch.kernel, launch.signature, cc).resources
        assert (used.spills, used.stack, used.divisions) == (0, 0, 0), name
        assert used.registers * launch.threads <= 65536, name
        assert used.shared <= 48 * 1024
        assert used.f64 == 0 or dtype == "float64", name
