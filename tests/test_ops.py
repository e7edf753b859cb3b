"""Every op through Tensor: values, gradients of every subset of inputs, accumulation, errors.

The kernels themselves are checked in test_kernels.py; here it is the wiring, on the same Cases.
"""

import functools
import inspect
import itertools

import numpy as np
import pytest

import minidl as md
from minidl import Tensor, ops
from minidl.kernels.cases import CASES, example, op_call
from minidl.kernels.cases import gradients as gradients_of
from minidl.nn import functional as F

# random, or with inputs that have no gradient: tested by hand below
BY_HAND = {"batch_norm_eval", "dropout"}
WIRED = [name for name, case in CASES.items() if gradients_of(case) and name not in BY_HAND]


def call(name, seed):
    """The op of a Case as a function of tensors, and arrays to call it with."""
    case = CASES[name]
    arrays, static = op_call(case, example(name, seed=seed, mode="smooth"))
    return lambda *tensors: getattr(ops, case.op or name)(*tensors, **static), arrays


def tensors_of(arrays, wanted=None):
    return [
        None
        if a is None
        else Tensor(a.copy(), a.dtype.kind == "f" and (wanted is None or i in wanted))
        for i, a in enumerate(arrays)
    ]


def gradients(op, arrays, dy, wanted=None):
    tensors = tensors_of(arrays, wanted)
    y = op(*tensors)
    y.backward(Tensor(dy))
    return [None if t is None or t.grad is None else t.grad.numpy() for t in tensors]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", WIRED)
def test_gradients_are_those_of_the_op(name, seed):
    """Along a random direction: <dy, f(x + h d) - f(x - h d)> / 2h = <gradient, d>."""
    op, arrays = call(name, seed)
    rng = np.random.default_rng(seed)
    dy = rng.standard_normal(op(*tensors_of(arrays)).shape)
    found = gradients(op, arrays, dy)
    for i, a in enumerate(arrays):
        if a is None or a.dtype.kind != "f":
            assert found[i] is None
            continue
        assert found[i].shape == a.shape
        assert found[i].dtype == a.dtype
        direction, h = rng.standard_normal(a.shape), 1e-6
        moved = []
        for sign in (1, -1):
            shifted = list(arrays)
            shifted[i] = a + sign * h * direction
            with md.no_grad():
                moved.append(op(*tensors_of(shifted, ())).numpy())
        numeric = np.sum(dy * (moved[0] - moved[1])) / (2 * h)
        scale = np.sum(np.abs(found[i] * direction)) + np.sum(np.abs(dy * moved[0]))
        assert abs(numeric - np.sum(found[i] * direction)) <= 1e-6 * scale + 1e-9


@pytest.mark.parametrize("name", WIRED)
def test_any_subset_of_gradients_is_the_same(name):
    op, arrays = call(name, seed=1)
    dy = np.random.default_rng(0).standard_normal(op(*tensors_of(arrays)).shape)
    every = gradients(op, arrays, dy)
    floats = [i for i, g in enumerate(every) if g is not None]
    for count in range(1, len(floats)):
        for wanted in itertools.combinations(floats, count):
            some = gradients(op, arrays, dy, wanted)
            for i in floats:
                if i in wanted:
                    assert some[i].tobytes() == every[i].tobytes()
                else:
                    assert some[i] is None


@pytest.mark.parametrize("name", WIRED)
def test_two_uses_add_up(name):
    op, arrays = call(name, seed=2)
    dy = np.random.default_rng(0).standard_normal(op(*tensors_of(arrays)).shape)
    once = gradients(op, arrays, dy)
    tensors = tensors_of(arrays)
    (op(*tensors) + op(*tensors)).backward(Tensor(dy))
    for t, g in zip(tensors, once, strict=True):
        if g is not None:
            np.testing.assert_array_equal(t.grad, g + g)


@pytest.mark.parametrize("name", WIRED)
def test_float32_stays_float32_and_inputs_stay_as_they_are(name):
    op, arrays = call(name, seed=3)
    arrays = [a.astype(np.float32) if a is not None and a.dtype.kind == "f" else a for a in arrays]
    tensors = tensors_of(arrays)
    y = op(*tensors)
    assert y.dtype == np.float32
    y.backward(Tensor(np.ones(y.shape, np.float32)))
    for t, a in zip(tensors, arrays, strict=True):
        if a is not None:
            assert t.data.tobytes() == a.tobytes()


