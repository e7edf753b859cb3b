"""Tensor: what it holds, how it looks, how it meets NumPy and other libraries."""

import numpy as np
import pytest

import minidl as md
from minidl import Tensor


def test_python_floats_become_float32_and_arrays_keep_their_dtype():
    assert Tensor(1.5).dtype == np.float32
    assert Tensor([[1.0, 2.0]]).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.int64
    assert Tensor(np.zeros(3)).dtype == np.float64
    assert Tensor([True]).dtype == np.bool_


def test_tensor_copies_and_the_constructor_shares():
    source = np.zeros(3, np.float32)
    shared, own = Tensor(source), md.tensor(source)
    source[0] = 7
    assert shared.tolist() == [7, 0, 0]
    assert own.tolist() == [0, 0, 0]


@pytest.mark.parametrize("data", ["text", [object()], np.array([1j])])
def test_what_is_no_number_is_refused(data):
    with pytest.raises((TypeError, ValueError)):
        Tensor(data)


def test_operators_meet_numbers_lists_and_arrays_from_both_sides():
    x = Tensor([1.0, 2.0, 4.0])
    array = np.array([1, 2, 3], np.float32)
    for result, expected in [
        (x + 1, [2, 3, 5]),
        (1 + x, [2, 3, 5]),
        (x - 1, [0, 1, 3]),
        (1 - x, [0, -1, -3]),
        (x * array, [1, 4, 12]),
        (array * x, [1, 4, 12]),
        (x / 2, [0.5, 1, 2]),
        (8 / x, [8, 4, 2]),
        (x**2, [1, 4, 16]),
        (2**x, [2, 4, 16]),
        (-x, [-1, -2, -4]),
        (x + [1, 1, 1], [2, 3, 5]),
        (x - np.float32(1), [0, 1, 3]),
    ]:
        assert isinstance(result, Tensor)
        assert result.dtype == np.float32
        assert result.tolist() == expected


def test_matrix_products_from_both_sides():
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(Tensor(a) @ Tensor(b), a @ b)
    np.testing.assert_array_equal(a @ Tensor(b), a @ b)


def test_comparisons_give_booleans():
    x, y = Tensor([1.0, 2.0, 3.0]), Tensor([3.0, 2.0, 1.0])
    assert (x < y).tolist() == [True, False, False]
    assert (x <= 2).tolist() == [True, True, False]
    assert (x > y).tolist() == [False, False, True]
    assert (x >= y).tolist() == [False, True, True]
    assert (x == y).tolist() == [False, True, False]
    assert (x != y).tolist() == [True, False, True]
    assert len({x, y}) == 2  # still hashable, by identity


def test_indexing_is_numpys():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    x = Tensor(array)
    for key in [0, -1, slice(1), (0, 1, 2), (..., 1), (slice(None), None, slice(None, None, -2))]:
        np.testing.assert_array_equal(x[key], array[key])
    for rows in [[1, 0, 1], np.array([0]), np.array([[0, 1], [1, 1]])]:
        np.testing.assert_array_equal(x[rows], array[rows])
    np.testing.assert_array_equal(x[Tensor([1, 0])], array[[1, 0]])
    assert [row.shape for row in x] == [(3, 4), (3, 4)]


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        (5, IndexError, r"getitem: index 5 is out of bounds .* \(x \(3, 2\)\)"),
        ([0, 3], IndexError, r"take: row 3 is out of range \[-3, 3\) \(x \(3, 2\)\)"),
        ([-4], IndexError, "take: row -4 is out of range"),
        ([0.5], TypeError, "take: index is float32, but must be integers"),
        (np.array([True, False, True]), TypeError, "use np.flatnonzero"),
        ((0, [1]), TypeError, "an array can index the first axis alone"),
    ],
)
def test_bad_indices(key, error, words):
    with pytest.raises(error, match=words):
        Tensor(np.zeros((3, 2), np.float32))[key]


def test_views_share_memory_and_writing_through_them():
    x = Tensor(np.zeros((2, 3), np.float32))
    x[0, 1] = 5
    x.reshape(6)[2:] = Tensor([1.0, 2.0, 3.0, 4.0])
    assert x.tolist() == [[0, 5, 1], [2, 3, 4]]
    assert np.shares_memory(x.T.data, x.data)


