"""The checks can fail: wrong kernels, each with one mistake that people make, and what finds it."""

from itertools import count
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import Phase
from numpy.lib.stride_tricks import as_strided

from minidl.kernels import reference as right
from minidl.kernels import shapes
from minidl.kernels.cases import CASES, gradients
from minidl.kernels.reference.random import words
from minidl.kernels.testing import DEFINITION, Backend, Mismatch, verify


class Mutant(NamedTuple):
    name: str
    kernel: str
    killed_by: str
    dtype: str
    function: object


MUTANTS: list[Mutant] = []


def mutant(kernel, killed_by="value", dtype="float32"):
    """A function that stands in for a kernel, and the property that notices."""

    def register(function):
        MUTANTS.append(Mutant(function.__name__, kernel, killed_by, dtype, function))
        return function

    return register


def put(value, out, add=False):
    return right.copy(np.asarray(value).astype(out.dtype).reshape(out.shape), out, add)


# Elementwise


@mutant("sub")
def operands_swapped(a, b, y):
    return right.sub(b, a, y)


@mutant("sub_grad_b")
def sign_missing(dy, db, add):
    return right.add_grad_b(dy, db, add)


@mutant("mul_grad_a")
def broadcast_gradient_not_summed(dy, b, da, add):
    wide = dy * b
    ones = [slice(n if n < 2 else None) for n in da.shape]  # the first of what should be summed
    first = wide[tuple([slice(1)] * (wide.ndim - da.ndim) + ones)]
    return put(first if first.size else np.zeros(da.shape), da, add)


@mutant("exp", dtype="float64")
def computed_in_float32(x, y):
    return put(np.exp(x.astype(np.float32)), y)


@mutant("neg", "returns its outputs")
def result_in_an_array_of_its_own(x, y):
    return right.neg(x, y).astype(np.float64)


@mutant("log", "runs")
def warnings_are_errors(x, y):
    with np.errstate(all="raise"):
        return put(np.log(x), y)


@mutant("relu", "inf and NaN")
def nan_swallowed(x, y):
    return put(np.where(x > 0, x, 0), y)


@mutant("relu_grad")
def slope_1_at_0(dy, y, dx, add):
    return put(np.where(y >= 0, dy, 0), dx, add)


@mutant("maximum_grad_a")
def ties_all_to_a(dy, a, b, da, add):
    return right.mul_grad_a(dy, (a >= b).astype(dy.dtype), da, add)


@mutant("gelu", "inf and NaN")
def cut_off_in_the_tail(x, y, approximate):
    return put(np.where(x < -1e9, 0, right.gelu(x, y, approximate)), y)


@mutant("gelu")
def always_exact(x, y, approximate):
    return right.gelu(x, y, "none")


@mutant("clip_grad")
def slope_0_at_the_bounds(dy, x, dx, low, high, add):
    return put(np.where((low < x) & (x < high), dy, 0), dx, add)


@mutant("where_grad_a", "inf and NaN")
def truth_as_a_factor(dy, cond, da, add):
    return right.mul_grad_a(dy, cond.astype(dy.dtype), da, add)


@mutant("softplus")
def threshold_of_x_not_of_beta_x(x, y, beta, threshold):
    return put(np.where(x > threshold, x, right.softplus(x, y, beta, np.inf)), y)


@mutant("elu_grad")
def alpha_forgotten(dy, x, dx, alpha, add):
    return right.elu_grad(dy, x, dx, 1.0, add)


@mutant("leaky_relu")
def slope_on_the_other_side(x, y, negative_slope):
    return put(np.where(x < 0, x, x * x.dtype.type(negative_slope)), y)


@mutant("silu_grad")
def as_if_of_the_sigmoid(dy, x, dx, add):
    return right.sigmoid_grad(dy, right.sigmoid(x, np.empty_like(x)), dx, add)


@mutant("tanh_grad")
def square_forgotten(dy, y, dx, add):
    return put(dy * (1 - y), dx, add)


@mutant("relu6_grad", "inf and NaN")
def nan_stops_the_gradient(dy, y, dx, add):
    return put(np.where((y > 0) & (y < 6), dy, 0), dx, add)


@mutant("maximum_grad_a", "inf and NaN")
def nan_gets_no_gradient(dy, a, b, da, add):
    return right.mul_grad_a(dy, (a > b) + (a == b) * dy.dtype.type(0.5), da, add)


@mutant("minimum_grad_b")
def as_if_of_the_maximum(dy, a, b, db, add):
    return right.maximum_grad_b(dy, a, b, db, add)


@mutant("compare")
def at_most_for_less(a, b, y, relation):
    return right.compare(a, b, y, "le" if relation == "lt" else relation)


@mutant("pow_grad_a")
def exponent_not_lowered(dy, a, b, da, add):
    return right.mul_grad_a(dy, b * a**b, da, add)


# Reductions

