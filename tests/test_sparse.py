"""CSR: products and gradients against SciPy and dense ones, places that are refused, files."""

import json
import struct

import numpy as np
import pytest

import minidl
from minidl import Tensor, io, nn, optim, sparse
from minidl.io.csr import packed, unpacked
from minidl.nn import functional as F


def thinned(*shape, seed=0, share=0.2, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < share, rng.standard_normal(shape), 0).astype(dtype)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape, columns", [((40, 30), 17), ((1, 9), 1), ((64, 64), 256)])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_product_and_its_gradients_are_scipys(shape, columns, share):
    scipy = pytest.importorskip("scipy.sparse")
    dense = thinned(*shape, share=share)
    theirs = scipy.csr_array(dense)
    ours = sparse.CSR.from_scipy(theirs)
    ours.value.requires_grad = True
    x = Tensor(thinned(shape[1], columns, seed=1, share=1), requires_grad=True)
    dy = thinned(shape[0], columns, seed=2, share=1)
    y = ours @ x
    y.backward(Tensor(dy))
    close(y.numpy_view(), theirs @ x.numpy_view())
    close(x.grad.numpy(), theirs.T @ dy)
    close(ours.value.grad.numpy(), (dy @ x.numpy_view().T)[theirs.nonzero()])
    back = ours.to_scipy()
    assert (back != theirs).nnz == 0 and back.shape == theirs.shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_matrix_there_and_back(dtype):
    dense = thinned(6, 9, dtype=dtype)
    a = sparse.CSR.from_dense(dense)
    assert (a.nnz, a.shape) == (np.count_nonzero(dense), (6, 9))
    assert a.density == a.nnz / 54
    assert a.value.dtype == dtype
    np.testing.assert_array_equal(a.to_dense().numpy(), dense)
    np.testing.assert_array_equal(a.T.to_dense().numpy(), dense.T)
    np.testing.assert_array_equal(a.T.T.to_dense().numpy(), dense)
    x = np.arange(9, dtype=dtype)
    close((a @ x).numpy(), dense @ x)
    assert repr(a) == f"CSR((6, 9), {a.nnz} values, density {a.nnz / 54:.2%})"


def test_the_gradient_of_a_turned_matrix_reaches_its_values():
    dense = thinned(5, 7)
    a = sparse.CSR.from_dense(dense)
    a.value.requires_grad = True
    dy = thinned(7, 3, seed=1, share=1)
    x = thinned(5, 3, seed=2, share=1)
    (a.T @ Tensor(x)).backward(Tensor(dy))
    close(a.value.grad.numpy(), (x @ dy.T)[dense != 0])


def test_a_place_that_is_held_twice_counts_twice():
    a = sparse.CSR([1.0, 2.0], [1, 1], [0, 2], (1, 3))
    np.testing.assert_array_equal(a.to_dense().numpy(), [[0, 3, 0]])
    np.testing.assert_array_equal((a @ Tensor([1.0, 10.0, 100.0])).numpy(), [30])


def test_what_is_not_there_is_not_multiplied():
    a = sparse.CSR.from_dense(np.array([[0.0, 2.0]], np.float32))
    np.testing.assert_array_equal((a @ Tensor([np.inf, 1.0])).numpy(), [2])  # 0 * inf is NaN
    assert np.isnan((a @ Tensor([1.0, np.nan])).numpy()).all()


@pytest.mark.parametrize(
    "words, value, column, start, shape",
    [
        ("column needs a number for each value", [1.0, 2.0], [0], [0, 1], (1, 2)),
        ("row_start needs 3 numbers from 0 to 1", [1.0], [0], [0, 1], (2, 2)),
        ("row_start needs 3 numbers from 0 to 1", [1.0], [0], [0, 0, 2], (2, 2)),
        ("row_start must not fall", [1.0], [0], [0, 2, 0, 1], (3, 2)),
        ("column 2 is none of 2", [1.0], [2], [0, 1], (1, 2)),
        ("column -1 is none of 2", [1.0, 1.0], [-1, 0], [0, 2], (1, 2)),
    ],
)
def test_places_that_are_none_are_refused(words, value, column, start, shape):
    with pytest.raises(ValueError, match=f"^CSR: {words}"):
        sparse.CSR(value, column, start, shape)


def test_only_a_matrix_is_compressed():
    with pytest.raises(ValueError, match="x has 3 dimensions, but a matrix"):
        sparse.CSR.from_dense(np.zeros((2, 2, 2)))


# Layers


def layers(share=0.1):
    minidl.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    weight = model[0].weight.numpy_view()
    model.load_state_dict({"0.weight": weight * (thinned(20, 30, share=share) != 0)}, strict=False)
    return model


