"""The definition pinned by numbers that were worked out by hand, and by formulas of other code."""

import math
import statistics

import numpy as np
import pytest

from minidl.kernels import reference as k
from minidl.kernels.cases import Blank, example
from minidl.kernels.reference.random import philox4x32, words
from minidl.kernels.shapes import extent, padding

NAN, INF = math.nan, math.inf


def arrays(*values):
    return [np.array(v, np.float64) for v in values]


def like(*values):
    return [np.empty_like(v) for v in values]


def same(got, want):
    np.testing.assert_array_equal(got, np.array(want))


# Elementwise


@pytest.mark.parametrize(
    ("op", "a", "b", "y"),
    [
        ("add", [1, 2], [10, 20], [11, 22]),
        ("sub", [1, 2], [10, 20], [-9, -18]),
        ("mul", [3, -2], [4, 5], [12, -10]),
        ("div", [1, -1, 0], [2, 0, 0], [0.5, -INF, NAN]),
        ("pow", [2, 4, 0, -1], [3, 0.5, 0, 0.5], [8, 2, 1, NAN]),
        ("maximum", [1, NAN, 0], [2, 5, NAN], [2, NAN, NAN]),
        ("minimum", [1, NAN, 0, -INF], [2, 5, NAN, 3], [1, NAN, NAN, -INF]),
    ],
)
def test_two_operands(op, a, b, y):
    a, b = arrays(a, b)
    same(getattr(k, op)(a, b, np.empty(a.shape)), y)


def test_operands_broadcast_and_gradients_are_summed_back():
    a, b = arrays([[1], [2]], [10, 20, 30])
    same(k.mul(a, b, np.empty((2, 3))), [[10, 20, 30], [20, 40, 60]])
    dy = np.array([[1.0, 2, 3], [4, 5, 6]])
    same(k.mul_grad_a(dy, b, np.empty((2, 1)), False), [[10 + 40 + 90], [40 + 100 + 180]])
    same(k.mul_grad_b(dy, a, np.empty(3), False), [1 + 8, 2 + 10, 3 + 12])
    same(k.sub_grad_b(dy, np.ones(3), True), [1 - 5, 1 - 7, 1 - 9])


def test_one_operand():
    same(k.neg(np.array([1.0, -0.0, NAN]), np.empty(3)), [-1, 0, NAN])
    same(k.exp(np.array([0.0, -INF, INF]), np.empty(3)), [1, 0, INF])
    same(k.log(np.array([1.0, 0, -1]), np.empty(3)), [0, -INF, NAN])
    same(k.sqrt(np.array([9.0, 0, -1]), np.empty(3)), [3, 0, NAN])
    same(k.sqrt_grad(np.ones(2), np.array([3.0, 0]), np.empty(2), False), [1 / 6, INF])


def test_relu_has_slope_0_at_0_and_lets_nan_through():
    x = np.array([-1.0, 0, 2, NAN, -INF])
    y = k.relu(x, np.empty(5))
    same(y, [0, 0, 2, NAN, 0])
    same(k.relu_grad(np.full(5, 7.0), y, np.empty(5), False), [0, 0, 7, 7, 0])


def test_equal_operands_of_maximum_share_the_gradient():
    dy, a, b = arrays([6, 6, 6], [1, 2, 3], [3, 2, 1])
    same(k.maximum_grad_a(dy, a, b, np.empty(3), False), [0, 3, 6])
    same(k.maximum_grad_b(dy, a, b, np.empty(3), False), [6, 3, 0])


def test_equal_operands_of_minimum_share_the_gradient():
    dy, a, b = arrays([6, 6, 6], [1, 2, 3], [3, 2, 1])
    same(k.minimum_grad_a(dy, a, b, np.empty(3), False), [6, 3, 0])
    same(k.minimum_grad_b(dy, a, b, np.empty(3), False), [0, 3, 6])


def test_where_picks_by_truth_and_leaves_no_nan_of_the_other_side():
    cond, (a, b) = np.array([[True], [False]]), arrays([1, NAN], [[10, 20], [30, 40]])
    same(k.where(cond, a, b, np.empty((2, 2))), [[1, NAN], [30, 40]])
    dy = np.array([[1.0, 2], [NAN, 4]])
    same(k.where_grad_a(dy, cond, np.empty(2), False), [1, 2])
    same(k.where_grad_b(dy, cond, np.empty((2, 2)), False), [[0, 0], [NAN, 4]])


# What goes in, what comes out, the slope: as in PyTorch 2.13, but for gelu and its gradient at inf,
# where its CPU kernels give NaN.
E = math.exp(-1)
S = 1 / (1 + E)  # sigmoid(1)
BELOW = 0.5 * math.erfc(-math.sqrt(0.5))  # of a normal distribution, below 1
BELL = math.exp(-0.5) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize(
    ("op", "static", "x", "y", "slope"),
    [
        ("abs", (), [-2, 0, 3, NAN, -INF], [2, 0, 3, NAN, INF], [-1, 0, 1, 0, -1]),
        ("clip", (-1, 2), [-3, -1, 0, 2, 3, NAN], [-1, -1, 0, 2, 2, NAN], [0, 1, 1, 1, 0, 0]),
        ("clip", (-INF, 2), [-INF, INF], [-INF, 2], [1, 0]),
        ("clip", (3, 1), [0, 2, 4], [1, 1, 1], [0, 0, 0]),  # the upper bound wins
        ("relu6", (), [-1, 0, 2, 6, INF, NAN], [0, 0, 2, 6, 6, NAN], [0, 0, 1, 0, 0, 1]),
        (
            "leaky_relu", (0.5,), [-4, 0, 3, -INF, NAN],
            [-2, 0, 3, -INF, NAN], [0.5, 0.5, 1, 0.5, 0.5],
        ),
        (
            "elu", (2,), [-1, 0, 3, -1e4, -INF, NAN],
            [2 * (E - 1), 0, 3, -2, -2, NAN], [2 * E, 2, 1, 0, 0, 1],
        ),
        (
            "sigmoid", (), [0, 1, -1e4, 1e4, -INF, INF, NAN],
            [0.5, S, 0, 1, 0, 1, NAN], [0.25, S * (1 - S), 0, 0, 0, 0, NAN],
        ),
        (
            "tanh", (), [0, math.log(2), -1e4, 1e4, -INF, INF, NAN],
            [0, 0.6, -1, 1, -1, 1, NAN], [1, 0.64, 0, 0, 0, 0, NAN],
        ),
        (
            "silu", (), [0, 1, -1e4, 1e4, -INF, INF, NAN],
            [0, S, 0, 1e4, NAN, INF, NAN], [0.5, S + S * (1 - S), 0, 1, NAN, NAN, NAN],
        ),
        (
            "gelu", ("none",), [0, 1, -1e4, 1e4, -INF, INF, NAN],
            [0, BELOW, 0, 1e4, NAN, INF, NAN], [0.5, BELOW + BELL, 0, 1, NAN, NAN, NAN],
        ),
        (
            "gelu", ("tanh",), [0, 1, -1e4, 1e4, -INF, INF, NAN],
            [0, 0.8411919906, 0, 1e4, NAN, INF, NAN], [0.5, 1.0829640838, 0, 1, NAN, NAN, NAN],
        ),
        (
            "softplus", (1, 20), [0, 1, 20.5, -1e4, 1e4, -INF, INF, NAN],
            [math.log(2), 1 - math.log(S), 20.5, 0, 1e4, 0, INF, NAN],
            [0.5, S, 1, 0, 1, 0, 1, NAN],
        ),
        (
            "softplus", (2, 1), [0, 0.5, 0.6], [math.log(2) / 2, (1 - math.log(S)) / 2, 0.6],
            [0.5, S, 1],  # at the threshold it is still smooth
        ),
    ],
)  # fmt: skip
def test_activations_and_their_slopes(op, static, x, y, slope):
    x = np.array(x, float)
    got = getattr(k, op)(x, np.empty_like(x), *static)
    np.testing.assert_allclose(got, y, rtol=1e-9)
    saved = got if op in ("relu6", "sigmoid", "tanh") else x
    ones = np.ones_like(x)
    dx = getattr(k, f"{op}_grad")(ones, saved, np.empty_like(x), *static, False)
    np.testing.assert_allclose(dx, slope, rtol=1e-9, atol=1e-15)


def test_the_gradient_of_a_power_at_0():
    a, b = arrays([0, 0, 3], [2, 0, 2])
    y = k.pow(a, b, np.empty(3))
    same(k.pow_grad_a(np.ones(3), a, b, np.empty(3), False), [0, 0, 6])
    got = k.pow_grad_b(np.ones(3), a, y, np.empty(3), False)
    np.testing.assert_allclose(got, [0, -INF, 9 * math.log(3)])


@pytest.mark.parametrize(
    ("relation", "y"),
    [
        ("lt", [1, 0, 0, 0]),
        ("le", [1, 1, 0, 0]),
        ("gt", [0, 0, 1, 0]),
        ("ge", [0, 1, 1, 0]),
        ("eq", [0, 1, 0, 0]),
        ("ne", [1, 0, 1, 1]),
    ],
)
def test_comparisons_of_less_equal_more_and_nan(relation, y):
    a, b = arrays([1, 2, 3, NAN], [2, 2, 2, NAN])
    same(k.compare(a, b, np.empty(4, bool), relation), np.array(y, bool))


