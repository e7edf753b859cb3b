"""The kernel-testing kit itself: what a stranger's kernel gets to hear, how sharp the checks are.

That each property can fail is shown by the mutants (test_mutants.py).
"""

import functools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minidl.kernels import reference
from minidl.kernels.cases import CASES, Blank, Draw, Seeded, draw_example, example
from minidl.kernels.roles import Out
from minidl.kernels.testing import (
    DEFINITION,
    LAYOUTS,
    Backend,
    Mismatch,
    Placed,
    check,
    verify_gradients,
)


def loops_max_pool2d(inp, out, arg, size, stride, pad):
    """Somebody's kernel: plain loops, names of its own."""
    for n, i, j, c in np.ndindex(out.shape):
        best, at = -np.inf, -1
        for r, s in np.ndindex(*size):
            h, v = i * stride[0] + r - pad[0][0], j * stride[1] + s - pad[1][0]
            if 0 <= h < inp.shape[1] and 0 <= v < inp.shape[2] and not np.isnan(best):
                x = inp[n, h, v, c]
                if at < 0 or x > best or np.isnan(x):
                    best, at = x, r * size[1] + s
        out[n, i, j, c], arg[n, i, j, c] = best, at


NAMES = {"inp": "x", "out": "y"}


def test_a_strangers_kernel_passes():
    check(loops_max_pool2d, against="max_pool2d", names=NAMES, examples=50)


def test_its_smallest_failing_input_is_printed():
    def padding_wins(inp, out, arg, size, stride, pad):
        padded = np.pad(inp, ((0, 0), *pad, (0, 0)))
        loops_max_pool2d(padded, out, arg, size, stride, ((0, 0), (0, 0)))

    with pytest.raises(AssertionError) as found:
        check(padding_wins, against="max_pool2d", names=NAMES, dtype="float32")
    first, *rest = str(found.value).splitlines()
    assert re.fullmatch(
        r"max_pool2d\[padding_wins, float32\] (y|arg)\[0,\d,\d,0\] = \S+, reference \S+; "
        r"x \(1,\d,\d,1\) size \(\d,\d\) stride \(1,1\) pad \(\(\d,\d\),\(\d,\d\)\)",
        first,
    )
    assert rest[0] == "property: value"
    assert rest[1].startswith("x = array([[[[")


def test_an_error_is_told_as_a_multiple_of_the_bound():
    def off(x, y):
        y[...] = np.exp(x) * (1 + 100 * np.finfo(x.dtype).eps)

    told = r"^exp\[off, float64\] y.* error \d\d.*x the bound; x "
    with pytest.raises(AssertionError, match=told):
        check(off, against="exp", dtype="float64")


@pytest.mark.parametrize(("units", "passes"), [(3, True), (7, False)])
def test_the_bound_of_exp_is_5_units(units, passes):
    def off(x, y):
        y[...] = np.exp(x) * (1 + units * np.finfo(x.dtype).eps)

    if passes:
        check(off, against="exp", examples=50)
    else:
        with pytest.raises(AssertionError, match="property: value"):
            check(off, against="exp", examples=50)


def test_outputs_may_be_returned():
    check(lambda x: np.maximum(x, x.dtype.type(0)), against="relu", examples=30)
    check(
        lambda x, w, b, r, eps, relu: reference.batch_norm(x, w, b, r, *empties(x), eps, relu),
        against="batch_norm",
        examples=30,
    )
    with pytest.raises(AssertionError, match="returned y as float64"):
        check(lambda x: np.maximum(x, 0.0).astype(np.float64), against="relu", dtype="float32")
    with pytest.raises(AssertionError, match="returned y as NoneType"):
        check(lambda x: None, against="relu")


def empties(x):
    return np.empty_like(x), np.empty(x.shape[-1:], x.dtype), np.empty(x.shape[-1:], x.dtype)


