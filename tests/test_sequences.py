"""Convolution of sequences: conv2d on images of one line, with words and errors of its own."""

import itertools

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn, ops
from minidl.nn import functional as F

HOW = [  # stride, padding, dilation, groups
    (1, 0, 1, 1), (2, 1, 1, 1), (1, (2, 0), 3, 1), (3, "same", 2, 2), (2, (0, 4), 2, 4),
]  # fmt: skip


def whole(*shape, dtype="float64"):
    return np.random.default_rng(shape).integers(-3, 4, shape).astype(dtype)


def results(op, arrays, dy, static, where="cpu"):
    """The output, and the gradient of each input."""
    tensors = [a if a is None else Tensor(a, True, device=where) for a in arrays]
    y = op(*tensors, **static)
    y.backward(Tensor(dy.reshape(y.shape), device=where))
    return [y.detach().numpy(), *(t.grad.numpy() for t in tensors if t is not None)]


def both_ways(how, relu, bias, where="cpu"):
    """Results of conv1d, and of conv2d on the same numbers as images of one line."""
    stride, padding, dilation, groups = how
    x, w = whole(3, 11, 8), whole(3, 8 // groups, 4)
    arrays = [x, w, whole(4) if bias else None]
    pad = ((0, 0), (padding,) * 2 if isinstance(padding, int) else padding)
    pad = padding if isinstance(padding, str) else pad
    mine = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, relu=relu)
    lines = mine | dict(stride=(1, stride), padding=pad, dilation=(1, dilation))
    with minidl.no_grad():
        dy = whole(*ops.conv1d(*(a if a is None else Tensor(a) for a in arrays), **mine).shape)
    as_images = [x[:, None], w[None], arrays[2]]
    return (
        results(ops.conv1d, arrays, dy, mine, where),
        results(ops.conv2d, as_images, dy, lines),
    )


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("relu", "bias"), [*itertools.product((False, True), repeat=2)])
def test_conv1d_is_conv2d_on_images_of_one_line(how, relu, bias):
    for one, line in zip(*both_ways(how, relu, bias), strict=True):
        assert one.ndim == line.ndim - (line.ndim > 1)
        np.testing.assert_array_equal(one, line.reshape(one.shape))


@pytest.mark.parametrize("how", HOW)
def test_conv1d_on_cuda_is_conv1d_on_the_cpu(cuda, how):
    for there, here in zip(*both_ways(how, True, True, where="cuda"), strict=True):
        np.testing.assert_array_equal(there, here.reshape(there.shape))  # sums of whole numbers


def test_a_filter_along_a_sequence_by_hand():
    x = Tensor([[[1.0], [2.0], [3.0], [4.0], [5.0]]], requires_grad=True)
    w = Tensor([[[1.0, 0.0]], [[10.0, -1.0]]], requires_grad=True)
    y = F.conv1d(x, w, None, stride=2, padding=(0, 1), dilation=2)  # places 0 2, 2 4; 4 is the last
    np.testing.assert_array_equal(y.detach(), [[[1 + 30, -3], [3 + 50, -5]]])
    y.backward(Tensor([[[1.0, 0.0], [0.0, 7.0]]]))
    np.testing.assert_array_equal(x.grad, [[[1], [0], [10], [0], [-7]]])
    np.testing.assert_array_equal(w.grad, [[[1, 3 * 7]], [[3, 5 * 7]]])


def test_gradients_that_are_not_wanted_are_not_there():
    x, w = Tensor(whole(2, 5, 3)), Tensor(whole(2, 3, 4), True)
    for relu in (False, True):
        w.grad = None
        F.conv1d(x, w, relu=relu).sum().backward()
        assert x.grad is None and w.grad.shape == w.shape
    assert F.conv1d(Tensor(whole(0, 5, 3)), w, padding="same").shape == (0, 5, 4)