# Reductions


def test_sums_and_means_over_the_axes_of_length_1():
    x = np.array([[1.0, 2, 3], [4, 5, 6]])
    same(k.sum(x, np.empty((2, 1))), [[6], [15]])
    same(k.mean(x, np.empty((1, 3))), [[2.5, 3.5, 4.5]])
    same(k.mean_grad(np.array([[6.0]]), np.empty((2, 3)), False), np.ones((2, 3)))
    same(k.sum_rows(x, np.empty(3), False), [5, 7, 9])
    same(k.sum_squares(x, np.array(9.0), True), 100)


def test_nothing_sums_to_0_and_has_no_mean():
    same(k.sum(np.empty((0, 2)), np.empty((1, 2))), [[0, 0]])
    same(k.mean(np.empty((0, 2)), np.empty((1, 2))), [[NAN, NAN]])
    same(k.sum_rows(np.empty((0, 2)), np.empty(2), False), [0, 0])


def test_the_first_maximum_wins_and_the_first_nan_before_all():
    x = np.array([[1.0, 3, 3], [NAN, 9, NAN], [-INF, -INF, -INF]])
    y, arg = k.max(x, np.empty((3, 1)), np.empty((3, 1), np.int64))
    same(y, [[3], [NAN], [-INF]])
    same(arg, [[1], [0], [0]])
    same(
        k.max_grad(np.array([[5.0], [6], [7]]), arg, np.empty((3, 3)), False),
        [[0, 5, 0], [6, 0, 0], [7, 0, 0]],
    )


def test_the_first_minimum_wins_and_the_first_nan_before_all():
    x = np.array([[3.0, 1, 1], [NAN, -9, NAN], [INF, INF, INF]])
    y, arg = k.min(x, np.empty((3, 1)), np.empty((3, 1), np.int64))
    same(y, [[1], [NAN], [INF]])
    same(arg, [[1], [0], [0]])
    same(
        k.max_grad(np.array([[5.0], [6], [7]]), arg, np.empty((3, 3)), False),
        [[0, 5, 0], [6, 0, 0], [7, 0, 0]],
    )


def test_the_variance_and_its_root():
    x = np.array([[1.0, 3, 5, 7], [2, 2, 2, 2]])
    blank = np.empty((2, 1))
    y, mean = k.var(x, blank, blank.copy(), 1)
    same(y, [[20 / 3], [0]])
    same(mean, [[4], [2]])
    same(k.var(x, blank, mean, 0)[0], [[5], [0]])
    dy = np.array([[3.0], [3]])
    same(k.var_grad(dy, x, mean, np.ones((2, 4)), 1, True), [[-5, -1, 3, 7], [1, 1, 1, 1]])
    y, mean = k.std(x, blank, mean, 0)
    same(y, [[5**0.5], [0]])
    got = k.std_grad(dy, x, np.array([[2.0], [0]]), mean, np.empty((2, 4)), 1, False)
    same(got, [[-1.5, -0.5, 0.5, 1.5], [0, 0, 0, 0]])  # the slope at 0 is 0


def test_the_variance_of_one_value_or_of_none():
    one, none, y, mean = np.array([[2.0]]), np.empty((1, 0)), np.empty((1, 1)), np.empty((1, 1))
    same(k.var(one, y, mean, 0)[0], [[0]])
    for x in (one, none):
        for correction in (1, 2):
            same(k.var(x, y, mean, correction)[0], [[NAN]])
            same(k.std(x, y, mean, correction)[0], [[NAN]])
    same(k.var(none, y, mean, 0)[0], [[NAN]])
    same(k.var(np.array([[1.0, 3]]), y, mean, 2)[0], [[INF]])
    same(k.var(np.array([[1.0, INF]]), y, mean, 1)[0], [[NAN]])
    same(k.var_grad(np.ones((1, 1)), one, one, np.empty((1, 1)), 1, False), [[NAN]])


def test_the_place_of_a_maximum_counts_the_reduced_elements_in_c_order():
    x = np.zeros((2, 3, 2))
    x[1, 0, 1] = x[0, 2, 0] = 1
    arg = k.max(x, np.empty((1, 1, 2)), np.empty((1, 1, 2), np.int64))[1]
    same(arg, [[[2, 3]]])


# Products, windows


def test_a_dense_layer():
    x, w, b = arrays([[1, 2]], [[1, 0, -1], [2, 1, 0]], [10, 20, 30])
    same(k.matmul(x, w, np.empty((1, 3))), [[5, 2, -1]])
    same(k.linear(x, w, b, np.empty((1, 3)), False), [[15, 22, 29]])
    same(k.linear(x, w, -b, np.empty((1, 3)), True), [[0, 0, 0]])
    same(k.linear(x, w, np.zeros(3), np.empty((1, 3)), True), [[5, 2, 0]])
    dy = np.array([[1.0, 10, 100]])
    same(k.linear_grad_x(dy, w, np.empty((1, 2)), False), [[-99, 12]])
    same(k.linear_grad_w(dy, x, np.ones((2, 3)), True), [[2, 11, 101], [3, 21, 201]])
    same(k.matmul(np.empty((2, 0)), np.empty((0, 1)), np.full((2, 1), 7.0)), [[0], [0]])


def test_stacks_of_matrices_broadcast_and_their_gradients_are_summed_back():
    a, b = arrays([[[1, 2]], [[3, 4]]], [[10, 1], [0, 1]])
    same(k.bmm(a, b, np.empty((2, 1, 2))), [[[10, 3]], [[30, 7]]])
    dy = np.array([[[1.0, 0]], [[0, 1]]])
    same(k.bmm_grad_a(dy, b, np.empty_like(a), False), [[[10, 0]], [[1, 1]]])
    same(k.bmm_grad_b(dy, a, np.ones((2, 2)), True), [[2, 4], [3, 5]])
    same(k.bmm(a[:0], b, np.empty((0, 1, 2))), np.empty((0, 1, 2)))
    same(k.bmm_grad_b(dy[:0], a[:0], np.ones((2, 2)), False), np.zeros((2, 2)))


SAME, VALID = padding("same", (3, 3), (2, 2), (1, 1)), ((0, 0), (0, 0))
PLAIN = (1, 1), 1  # neither dilation nor groups


def test_same_padding_puts_the_odd_one_at_the_bottom_right():
    assert SAME == ((0, 1), (0, 1))
    x = np.arange(1.0, 10).reshape(1, 3, 3, 1)
    y = k.conv2d(
        x, np.ones((2, 2, 1, 1)), None, np.empty((1, 3, 3, 1)), (1, 1), SAME, *PLAIN, False
    )
    same(y[0, :, :, 0], [[12, 16, 9], [24, 28, 15], [15, 17, 9]])


def test_a_convolution_does_not_turn_its_filter_and_mixes_channels():
    x = np.array([[1.0, 10], [2, 20], [3, 30]]).reshape(1, 1, 3, 2)
    w = np.array([[[1.0], [0]], [[0], [1]]]).reshape(1, 2, 2, 1)  # left of channel 0 + right of 1
    y = k.conv2d(x, w, np.array([100.0]), np.empty((1, 1, 2, 1)), (1, 1), VALID, *PLAIN, False)
    same(y.reshape(-1), [121, 132])
    k.conv2d(x, w, np.array([-21.5]), y, (1, 1), VALID, *PLAIN, True)
    same(y.reshape(-1), [0, 10.5])
    dy = np.array([1.0, 5]).reshape(1, 1, 2, 1)
    dx = k.conv2d_grad_x(dy, w, np.empty_like(x), (1, 1), VALID, *PLAIN, False)
    same(dx.reshape(3, 2), [[1, 0], [5, 1], [0, 5]])
    dw = k.conv2d_grad_w(dy, x, np.empty_like(w), (1, 1), VALID, *PLAIN, False)
    same(dw.reshape(2, 2), [[1 + 10, 10 + 100], [2 + 15, 20 + 150]])


def test_a_stride_of_2_by_1():
    x = np.arange(12.0).reshape(1, 4, 3, 1)
    y = k.conv2d(
        x, np.ones((1, 1, 1, 1)), None, np.empty((1, 2, 3, 1)), (2, 1), VALID, *PLAIN, False
    )
    same(y[0, :, :, 0], [[0, 1, 2], [6, 7, 8]])


def test_a_depthwise_convolution_has_filters_of_its_own_for_each_channel():
    x = np.array([[1.0, 10], [2, 20], [3, 30]]).reshape(1, 1, 3, 2)
    w = np.array([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]]).reshape(1, 2, 2, 2)
    b, y, how = np.array([100.0, 0, -25, 0]), np.empty((1, 1, 2, 4)), ((1, 1), VALID, (1, 1))
    k.depthwise_conv2d(x, w, None, y, *how, False)  # left, then right of 0; right, then left of 1
    same(y[0, 0], [[1, 2, 20, 10], [2, 3, 30, 20]])
    k.depthwise_conv2d(x, w, b, y, *how, True)
    same(y[0, 0], [[101, 2, 0, 10], [102, 3, 5, 20]])
    dy = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]).reshape(1, 1, 2, 4)
    dx = k.depthwise_conv2d_grad_x(dy, w, np.empty_like(x), *how, False)
    same(dx[0, 0], [[1, 4], [5 + 2, 8 + 3], [6, 7]])
    dw = k.depthwise_conv2d_grad_w(dy, x, np.empty_like(w), *how, False)
    same(dw[0, 0], [[1 + 10, 2 + 12], [30 + 140, 40 + 160]])
    same(dw[0, 1], [[2 + 15, 4 + 18], [60 + 210, 80 + 240]])