def test_a_kernel_may_lack_what_has_a_simplest_value():
    def valid_convolution(x, w, threads=8):
        kernel = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], axis=(1, 2))
        return np.einsum("nijcrs,rscf->nijf", kernel, w).astype(x.dtype)

    check(valid_convolution, against="conv2d", examples=50)
    check(lambda dy, x: x.T @ dy, against="linear_grad_w", examples=30)  # no add, either
    check(lambda dy: dy.sum(axis=tuple(range(dy.ndim - 1))), against="sum_rows", examples=30)


def test_a_gradient_and_an_in_place_step_are_checked_too():
    def grad(dy, y, dx, add):
        dx[...] = np.where(y > 0, dy, dx.dtype.type(0)) + (dx if add else dx.dtype.type(0))

    with pytest.raises(AssertionError, match="property: inf and NaN"):
        check(grad, against="relu_grad")  # NaN > 0 is false

    def step(dp, lr, momentum, p, v, weight_decay, nesterov):
        reference.sgd_step_(dp, lr, momentum, p, v, weight_decay, nesterov)

    check(step, against="sgd_step_", examples=30)


def test_what_a_kernel_raises_is_a_failure_with_its_input():
    def no_empty_batch(x, y):
        y[...] = -x if x.size else x.max()

    told = r"^neg\[no_empty_batch, float32\] raised ValueError: zero-size array .*; x \(0,\)"
    with pytest.raises(AssertionError, match=told):
        check(no_empty_batch, against="neg")


def test_a_kernel_that_changes_its_mind_is_caught():
    rng = np.random.default_rng(0)

    def sometimes(x, y):
        y[...] = -x if rng.integers(0, 40) else x + 1

    with pytest.raises(AssertionError, match=r"^neg\[sometimes, float32\]"):
        check(sometimes, against="neg", examples=300)


@pytest.mark.numba
def test_a_kernel_compiled_by_numba():
    import numba

    @numba.njit
    def mine(x, y):
        for at, value in np.ndenumerate(x):
            y[at] = value if value > 0 or np.isnan(value) else 0

    check(mine, against="relu", examples=10)


@pytest.mark.parametrize(
    ("kernel", "against", "error", "words"),
    [
        (
            lambda x, y: y,
            "rely",
            ValueError,
            "no kernel 'rely' to check against; known: a",
        ),
        (lambda inp, y: y, "relu", TypeError, "relu has no parameter 'inp', it has (x, y); give"),
        (lambda x, y: y, "matmul", TypeError, "matmul has no parameter 'x'"),
        (lambda x, y: y, "linear", TypeError, "takes no 'w', which linear needs; see names="),
        (lambda y: y, "exp_grad", TypeError, "takes no 'dy', which exp_grad needs"),
    ],
)
def test_a_kernel_that_cannot_be_called_is_refused_at_once(kernel, against, error, words):
    with pytest.raises(error) as found:
        check(kernel, against=against)
    assert words in str(found.value)


def test_arrays_travel_to_a_device_and_back():
    trips = {"there": 0, "back": 0}

    def to_device(a):
        trips["there"] += 1
        return a.copy()

    def to_host(a):
        trips["back"] += 1
        return a.copy()

    check(lambda x, y: np.negative(x, y), "neg", None, "float64", 5, to_device, to_host)
    assert trips["there"] > 20
    assert trips["back"] > 20


def test_without_hypothesis_one_line_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import minidl.kernels.testing"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: minidl.kernels.testing needs Hypothesis: pip install hypothesis"


@pytest.mark.parametrize(
    ("kernel", "wrong"),
    [
        ("sqrt_grad", lambda dy, y, dx, add: reference.div(dy, y, dx)),
        ("mean_grad", lambda dy, dx, add: reference.sum_grad(dy, dx, add)),
        ("batch_norm_grad", reference.batch_norm_eval_grad),
        ("sum_rows", lambda dy, db, add: reference.sum_rows(dy[:1], db, add)),
        ("log_softmax_grad", lambda dy, y, dx, add: reference.copy(dy - np.exp(y), dx, add)),
    ],
)
def test_numeric_differences_find_a_wrong_gradient_in_the_definition(monkeypatch, kernel, wrong):
    same_signature = functools.wraps(DEFINITION[kernel])(wrong)
    monkeypatch.setitem(DEFINITION, kernel, same_signature)
    case = CASES["linear" if kernel == "sum_rows" else kernel.removesuffix("_grad")]
    with pytest.raises(Mismatch) as found:
        verify_gradients(case, derandomize=True)
    assert found.value.property == "gradient"
    assert str(found.value).startswith(f"{kernel}[reference, float64] d")