def test_converted_layers_compute_what_the_dense_ones_do():
    dense, thin = layers(), sparse.convert(layers(), density=0.5)
    assert isinstance(thin[0], sparse.Linear) and type(thin[2]) is nn.Linear
    assert "20, 30" in repr(thin) and "of the weights" in repr(thin)
    x, label = Tensor(thinned(8, 20, seed=3, share=1)), Tensor(np.arange(8) % 5)
    losses = [F.cross_entropy(model(x), label) for model in (dense, thin)]
    close(losses[0].numpy_view(), losses[1].numpy_view())
    for loss in losses:
        loss.backward()
    mask = dense[0].weight.numpy_view().T != 0
    close(thin[0].value.grad.numpy(), dense[0].weight.grad.numpy().T[mask])
    close(thin[0].bias.grad.numpy(), dense[0].bias.grad.numpy())
    both = [model(Tensor(thinned(2, 3, 20, share=1))).numpy_view() for model in (dense, thin)]
    close(*both)
    assert thin[0].flops(x, x) == 2 * thin[0].value.size * 8


def test_a_sparse_layer_says_which_features_it_wants():
    model = sparse.convert(layers(), density=0.5)
    with pytest.raises(ValueError, match="Linear: x does not have 20 features"):
        model(Tensor(np.zeros((2, 19), np.float32)))


def test_a_captured_step_trains_the_values_that_are_there():
    found = []
    for capture in (False, True):
        model = sparse.convert(layers(), density=0.5)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = minidl.capture(step, fuse=False) if capture else step
        for i in range(6):
            loss = run(Tensor(thinned(8, 20, seed=i, share=1)), Tensor(np.arange(8) % 5))
        found.append((loss.numpy_view().copy(), model.state_dict()))
    assert "csr_matmul_grad_x" not in str(run.program)  # nobody asks for the input's gradient
    (line,) = (t for t in str(run.program).splitlines() if t.startswith("csr_matmul_grad_value"))
    assert f"{2 * model[0].value.size * 8 / 1e6:.3f}" in line.split()  # millions of operations
    assert found[0][0] == found[1][0]
    for name, a in found[0][1].items():
        np.testing.assert_array_equal(a, found[1][1][name])


# Files


def test_a_file_without_zeros_is_smaller_and_reads_the_same(tmp_path):
    model = layers(share=0.05)
    state = model.state_dict()
    sizes = io.save_csr(model, tmp_path / "thin.safetensors")
    io.save(model, tmp_path / "dense.safetensors")
    dense, thin = (tmp_path / f"{name}.safetensors" for name in ("dense", "thin"))
    assert sizes.dense == sum(a.nbytes for a in state.values())
    kept = np.count_nonzero(state["0.weight"])
    # a float and a byte for each, and 21 starts of a byte; the second weight and biases as they are
    assert sizes.stored == 5 * kept + 21 + 4 * (150 + 30 + 5)
    assert thin.stat().st_size < dense.stat().st_size
    other = layers(share=1)
    minidl.load(thin, other)
    for name, a in io.load_tensors(thin).items():
        np.testing.assert_array_equal(a.numpy(), state[name])
        np.testing.assert_array_equal(other.state_dict()[name], state[name])


def test_a_zoo_network_comes_back_without_a_model(tmp_path):
    model = minidl.models.mnist_mlp(hidden=8)
    minidl.prune.magnitude(model, amount=0.9)
    io.save_csr(model, tmp_path / "model.safetensors")
    again = minidl.load(tmp_path)
    assert again.config == model.config
    assert minidl.prune.sparsity(again) == minidl.prune.sparsity(model) > 0.89


def test_convolutions_are_kept_filter_by_filter_and_dense_arrays_as_they_are():
    state = {"w": thinned(3, 3, 8, 300, share=0.1), "full": np.ones((4, 4)), "b": np.zeros(300)}
    arrays, shapes = packed(state)
    assert shapes == {"w": [3, 3, 8, 300]}
    assert set(arrays) == {"w/value", "w/column", "w/row_start", "full", "b"}
    assert arrays["w/column"].dtype == arrays["w/row_start"].dtype == np.uint16
    again = unpacked(arrays, shapes)
    for name, a in state.items():
        np.testing.assert_array_equal(again[name], a)


@pytest.mark.parametrize("part", ["w/value", "w/row_start", "w/column"])
def test_a_file_whose_parts_do_not_fit_is_refused(tmp_path, part):
    arrays, shapes = packed({"w": thinned(20, 30)})
    wrong = dict(arrays)
    wrong[part] = np.full(3, 200, arrays[part].dtype)
    io.save_tensors(wrong, tmp_path / "a.safetensors", {"csr": shapes})
    with pytest.raises(ValueError, match="its sparse weights cannot be put together"):
        io.load_tensors(tmp_path / "a.safetensors")
    del wrong[part]
    io.save_tensors(wrong, tmp_path / "b.safetensors", {"csr": shapes})
    with pytest.raises(ValueError, match="its sparse weights cannot be put together"):
        io.load_tensors(tmp_path / "b.safetensors")


def test_a_changed_byte_is_noticed(tmp_path):
    io.save_csr(layers(share=0.05), tmp_path / "a.safetensors")
    raw = bytearray((tmp_path / "a.safetensors").read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    assert "0.weight/value" in json.loads(raw[8 : 8 + length])
    raw[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(raw)
    with pytest.raises(ValueError, match="damaged"):
        io.load_tensors(tmp_path / "a.safetensors")