def test_a_dilated_depthwise_convolution_with_a_stride_of_2():
    x, w = np.arange(1.0, 6).reshape(1, 1, 5, 1), np.array([1.0, 10]).reshape(1, 2, 1, 1)
    how = (1, 2), ((0, 0), (1, 0)), (1, 3)
    y = k.depthwise_conv2d(x, w, None, np.empty((1, 1, 2, 1)), *how, False)
    same(y.reshape(-1), [0 + 30, 2 + 50])
    dy = np.array([1.0, 100]).reshape(1, 1, 2, 1)
    dx = k.depthwise_conv2d_grad_x(dy, w, np.empty_like(x), *how, False)
    same(dx.reshape(-1), [0, 100, 10, 0, 1000])
    dw = k.depthwise_conv2d_grad_w(dy, x, np.empty_like(w), *how, False)
    same(dw.reshape(-1), [0 + 200, 3 + 500])


def test_a_depthwise_relu_keeps_nan_and_cuts_minus_infinity():
    x, w = np.array([NAN, -INF, INF, -1]).reshape(1, 1, 1, 4), np.ones((1, 1, 4, 1))
    y = k.depthwise_conv2d(x, w, None, np.empty_like(x), (1, 1), VALID, (1, 1), True)
    same(y.reshape(-1), [NAN, 0, INF, 0])


def test_a_dilation_of_2_reads_every_second_pixel():
    x, w = np.array([1.0, 2, 3, 4, 5]).reshape(1, 1, 5, 1), np.array([1.0, 10]).reshape(1, 2, 1, 1)
    how = (1, 1), VALID, (1, 2), 1, False
    y = k.conv2d(x, w, None, np.empty((1, 1, 3, 1)), *how)
    same(y.reshape(-1), [1 + 30, 2 + 40, 3 + 50])
    dy = np.array([1.0, 0, 7]).reshape(y.shape)
    same(k.conv2d_grad_x(dy, w, np.empty_like(x), *how).reshape(-1), [1, 0, 10 + 7, 0, 70])
    same(k.conv2d_grad_w(dy, x, np.empty_like(w), *how).reshape(-1), [1 + 21, 3 + 35])


def test_each_of_two_groups_of_channels_has_its_own_filters():
    x = np.array([1.0, 2, 3, 4]).reshape(1, 1, 1, 4)
    w = np.array([[1.0, 100], [10, 1000]]).reshape(1, 1, 2, 2)
    how = (1, 1), VALID, (1, 1), 2, False
    y = k.conv2d(x, w, None, np.empty((1, 1, 1, 2)), *how)
    same(y.reshape(-1), [1 + 20, 300 + 4000])
    dy = np.array([1.0, 2]).reshape(y.shape)
    same(k.conv2d_grad_x(dy, w, np.empty_like(x), *how).reshape(-1), [1, 10, 200, 2000])
    same(k.conv2d_grad_w(dy, x, np.empty_like(w), *how).reshape(2, 2), [[1, 6], [2, 8]])
    x[..., 3] = NAN  # stays in its group
    assert np.isnan(k.conv2d(x, w, None, y, *how)).reshape(-1).tolist() == [False, True]


def test_same_padding_with_stride_2_and_dilation_2_on_an_even_size():
    pad = padding("same", (1, 6), extent((1, 3), (1, 2)), (1, 2))
    assert pad == ((0, 0), (1, 2))  # windows span 5; the odd pixel is at the right, as always
    x = np.arange(1.0, 7).reshape(1, 1, 6, 1)
    y = np.empty((1, 1, 3, 1))
    k.conv2d(x, np.ones((1, 3, 1, 1)), None, y, (1, 2), pad, (1, 2), 1, False)
    same(y.reshape(-1), [0 + 2 + 4, 2 + 4 + 6, 4 + 6 + 0])


def test_pooling_the_first_maximum_wins_and_padding_never():
    x = np.array([[-1.0, -1], [-1, -2]]).reshape(1, 2, 2, 1)
    y, arg = np.empty((1, 2, 2, 1)), np.empty((1, 2, 2, 1), np.int32)
    k.max_pool2d(x, y, arg, (2, 2), (1, 1), ((1, 0), (1, 0)))
    same(y[0, :, :, 0], [[-1, -1], [-1, -1]])
    same(arg[0, :, :, 0], [[3, 2], [1, 0]])
    dx = k.max_pool2d_grad(
        np.array([[1.0, 10], [100, 1000]]).reshape(1, 2, 2, 1),
        arg, np.empty_like(x), (2, 2), (1, 1), ((1, 0), (1, 0)), False,
    )  # fmt: skip
    same(dx[0, :, :, 0], [[1111, 0], [0, 0]])


def test_the_gradients_of_maxima_and_a_relu_in_one():
    """Windows of two: 5 wins over 2; the relu made both of the next ones 0; NaN wins."""
    x = np.array([2.0, 5, 0, 0, 1, NAN, 7]).reshape(1, 1, 7, 1)
    y, arg, how = np.empty((1, 1, 3, 1)), np.empty((1, 1, 3, 1), np.int32), ((1, 2), (1, 2))
    k.max_pool2d(x, y, arg, *how, ((0, 0), (0, 0)))
    dy, db = np.array([10.0, 20, 30]).reshape(y.shape), np.array([1.0])
    dx, _ = k.max_pool2d_relu_grad(
        dy, y, arg, np.empty_like(x), db, *how, ((0, 0), (0, 0)), (False, True)
    )
    same(dx.reshape(-1), [0, 10, 0, 0, 0, 30, 0])
    same(db, [1 + 10 + 30])


def test_the_gradients_of_a_bias_and_a_relu_in_one():
    dy, y = arrays([[1, 2], [3, 4], [5, 6]], [[0, 7], [8, -0.0], [NAN, 9]])
    dx, db = k.bias_relu_grad(dy, y, *like(dy, dy[0]), (False, False))
    same(dx, [[0, 2], [3, 0], [5, 6]])
    same(db, [8, 8])


def test_pooling_nan_wins_and_where_all_is_minus_inf_the_first_real_cell():
    y, arg = np.empty((1, 1, 1, 1)), np.empty((1, 1, 1, 1), np.int32)
    x = np.array([5.0, NAN, NAN, 9]).reshape(1, 2, 2, 1)
    k.max_pool2d(x, y, arg, (2, 2), (1, 1), ((0, 0), (0, 0)))
    assert (np.isnan(y).all(), arg.item()) == (True, 1)
    k.max_pool2d(np.full((1, 1, 1, 1), -INF), y, arg, (2, 2), (1, 1), ((1, 0), (0, 1)))
    assert (y.item(), arg.item()) == (-INF, 2)


def test_pooling_with_same_padding_and_a_stride_of_2_starts_at_the_first_of_even_sizes():
    pad = padding("same", (4, 4), (3, 3), (2, 2))
    assert pad == ((0, 1), (0, 1))  # as TensorFlow; PyTorch's padding of 1 would start outside
    x, y = np.arange(16.0).reshape(1, 4, 4, 1), np.empty((1, 2, 2, 1))
    arg = np.empty((1, 2, 2, 1), np.int32)
    k.max_pool2d(x, y, arg, (3, 3), (2, 2), pad)
    same(y[0, :, :, 0], [[10, 11], [14, 15]])
    same(arg[0, :, :, 0], [[8, 7], [5, 4]])
    k.max_pool2d(-x - 1, y, arg, (3, 3), (2, 2), pad)  # zeros of the padding would win
    same(y[0, :, :, 0], [[-1, -3], [-9, -11]])
    same(arg[0, :, :, 0], [[0, 0], [0, 0]])
    k.avg_pool2d(x, y, (3, 3), (2, 2), pad, False)
    same(y[0, :, :, 0], [[5, 6.5], [11, 12.5]])


def test_means_of_windows_with_the_padding_counted_and_without():
    x = np.array([[1.0, 2], [3, 10]]).reshape(1, 2, 2, 1)
    dy = np.array([[4.0, 8], [16, 32]]).reshape(1, 2, 2, 1)
    static = (2, 2), (1, 1), ((1, 0), (1, 0))
    same(k.avg_pool2d(x, np.empty_like(x), *static, True)[0, :, :, 0], [[0.25, 0.75], [1, 4]])
    same(k.avg_pool2d(x, np.empty_like(x), *static, False)[0, :, :, 0], [[1, 1.5], [2, 4]])
    dx = k.avg_pool2d_grad(dy, np.empty_like(x), *static, True, False)
    same(dx[0, :, :, 0], [[1 + 2 + 4 + 8, 2 + 8], [4 + 8, 8]])
    k.avg_pool2d_grad(dy, dx, *static, False, True)
    same(dx[0, :, :, 0], [[15 + 4 + 4 + 8 + 8, 10 + 4 + 8], [12 + 8 + 8, 8 + 8]])


def test_the_mean_of_padding_alone_and_of_infinities_is_nan():
    x, above = np.array([INF, -INF, 7]).reshape(1, 1, 3, 1), ((1, 0), (0, 0))
    y = np.empty((1, 2, 2, 1))
    same(k.avg_pool2d(x, y, (1, 2), (1, 1), above, False).reshape(-1), [NAN, NAN, NAN, -INF])
    same(k.avg_pool2d(x, y, (1, 2), (1, 1), above, True).reshape(-1), [0, 0, NAN, -INF])


