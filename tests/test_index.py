"""Tensors joined and cut, and elements taken by their places: values, gradients, what is refused.

The kernels are checked in test_kernels.py, gather and pad through Tensor in test_ops.py.
"""

import math

import numpy as np
import pytest

import minidl as md
from minidl import Tensor, nn, ops
from minidl.nn import functional as F


def leaf(*values):
    return Tensor(np.array(*values, np.float64), True)


def numbers(*shape, device="cpu"):
    return Tensor(np.arange(1.0, 1 + math.prod(shape)).reshape(shape), True, device=device)


# Joined


def test_concat_joins_different_lengths_and_each_gets_its_part_of_the_gradient(cuda):
    a, b, none = (numbers(2, n, device=cuda) for n in (1, 2, 0))
    y = md.concat([a, none, b, a], axis=1)
    assert y.tolist() == [[1, 1, 2, 1], [2, 3, 4, 2]]
    y.backward(Tensor([[1.0, 10, 100, 1000], [2, 20, 200, 2000]], dtype="float64", device=cuda))
    assert a.grad.tolist() == [[1001], [2002]]
    assert b.grad.tolist() == [[10, 100], [20, 200]]
    assert none.grad.shape == (2, 0)


@pytest.mark.parametrize("dim", range(-4, 4))
def test_concat_and_stack_are_numpys_along_any_axis(dim):
    a, b = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    np.testing.assert_array_equal(md.stack([Tensor(a), Tensor(b)], dim=dim), np.stack([a, b], dim))
    if -3 <= dim < 3:
        np.testing.assert_array_equal(md.cat([Tensor(a), b], dim), np.concatenate([a, b], dim))


def test_stack_makes_an_axis_and_its_gradient_drops_it(cuda):
    a, b = numbers(2, device=cuda), numbers(2, device=cuda)
    y = md.stack([a, b * 10, a], dim=1)
    assert y.tolist() == [[1, 10, 1], [2, 20, 2]]
    y.backward(Tensor([[1.0, 2, 3], [4, 5, 6]], dtype="float64", device=cuda))
    assert a.grad.tolist() == [1 + 3, 4 + 6]
    assert b.grad.tolist() == [20, 50]
    assert md.stack([leaf(3), leaf(4)]).tolist() == [3, 4]


def test_joining_carries_nan_and_takes_any_one_dtype():
    assert str(md.concat([leaf([math.nan]), leaf([math.inf])]).tolist()) == "[nan, inf]"
    ints = md.concat([Tensor([1, 2]), Tensor([3])])
    assert ints.dtype == np.int64 and ints.tolist() == [1, 2, 3]
    assert md.stack([Tensor([True]), Tensor([False])]).tolist() == [[True], [False]]
    assert md.concat([leaf([1.0])]).tolist() == [1.0]
    assert md.stack([Tensor(np.zeros((0, 2))) for _ in range(3)], 1).shape == (0, 3, 2)