# Examples and layouts


@pytest.mark.parametrize("name", CASES)
def test_the_same_seed_draws_the_same_arguments(name):
    first, again = example(name, seed=3), example(name, seed=3)
    for key, value in first.items():
        np.testing.assert_equal(again[key], value)
    drawn = {repr(example(name, seed=seed)) for seed in range(10)}
    assert len(drawn) > 1


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arguments_have_the_dtype_that_was_asked_for(name, dtype):
    case = CASES[name]
    for mode in ("any", "empty", "large", "smooth"):
        for call in draw_example(case, Draw(Seeded(1), dtype, mode)).calls:
            floats = [a for a in call.args.values() if getattr(a, "dtype", None) is not None]
            kinds = {np.dtype(a.dtype) for a in floats if np.dtype(a.dtype).kind == "f"}
            assert kinds <= {np.dtype(dtype)} or name == "copy"


def test_modes_draw_what_they_promise():
    for seed in range(10):
        assert not example("conv2d", seed=seed, mode="empty")["x"].size
        assert max(example("matmul", seed=seed, mode="large")["a"].shape) >= 7
        v = example("maximum", seed=seed, mode="smooth")
        numbers = np.concatenate([v["a"].reshape(-1), v["b"].reshape(-1)])
        assert len(np.unique(numbers)) == len(numbers)
        assert np.abs(numbers).min() > 0.1
        assert isinstance(v["y"], Blank)


@pytest.mark.parametrize("layout", ["plain", *LAYOUTS])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 3), (1, 4, 1)])
def test_a_layout_changes_where_numbers_lie_not_what_they_are(layout, shape):
    value = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    guard = {"f": np.nan}
    placed = Placed(Backend("host", {}), value, layout, guard)
    np.testing.assert_array_equal(placed.array, value)
    assert placed.untouched()
    assert layout != "plain" or placed.array.flags.c_contiguous
    placed.buffer[0] = 0
    assert not placed.untouched()
    assert not placed.after()[1]


def test_layouts_are_what_they_are_called():
    host, guard = Backend("host", {}), {"f": np.nan}
    value = np.repeat(np.arange(3.0), 4).reshape(3, 4)
    strides = {kind: Placed(host, value, kind, guard).array.strides for kind in LAYOUTS}
    assert all(s < 0 for s in strides["reversed"])
    assert strides["transposed"][0] < strides["transposed"][1]
    assert strides["stepped"][1] == 16
    assert strides["broadcast"][1] == 0 < strides["broadcast"][0]


# ---- a definition of the user's own ----


def neighbours(x, y: Out):
    y[...] = x[:-1] * x[1:]


def some_numbers(d: Draw):
    n = d.size(1, 40)
    return dict(x=d.array((n,)), y=Blank((n - 1,)))


def test_a_definition_of_your_own():
    check(lambda x: x[1:] * x[:-1], against=neighbours, draw=some_numbers, examples=30)
    with pytest.raises(AssertionError, match=r"neighbours\[<lambda>, float32\] y\[\d+\] = "):
        check(lambda x: x[1:] + x[:-1], against=neighbours, draw=some_numbers, examples=30)
    assert "neighbours" not in DEFINITION  # it was there for the check alone
    assert "neighbours" not in CASES


def test_what_a_definition_of_your_own_needs():
    with pytest.raises(TypeError, match=r"against neighbours, give draw=\.\.\."):
        check(lambda x: x, against=neighbours)
    with pytest.raises(TypeError, match="annotate its outputs: `y: Out`"):
        check(lambda x: x, against=lambda x, y: y, draw=some_numbers)

    def relu(x, y: Out):
        y[...] = x

    with pytest.raises(ValueError, match="'relu' is a kernel of minidl"):
        check(lambda x: x, against=relu, draw=some_numbers)