# Normalisation


def test_batch_norm_divides_by_the_biased_deviation():
    x, w, b = arrays([[1], [3], [5], [7]], [2], [10])
    y, mean, var = k.batch_norm(x, w, b, None, *like(x, w, w), 4.0, False)
    same(mean, [4])
    same(var, [5])
    same(y, 10 + 2 * (x - 4) / 3)
    mean, var = arrays([3], [3])
    same(k.batch_norm_eval(x, None, None, None, mean, var, y, 1.0, False), (x - 3) / 2)
    same(k.batch_norm_eval(x, None, None, None, mean, var, y, 1.0, True), [[0], [0], [1], [2]])


def test_the_gradient_of_batch_norm_has_no_part_along_1_and_x():
    x, dy = arrays([[1], [3], [5], [7]], [[1], [0], [0], [0]])
    mean, var = np.array([4.0]), np.array([5.0])
    dx, dw, db = np.empty((4, 1)), np.empty(1), np.empty(1)
    no = False, (False,) * 4
    k.batch_norm_grad(dy, x, None, mean, var, None, dx, dw, db, None, 0.0, *no)
    np.testing.assert_allclose(dx * math.sqrt(5), [[0.3], [-0.4], [-0.1], [0.2]], atol=1e-15)
    np.testing.assert_allclose([dw[0], db[0]], [-3 / math.sqrt(5), 1])


def test_batch_norm_adds_a_residual_before_relu_and_sends_the_gradient_there_too():
    x, r, dy = arrays([[1], [3], [5], [7]], [[2], [0.25], [-2], [NAN]], [[1], [2], [3], [4]])
    mean, var, w = arrays([3], [3], [4])
    y, dx, dr, db = *like(x, x), np.ones((4, 1)), np.empty(1)
    k.batch_norm_eval(x, None, None, r, mean, var, y, 1.0, True)
    same(y, [[1], [0.25], [0], [NAN]])
    given = dy, x, w, mean, var, y, dx, None, db, dr
    k.batch_norm_eval_grad(*given, 1.0, True, (False, False, False, True))
    same(dx, [[2], [4], [0], [8]])
    same(dr, [[2], [3], [1], [5]])
    same(db, [7])


def test_running_statistics_follow_the_unbiased_variance():
    mean, var, running_mean, running_var = arrays([4], [5], [0], [1])
    k.batch_norm_track_(mean, var, running_mean, running_var, 0.25, 5)
    assert (running_mean[0], running_var[0]) == (1, 1 + 0.25 * (6.25 - 1))


def test_layer_norm_of_rows_of_two_axes():
    x = np.array([[[1.0, 3], [5, 7]], [[2, 2], [2, 2]]])
    w, b = np.array([[2.0, 2], [3, 3]]), np.full((2, 2), 10.0)
    y, mean, rstd = k.layer_norm(x, w, b, *like(x, x[0, 0], x[0, 0]), 4.0)
    same(mean, [4, 2])
    same(rstd, [1 / 3, 1 / 2])
    np.testing.assert_allclose(y, [[[8, 10 - 2 / 3], [11, 13]], [[10, 10], [10, 10]]])
    one = k.layer_norm(np.array([[7.0]]), None, None, *like(w[:1, :1], w[0, :1], w[0, :1]), 0.25)
    assert [a.item() for a in one] == [0, 7, 2]


def test_the_gradient_of_layer_norm_has_no_part_along_1_and_x():
    x, dy = arrays([[1, 3, 5, 7]], [[1, 0, 0, 0]])
    dx, dw, db, w = np.empty((1, 4)), np.empty(4), np.ones(4), np.full(4, 2.0)
    mean, rstd = np.array([4.0]), np.array([5**-0.5])
    k.layer_norm_grad(dy, x, w, mean, rstd, dx, dw, db, (False, False, True))
    np.testing.assert_allclose(dx * math.sqrt(5), [[0.6, -0.8, -0.2, 0.4]], atol=1e-15)
    np.testing.assert_allclose(dw, [-3 / math.sqrt(5), 0, 0, 0])
    same(db, [2, 1, 1, 1])


# Random numbers