@pytest.mark.parametrize(
    ("refused", "error", "words"),
    [
        (lambda: md.concat([]), ValueError, "concat: the list is empty; give at least one tensor"),
        (lambda: md.stack([]), ValueError, "stack: the list is empty"),
        (lambda: md.concat(numbers(2)), TypeError, "concat: takes a list of tensors, not a Tensor"),
        (lambda: md.concat([numbers(2), None]), TypeError, "concat: None is no tensor"),
        (
            lambda: md.concat([numbers(2), numbers(2).astype("float32")]),
            TypeError, "concat: tensor 1 is float32, but tensor 0 is float64; nothing is promoted",
        ),
        (lambda: md.concat([numbers(2), Tensor([1])]), TypeError, "tensor 1 is int64"),
        (
            lambda: md.concat([numbers(2, 3), numbers(3, 2)]),
            ValueError, "concat: tensor 1 is (3, 2), which does not fit (2, 3)",
        ),
        (lambda: md.concat([numbers(2), numbers(2, 1)]), ValueError, "which does not fit (2,)"),
        (lambda: md.stack([numbers(2), numbers(1)]), ValueError, "stack: tensor 1 is (1,)"),
        (lambda: md.concat([numbers(2)], dim=1), ValueError, "concat: axis 1 is out of range"),
        (lambda: md.stack([numbers(2)], -3), ValueError, "stack: axis -3 is out of range for 2"),
        (lambda: md.split(numbers(3), [1, 1]), ValueError, "pieces of [1, 1] are not the 3 elem"),
        (lambda: md.split(numbers(3), [4, -1]), ValueError, "pieces of [4, -1] are not the 3"),
        (lambda: md.split(numbers(3), 0), ValueError, "split: the pieces are 0 long, but must be"),
        (lambda: md.chunk(numbers(3), 0), ValueError, "chunk: 0 pieces are asked for"),
        (lambda: md.chunk(numbers(3), 2, 1), ValueError, "chunk: axis 1 is out of range"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_or_cut(refused, error, words):
    with pytest.raises(error) as found:
        refused()
    assert words in str(found.value)


def test_tensors_on_two_devices_are_not_joined(cuda):
    with pytest.raises(RuntimeError, match="concat: xs is on 'cuda', but the inputs before it are"):
        md.concat([numbers(2), numbers(2, device=cuda)])


# Cut


def test_pieces_are_views_and_share_one_gradient(cuda):
    x = numbers(2, 5, device=cuda)
    parts = x.split(2, dim=1)
    assert [part.shape for part in parts] == [(2, 2), (2, 2), (2, 1)]
    (parts[0] * 2 + parts[1] * 3).sum().backward()
    assert x.grad.tolist() == [[2, 2, 3, 3, 0]] * 2
    first, none, rest = md.split(x, [1, 0, 4], 1)
    assert first.tolist() == [[1], [6]]
    assert none.shape == (2, 0)
    assert rest.shape == (2, 4)


def test_pieces_share_the_memory_of_what_is_cut():
    x = Tensor(np.zeros((4, 2)))
    for part in (*x.split(3), *x.chunk(2, dim=1)):
        assert np.shares_memory(part.data, x.data)


def test_chunks_are_rounded_up_as_in_pytorch():
    lengths = {n: [len(c) for c in numbers(5).chunk(n)] for n in (1, 2, 4, 5, 9)}
    assert lengths == {1: [5], 2: [3, 2], 4: [2, 2, 1], 5: [1] * 5, 9: [1] * 5}
    assert [c.shape for c in Tensor(np.zeros((0, 3))).chunk(4)] == [(0, 3)]


KEYS = [
    0, -1, np.int64(1), np.array(1), Tensor(1), (1, 2, 3), (slice(None), Tensor(1)), ..., (..., 2),
    slice(None, None, -1), (slice(None, None, -2), slice(2, 0, -1)), None, (None, 0, ..., None),
    slice(5, 9), (slice(1, 1), 0), (slice(None), slice(None), slice(-3, None, 2)), [1, 0, 1], [],
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_any_slice_has_the_gradient_of_its_elements(key):
    x = numbers(2, 3, 4)
    plain = tuple(int(p) if isinstance(p, Tensor) else p for p in np.index_exp[key])
    plain = tuple(np.array(p, int) if isinstance(p, list) else p for p in plain)
    y, want = x[key], np.zeros((2, 3, 4))
    np.testing.assert_array_equal(y.detach(), x.detach().numpy()[plain])
    dy = np.arange(1.0, 1 + y.size).reshape(y.shape)
    (y + y).backward(Tensor(dy))
    np.add.at(want, plain, 2 * dy)
    np.testing.assert_array_equal(x.grad, want)


@pytest.mark.parametrize("key", [True, (0, False), np.array(True), 1.5, "a", range(1), (0, [1])])
def test_what_would_pick_a_copy_is_no_index(key):
    with pytest.raises(TypeError, match=r"getitem: (no index can be a|index with a mask)"):
        numbers(2, 3)[key]


def test_two_hundred_slices_clear_one_gradient_once(monkeypatch):
    cleared, k = [], md.device().kernels
    fill = k.fill

    def counted(y, value):
        cleared.append(y.shape)
        return fill(y, value)

    x = numbers(3, 200, 2)
    y = md.stack([x[:, t] * t for t in range(200)], dim=1)
    dy = Tensor(np.ones((3, 200, 2)))
    monkeypatch.setattr(k, "fill", counted)
    y.backward(dy)
    assert cleared == [(3, 200, 2)]
    np.testing.assert_array_equal(x.grad, np.broadcast_to(np.arange(200)[:, None], (3, 200, 2)))


# By number


def test_gather_leaves_out_what_index_does_not_reach(cuda):
    x = numbers(3, 4, device=cuda)
    index = Tensor(np.array([[3, 3], [0, -1]]), device=cuda)
    y = x.gather(1, index)
    assert y.tolist() == [[4, 4], [5, 8]]
    dy = Tensor(np.array([[1.0, 10], [100, 1000]]), device=cuda)
    y.backward(dy)
    x.gather(1, index).backward(dy)  # adds
    assert x.grad.tolist() == [[0, 0, 0, 22], [200, 0, 0, 2000], [0, 0, 0, 0]]


def test_long_lines_are_gathered_back_in_order(cuda):
    rng = np.random.default_rng(0)
    index = rng.integers(-5, 5, (3, 300, 2))
    dy = rng.standard_normal(index.shape).astype(np.float32)
    x = Tensor(np.zeros((3, 5, 2), np.float32), True, device=cuda)
    for _ in range(2):
        x.gather(1, Tensor(index, device=cuda)).backward(Tensor(dy, device=cuda))
    want = np.zeros((3, 5, 2))
    for o, j, i in np.ndindex(index.shape):
        want[o, index[o, j, i], i] += 2 * dy[o, j, i]
    np.testing.assert_allclose(x.grad.numpy(), want, atol=1e-4)


@pytest.mark.parametrize("place", [3, -4])
def test_a_kernel_that_is_called_by_itself_looks_at_its_numbers_too(place):
    k, x, index = md.device().kernels, np.ones((2, 3), np.float32), np.array([[0], [place]])
    with pytest.raises(IndexError):
        k.gather(x, index, np.empty((2, 1), np.float32), 1)
    with pytest.raises(IndexError):
        k.gather_grad(x[:, :1], index, x, 1, False)


def test_the_padding_row_of_an_embedding_keeps_the_gradient_that_it_had(cuda):
    w = numbers(3, 2, device=cuda)
    index = Tensor(np.array([[1, 0], [1, 2]]), device=cuda)
    y = F.embedding(index, w, padding_idx=-3)
    assert y.tolist() == [[[3, 4], [1, 2]], [[3, 4], [5, 6]]]
    y.backward(Tensor(np.ones((2, 2, 2)), device=cuda))
    assert w.grad.tolist() == [[0, 0], [2, 2], [1, 1]]
    F.embedding(index, w).backward(Tensor(np.ones((2, 2, 2)), device=cuda))
    F.embedding(index, w, 0).backward(Tensor(np.ones((2, 2, 2)), device=cuda))
    assert w.grad.tolist() == [[1, 1], [6, 6], [3, 3]]


def test_an_embedding_of_nothing_and_one_with_nan():
    w = leaf([[1.0, math.nan], [3, 4]])
    assert str(F.embedding(Tensor([0]), w).tolist()) == "[[1.0, nan]]"
    F.embedding(Tensor(np.zeros((0, 3), int)), w).sum().backward()
    assert w.grad.tolist() == [[0, 0], [0, 0]]


def test_the_layer_begins_normal_and_its_padding_row_with_zeros():
    md.manual_seed(0)
    layer = nn.Embedding(1000, 20, padding_idx=-1)
    weight = layer.weight.detach().numpy()
    assert repr(layer) == "Embedding(1000, 20, padding_idx=999)"
    assert not weight[999].any()
    assert abs(weight[:999].mean()) < 0.03
    assert abs(weight[:999].std() - 1) < 0.03
    y = layer(Tensor([[999, 0]]))
    assert y.shape == (1, 2, 20)
    y.sum().backward()
    assert layer.weight.grad.numpy().sum() == 20
    assert layer.state_dict().keys() == {"weight"}


@pytest.mark.parametrize(
    ("refused", "error", "words"),
    [
        (
            lambda: F.embedding(Tensor([0, 7]), numbers(5, 3)),
            IndexError, "embedding: index 7 is out of range [0, 5) (index (2,), w (5, 3))",
        ),
        (lambda: F.embedding(Tensor([-1]), numbers(5, 3)), IndexError, "index -1 is out of range"),
        (lambda: F.embedding(leaf([0.0]), numbers(5, 3)), TypeError, "index is float64, but must"),
        (lambda: F.embedding(Tensor([0]), numbers(5)), ValueError, "embedding: w has 1 dimension"),
        (
            lambda: F.embedding(Tensor([0]), numbers(5, 3), 5),
            ValueError, "embedding: padding_idx 5 is no row of w (w (5, 3))",
        ),
        (lambda: nn.Embedding(5, 3, padding_idx=-6), ValueError, "padding_idx is -6, but must be"),
        (lambda: nn.Embedding(0, 3), ValueError, "num_embeddings is 0, but must be at least 1"),
    ],
)  # fmt: skip
def test_what_an_embedding_refuses(refused, error, words):
    with pytest.raises(error) as found:
        refused()
    assert words in str(found.value)


# Around the edges


def test_pad_of_functional_takes_numpys_pairs_and_pytorchs_modes():
    x = numbers(1, 2, 2, 1)
    widths = ((0, 0), (0, 1), (1, 0), (0, 0))
    assert F.pad(x, widths).reshape(3, 3).tolist() == [[0, 1, 2], [0, 3, 4], [0, 0, 0]]
    y = F.pad(x, widths, "constant", -math.inf)
    assert y[0, 2, 0, 0].item() == -math.inf
    for mode in ("edge", "replicate"):
        assert F.pad(x, widths, mode)[0, :, :, 0].tolist() == [[1, 1, 2], [3, 3, 4], [3, 3, 4]]
    with pytest.raises(ValueError, match="PyTorch's flat one counts from the last axis"):
        F.pad(x, (1, 0, 0, 1))


def test_all_axes_are_padded_as_numpy_does_it(cuda):
    x = np.random.default_rng(0).standard_normal((2, 3, 2, 4, 3))
    widths = ((1, 0), (0, 2), (1, 1), (0, 0), (2, 1))
    for mode in ("constant", "edge", "reflect"):
        y = ops.pad(Tensor(x, device=cuda), widths=widths, mode=mode)
        np.testing.assert_array_equal(y.numpy(), np.pad(x, widths, mode))


def test_zeros_around_images():
    x = numbers(2, 3, 4, 5)
    y = nn.ZeroPad2d((1, 2, 3, 0))(x)
    assert y.shape == (2, 6, 7, 5)
    np.testing.assert_array_equal(y[:, 3:, 1:5].detach(), x.detach())
    assert y.sum().item() == x.sum().item()
    assert repr(nn.ZeroPad2d(2)) == "ZeroPad2d((2, 2, 2, 2))"
    for bad in (-1, (1, 2), (1, 1, 1, 0.5)):
        with pytest.raises(ValueError, match="ZeroPad2d: padding is"):
            nn.ZeroPad2d(bad)