@pytest.mark.parametrize("name", sorted(ops.__all__))
def test_what_has_a_default_is_no_input(name):
    raw = getattr(getattr(ops, name), "raw", None)
    for p in inspect.signature(raw).parameters.values() if raw else ():
        positional = p.kind is p.POSITIONAL_OR_KEYWORD
        assert not positional or p.default in (p.empty, None), f"{name}: put {p.name} after a *"


def test_batch_norm_in_evaluation_uses_the_running_statistics():
    rng = np.random.default_rng(0)
    x, w = Tensor(rng.standard_normal((5, 3)), True), Tensor(rng.standard_normal(3), True)
    mean, var = Tensor(rng.standard_normal(3)), Tensor(rng.random(3) + 1)
    y = F.batch_norm(x, mean, var, w, None, training=False)
    expected = (
        (x.detach().numpy() - mean.numpy()) / np.sqrt(var.numpy() + 1e-5) * w.detach().numpy()
    )
    np.testing.assert_allclose(y.detach(), expected)
    y.sum().backward()
    np.testing.assert_allclose(
        x.grad, np.broadcast_to(w.detach().numpy() / np.sqrt(var.numpy() + 1e-5), (5, 3))
    )


def test_batch_norm_moves_its_running_statistics_and_says_so():
    x = Tensor(np.array([[1.0], [3.0]]))
    mean, var = Tensor(np.zeros(1)), Tensor(np.ones(1))
    F.batch_norm(x, mean, var, training=True, momentum=0.5)
    assert mean.tolist() == [1.0]
    assert var.tolist() == [1.5]  # halfway from 1 to the unbiased variance, 2
    assert mean.version[0] == var.version[0] == 1


def test_dropout_keeps_the_same_elements_backward_and_draws_anew_each_time():
    md.manual_seed(3)
    x = Tensor(np.ones((40, 50)), requires_grad=True)
    y = F.dropout(x, 0.25)
    y.backward(Tensor(np.ones((40, 50))))
    np.testing.assert_array_equal(x.grad, y.detach())
    assert set(np.unique(y.detach())) == {0, 1 / 0.75}
    assert abs((y.detach().numpy() > 0).mean() - 0.75) < 0.05
    assert F.dropout(x, 0.25).tolist() != y.tolist()
    md.manual_seed(3)
    assert F.dropout(x, 0.25).tolist() == y.tolist()
    assert F.dropout(x, 0.25, training=False) is x
    assert not F.dropout(x, 1.0).detach().numpy().any()


def test_dropout_is_by_logical_index_not_by_memory():
    x = Tensor(np.ones((6, 8, 3)))
    turned = Tensor(np.ones((3, 8, 6))).permute(2, 1, 0)
    md.manual_seed(1)
    plain = F.dropout(x, 0.5)
    md.manual_seed(1)
    np.testing.assert_array_equal(plain, F.dropout(turned, 0.5))


def test_log_softmax_along_any_axis():
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    for axis in (0, 1, 2, -1):
        y = F.log_softmax(Tensor(x), dim=axis).numpy()
        np.testing.assert_allclose(np.exp(y).sum(axis=axis), 1)
        t = Tensor(x, True)
        (F.log_softmax(t, dim=axis) * Tensor(x)).sum().backward()
        expected = x - np.exp(y) * x.sum(axis=axis, keepdims=True)
        np.testing.assert_allclose(t.grad, expected, atol=1e-12)


def test_softmax_along_any_axis():
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    for axis in (0, 1, 2, -1):
        t = Tensor(x, True)
        y = F.softmax(t, dim=axis)
        np.testing.assert_allclose(y.detach(), np.exp(F.log_softmax(Tensor(x), dim=axis).numpy()))
        (y * Tensor(x)).sum().backward()
        p = y.detach().numpy()
        expected = p * (x - (p * x).sum(axis=axis, keepdims=True))
        np.testing.assert_allclose(t.grad, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b"),
    [((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)),
     ((2, 1, 4, 3), (5, 3, 2)), ((3,), (2, 5, 3, 1))],
)  # fmt: skip
def test_matmul_takes_vectors_and_stacks_as_numpy_does(a, b):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(a), rng.standard_normal(b)
    s, t = Tensor(a, True), Tensor(b, True)
    y = s @ t
    np.testing.assert_allclose(y.detach(), a @ b)
    dy = rng.standard_normal(y.shape)
    y.backward(Tensor(dy))
    h = rng.standard_normal(a.shape), rng.standard_normal(b.shape)  # bilinear: slopes are exact
    np.testing.assert_allclose((s.grad.numpy() * h[0]).sum(), (dy * (h[0] @ b)).sum())
    np.testing.assert_allclose((t.grad.numpy() * h[1]).sum(), (dy * (a @ h[1])).sum())