_calls = count()


@mutant("sum", "repeat")
def sums_in_another_order_each_time(x, y):
    return right.sum(x[:: (-1) ** next(_calls)], y)


@mutant("sum", dtype="float64")
def float32_accumulator(x, y):
    return put(right.sum(x.astype(np.float32), y.astype(np.float32)), y)


@mutant("sum")
def reads_one_cell_too_many(x, y):
    if y.size > 1 or x.ndim != 1:
        return right.sum(x, y)
    return right.sum(as_strided(x, (len(x) + 1,), x.strides), y)


@mutant("sum_rows")
def last_row_left_out(dy, db, add):
    return right.sum_rows(dy.reshape(-1, db.size)[:-1], db, add)


@mutant("sum_rows", "every cell written")
def nothing_done_for_an_empty_batch(dy, db, add):
    return right.sum_rows(dy, db, add) if dy.size else db


@mutant("mean")
def divides_by_one_less(x, y):
    n = x.size / max(y.size, 1)
    return put(right.sum(x, y) / y.dtype.type(max(n - 1, 1)), y)


@mutant("mean_grad")
def not_divided(dy, dx, add):
    return right.sum_grad(dy, dx, add)


@mutant("max")
def last_maximum_wins(x, y, arg):
    right.max(x, y, arg)
    flipped = np.flip(x)
    last = right.max(flipped, np.flip(y.copy()), np.flip(arg.copy()))[1]
    arg[...] = max(x.size // max(y.size, 1), 1) - 1 - np.flip(last)
    return y, arg


@mutant("max", "inf and NaN")
def nan_loses(x, y, arg):
    right.max(np.where(np.isnan(x), -np.inf, x).astype(x.dtype), y, arg)
    return y, arg


@mutant("max_grad", "every cell written")
def only_winners_written(dy, arg, dx, add):
    value = right.max_grad(dy, arg, np.empty_like(dx), False)
    np.add(value, dx if add else 0, out=dx, where=value != 0)
    return dx


@mutant("sum_squares", "add")
def added_before_the_last_operation(x, y, add):
    total = y.copy() if add else y.dtype.type(0)
    for value in np.square(x):
        total = total + value
    return put(total, y)


@mutant("var")
def always_the_biased_variance(x, y, mean, correction):
    return right.var(x, y, mean, 0)


@mutant("var")
def mean_of_squares_minus_square_of_mean(x, y, mean, correction):
    right.var(x, y, mean, correction)
    squares = right.mean(np.square(x), np.empty_like(y))
    n = x.size / max(y.size, 1)
    y[...] = (squares - mean * mean) * y.dtype.type(n / max(n - correction, 1))
    return y, mean


@mutant("std_grad")
def the_slope_of_a_root_at_0_is_infinite(dy, x, y, mean, dx, correction, add):
    return right.var_grad(dy / (y + y), x, mean, dx, correction, add)


@mutant("min")
def last_minimum_wins(x, y, arg):
    right.min(x, y, arg)
    arg[...] = last_maximum_wins(-x, np.empty_like(y), np.empty_like(arg))[1]
    return y, arg


# Normalised rows


@mutant("softmax")
def the_largest_is_not_subtracted(x, y):
    power = np.exp(x)
    return put(power / power.sum(axis=-1, keepdims=True), y)


@mutant("softmax_grad")
def as_if_of_log_softmax(dy, y, dx, add):
    return put(dy - y * dy.sum(axis=-1, keepdims=True), dx, add)


@mutant("layer_norm")
def rows_share_their_statistics(x, w, b, y, mean, rstd, eps):
    right.layer_norm(x, w, b, y, mean, rstd, eps)
    mean[...] = mean.sum() / max(mean.size, 1)
    return y, mean, rstd


@mutant("layer_norm_grad")
def the_mean_is_a_constant(dy, x, w, mean, rstd, dx, dw, db, add):
    right.layer_norm_grad(dy, x, w, mean, rstd, dx, dw, db, add)
    if dx is not None and not add[0]:
        wide = rstd.reshape(*rstd.shape, *(1 for _ in x.shape[rstd.ndim :]))
        put((dy if w is None else dy * w) * wide, dx)
    return dx, dw, db


# Matrix products


@mutant("bmm")
def every_matrix_is_the_first(a, b, y):
    return right.bmm(a, np.broadcast_to(b[(0,) * (b.ndim - 2)], b.shape) if b.size else b, y)


@mutant("bmm_grad_b")
def broadcast_stack_not_summed(dy, a, db, add):
    wide = a.swapaxes(-1, -2) @ dy
    ones = [slice(n if n < 2 else None) for n in db.shape]
    first = wide[tuple([slice(1)] * (wide.ndim - db.ndim) + ones)]
    return put(first if first.size == db.size else np.zeros(db.shape), db, add)


@mutant("matmul")
def last_product_left_out(a, b, y):
    return right.matmul(a[:, :-1], b[:-1], y)


@mutant("matmul_grad_b", "strides")
def flat_view_of_a_strided_output(dy, a, db, add):
    if db.flags.c_contiguous:
        return right.matmul_grad_b(dy, a, db, add)
    db.reshape(-1)[...] = (a.T @ dy).reshape(-1)  # a copy, when db is strided
    return db


@mutant("linear")
def bias_missing(x, w, b, y, relu):
    return right.linear(x, w, None, y, relu)


@mutant("linear")
def relu_forgotten(x, w, b, y, relu):
    return right.linear(x, w, b, y, False)


@mutant("linear_grad_w", "add")
def add_ignored(dy, x, dw, add):
    return right.linear_grad_w(dy, x, dw, False)


@mutant("linear_grad_x", "every cell written")
def added_to_what_is_there_always(dy, w, dx, add):
    dx += dy @ w.T
    return dx


# Windows

NO_PAD, CLOSE = ((0, 0), (0, 0)), (1, 1)


def more_windows(x, w, b, y, stride, pad, dilation, groups, relu):
    """As many windows as y has, and more below and to the right, if the image were larger."""
    wide = np.pad(x, ((0, 0), *pad, (0, 0)))
    wide = np.pad(wide, ((0, 0), (0, 40), (0, 40), (0, 0)))
    big = shapes.conv2d(wide.shape, w.shape, stride, NO_PAD, dilation)
    how = stride, NO_PAD, dilation, groups, relu
    return right.conv2d(wide, w, b, np.empty(big, y.dtype), *how)[:, : y.shape[1], : y.shape[2]]


@mutant("conv2d")
def stride_swapped(x, w, b, y, stride, pad, dilation, groups, relu):
    return put(more_windows(x, w, b, y, stride[::-1], pad, dilation, groups, relu), y)


@mutant("conv2d")
def dilation_swapped(x, w, b, y, stride, pad, dilation, groups, relu):
    return put(more_windows(x, w, b, y, stride, pad, dilation[::-1], groups, relu), y)


@mutant("conv2d")
def dilation_ignored(x, w, b, y, stride, pad, dilation, groups, relu):
    return put(more_windows(x, w, b, y, stride, pad, CLOSE, groups, relu), y)


@mutant("conv2d")
def filters_dealt_to_the_groups_in_turn(x, w, b, y, stride, pad, dilation, groups, relu):
    right.conv2d(x, w, b, y, stride, pad, dilation, groups, relu)
    each = y.reshape(*y.shape[:3], groups, y.shape[3] // groups)
    return put(each.swapaxes(3, 4).reshape(y.shape), y)


@mutant("conv2d")
def sides_of_the_padding_swapped(x, w, b, y, stride, pad, dilation, groups, relu):
    sides = tuple(p[::-1] for p in pad)
    return right.conv2d(x, w, b, y, stride, sides, dilation, groups, relu)


@mutant("conv2d")
def height_and_width_of_the_padding_swapped(x, w, b, y, stride, pad, dilation, groups, relu):
    (top, bottom), (left, right_) = pad
    wide = np.pad(x, ((0, 0), (left, top + bottom), (top, left + right_), (0, 0)))
    windows = wide[:, : x.shape[1] + top + bottom, : x.shape[2] + left + right_]
    return right.conv2d(windows, w, b, y, stride, NO_PAD, dilation, groups, relu)


@mutant("conv2d")
def relu_before_the_bias(x, w, b, y, stride, pad, dilation, groups, relu):
    how = stride, pad, dilation, groups, relu
    value = right.conv2d(x, w, None, np.empty_like(y), *how)
    return put(value if b is None else value + b, y)


@mutant("conv2d", "inf and NaN")
def relu_drops_nan(x, w, b, y, stride, pad, dilation, groups, relu):
    how = stride, pad, dilation, groups, False
    value = right.conv2d(x, w, b, np.empty_like(y), *how)
    return put(np.where(value > 0, value, 0) if relu else value, y)


@mutant("conv2d_grad_w")
def filter_upside_down(dy, x, dw, stride, pad, dilation, groups, add):
    how = stride, pad, dilation, groups, False
    return put(right.conv2d_grad_w(dy, x, np.empty_like(dw), *how)[::-1], dw, add)


@mutant("conv2d_grad_w")
def every_group_sees_the_first_channels(dy, x, dw, stride, pad, dilation, groups, add):
    first = np.tile(x[..., : dw.shape[2]], groups)
    return right.conv2d_grad_w(dy, first, dw, stride, pad, dilation, groups, add)


@mutant("conv2d_grad_x", "every cell written")
def pixels_that_no_window_saw_left_as_they_were(dy, w, dx, stride, pad, dilation, groups, add):
    how = stride, pad, dilation, groups, False
    seen = right.conv2d_grad_x(np.ones_like(dy), np.ones_like(w), np.empty_like(dx), *how)
    value = right.conv2d_grad_x(dy, w, np.empty_like(dx), *how)
    np.add(value, dx if add else 0, out=dx, where=seen > 0)
    return dx


@mutant("conv2d_grad_x")
def channels_given_to_the_next_group(dy, w, dx, stride, pad, dilation, groups, add):
    how = stride, pad, dilation, groups, False
    value = right.conv2d_grad_x(dy, w, np.empty_like(dx), *how)
    return put(np.roll(value, w.shape[2], axis=-1), dx, add)


@mutant("max_pool2d")
def padding_is_zero_and_wins(x, y, arg, size, stride, pad):
    right.max_pool2d(x, y, arg, size, stride, pad)
    real = np.zeros_like(y)
    padded = np.pad(x, ((0, 0), *pad, (0, 0)))
    return put(right.max_pool2d(padded, real, arg.copy(), size, stride, ((0, 0),) * 2)[0], y), arg


@mutant("max_pool2d")
def position_in_columns_first(x, y, arg, size, stride, pad):
    right.max_pool2d(x, y, arg, size, stride, pad)
    arg[...] = arg % size[1] * size[0] + arg // size[1]
    return y, arg


@mutant("max_pool2d_grad")
def windows_overwrite_each_other(dy, arg, dx, size, stride, pad, add):
    value = right.max_pool2d_grad(dy, arg, np.empty_like(dx), size, stride, pad, False)
    each = right.max_pool2d_grad(np.ones_like(dy), arg, np.empty_like(dx), size, stride, pad, False)
    return put(value / np.maximum(each, 1), dx, add)


# Depthwise convolution and average pooling


@mutant("depthwise_conv2d")
def channels_of_each_filter_in_a_row(x, w, b, y, stride, pad, dilation, relu):
    value = right.depthwise_conv2d(x, w, None, np.empty_like(y), stride, pad, dilation, False)
    value = value.reshape(*y.shape[:3], *w.shape[2:]).swapaxes(3, 4).reshape(y.shape)
    value = value if b is None else value + b
    return put(np.maximum(value, 0) if relu else value, y)


@mutant("depthwise_conv2d_grad_x")
def cells_of_the_filter_not_as_far_apart(dy, w, dx, stride, pad, dilation, add):
    return right.depthwise_conv2d_grad_x(dy, w, dx, stride, pad, (1, 1), add)


@mutant("depthwise_conv2d_grad_w")
def depthwise_filter_upside_down(dy, x, dw, stride, pad, dilation, add):
    value = right.depthwise_conv2d_grad_w(dy, x, np.empty_like(dw), stride, pad, dilation, False)
    return put(value[::-1], dw, add)


@mutant("avg_pool2d")
def padding_always_counts(x, y, size, stride, pad, count_padding):
    return right.avg_pool2d(x, y, size, stride, pad, True)


@mutant("avg_pool2d_grad")
def every_share_is_of_the_cells_of_a_whole_window(dy, dx, size, stride, pad, count_padding, add):
    return right.avg_pool2d_grad(dy, dx, size, stride, pad, True, add)


# Normalisation


@mutant("batch_norm")
def variance_unbiased(x, w, b, r, y, mean, var, eps, relu):
    right.batch_norm(x, w, b, r, y, mean, var, eps, relu)
    rows = x.size // mean.size
    var *= var.dtype.type(rows / max(rows - 1, 1))
    return y, mean, var


@mutant("batch_norm", "every cell written")
def running_sums_start_as_they_were(x, w, b, r, y, mean, var, eps, relu):
    mean += x.mean(axis=tuple(range(x.ndim - 1)))
    right.batch_norm(x, w, b, r, y, mean.copy(), var, eps, relu)
    return y, mean, var


@mutant("batch_norm_eval")
def eps_outside_the_root(x, w, b, r, mean, var, y, eps, relu):
    var = (np.sqrt(var) + var.dtype.type(eps)) ** 2
    return right.batch_norm_eval(x, w, b, r, mean, var, y, 0.0, relu)


@mutant("batch_norm_eval")
def eps_missing(x, w, b, r, mean, var, y, eps, relu):
    return right.batch_norm_eval(x, w, b, r, mean, var, y, 0.0, relu)


@mutant("batch_norm_eval", "inf and NaN")
def relu_turns_nan_to_zero(x, w, b, r, mean, var, y, eps, relu):
    right.batch_norm_eval(x, w, b, r, mean, var, y, eps, False)
    return put(np.where(y > 0, y, 0) if relu else y.copy(), y)


@mutant("batch_norm_grad")
def statistics_taken_for_constants(dy, x, w, mean, var, y, dx, dw, db, dr, eps, relu, add):
    given = dy, x, w, mean, var, y, dx, dw, db, dr
    return right.batch_norm_eval_grad(*given, eps, relu, add)


@mutant("batch_norm_grad", "add")
def one_add_for_all(dy, x, w, mean, var, y, dx, dw, db, dr, eps, relu, add):
    given = dy, x, w, mean, var, y, dx, dw, db, dr
    return right.batch_norm_grad(*given, eps, relu, (add[0],) * 4)


@mutant("batch_norm_grad")
def relu_forgotten_in_dr(dy, x, w, mean, var, y, dx, dw, db, dr, eps, relu, add):
    given = dy, x, w, mean, var, y, dx, dw, db, None
    right.batch_norm_grad(*given, eps, relu, add)
    return dx, dw, db, dr if dr is None else right.copy(dy, dr, add[3])


@mutant("batch_norm_eval")
def residual_added_after_relu(x, w, b, r, mean, var, y, eps, relu):
    right.batch_norm_eval(x, w, b, None, mean, var, y, eps, relu)
    return y if r is None else right.add(y, r, y)


@mutant("batch_norm_track_")
def variance_biased(mean, var, running_mean, running_var, momentum, rows):
    return right.batch_norm_track_(mean, var, running_mean, running_var, momentum, 10**9)


# Random numbers


@mutant("reserve_")
def blocks_rounded_down(state, key, n):
    return right.reserve_(state, key, n // 4 * 4)


@mutant("uniform")
def words_of_a_block_in_another_order(key, y, low, high):
    n = -(-y.size // 4) * 4
    swapped = words(key, n).reshape(-1, 4)[:, [2, 3, 0, 1]].reshape(-1)[: y.size]
    return put(low + (high - low) * (swapped >> 8) * 2.0**-24, y)


@mutant("uniform")
def high_half_of_the_counter_ignored(key, y, low, high):
    first = int(key[1])
    numbers = [
        words(np.array([key[0], (first + i) % 2**32], np.uint64), 4) for i in range(-(-y.size // 4))
    ]
    unit = np.concatenate([*numbers, np.empty(0, np.uint32)])[: y.size] // 256 * 2.0**-24
    return put(low + (high - low) * unit, y)


@mutant("uniform", "no overrun")
def writes_one_cell_too_many(key, y, low, high):
    right.uniform(key, y, low, high)
    if y.ndim:
        as_strided(y, (y.shape[-1] + 1,), y.strides[-1:])[-1] = 0
    return y


@mutant("normal")
def sine_and_cosine_swapped(key, y):
    pairs = right.normal(key, np.empty((y.size + 1) // 2 * 2, y.dtype)).reshape(-1, 2)
    return put(pairs[:, ::-1].reshape(-1)[: y.size], y)


@mutant("dropout", "strides")
def mask_follows_memory(x, key, y, p):
    order = sorted(range(x.ndim), key=lambda a: -abs(x.strides[a]))
    right.dropout(x.transpose(order), key, y.transpose(order), p)
    return y


@mutant("dropout_grad")
def not_scaled(dy, key, dx, p, add):
    kept = right.dropout_grad(dy, key, np.empty_like(dy), p, False) != 0
    return put(dy * kept, dx, add)


@mutant("image_batch")
def mirrored_upside_down(images, index, scale, shift, y, seed, epoch, pad, flip):
    turned = [a.swapaxes(1, 2) for a in (images, y)]
    right.image_batch(turned[0], index, scale, shift, turned[1], seed, epoch, pad, flip)
    return y


@mutant("uniform_rows")
def numbers_of_places_in_the_batch(index, y, seed, epoch, stream):
    return right.uniform_rows(np.arange(len(index)), y, seed, epoch, stream)


@mutant("uniform_rows")
def the_first_block_again(index, y, seed, epoch, stream):
    right.uniform_rows(index, y, seed, epoch, stream)
    y[:, 4:8] = y[:, : y[:, 4:8].shape[1]]
    return y


@mutant("affine_batch")
def places_rounded_in_float32(images, index, matrix, scale, shift, y, edge):
    near = (matrix.astype(np.float32) * np.float32(2.0**-32)).astype(np.float64)
    near = np.round(near * 2.0**20) * 2.0**-20
    fixed = (near * 2.0**32).astype(np.int64)
    return right.affine_batch(images, index, fixed, scale, shift, y, edge)


@mutant("affine_batch")
def rows_and_columns_swapped(images, index, matrix, scale, shift, y, edge):
    return right.affine_batch(images, index, matrix[:, ::-1], scale, shift, y, edge)


@mutant("affine_batch")
def zeros_where_the_edge_should_go_on(images, index, matrix, scale, shift, y, edge):
    return right.affine_batch(images, index, matrix, scale, shift, y, False)


@mutant("affine_batch", "inf and NaN")
def weight_0_counts(images, index, matrix, scale, shift, y, edge):
    around = images.sum() * 0  # one NaN pixel spoils all
    right.affine_batch(images, index, matrix, scale, shift, y, edge)
    return put(y + around, y)


@mutant("cutout_")
def square_moved_into_the_image(x, corner, value, size):
    return right.cutout_(x, np.maximum(corner, 0), value, size)


@mutant("cutout_", "runs")
def negative_corners_refused(x, corner, value, size):
    if corner.min(initial=0) < 0:
        raise IndexError("negative corner")
    return right.cutout_(x, corner, value, size)


@mutant("mixup")
def shares_swapped(x, index, lam, y):
    return right.mixup(x, index, 1 - lam, y)


# Rows


@mutant("take", "runs")
def negative_numbers_refused(x, index, y):
    if index.min(initial=0) < 0:
        raise IndexError("negative row")
    return right.take(x, index, y)


@mutant("take_grad")
def a_row_taken_twice_gets_one(dy, index, dx, add):
    rows = np.zeros_like(dx)
    rows[index] += dy
    return put(rows, dx, add)


@mutant("distinct")
def a_number_that_comes_again_stands_there_again(index, rows, place, skip):
    right.distinct(index, rows, place, skip)
    rows[...] = np.sort(np.where(index < 0, np.iinfo(index.dtype).max, index))
    rows[(rows == np.iinfo(index.dtype).max) | (rows == skip)] = -1
    return rows, place


@mutant("distinct")
def nothing_is_skipped(index, rows, place, skip):
    return right.distinct(index, rows, place, -1)


@mutant("distinct")
def those_left_out_have_a_place(index, rows, place, skip):
    right.distinct(index, rows, place, skip)
    place[place == len(index)] = len(index) - 1
    return rows, place


@mutant("put_")
def the_last_row_for_none(x, rows, y):
    y[rows] = x
    return y


@mutant("put_")
def rows_are_added(x, rows, y):
    here = rows >= 0
    y[rows[here]] += x[here]
    return y


@mutant("csr_matmul")
def rows_that_begin_one_too_late(value, row, column, row_start, order, column_start, x, y):
    start = np.minimum(row_start + 1, row_start[-1])
    start[0] = 0
    return right.csr_matmul(value, row, column, start, order, column_start, x, y)


@mutant("csr_matmul", "inf and NaN")
def what_is_not_there_is_multiplied(value, row, column, row_start, order, column_start, x, y):
    dense = np.zeros((len(y), len(x)), x.dtype)
    dense[row, column] = value
    return right.matmul(dense, x, y)


@mutant("csr_matmul_grad_value")
def gradient_of_values_in_the_order_of_columns(dy, x, row, column, dvalue, add):
    turned = np.argsort(column, kind="stable")
    return right.csr_matmul_grad_value(dy, x, row[turned], column[turned], dvalue, add)


@mutant("csr_matmul_grad_x")
def values_row_by_row_where_columns_are_asked_for(dy, value, row, order, column_start, dx, add):
    plain = np.arange(order.size)
    return right.csr_matmul_grad_x(dy, value, row, plain, column_start, dx, add)


@mutant("gather", "runs")
def places_counted_from_the_front_alone(x, index, y, axis):
    if index.min(initial=0) < 0:
        raise IndexError("negative place")
    return right.gather(x, index, y, axis)


@mutant("gather")
def the_next_place(x, index, y, axis):
    return right.gather(x, np.where(index < 0, index, (index + 1) % x.shape[axis]), y, axis)


@mutant("gather_grad")
def a_place_picked_twice_gets_one(dy, index, dx, axis, add):
    cells = np.zeros_like(dx)
    np.put_along_axis(cells, index, dy, axis)
    return put(cells, dx, add)


@mutant("gather_grad", "every cell written")
def places_that_nobody_picked_left_as_they_were(dy, index, dx, axis, add):
    value = right.gather_grad(dy, index, np.empty_like(dx), axis, False)
    picked = right.gather_grad(np.ones_like(dy), index, np.empty_like(dx), axis, False)
    np.add(value, dx if add else 0, out=dx, where=picked > 0)
    return dx


@mutant("pad")
def the_edge_is_mirrored_too(x, y, widths, mode, value):
    if mode == "reflect" and x.ndim:
        return put(np.pad(x, widths, "symmetric"), y)
    return right.pad(x, y, widths, mode, value)


@mutant("pad")
def before_and_after_swapped(x, y, widths, mode, value):
    return right.pad(x, y, tuple(pair[::-1] for pair in widths), mode, value)


@mutant("pad")
def padded_with_zeros_always(x, y, widths, mode, value):
    return right.pad(x, y, widths, mode, 0.0)


@mutant("pad_grad")
def what_is_repeated_gets_no_gradient(dy, dx, widths, mode, add):
    return right.pad_grad(dy, dx, widths, "constant", add)


# Losses


@mutant("log_softmax")
def exp_overflows(x, y):
    return put(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)), y)


@mutant("cross_entropy")
def label_off_by_one(x, label, y, lse, scale):
    return right.cross_entropy(x, (label + 1) % x.shape[1], y, lse, scale)


@mutant("cross_entropy", "runs")
def largest_of_an_empty_batch(x, label, y, lse, scale):
    x.max()
    return right.cross_entropy(x, label, y, lse, scale)


@mutant("cross_entropy_grad")
def not_divided_by_the_batch(dy, x, label, lse, dx, scale, add):
    return right.cross_entropy_grad(dy, x, label, lse, dx, 1.0, add)


@mutant("log_softmax", "inf and NaN")
def an_infinite_logit_spares_the_others(x, y):
    top = x.max(axis=-1, keepdims=True, initial=-np.inf)
    shifted = x - np.where(np.isfinite(top), top, 0)
    return put(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), y)


@mutant("nll_loss")
def rows_left_out_count_in_the_mean(x, label, weight, y, total, ignore, mean):
    right.nll_loss(x, label, weight, y, total, ignore, mean)
    if mean:
        y *= total / max(len(x), 1)
        total[...] = len(x)
    return y, total


@mutant("nll_loss_grad")
def weights_forgotten(dy, label, weight, total, dx, ignore, add):
    return right.nll_loss_grad(dy, label, None, total, dx, ignore, add)


@mutant("cross_entropy_weighted")
def smoothed_over_the_other_classes(x, label, weight, y, lse, total, ignore, smoothing, mean):
    more = smoothing * x.shape[1] / max(x.shape[1] - 1, 1)
    return right.cross_entropy_weighted(x, label, weight, y, lse, total, ignore, more, mean)


@mutant("cross_entropy_weighted_grad")
def left_out_by_a_factor(dy, x, label, weight, lse, total, dx, ignore, smoothing, add):
    every = np.where(label == ignore, 0, label)
    args = x, every, weight, lse, total, np.empty_like(dx), -(2**63), smoothing, False
    value = right.cross_entropy_weighted_grad(dy, *args)
    return put(value * (label != ignore)[:, None], dx, add)


@mutant("cross_entropy_soft")
def targets_made_to_sum_to_1(x, target, weight, y, lse, smoothing, scale):
    target = target / np.maximum(target.sum(axis=-1, keepdims=True), 1)
    return right.cross_entropy_soft(x, target, weight, y, lse, smoothing, scale)


@mutant("cross_entropy_soft_grad_x")
def targets_taken_to_sum_to_1(dy, x, target, weight, lse, dx, smoothing, scale, add):
    slope = np.exp(x - lse[:, None]) - target
    return put(slope * (dy[..., None] * dy.dtype.type(scale)), dx, add)


# Distances


@mutant("mse_loss")
def half_the_square(x, target, y, scale):
    return right.mse_loss(x, target, y, scale / 2)


@mutant("l1_loss_grad", "inf and NaN")
def nan_has_a_sign(dy, x, target, dx, scale, add):
    return put(np.sign(x - target) * (dy * dy.dtype.type(scale)), dx, add)


@mutant("huber_loss")
def not_joined_at_delta(x, target, y, delta, scale):
    far = np.abs(x - target)
    loss = np.where(far > delta, delta * far, far**2 / 2) * x.dtype.type(scale)
    return put(loss if y.ndim else loss.sum(), y)


@mutant("huber_loss_grad")
def no_slope_beyond_delta(dy, x, target, dx, delta, scale, add):
    far = np.where(np.abs(x - target) > delta, 0, x - target)
    return put(far * (dy * dy.dtype.type(scale)), dx, add)


@mutant("binary_cross_entropy")
def the_log_of_0_is_infinite(x, target, y, scale):
    loss = -(target * np.log(x) + (1 - target) * np.log1p(-x)) * x.dtype.type(scale)
    return put(loss if y.ndim else loss.sum(), y)


@mutant("binary_cross_entropy_with_logits")
def a_sigmoid_first(x, target, pos_weight, y, scale):
    chance = 1 / (1 + np.exp(-x))
    positive = target if pos_weight is None else target * pos_weight
    loss = -(positive * np.log(chance) + (1 - target) * np.log(1 - chance)) * x.dtype.type(scale)
    return put(loss if y.ndim else loss.sum(), y)


@mutant("binary_cross_entropy_with_logits_grad_x")
def pos_weight_forgotten(dy, x, target, pos_weight, dx, scale, add):
    return right.binary_cross_entropy_with_logits_grad_x(dy, x, target, None, dx, scale, add)


@mutant("kl_div")
def a_probability_of_0_is_nan(x, target, y, log_target, scale):
    if log_target:
        return right.kl_div(x, target, y, log_target, scale)
    loss = target * (np.log(target) - x) * x.dtype.type(scale)
    return put(loss if y.ndim else loss.sum(), y)


@mutant("kl_div_grad_x")
def a_log_taken_for_a_probability(dy, target, dx, log_target, scale, add):
    return right.kl_div_grad_x(dy, target, dx, False, scale, add)


# Optimizers


@mutant("sgd_step_")
def nesterov_ignored(dp, lr, momentum, p, v, weight_decay, nesterov):
    return right.sgd_step_(dp, lr, momentum, p, v, weight_decay, False)


@mutant("sgd_step_")
def weight_decay_away_from_zero(dp, lr, momentum, p, v, weight_decay, nesterov):
    return right.sgd_step_(dp, lr, momentum, p, v, -weight_decay, nesterov)


@mutant("adam_step_")
def bias_correction_of_the_next_step(dp, lr, betas, t, p, m, v, eps, weight_decay, decoupled):
    return right.adam_step_(dp, lr, betas, t + 1, p, m, v, eps, weight_decay, decoupled)


@mutant("adam_step_")
def digits_of_beta_lost(dp, lr, betas, t, p, m, v, eps, weight_decay, decoupled):
    rounded = betas.copy()
    rounded[1, 1] *= betas.dtype.type(1.0001)
    return right.adam_step_(dp, lr, rounded, t, p, m, v, eps, weight_decay, decoupled)


@mutant("adam_step_", "inputs untouched")
def decay_added_to_the_gradient_in_place(dp, lr, betas, t, p, m, v, eps, weight_decay, decoupled):
    if not decoupled:
        dp += dp.dtype.type(weight_decay) * p
        weight_decay = 0.0
    return right.adam_step_(dp, lr, betas, t, p, m, v, eps, weight_decay, decoupled)


@mutant("adam_step_")
def decay_after_the_step(dp, lr, betas, t, p, m, v, eps, weight_decay, decoupled):
    rest = weight_decay * (not decoupled)
    right.adam_step_(dp, lr, betas, t, p, m, v, eps, rest, False)
    if decoupled:
        p -= lr * p.dtype.type(weight_decay) * p
    return p, m, v


@mutant("rmsprop_step_")
def not_centered(dp, lr, momentum, p, v, m, b, alpha, eps, weight_decay):
    right.rmsprop_step_(dp, lr, momentum, p, v, None, b, alpha, eps, weight_decay)
    if m is not None:
        g = dp + p.dtype.type(weight_decay) * p
        m += p.dtype.type(1 - alpha) * (g - m)
    return p, v, m, b


@mutant("rmsprop_step_")
def momentum_of_the_rate(dp, lr, momentum, p, v, m, b, alpha, eps, weight_decay):
    less = momentum * momentum.dtype.type(0.999)
    return right.rmsprop_step_(dp, lr, less, p, v, m, b, alpha, eps, weight_decay)


@mutant("adagrad_step_")
def rate_of_the_next_step(dp, lr, t, p, v, initial, lr_decay, eps, weight_decay):
    return right.adagrad_step_(dp, lr, t + 1, p, v, initial, lr_decay, eps, weight_decay)


@mutant("adagrad_step_")
def initial_forgotten(dp, lr, t, p, v, initial, lr_decay, eps, weight_decay):
    return right.adagrad_step_(dp, lr, t, p, v, 0.0, lr_decay, eps, weight_decay)


@mutant("clip_")
def short_vectors_made_longer(square, x, limit):
    x *= x.dtype.type(limit) / np.sqrt(square)
    return x


# What finds them

COMPARISONS = {"value", "empty batch", "inf and NaN"}  # which example comes first is chance
# the first failing example will do: looking for the smallest takes most of the time
FAST = dict(max_examples=60, derandomize=True, phases=[Phase.generate])


def case_of(kernel):
    return next(case for case in CASES.values() if kernel in (case.name, *gradients(case)))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.kernel}-{mutant.name}")
def test_a_mutant_is_killed_by_the_property_that_it_breaks(mutant):
    backend = Backend("mutant", {mutant.kernel: mutant.function})
    with pytest.raises(Mismatch) as found:
        verify(case_of(mutant.kernel), backend, mutant.dtype, **FAST)
    kinds = COMPARISONS if mutant.killed_by == "value" else {mutant.killed_by}
    assert found.value.property in kinds, str(found.value)
    assert str(found.value).startswith(f"{mutant.kernel}[mutant, {mutant.dtype}] ")


@pytest.mark.parametrize("kernel", sorted({mutant.kernel for mutant in MUTANTS}))
def test_the_definition_in_its_place_survives(kernel):
    backend = Backend("definition", {kernel: DEFINITION[kernel]})
    verify(case_of(kernel), backend, "float32", **FAST)


def test_there_are_mutants_of_every_kind():
    assert len(MUTANTS) >= 50
    assert {mutant.killed_by for mutant in MUTANTS} == {
        "runs", "inputs untouched", "no overrun", "returns its outputs", "every cell written",
        "value", "repeat", "add", "strides", "inf and NaN",
    }  # fmt: skip