def test_shape_methods():
    x = Tensor(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    assert x.reshape(4, -1).shape == x.reshape((4, 6)).shape == x.view(4, 6).shape == (4, 6)
    assert x.permute(2, 0, 1).shape == x.permute((2, 0, 1)).shape == (4, 2, 3)
    assert x.transpose().shape == x.T.shape == (4, 3, 2)
    assert x.flatten().shape == (24,)
    assert x.flatten(1).shape == x.flatten(start_dim=-2).shape == (2, 12)
    assert x.flatten(0, 1).shape == (6, 4)
    assert Tensor(3.0).flatten().shape == (1,)
    with pytest.raises(
        ValueError, match=r"reshape: 24 elements of \(2, 3, 4\) do not fit \(5, 5\)"
    ):
        x.reshape(5, 5)
    with pytest.raises(ValueError, match="permute: axes"):
        x.permute(0, 0, 1)


def test_reductions_take_numpys_and_pytorchs_names():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = Tensor(array)
    assert x.sum().item() == 15
    assert x.sum(axis=0).tolist() == x.sum(dim=0).tolist() == [3, 5, 7]
    assert x.mean(-1, keepdims=True).shape == x.mean(dim=-1, keepdim=True).shape == (2, 1)
    assert x.max(axis=(0, 1)).item() == 5
    assert x.argmax(1).tolist() == [2, 2]
    assert x.argmax().item() == 5
    with pytest.raises(ValueError, match="sum: axis 2 is out of range for 2 dimensions"):
        x.sum(axis=2)
    with pytest.raises(ValueError, match="max: there is no maximum of nothing"):
        Tensor(np.zeros((0, 3), np.float32)).max(axis=0)


def test_numbers():
    assert float(Tensor(2.5)) == 2.5
    assert int(Tensor([3])) == 3
    assert [10, 20, 30][Tensor(1)] == 20
    assert Tensor([1.0])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(Tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="len"):
        len(Tensor(1.0))
    assert (Tensor([1.0, 2.0]).size, Tensor([1.0, 2.0]).numel()) == (2, 2)


def test_what_needs_gradients_does_not_leave_silently():
    x = Tensor([1.0], requires_grad=True)
    for leave in (np.asarray, Tensor.numpy, np.from_dlpack):
        with pytest.raises(RuntimeError, match=r"call .detach\(\) first"):
            leave(x)
    assert np.asarray(x.detach()).tolist() == [1.0]
    assert x.item() == 1.0


def test_numpy_and_dlpack_share_memory():
    x = Tensor(np.zeros(3, np.float32))
    np.asarray(x)[0] = 1
    assert x.tolist() == [1, 0, 0]
    lent = np.from_dlpack(x)  # writable from NumPy 2.2 on
    assert np.shares_memory(lent, x.data)
    back = md.from_dlpack(x.data)
    assert np.shares_memory(back.data, x.data)
    assert np.asarray(x, np.float64).dtype == np.float64


def test_repr_shows_what_matters():
    assert repr(Tensor([1.0, 2.5])) == "tensor([1. , 2.5])"
    assert repr(Tensor(np.zeros(1))) == "tensor([0.], dtype=float64)"
    x = Tensor([1.0], requires_grad=True)
    assert repr(x) == "tensor([1.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2.], op=mul)"


def test_astype_converts_and_lets_gradients_back():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x.astype("float64")
    assert y.dtype == np.float64
    (y * y).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [2, 4]
    assert x.detach().astype("int64").tolist() == [1, 2]


def test_devices(monkeypatch):
    monkeypatch.setenv("MINIDL_CUDA", "no such choice")
    x = Tensor([1.0])
    assert x.to("cpu") is x
    with pytest.raises(RuntimeError, match="there is no device 'tpu'; known: 'cpu'"):
        x.to("tpu")
    with pytest.raises(RuntimeError, match="MINIDL_CUDA is 'no such choice'"):
        Tensor([1.0], device="cuda")
    elsewhere = md.Device("elsewhere")
    with pytest.raises(RuntimeError, match=r"add: b is on 'elsewhere', but .* on 'cpu'; move one"):
        x + Tensor([1.0], device=elsewhere)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: x + np.ones(2), TypeError, "add: b is float64, but the inputs before it are fl"),
        (
            lambda x: x + Tensor([1, 2]),
            TypeError,
            "add: b is int64, but must be float32 or float64",
        ),
        (lambda x: Tensor([1, 2]) + 1, TypeError, r"add: a is int64.*\.astype\('float32'\)"),
        (lambda x: x + "a", TypeError, "add: cannot make a tensor of a str"),
        (
            lambda x: x + Tensor([1.0, 2.0, 3.0]),
            ValueError,
            r"add: the shapes do not broadcast \(a \(2,\), b \(3,\)\)",
        ),
        (
            lambda x: x @ Tensor(2.0),
            ValueError,
            r"matmul: b is a number \(a \(2,\), b \(\)\); multiply by numbers with \*",
        ),
        (
            lambda x: x.reshape(1, 2) @ x.reshape(1, 2),
            ValueError,
            r"matmul: a has 2 columns, but b has 1 rows \(a \(1, 2\), b \(1, 2\)\)",
        ),
    ],
)
def test_refused_inputs_name_the_op_and_both_sides(call, error, words):
    with pytest.raises(error, match=words):
        call(Tensor([1.0, 2.0]))


def test_submodules_and_files_are_there_without_importing_them():
    assert md.nn.functional.relu is md.relu
    assert md.load is md.io.load
    assert {"nn", "optim", "data", "load", "save"} <= set(dir(md))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        md.nonsense  # noqa: B018


def test_methods_that_bound_and_choose():
    x = Tensor([-2.0, 0.5, 3.0], requires_grad=True)
    assert abs(x).tolist() == x.abs().tolist() == [2, 0.5, 3]
    assert x.clip(-1, 1).tolist() == x.clamp(min=-1, max=1).tolist() == [-1, 0.5, 1]
    assert x.clip(min=0).tolist() == [0, 0.5, 3]
    assert x.clip(max=0).tolist() == [-2, 0, 0]
    assert x.minimum(1).tolist() == [-2, 0.5, 1]
    assert x.maximum(1).tolist() == [1, 1, 3]
    assert x.where(x > 0, 0.25).tolist() == [0.25, 0.5, 3]
    y = md.where(x > 0, 0.25, x)  # a number takes the dtype of x, not that of the truths
    assert y.tolist() == [-2, 0.25, 0.25] and y.dtype == np.float32
    y.sum().backward()
    assert x.grad.tolist() == [1, 0, 0]