def test_same_padding_keeps_the_length_or_divides_it_by_the_stride():
    for length, size, stride, dilation in itertools.product((5, 6), (2, 3), (1, 2), (1, 2)):
        y = F.conv1d(
            Tensor(whole(1, length, 2)), Tensor(whole(size, 2, 3)), None, stride, "same", dilation
        )
        assert y.shape == (1, -(-length // stride), 3)


X, W = Tensor(whole(1, 9, 4)), Tensor(whole(3, 4, 6))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: F.conv1d(Tensor(whole(9, 4)), W), ValueError, r"conv1d: x has 2 .*axis: x\[None"),
        (lambda: F.conv1d(Tensor(whole(1, 9, 9, 4)), W), ValueError, "images are for conv2d"),
        (lambda: F.conv1d(X, Tensor(whole(3, 4))), ValueError, r"w has 2 .*filters \(K, C / gro"),
        (
            lambda: F.conv1d(X, Tensor(whole(3, 3, 6))),
            ValueError,
            r"conv1d: x has 4 channels, but w expects 3 \(x \(1, 9, 4\), w \(3, 3, 6\)\); sequence",
        ),
        (lambda: F.conv1d(X, W, groups=2), ValueError, "w expects 4 in each of 2 groups"),
        (lambda: F.conv1d(X, Tensor(whole(3, 2, 5)), groups=2), ValueError, "5 filters, which do"),
        (lambda: F.conv1d(X, W, groups=1.0), ValueError, "conv1d: groups is 1.0, but must be a wh"),
        (lambda: F.conv1d(X, W, Tensor(whole(4))), ValueError, "b needs one number per filter, 6"),
        (lambda: F.conv1d(X, W, stride=0), ValueError, "conv1d: stride 0 must be at least 1"),
        (lambda: F.conv1d(X, W, stride=(1, 2)), ValueError, r"conv1d: .*\(x \(1, 9, 4\)\)"),
        (lambda: F.conv1d(X, W, padding=-1), ValueError, "padding is at least 0"),
        (lambda: F.conv1d(X, W, padding="full"), ValueError, "'same' or 'valid', not 'full'"),
        (
            lambda: F.conv1d(X, W, dilation=5),
            ValueError,
            "conv1d: the window 3, which spans 11, is larger than the padded sequence 9",
        ),
        (lambda: F.conv1d(X, W.astype("float32")), TypeError, "conv1d: w is float32"),
        (lambda: nn.Conv1d(4, 6, (3, 3)), TypeError, r"Conv1d: kernel_size is \(3, 3\)"),
        (lambda: nn.Conv1d(4, 6, 3, stride=0), ValueError, "Conv1d: stride is 0"),
        (lambda: nn.Conv1d(4, 6, 3, groups=3), ValueError, "in_channels is 4, which does not div"),
    ],
)
def test_conv1d_says_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_layer_of_filters_along_sequences():
    minidl.manual_seed(0)
    layer = nn.Conv1d(8, 64, (25,), 2, 1, 3, 2)
    text = "Conv1d(8, 64, kernel_size=25, stride=2, padding=1, dilation=3, groups=2)"
    assert repr(layer) == text
    assert (
        repr(nn.Conv1d(2, 3, 4, bias=False)) == "Conv1d(2, 3, kernel_size=4, stride=1, bias=False)"
    )
    assert layer.weight.shape == (25, 4, 64)
    for p in (layer.weight, layer.bias):
        assert 0.9 / 10 < abs(p.numpy_view()).max() <= 1 / 10  # 1 / sqrt(25 * 4)
    x = minidl.rand(2, 80, 8)
    y = layer(x).detach()
    assert y.shape == (2, 5, 64)
    row = layer.summary((2, 80, 8)).rows[0]
    assert (row.layer, row.parameters, row.flops) == ("Conv1d", 6464, y.size * 2 * 100)
    np.testing.assert_array_equal(y, F.conv1d(x, layer.weight, layer.bias, 2, 1, 3, 2).detach())
    fused = nn.Sequential(layer, nn.ReLU())(x)
    assert (fused.detach().numpy() == np.maximum(y.numpy(), 0)).all() and (y.numpy() < 0).any()