def test_philox_gives_the_known_answers_of_its_authors():
    zero, ones = np.zeros(1, np.uint64), np.full(1, 0xFFFFFFFF, np.uint64)
    pi = [np.array([n], np.uint64) for n in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
    answers = [
        (philox4x32(zero, zero, zero, zero, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (philox4x32(*[ones] * 4, 2**32 - 1, 2**32 - 1), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (philox4x32(*pi, 0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ]  # fmt: skip
    for four, known in answers:
        assert " ".join(f"{int(w[0]):08x}" for w in four) == known


def test_element_i_takes_word_i_mod_4_of_block_offset_plus_i_div_4():
    key = np.array([7, 2**32 - 1], np.uint64)
    stream = words(key, 10)
    for block in range(3):
        counter = 2**32 - 1 + block
        c = [np.array([n], np.uint64) for n in (counter % 2**32, counter >> 32, 0, 0)]
        four = [int(w[0]) for w in philox4x32(*c, 7, 0)]
        assert stream[4 * block : 4 * block + 4].tolist() == four[: 10 - 4 * block]
    same(k.uniform(key, np.empty((2, 5)), 0.0, 1.0).reshape(-1), (stream >> 8) / 2**24)


def test_a_generator_moves_on_by_whole_blocks():
    state, key = np.array([3, 10], np.uint64), np.empty(2, np.uint64)
    for n, offset in ((0, 10), (1, 11), (4, 12), (5, 14)):
        before = state.copy()
        k.reserve_(state, key, n)
        assert (key.tolist(), state.tolist()) == (before.tolist(), [3, offset])


def test_dropout_scales_what_it_keeps():
    x, key = np.arange(1.0, 9), np.array([0, 0], np.uint64)
    kept = words(key, 8) >= 2**30  # p = 1/4
    y = k.dropout(x, key, np.empty(8), 0.25)
    np.testing.assert_allclose(y, np.where(kept, x / 0.75, 0))
    same(k.dropout_grad(np.ones(8), key, np.ones(8), 0.25, True), 1 + kept / 0.75)
    same(k.dropout(x, key, y, 0.0), x)
    same(k.dropout(x, key, y, 1.0), np.zeros(8))


def test_random_numbers_are_distributed_as_they_should_be():
    key = np.array([5, 0], np.uint64)
    u, z = k.uniform(key, np.empty(40000), -1.0, 3.0), k.normal(key, np.empty(40001))
    assert u.min() >= -1
    assert u.max() < 3
    assert abs(u.mean() - 1) < 0.03
    assert abs(u.var() - 16 / 12) < 0.03
    assert abs(z.mean()) < 0.02
    assert abs(z.var() - 1) < 0.03
    assert abs((z**4).mean() - 3) < 0.2
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.02


def test_a_batch_of_images_is_scaled_and_mirrored_whole():
    images = np.arange(12, dtype=np.uint8).reshape(2, 1, 3, 2)
    scale, shift = arrays([1, 2], [0, 100])
    y = np.empty((3, 1, 3, 2))
    k.image_batch(images, np.array([1, 0, 1]), scale, shift, y, 0, 0, 0, False)
    same(y[0, 0], [[6, 114], [8, 118], [10, 122]])
    same(y[2], y[0])
    flips = set()
    for seed in range(20):
        k.image_batch(images, np.array([1, 0, 1]), scale, shift, y, seed, 3, 0, True)
        same(y[2], y[0])
        flips.add(tuple(y[0, 0, :, 0]))
    assert flips == {(6, 8, 10), (10, 8, 6)}


def test_a_row_of_random_numbers_follows_from_the_samples_number():
    u = k.uniform_rows(np.array([7, 2**33 + 7, 7]), np.empty((3, 6)), 2**40 + 3, 9, 2)
    for row, high in zip(u, (0, 2)):
        counter = [np.array([c], np.uint64) for c in (7, high, 9, 2)]
        same(row[:4], [(w[0] >> 8) * 2.0**-24 for w in philox4x32(*counter, 3, 2**8)])
        counter[3] += np.uint64(1)
        same(row[4:], [(w[0] >> 8) * 2.0**-24 for w in philox4x32(*counter, 3, 2**8)[:2]])
    same(u[2], u[0])


def moved(image, matrix, edge=False, scale=1.0, shift=0.0):
    """An image (H, W) after affine_batch; the matrix in pixels."""
    x = np.array(image, np.float64)[None, ..., None]
    fixed = np.rint(np.array([matrix]) * 2.0**32).astype(np.int64)
    y = np.empty_like(x)
    k.affine_batch(x, np.array([0]), fixed, *arrays([scale], [shift]), y, edge)
    return y[0, ..., 0]


def test_an_image_is_moved_to_pixels_and_between_them():
    image, half = [[1, 2, 4], [8, 16, 32]], 0.5
    same(moved(image, [[1, 0, 0], [0, 1, 0]]), image)
    same(moved(image, [[-1, 0, 2], [0, 1, 0]]), [[4, 2, 1], [32, 16, 8]])  # mirrored
    same(moved(image, [[1, 0, 1], [0, 1, -1]]), [[0, 0, 0], [2, 4, 0]])
    same(moved(image, [[1, 0, 1], [0, 1, -1]], edge=True), [[2, 4, 4], [2, 4, 4]])
    same(moved(image, [[1, 0, half], [0, 1, 0]]), [[1.5, 3, 2], [12, 24, 16]])
    same(moved(image, [[1, 0, half], [0, 1, 0]], edge=True), [[1.5, 3, 4], [12, 24, 32]])
    same(moved(image, [[1, 0, -0.25], [0, 1, half]])[0], [0.75 * 4.5, 0.25 * 4.5 + 0.75 * 9, 15.75])
    same(moved(image, [[0, 0, 2], [0, 0, 0]], scale=3.0, shift=5.0), np.full((2, 3), 17))
    same(moved(image, [[0, 0, 9], [0, 0, 9]], scale=3.0, shift=5.0), np.full((2, 3), 5))
    # a quarter turn about the centre of a square
    same(moved([[1, 2], [3, 4]], [[0, 1, 0], [-1, 0, 1]]), [[3, 1], [4, 2]])


def test_a_pixel_of_weight_0_does_not_count_in_a_moved_image():
    image, nan_at_the_end = [[1, 2, NAN]], [[1, 0, 0], [0, 1, 0]]
    same(moved(image, nan_at_the_end), image)
    same(moved(image, [[1, 0, 0.5], [0, 1, 0]]), [[1.5, NAN, NAN]])
    same(moved([[INF, 1, -INF]], [[1, 0, 0.5], [0, 1, 0]]), [[INF, -INF, -INF]])
    same(moved([[INF, -INF]], [[1, 0, 0.5], [0, 1, 0]]), [[NAN, -INF]])


def test_a_square_is_cut_out_as_far_as_it_lies_in_the_image():
    x = np.zeros((4, 3, 3, 1))
    k.cutout_(x, np.array([[-1, -1], [1, 0], [2, 2], [-5, 0]]), np.array([7.0]), 2)
    same(x[0, ..., 0], [[7, 0, 0], [0, 0, 0], [0, 0, 0]])
    same(x[1, ..., 0], [[0, 0, 0], [7, 7, 0], [7, 7, 0]])
    same(x[2, ..., 0], [[0, 0, 0], [0, 0, 0], [0, 0, 7]])
    same(x[3], np.zeros((3, 3, 1)))
    pair = k.cutout_(np.ones((1, 1, 2, 2)), np.array([[0, 1]]), np.array([3.0, NAN]), 5)
    same(pair[0, 0], [[1, 1], [3, NAN]])


def test_samples_are_mixed_with_others():
    x, lam = arrays([[1, 10], [2, 20], [4, 40]], [0.75, 0])
    same(k.mixup(x, np.array([2, 0]), lam, np.empty((2, 2))), [[1.75, 17.5], [1, 10]])
    odd = np.array([[INF], [1.0]])
    same(k.mixup(odd, np.array([1, 0]), np.ones(2), np.empty((2, 1))), [[INF], [NAN]])  # 0 * inf


# Rows


def test_rows_picked_twice_get_both_gradients():
    x, index = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([2, 0, -1])
    same(k.take(x, index, np.empty((3, 2))), [[5, 6], [1, 2], [5, 6]])
    dy = np.array([[1.0, 1], [10, 10], [100, 100]])
    same(k.take_grad(dy, index, np.ones((3, 2)), True), [[11, 11], [1, 1], [102, 102]])
    same(k.copy(np.array([1.9, -1.9]), np.empty(2, np.int64), False), [1, -1])
    same(k.fill(np.empty((2, 1)), 0.5), [[0.5], [0.5]])


def test_distinct_numbers_and_where_each_is():
    index, rows, place = np.array([7, 2, -1, 7, 0, 2]), np.empty(6, int), np.empty(6, int)
    k.distinct(index, rows, place, -1)
    same(rows, [0, 2, -1, 7, -1, -1])  # the second 2, the second 7, what is below 0
    same(place, [3, 1, 6, 3, 0, 1])
    k.distinct(index, rows, place, 2)
    same(rows, [0, -1, -1, 7, -1, -1])
    same(place, [3, 6, 6, 3, 0, 6])
    y = np.zeros((3, 2))
    same(k.put_(np.array([[1, 2], [3, NAN], [5, INF]]), np.array([2, -1, 0]), y), y)
    same(y, [[5, INF], [0, 0], [1, 2]])


# Elements by their places


def test_what_is_gathered_twice_gets_both_gradients():
    x, index = np.array([[1.0, 2, 3], [4, NAN, 6]]), np.array([[2, 2, 0, -3], [1, -1, -2, 0]])
    same(k.gather(x, index, np.empty((2, 4)), 1), [[3, 3, 1, 1], [NAN, 6, NAN, 4]])
    dy = np.array([[1.0, 10, 100, 1000], [INF, 2, -INF, 4]])
    same(k.gather_grad(dy, index, np.ones((2, 3)), 1, False), [[1100, 0, 11], [4, NAN, 2]])
    same(k.gather_grad(dy[:1], index[:1], np.ones((1, 3)), 1, True), [[1101, 1, 12]])
    rows = np.array([[1, 0, 1]])
    same(k.gather(x, rows, np.empty((1, 3)), 0), [[4, 2, 6]])
    same(k.gather_grad(np.ones((1, 3)), rows, np.empty((2, 3)), 0, False), [[0, 1, 0], [1, 0, 1]])


def test_gathering_nothing():
    nothing = np.empty((2, 0), int)
    same(k.gather(np.ones((2, 3)), nothing, np.empty((2, 0)), 1), np.empty((2, 0)))
    same(k.gather_grad(np.empty((2, 0)), nothing, np.empty((2, 3)), 1, False), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("mode", "value", "y", "dx"),
    [
        ("constant", -INF, [-INF, -INF, 1, NAN, 3, -INF], [4, 8, 16]),
        ("constant", NAN, [NAN, NAN, 1, NAN, 3, NAN], [4, 8, 16]),
        ("edge", 0, [1, 1, 1, NAN, 3, 3], [1 + 2 + 4, 8, 16 + 32]),
        ("reflect", 0, [3, NAN, 1, NAN, 3, NAN], [4, 2 + 8 + 32, 1 + 16]),
    ],
)
def test_two_elements_before_and_one_after(mode, value, y, dx):
    x, dy = arrays([1, NAN, 3], [1, 2, 4, 8, 16, 32])
    same(k.pad(x, np.empty(6), ((2, 1),), mode, value), y)
    same(k.pad_grad(dy, np.ones(3), ((2, 1),), mode, False), dx)
    same(k.pad_grad(dy, np.ones(3), ((2, 1),), mode, True), np.add(dx, 1))


def test_corners_are_padded_along_both_axes():
    x, widths = np.array([[1.0, 2], [3, 4]]), ((1, 0), (0, 1))
    same(k.pad(x, np.empty((3, 3)), widths, "constant", 9), [[9, 9, 9], [1, 2, 9], [3, 4, 9]])
    same(k.pad(x, np.empty((3, 3)), widths, "edge", 9), [[1, 2, 2], [1, 2, 2], [3, 4, 4]])
    same(k.pad(x, np.empty((3, 3)), widths, "reflect", 9), [[3, 4, 3], [1, 2, 1], [3, 4, 3]])
    dy = np.arange(9.0).reshape(3, 3)
    same(k.pad_grad(dy, np.empty((2, 2)), widths, "edge", False), [[3, 12], [6, 15]])
    same(k.pad_grad(dy, np.empty((2, 2)), widths, "reflect", False), [[8, 4], [16, 8]])


def test_padding_nothing():
    same(k.pad(np.empty((0, 1)), np.empty((2, 1)), ((1, 1), (0, 0)), "constant", 5), [[5], [5]])
    none = np.empty((0, 1))
    same(k.pad_grad(np.ones((2, 1)), none.copy(), ((1, 1), (0, 0)), "constant", False), none)
    same(k.pad(np.array(3.0), np.empty(()), (), "reflect", 5), 3)


# Losses


def test_cross_entropy_of_logits_that_would_overflow():
    x, label = np.array([[1000.0, 1000], [0, math.log(3)]]), np.array([0, 1])
    each, lse = k.cross_entropy(x, label, *like(x[0], x[0]), 1.0)
    np.testing.assert_allclose(each, [math.log(2), math.log(4 / 3)])
    np.testing.assert_allclose(lse, [1000 + math.log(2), math.log(4)])
    total = k.cross_entropy(x, label, np.empty(()), lse, 0.5)[0]
    np.testing.assert_allclose(total, 0.5 * math.log(8 / 3))
    dx = k.cross_entropy_grad(np.array(2.0), x, label, lse, np.empty((2, 2)), 0.5, False)
    np.testing.assert_allclose(dx, [[-0.5, 0.5], [0.25, -0.25]])
    np.testing.assert_allclose(
        k.log_softmax(x, np.empty((2, 2)))[:, 0], [-math.log(2), -math.log(4)]
    )


def each_and_slope(name, x, target, *settings):
    """A loss of each number, and its slopes with respect to x."""
    x, target = arrays(x, target)
    y = getattr(k, name)(x, target, np.empty(x.shape), *settings, 1.0)
    grad = getattr(k, f"{name}_grad")
    return y, grad(np.ones(x.shape), x, target, np.empty(x.shape), *settings, 1.0, False)


def test_distances_and_their_slopes():
    x, target = [1, -1, 3, INF, NAN, INF], [1, 0, 1, 0, 0, INF]
    y, dx = each_and_slope("mse_loss", x, target)
    same(y, [0, 1, 4, INF, NAN, NAN])
    same(dx, [0, -2, 4, INF, NAN, NAN])
    y, dx = each_and_slope("l1_loss", x, target)
    same(y, [0, 1, 2, INF, NAN, NAN])
    same(dx, [0, -1, 1, 1, 0, 0])  # 0 where they are equal, and at NaN, as of abs
    y, dx = each_and_slope("huber_loss", x, target, 1.0)
    same(y, [0, 0.5, 1.5, INF, NAN, NAN])  # 0.5 is 1**2 / 2 and 1 (1 - 1 / 2): they meet there
    same(dx, [0, -1, 1, 1, NAN, NAN])


def test_a_loss_is_scaled_summed_and_differentiated():
    x, target = arrays([[1, 2], [3, 4]], [[0, 0], [0, 0]])
    same(k.mse_loss(x, target, np.empty(()), 0.25), 7.5)
    same(k.mse_loss(x, target, np.empty((2, 2)), 0.25), [[0.25, 1], [2.25, 4]])
    dx = k.mse_loss_grad(np.array(2.0), x, target, np.ones((2, 2)), 0.25, True)
    same(dx, [[2, 3], [4, 5]])
    none = np.empty((0, 2))
    same(k.mse_loss(none, none, np.empty(()), 1.0), 0)
    same(k.mse_loss(none, none, np.empty(()), NAN), NAN)  # the mean of nothing


def test_binary_cross_entropy_is_finite_at_0_and_1():
    x, target = arrays([0, 1, 0, 1, 0.5, NAN], [1, 0, 0, 1, 0.5, 1])
    same(k.binary_cross_entropy(x, target, np.empty(6), 1.0), [100, 100, 0, 0, math.log(2), NAN])
    dx = k.binary_cross_entropy_grad_x(np.ones(6), x, target, np.empty(6), 1.0, False)
    same(dx, [-1e12, 1e12, 0, 0, 0, NAN])
    dtarget = k.binary_cross_entropy_grad_target(np.ones(2), x[:2], np.empty(2), 1.0, False)
    same(dtarget, [100, -100])


def test_binary_cross_entropy_of_logits_of_any_size():
    x, target = arrays([1e4, 1e4, -1e4, -1e4, 0, INF, INF], [0, 1, 0, 1, 0.5, 0, 1])
    y = k.binary_cross_entropy_with_logits(x, target, None, np.empty(7), 1.0)
    same(y, [1e4, 0, 0, 1e4, math.log(2), INF, NAN])  # 0 times inf, as in PyTorch
    dx = k.binary_cross_entropy_with_logits_grad_x(
        np.ones(7), x, target, None, np.empty(7), 1.0, False
    )
    same(dx, [1, 0, 0, -1, 0, 1, 0])
    # log(1 + exp -40): -40 + (40 + log ...) would have lost all its digits
    tiny = k.binary_cross_entropy_with_logits(np.array(-40.0), np.array(0.0), None, np.empty(()), 1)
    np.testing.assert_allclose(tiny, math.exp(-40), rtol=1e-12)
    twice = np.array([1.0, 3.0])  # pos_weight, one for each column
    x, target = np.zeros((2, 2)), np.array([[1.0, 1], [0, 1]])
    y = k.binary_cross_entropy_with_logits(x, target, twice, np.empty((2, 2)), 1.0)
    np.testing.assert_allclose(y / math.log(2), [[1, 3], [1, 3]])


def test_the_divergence_of_two_distributions():
    x, target = np.log([0.5, 0.25, 0.25]), np.array([0.25, 0.75, 0])
    want = [0.25 * math.log(0.5), 0.75 * math.log(3), 0]
    np.testing.assert_allclose(k.kl_div(x, target, np.empty(3), False, 1.0), want)
    got = k.kl_div(x[:2], np.log(target[:2]), np.empty(()), True, 1.0)
    np.testing.assert_allclose(got, sum(want))
    same(k.kl_div_grad_x(np.ones(3), target, np.empty(3), False, 2.0, False), [-0.5, -1.5, 0])
    impossible = k.kl_div(np.array([-INF, -INF]), np.array([0.5, 0]), np.empty(2), False, 1.0)
    same(impossible, [INF, NAN])  # 0 times inf, as in PyTorch


NO_LABEL = -(2**63)


def test_nll_with_weights_and_rows_left_out():
    x = np.array([[-1.0, -2], [-3, -4], [NAN, NAN]])
    label, weight = np.array([0, 1, -1]), np.array([1.0, 3])
    y, total = k.nll_loss(x, label, weight, np.empty(3), np.empty(()), -1, False)
    same(y, [1, 12, 0])
    same(total, 1)
    y, total = k.nll_loss(x, label, weight, np.empty(()), np.empty(()), -1, True)
    same(y, 13 / 4)
    same(total, 4)
    dx = k.nll_loss_grad(np.array(2.0), label, weight, total, np.ones((3, 2)), -1, True)
    same(dx, [[0.5, 1], [1, -0.5], [1, 1]])
    y, _ = k.nll_loss(x[:2], label[:2], None, np.empty(()), np.empty(()), NO_LABEL, True)
    same(y, 2.5)


def test_cross_entropy_with_weights_smoothing_and_rows_left_out():
    x = np.log([[1.0, 3], [1, 1], [1, 1]])
    label, weight = np.array([0, 1, 7]), np.array([2.0, 1])
    blanks = np.empty(3), np.empty(())
    y, lse, total = k.cross_entropy_weighted(x, label, weight, np.empty(3), *blanks, 7, 0.0, False)
    np.testing.assert_allclose(y, [2 * math.log(4), math.log(2), 0])
    mean, lse, total = k.cross_entropy_weighted(
        x, label, weight, np.empty(()), *blanks, 7, 0.0, True
    )
    np.testing.assert_allclose(mean, 5 * math.log(2) / 3)
    dx = k.cross_entropy_weighted_grad(
        np.array(3.0), x, label, weight, lse, total, np.empty((3, 2)), 7, 0.0, False
    )
    np.testing.assert_allclose(dx, [[-1.5, 1.5], [0.5, -0.5], [0, 0]])
    y, _, _ = k.cross_entropy_weighted(x, label, None, np.empty(3), *blanks, 7, 0.5, False)
    smooth = 0.75 * math.log(4) + 0.25 * math.log(4 / 3)  # the label is 0.75, the other 0.25
    np.testing.assert_allclose(y, [smooth, math.log(2), 0])


def test_when_all_labels_are_ignored_the_mean_is_nan_and_the_gradient_0():
    x, label = np.ones((2, 3)), np.full(2, -100)
    y, total = k.nll_loss(x, label, None, np.empty(()), np.empty(()), -100, True)
    same(y, NAN)
    same(k.nll_loss_grad(np.ones(()), label, None, total, np.ones((2, 3)), -100, False), 0 * x)
    y, lse, total = k.cross_entropy_weighted(
        x, label, None, np.empty(()), np.empty(2), np.empty(()), -100, 0.1, True
    )
    same(y, NAN)
    dx = k.cross_entropy_weighted_grad(
        np.ones(()), x, label, None, lse, total, np.ones((2, 3)), -100, 0.1, False
    )
    same(dx, 0 * x)


def test_cross_entropy_of_probabilities():
    x, target = np.log([[1.0, 3], [1, 1]]), np.array([[0.5, 0.5], [1, 0]])
    y, lse = k.cross_entropy_soft(x, target, None, np.empty(2), np.empty(2), 0.0, 1.0)
    want = 0.5 * math.log(4) + 0.5 * math.log(4 / 3)
    np.testing.assert_allclose(y, [want, math.log(2)])
    y, lse = k.cross_entropy_soft(x, target, None, np.empty(()), lse, 0.0, 0.5)
    np.testing.assert_allclose(y, (want + math.log(2)) / 2)
    one = np.array(1.0)
    dx = k.cross_entropy_soft_grad_x(one, x, target, None, lse, np.empty((2, 2)), 0.0, 1.0, False)
    np.testing.assert_allclose(dx, [[-0.25, 0.25], [-0.5, 0.5]])
    dtarget = k.cross_entropy_soft_grad_target(one, x, None, lse, np.empty((2, 2)), 0.5, 1.0, False)
    np.testing.assert_allclose(dtarget[1], [math.log(2) / 2] * 2)


def test_softmax_of_logits_that_would_overflow():
    x = np.array([[1e4, 1e4, -1e4], [0, math.log(3), -INF]])
    y = k.softmax(x, np.empty((2, 3)))
    np.testing.assert_allclose(y, [[0.5, 0.5, 0], [0.25, 0.75, 0]])
    dx = k.softmax_grad(np.array([[1.0, 0, 9], [4, 0, 9]]), y, np.ones((2, 3)), True)
    np.testing.assert_allclose(dx, [[1.25, 0.75, 1], [1.75, 0.25, 1]])
    same(
        k.softmax(np.array([[INF, 0.0], [NAN, 0], [-INF, -INF]]), np.empty((3, 2))), [[NAN] * 2] * 3
    )
    same(k.softmax(np.array([[7.0]]), np.empty((1, 1))), [[1]])
    same(k.softmax(np.empty((2, 0)), np.empty((2, 0))), np.empty((2, 0)))


def test_logits_of_minus_inf_are_impossible_classes():
    x = np.array([[-INF, 0.0, 0.0]])
    y = k.log_softmax(x, np.empty((1, 3)))
    np.testing.assert_allclose(y, [[-INF, -math.log(2), -math.log(2)]])
    dx = k.log_softmax_grad(np.array([[0.0, 1, 0]]), y, np.empty((1, 3)), False)
    np.testing.assert_allclose(dx, [[0, 0.5, -0.5]])


# Optimizers


def test_two_steps_of_sgd_with_momentum_and_nesterov():
    for nesterov, steps in ((False, (-1, -2.5)), (True, (-1.5, -3.25))):
        p, v, dp, lr, half = arrays([0], [0], [1], [1], [0.5])
        for step in steps:
            k.sgd_step_(dp, lr, half, p, v, 0.0, nesterov)
            assert p[0] == step
    p, dp, lr, none = arrays([10], [1], [0.1], [0])
    k.sgd_step_(dp, lr, none, p, None, 0.5, False)
    assert p[0] == 10 - 0.1 * (1 + 0.5 * 10)


BETAS = np.array([[0.9, 0.1, math.log(0.9)], [0.999, 0.001, math.log(0.999)]])


def test_the_first_step_of_adam_is_as_long_as_the_learning_rate():
    dp, lr, p, m, v = arrays([4, -0.01], [0.1], [0, 0], [0, 0], [0, 0])
    t = np.array([1])
    k.adam_step_(dp, lr, BETAS, t, p, m, v, 0.0, 0.0, False)
    np.testing.assert_allclose(p, [-0.1, 0.1])
    np.testing.assert_allclose(m, [0.4, -0.001])
    np.testing.assert_allclose(v, [0.016, 1e-7])
    same(k.count_(t), [2])
    k.adam_step_(np.zeros(2), lr, BETAS, t, p, m, v, 0.0, 0.0, False)
    second = 0.1 / 0.19 * 0.36 / math.sqrt(0.015984 / 0.001999)
    np.testing.assert_allclose(p[0], -0.1 - second)


def test_a_decoupled_decay_shrinks_the_parameter_and_leaves_the_means_alone():
    dp, lr, p, m, v = arrays([4, 0], [0.1], [10, 10], [0, 0], [0, 0])
    k.adam_step_(dp, lr, BETAS, np.array([1]), p, m, v, 1e-8, 0.5, True)
    np.testing.assert_allclose(p, [10 - 0.1 * 0.5 * 10 - 0.1, 9.5])
    np.testing.assert_allclose(m, [0.4, 0])


def test_an_infinite_parameter_stays_infinite_only_without_decay():
    for decay, want in ((0.0, INF), (0.5, NAN)):
        dp, lr, p, m, v = arrays([1], [0], [INF], [0], [0])
        with np.errstate(invalid="ignore"):
            k.adam_step_(dp, lr, BETAS, np.array([1]), p, m, v, 1e-8, decay, True)
        same(p, [want])  # 0 times infinity


def test_two_steps_of_rmsprop_centered_and_with_momentum():
    dp, lr, half, p, v, m, b = arrays([2], [1], [0.5], [0], [0], [0], [0])
    k.rmsprop_step_(dp, lr, half, p, v, None, None, 0.75, 1.0, 0.0)
    same(v, [1])
    same(p, [-2 / (1 + 1)])
    p, v = arrays([0], [0])
    k.rmsprop_step_(dp, lr, half, p, v, m, b, 0.5, 0.0, 0.0)  # v = 2, m = 1, so the variance is 1
    same([p, v, m, b], [[-2], [2], [1], [2]])
    k.rmsprop_step_(dp, lr, half, p, v, m, b, 0.5, 0.0, 0.0)  # v = 3, m = 1.5
    np.testing.assert_allclose(b, [1 + 2 / math.sqrt(0.75)])
    np.testing.assert_allclose(p, -2 - b)


def test_a_variance_that_rounding_makes_negative_is_0_in_rmsprop():
    dp, lr, p, v, m = arrays([1], [1], [0], [1 - 1e-9], [1])
    k.rmsprop_step_(dp, lr, lr, p, v, m, None, 0.5, 0.25, 0.0)
    same(p, [-4])  # not NaN, as the root of -5e-10 would be
    dp, p = arrays([NAN], [0])
    k.rmsprop_step_(dp, lr, lr, p, v, m, None, 0.5, 0.25, 0.0)
    same(p, [NAN])


def test_two_steps_of_adagrad():
    dp, lr, p, v = arrays([3, 0], [1], [0, 0], [0, 0])
    k.adagrad_step_(dp, lr, np.array([1]), p, v, 16.0, 0.5, 1.0, 0.0)
    same(v, [9, 0])
    same(p, [-3 / (5 + 1), 0])
    k.adagrad_step_(dp, lr, np.array([3]), p, v, 0.0, 0.5, 1e-10, 0.0)  # a rate of 1 / 2
    np.testing.assert_allclose(p, [-0.5 - 0.5 * 3 / math.sqrt(18), 0])  # eps: 0 / 0 is no step


def test_two_steps_of_lion():
    dp, lr, p, m = arrays([4, -1, 0], [0.5], [2, 2, 2], [0, 1, 0])
    betas = np.array([[0.75, 0.25], [0.5, 0.5]])
    k.lion_step_(dp, lr, betas, p, m, 0.5)
    same(p, [2 - 0.5 * (1 + 1), 2 - 0.5 * (1 + 1), 2 - 0.5 * (0 + 1)])  # the sign of 0 is 0
    same(m, [2, 0, 0])
    k.lion_step_(arrays([-8, NAN, 0])[0], lr, betas, p, m, 0.0)
    same(p, [1.5, NAN, 1.5])
    same(m, [-3, NAN, 0])


def test_a_step_in_proportion_to_a_length():
    u, lr, p = arrays([0, 2], [0.5], [3, 4])
    k.trust_step_(u, lr, np.array(25.0), np.array(4.0), p)
    same(p, [3, 4 - 0.5 * 5 / 2 * 2])
    k.trust_step_(u, lr, np.array(0.0), np.array(4.0), p)  # nothing to be in proportion to
    same(p, [3, 1.5 - 1])


def test_clipping_shortens_and_never_lengthens():
    x = np.array([3.0, 4])
    k.clip_(np.array(25.0), x, 10.0)
    same(x, [3, 4])
    k.clip_(np.array(25.0), x, 1.0)
    np.testing.assert_allclose(x, np.array([0.6, 0.8]) / (1 + 2e-7))


# The same in other words: formulas that share no code with the definition, on drawn arguments


def loops_conv2d(x, w, b, y, stride, pad, dilation, groups, relu):
    result = np.zeros(y.shape) + (0 if b is None else b)
    filters = w.reshape(*w.shape[:3], groups, -1)
    for n, i, j, r, s in np.ndindex(*y.shape[:3], *w.shape[:2]):
        h = i * stride[0] + r * dilation[0] - pad[0][0]
        v = j * stride[1] + s * dilation[1] - pad[1][0]
        if 0 <= h < x.shape[1] and 0 <= v < x.shape[2]:
            channels = x[n, h, v].reshape(groups, -1)
            result[n, i, j] += np.einsum("gc,cgf->gf", channels, filters[r, s]).reshape(-1)
    return np.maximum(result, 0) if relu else result


def loops_depthwise_conv2d(x, w, b, y, stride, pad, dilation, relu):
    result = np.zeros(y.shape) + (0 if b is None else b)
    for n, i, j, f, r, s in np.ndindex(*y.shape, *w.shape[:2]):
        h = i * stride[0] + r * dilation[0] - pad[0][0]
        v = j * stride[1] + s * dilation[1] - pad[1][0]
        if 0 <= h < x.shape[1] and 0 <= v < x.shape[2]:
            c, m = divmod(f, w.shape[3])
            result[n, i, j, f] += x[n, h, v, c] * w[r, s, c, m]
    return np.maximum(result, 0) if relu else result


def loops_avg_pool2d(x, y, size, stride, pad, count_padding):
    result = np.zeros(y.shape)
    for n, i, j in np.ndindex(*y.shape[:3]):
        h, v = i * stride[0] - pad[0][0], j * stride[1] - pad[1][0]
        inside = x[n, max(h, 0) : h + size[0], max(v, 0) : v + size[1]].reshape(-1, x.shape[3])
        result[n, i, j] = inside.sum(0) / (math.prod(size) if count_padding else len(inside))
    return result


def loops_max_pool2d(x, y, arg, size, stride, pad):
    result = np.full(y.shape, -INF)
    for n, i, j, r, s in np.ndindex(*y.shape[:3], *size):
        h, v = i * stride[0] + r - pad[0][0], j * stride[1] + s - pad[1][0]
        if 0 <= h < x.shape[1] and 0 <= v < x.shape[2]:
            result[n, i, j] = np.maximum(result[n, i, j], x[n, h, v])
    return result


def in_groups(combine):
    def reduced(x, y, arg=None):
        groups = {at: [] for at in np.ndindex(y.shape)}
        for at in np.ndindex(x.shape):
            groups[tuple(min(i, n - 1) for i, n in zip(at, y.shape))].append(float(x[at]))
        return [combine(group) for group in groups.values()]

    return reduced


def sum_of_squares(root):
    def reduced(x, y, mean, correction):
        def one(group):
            value = statistics.pvariance(group) * len(group) / (len(group) - correction)
            return math.sqrt(value) if root else value

        return in_groups(one)(x, y)

    return reduced


def einsum_linear(x, w, b, y, relu):
    value = np.einsum("ri,io->ro", x, w) + (0 if b is None else b)
    return np.where(value < 0, 0, value) if relu else value


def batch_norm_by_var(x, w, b, r, eps, relu, **outputs):
    rows = x.reshape(-1, x.shape[-1])
    z = (rows - rows.mean(0)) * (rows.var(0) + eps) ** -0.5
    value = (z * (1 if w is None else w) + (0 if b is None else b)).reshape(x.shape)
    value = value if r is None else value + r
    return np.where(value < 0, 0, value) if relu else value


def layer_norm_by_var(x, w, b, y, mean, rstd, eps):
    rows = x.reshape(math.prod(mean.shape), -1)
    z = [(row - row.mean()) * (row.var() + eps) ** -0.5 for row in rows]
    return np.reshape(z, x.shape) * (1 if w is None else w) + (0 if b is None else b)


def cross_entropy_by_logaddexp(x, label, y, lse, scale):
    picked = [float(row[at]) for row, at in zip(x, label)]
    each = scale * (np.logaddexp.reduce(x, axis=-1) - picked)
    return each if y.shape else each.sum()


def textbook_adam(dp, lr, betas, t, p, m, v, eps, weight_decay, decoupled):
    beta1, beta2 = betas[:, 0]
    g = dp + (0 if decoupled else weight_decay) * p
    p = p - lr * (weight_decay if decoupled else 0) * p
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    return p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)


def textbook_rmsprop(dp, lr, momentum, p, v, m, b, alpha, eps, weight_decay):
    g = dp + weight_decay * p
    square = np.average([v, g**2], axis=0, weights=[alpha, 1 - alpha])
    if m is not None:
        square = square - np.average([m, g], axis=0, weights=[alpha, 1 - alpha]) ** 2
    step = g / (np.clip(square, 0, None) ** 0.5 + eps)
    return p - lr * (step if b is None else momentum * b + step)


def textbook_adagrad(dp, lr, t, p, v, initial, lr_decay, eps, weight_decay):
    g = dp + weight_decay * p
    return p - lr / (1 + (t - 1) * lr_decay) * g / (eps + (initial + v + g**2) ** 0.5)


OTHER_WORDS = {
    "conv2d": loops_conv2d,
    "depthwise_conv2d": loops_depthwise_conv2d,
    "max_pool2d": loops_max_pool2d,
    "avg_pool2d": loops_avg_pool2d,
    "matmul": lambda a, b, y: np.einsum("mk,kn->mn", a, b),
    "bmm": lambda a, b, y: np.einsum("...mk,...kn->...mn", a, b),
    "linear": einsum_linear,
    "sum": in_groups(math.fsum),
    "mean": in_groups(statistics.fmean),
    "max": in_groups(max),
    "min": in_groups(min),
    "var": sum_of_squares(root=False),
    "std": sum_of_squares(root=True),
    "batch_norm": batch_norm_by_var,
    "layer_norm": layer_norm_by_var,
    "softmax": lambda x, y: np.exp(x - np.logaddexp.reduce(x, axis=-1, keepdims=True)),
    "log_softmax": lambda x, y: x - np.logaddexp.reduce(x, axis=-1, keepdims=True),
    "cross_entropy": cross_entropy_by_logaddexp,
    "adam_step_": textbook_adam,
    "rmsprop_step_": textbook_rmsprop,
    "adagrad_step_": textbook_adagrad,
}


@pytest.mark.parametrize("name", OTHER_WORDS)
def test_the_definition_agrees_with_the_same_in_other_words(name):
    for seed in range(20):
        values = example(name, seed=seed, mode="smooth")
        expected = OTHER_WORDS[name](**values)
        blanks = {
            n: np.empty(v.shape, v.dtype or float)
            for n, v in values.items()
            if isinstance(v, Blank)
        }
        filled = values | blanks
        getattr(k, name)(**filled)
        got = filled["p" if name.endswith("_step_") else "y"]
        np.testing.assert_allclose(
            got.reshape(-1), np.reshape(expected, -1), rtol=1e-10, atol=1e-12
        )


def test_infinite_logits_are_results_and_no_warnings():
    x, label = np.full((1, 3), -np.inf), np.array([0])
    with np.errstate(all="raise"):
        y, _ = k.cross_entropy(x, label, np.empty(()), np.empty(1), 1.0)
        z = k.log_softmax(x, np.empty((1, 3)))
    assert np.isnan(y)
    assert np.isnan(z).all()


def test_a_gru_unit_remembers_half_where_nothing_says_otherwise():
    x = np.zeros((1, 2, 3))
    x[..., 2] = math.atanh(0.5)  # so r = z = 1/2 and n = 1/2 at both steps
    args = x, np.ones((1, 1)), np.zeros((1, 3)), np.array([0, 0, 4.0])
    y, gates = np.empty((1, 2, 1)), np.empty((1, 2, 4))
    args[0][..., 2] -= 0.5 * 4  # what r lets through of q = 4
    for reverse, want in ((False, [0.75, 0.625]), (True, [0.625, 0.75])):
        k.gru(*args, y, gates, reverse)
        np.testing.assert_allclose(y[0, :, 0], want)
        np.testing.assert_allclose(gates, [[[0.5, 0.5, 0.5, 4]] * 2])


def test_the_gradients_of_one_step_of_a_gru():
    h, w = np.array([[1.0]]), np.array([[0.0, 0, 3]])
    y, gates = np.array([[[0.75]]]), np.array([[[0.5, 0.25, 0.5, 3.0]]])  # r, z, n, q
    outs = np.empty((1, 1, 3)), np.empty((1, 1)), np.empty((1, 3)), np.empty(3)
    k.gru_grad(np.array([[[16.0]]]), h, w, y, gates, *outs, False, (False,) * 4)
    a_n, a_z = 16 * 0.75 * 0.75, 16 * 0.5 * 0.25 * 0.75  # (1 - z)(1 - n n), (h - n) z (1 - z)
    a_r = a_n * 3 * 0.25
    dx, dh, dw, db = outs
    same(dx, [[[a_r, a_z, a_n]]])
    same(dh, [[16 * 0.25 + 3 * a_n / 2]])
    same(dw, [[a_r, a_z, a_n / 2]])
    same(db, [a_r, a_z, a_n / 2])


def test_ctc_adds_up_all_paths():
    # of two steps, with probabilities of blank and a: aa, -a and a- spell "a", only -- spells ""
    x = np.log([[[0.5, 0.5]] * 4, [[0.25, 0.75]] * 4])
    target, steps = np.array([[1, 1]] * 4), np.array([2, 2, 2, 1])
    count = np.array([1, 0, 2, 1])  # "aa" needs a blank in between, and so three steps
    given = x, target, steps, count
    y, nll, alpha = np.empty(4), np.empty(4), np.empty((4, 2, 5))
    k.ctc_loss(*given, y, nll, alpha, 0, True, False)
    np.testing.assert_allclose(y, [-math.log(0.875), -math.log(0.125), 0, -math.log(0.5)])
    assert nll[2] == INF
    np.testing.assert_allclose(np.exp(alpha[0, :, :3]), [[0.5, 0.5, 0], [0.125, 0.75, 0.125]])
    dx = np.empty_like(x)
    k.ctc_loss_grad(np.ones(4), *given, nll, alpha, dx, 0, True, False, False)
    np.testing.assert_allclose(dx[:, 0], [[-3 / 7, -4 / 7], [-1 / 7, -6 / 7]])
    np.testing.assert_allclose(dx[:, 1:], [[[-1, 0], [0, 0], [0, -1]], [[-1, 0], [0, 0], [0, 0]]])
    mean = np.empty(())
    k.ctc_loss(*given, mean, nll, alpha, 0, True, True)
    np.testing.assert_allclose(mean, y.sum() / 4)  # none of these has two labels and a path


# Sparse matrices


def test_a_sparse_matrix_times_a_dense_one():
    # [[2, 0, -1], [0, 0, 0], [0, 3, 0]]
    value = np.array([2.0, -1, 3])
    row, column, row_start = np.array([0, 0, 2]), np.array([0, 2, 1]), np.array([0, 2, 2, 3])
    order, column_start = np.array([0, 2, 1]), np.array([0, 1, 2, 3])
    places = row, column, row_start, order, column_start
    x = np.array([[1.0, 10], [2, NAN], [4, INF]])
    y = k.csr_matmul(value, *places, x, np.empty((3, 2)))
    same(y, [[-2, -INF], [0, 0], [6, NAN]])  # 0 times NaN is left out, not NaN
    dy = np.array([[1.0, 100], [NAN, NAN], [5, 0]])
    x = np.array([[1.0, 10], [2, 20], [4, 40]])
    grad_value = k.csr_matmul_grad_value(dy, x, row, column, np.ones(3), True)
    same(grad_value, [1 + 1001, 1 + 4004, 1 + 10])
    dx = k.csr_matmul_grad_x(dy, value, row, order, column_start, np.empty((3, 2)), False)
    same(dx, [[2, 200], [15, 0], [-1, -100]])