def test_linear_takes_any_number_of_leading_axes():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 4)), rng.standard_normal((4, 5))
    np.testing.assert_allclose(F.linear(Tensor(x), Tensor(w)), x @ w)
    np.testing.assert_allclose(F.linear(Tensor(x[0, 0]), Tensor(w)), x[0, 0] @ w)


def images(*shape):
    return Tensor(np.zeros(shape, np.float32))


W = images(3, 3, 3, 8)
LABELS = Tensor(np.array([0, 1, 2]))


@pytest.mark.parametrize(
    ("refused", "error", "words"),
    [
        (
            lambda: F.conv2d(images(8, 32, 32, 4), W),
            ValueError,
            "conv2d: x has 4 channels, but w expects 3 (x (8, 32, 32, 4), w (3, 3, 3, 8)); images",
        ),
        (lambda: F.conv2d(images(8, 48), W), ValueError, "Flatten comes after the convolutions"),
        (lambda: F.conv2d(images(32, 32, 3), W), ValueError, "add a batch axis: x[None]"),
        (
            lambda: F.conv2d(images(1, 9, 9, 3), images(3, 8)),
            ValueError,
            "conv2d: w has 2 dimensio",
        ),
        (
            lambda: F.conv2d(images(1, 9, 9, 3), W, images(3)),
            ValueError,
            "one number per filter, 8",
        ),
        (lambda: F.conv2d(images(1, 9, 9, 3), W, stride=0), ValueError, "must be at least 1"),
        (lambda: F.conv2d(images(1, 9, 9, 3), W, padding=-1), ValueError, "padding is at least 0"),
        (lambda: F.conv2d(images(1, 9, 9, 3), W, padding="sam"), ValueError, "'same' or 'valid'"),
        (
            lambda: F.conv2d(images(1, 2, 2, 3), W),
            ValueError,
            "conv2d: the window (3, 3) is larger than the padded image (2, 2) (x (1, 2, 2, 3))",
        ),
        (lambda: F.conv2d(images(1, 9, 9, 3), W.astype("float64")), TypeError, "w is float64"),
        (
            lambda: F.max_pool2d(images(1, 4, 4, 3), 2, padding=2),
            ValueError,
            "smaller than the win",
        ),
        (lambda: F.max_pool2d(images(4, 4), 2), ValueError, "max_pool2d: x has 2 dimensions"),
        (
            lambda: F.linear(images(2, 5), images(4, 3)),
            ValueError,
            "linear: x does not have w's 4 f",
        ),
        (lambda: F.linear(images(2, 4, 4, 1), images(16, 3)), ValueError, "put a Flatten before"),
        (lambda: F.linear(images(2, 4), images(4, 3), images(4)), ValueError, "b needs one number"),
        (
            lambda: F.cross_entropy(images(3, 2), LABELS),
            ValueError,
            "label 2 is out of range for 2",
        ),
        (
            lambda: F.cross_entropy(images(3, 9), Tensor([0, -1, 2])),
            ValueError,
            "label -1 is out of range for 9 classes (x (3, 9), label (3,))",
        ),
        (lambda: F.cross_entropy(images(2, 9), LABELS), ValueError, "one label per row of x"),
        (lambda: F.cross_entropy(images(3), LABELS), ValueError, "a batch of logits (N, C) has 2"),
        (
            lambda: F.cross_entropy(images(3, 4), Tensor(np.eye(4, dtype=np.int64)[:3])),
            ValueError,
            "cross_entropy: label is one-hot (label (3, 4)); give the numbers of the classes",
        ),
        (
            lambda: F.cross_entropy(images(3, 4), images(3)),
            TypeError,
            "label is float32, but must be",
        ),
        (
            lambda: F.cross_entropy(images(3, 4), LABELS, reduction="avg"),
            ValueError,
            "unknown reduction 'avg'; known: mean, none, sum",
        ),
        (lambda: F.dropout(images(3), 1.5), ValueError, "p is 1.5, but must lie in [0, 1]"),
        (
            lambda: F.log_softmax(images(3), dim=1),
            ValueError,
            "log_softmax: axis 1 is out of range",
        ),
        (
            lambda: F.batch_norm(images(1, 3), None, None, training=True),
            ValueError,
            "batch_norm: training needs more than one value per channel (x (1, 3))",
        ),
        (
            lambda: F.batch_norm(images(4, 3), None, None),
            ValueError,
            "needs the running statistics",
        ),
        (
            lambda: F.batch_norm(images(4, 3), None, None, images(4), training=True),
            ValueError,
            "batch_norm: w needs one number per channel (x (4, 3), w (4,))",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_runs(refused, error, words):
    with pytest.raises(error) as found:
        refused()
    assert words in str(found.value)


def test_an_op_runs_on_any_kernel_namespace_without_tensors():
    from minidl.kernels import reference

    x = np.array([1.0, -2.0])
    y, (grad,) = ops.relu.raw(reference, x)
    assert y.tolist() == [1, 0]
    assert grad(np.ones(2), np.empty(2), False).tolist() == [1, 0]


@pytest.mark.parametrize("name, seed", [*itertools.product(("conv2d", "linear"), range(4))])
def test_a_fused_relu_is_relu_after_it_bit_for_bit(name, seed):
    v = example(name, "float32", seed)
    arrays, static = op_call(CASES[name], v)
    static.pop("relu")
    op, dy = getattr(ops, name), np.empty(v["y"].shape, np.float32)
    dy[...] = np.random.default_rng(seed).standard_normal(dy.shape)

    def fused(*tensors):
        return op(*tensors, relu=True, **static)

    def apart(*tensors):
        return ops.relu(op(*tensors, **static))

    y, z = (layer(*tensors_of(arrays, ())).numpy() for layer in (fused, apart))
    assert y.tobytes() == z.tobytes()
    for wanted in ((0, 1, 2), (1,), (0, 2)):
        expected = gradients(apart, arrays, dy, wanted)
        for mine, theirs in zip(gradients(fused, arrays, dy, wanted), expected, strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_batch_norm_with_relu_is_relu_after_it_bit_for_bit(seed, training):
    v = example("batch_norm", "float32", seed)
    arrays, statistics = [v["x"], v["w"], v["b"]], Tensor(np.ones(v["x"].shape[-1], np.float32))
    static = dict(training=training or len(v["x"]) < 2, eps=v["eps"])
    running = () if static["training"] else (statistics, statistics)
    dy = np.random.default_rng(seed).standard_normal(v["x"].shape).astype(np.float32)

    def fused(*tensors):
        return ops.batch_norm(*tensors, *running, **static, relu=True)

    def apart(*tensors):
        return ops.relu(ops.batch_norm(*tensors, *running, **static))

    y, z = (op(*tensors_of(arrays, ())).numpy() for op in (fused, apart))
    assert y.tobytes() == z.tobytes()
    assert not y.all()  # the relu had something to do
    for wanted in ((0, 1, 2), (0,), (0, 2)):
        expected = gradients(apart, arrays, dy, wanted)
        for mine, theirs in zip(gradients(fused, arrays, dy, wanted), expected, strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", WIRED)
def test_an_op_on_cuda_is_the_op_on_the_cpu(name, cuda):
    # emulated memory refuses NumPy, so an op that computes with it fails here
    op, arrays = call(name, 0)

    def run(where):
        tensors = [None if t is None else t.detach().to(where) for t in tensors_of(arrays)]
        for t in tensors:
            if t is not None and t.dtype.kind == "f":
                t.requires_grad = True
        y = op(*tensors)
        dy = np.cos(np.arange(y.size, dtype=np.float64)).reshape(y.shape)
        y.backward(Tensor(dy, device=where))
        assert y.device.name == where
        grads = [None if t is None or t.grad is None else t.grad.numpy() for t in tensors]
        return [y.detach().numpy(), *grads]

    for mine, want in zip(run("cuda"), run("cpu"), strict=True):
        if want is not None:
            np.testing.assert_allclose(mine, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_with_relu_on_cuda_is_relu_after_it_bit_for_bit(training, cuda):
    rng = np.random.default_rng(0)
    x, dy, w, b = (rng.standard_normal(n).astype("f") for n in ((70, 5), (70, 5), 5, 5))

    def results(op):
        tensors = [Tensor(a, True, device="cuda") for a in (x, w, b)]
        statistics = [Tensor(a, device="cuda") for a in (0 * w, 0 * w + 1)]
        y = op(*tensors, *statistics, training=training)
        y.backward(Tensor(dy, device="cuda"))
        return [a.detach().numpy() for a in (y, *(t.grad for t in tensors), *statistics)]

    fused = results(functools.partial(ops.batch_norm, relu=True))
    apart = results(lambda *tensors, **static: ops.relu(ops.batch_norm(*tensors, **static)))
    assert (fused[0] == 0).any()
    assert [a.tobytes() for a in fused] == [a.tobytes() for a in apart]
