"""Losses on CUDA: rows that a few threads, a warp or a whole block share, and odd labels."""

import numpy as np
import pytest

from minidl.kernels import reference

# A thread per class up to 32, then a warp, then blocks of up to 1024 threads: the edges of each.
CLASSES = [1, 2, 10, 16, 17, 32, 33, 128, 129, 1000, 4095, 4096, 4097, 9001]
DTYPES = ["float32", "float64"]


def all_of_it(k, x, label, dy):
    """Every kernel of the family on one batch of logits."""
    real = x.dtype
    y, lse, total = k.log_softmax(x, np.empty_like(x)), np.empty(len(x), real), np.empty((), real)
    k.cross_entropy(x, label, total, lse, 0.25)
    each, _ = k.cross_entropy(x, label, np.empty(len(x), real), lse, 0.25)
    dx, added = np.empty_like(x), dy.copy()
    k.log_softmax_grad(dy, y, added, True)
    k.cross_entropy_grad(each, x, label, lse, dx, 0.25, False)
    return dict(y=y, lse=lse, total=total, each=each, dx=dx, added=added)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_rows_of_any_length_agree_with_the_definition(k, device, classes, dtype):
    rng = np.random.default_rng(classes)
    for rows in (1, 3) if classes > 129 else (1, 2, 9, 300):
        x, dy = rng.normal(0, 3, (2, rows, classes)).astype(dtype)
        x[0, -1], x[-1, 0] = 40, -60  # the last thread's number counts most
        x[-1] -= 300 * (rows > 1)  # exp of all of these is 0 in float32
        label = rng.integers(0, classes, rows)
        want = all_of_it(reference, x.astype("float64"), label, dy.astype("float64"))
        mine = all_of_it(k, x, label, dy)
        if rows == 3:
            again = device.same_bits(lambda *args: all_of_it(k, *args).values(), x, label, dy)
            assert [a.tobytes() for a in again] == [a.tobytes() for a in mine.values()]
        for name, a in mine.items():
            eps = np.finfo(dtype).eps
            scale = classes**0.5 if name == "added" else rows if name == "total" else 1
            np.testing.assert_allclose(a, want[name], rtol=40 * eps, atol=2000 * eps * scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_of_many_rows_has_a_fixed_order(k, device, dtype):
    rng = np.random.default_rng(0)
    for rows in (0, 1, 31, 129, 4097, 5000):
        x, label = rng.normal(size=(rows, 2)).astype(dtype), np.zeros(rows, np.int64)
        y, lse, want = np.empty((), dtype), np.empty(rows, dtype), np.empty(())
        first, _ = device.same_bits(k.cross_entropy, x, label, y, lse, 0.5)
        reference.cross_entropy(x.astype("float64"), label, want, np.empty(rows), 0.5)
        np.testing.assert_allclose(first, want, rtol=40 * np.finfo(dtype).eps)


def test_the_mean_of_no_rows_is_nan(k):
    none = np.empty((0, 3), np.float32), np.empty(0, np.int64)
    y, _ = k.cross_entropy(*none, np.zeros((), np.float32), np.empty(0, np.float32), np.nan)
    assert np.isnan(y)


@pytest.mark.parametrize("classes", [3, 40, 200])
@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "uint64"])
def test_a_wrong_label_is_nan_in_its_row_alone(k, classes, kind):
    x = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    for wrong in (classes, 250, np.iinfo(kind).max, -1 if kind.startswith("i") else 255):
        label = np.array([1, wrong, 2], kind)
        loss, lse = k.cross_entropy(x, label, *np.empty((2, 3), np.float32), 1.0)
        dx = k.cross_entropy_grad(loss, x, label, lse, np.empty_like(x), 1.0, False)
        assert np.isnan(loss).tolist() == [False, True, False]
        assert np.isfinite(lse).all()
        assert np.isnan(dx).all(axis=1).tolist() == np.isnan(dx).any(axis=1).tolist()
        assert np.isnan(dx[:, 0]).tolist() == [False, True, False]


@pytest.mark.parametrize("classes", [1, 10, 40, 300])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinite_logits_give_what_the_definition_gives(k, classes):
    rows = np.random.default_rng(0).normal(size=(6, classes))
    rows[0, 0], rows[1, -1], rows[2, classes // 2] = np.inf, -np.inf, np.nan
    rows[3], rows[4] = -np.inf, np.inf
    rows[5, 0], rows[5, -1] = -np.inf, np.nan
    label = np.full(6, classes - 1)
    for dtype in DTYPES:
        x = rows.astype(dtype)
        y = k.log_softmax(x, np.empty_like(x))
        np.testing.assert_allclose(y, reference.log_softmax(rows, np.empty_like(rows)), rtol=1e-5)
        got = k.cross_entropy(x, label, *np.empty((2, 6), dtype), 1.0)
        want = reference.cross_entropy(rows, label, *np.empty((2, 6)), 1.0)
        for mine, theirs in zip(got, want):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.emulator
def test_a_loss_stays_in_registers_and_a_float32_one_in_float32(k):
    from minidl.kernels.cuda import cubin
    from minidl.kernels.cuda._numba import recording

    for dtype in DTYPES:
        with recording() as launches:
            x = np.ones((2, 5000), dtype)
            all_of_it(k, x, np.zeros(2, np.int64), x.copy())
        assert len(launches) == 6
        for kernel, signature, threads, _ in launches:
            for cc in ((7, 5), (8, 0), (9, 0)):
                taken = cubin.compiled(kernel, signature, cc).resources
                assert (taken.stack, taken.spills, taken.divisions) == (0, 0, 0), (kernel, cc)
                assert dtype == "float64" or taken.f64 == 0, (kernel, cc)
                assert taken.registers * threads <= 65536, (kernel, cc)


def all_of_likelihood(k, x, target, label, weight, dy):
    """Every kernel of likelihood.py on one batch of logits."""
    real, ignore = x.dtype, int(label[0])
    each, lse, total = np.empty(len(x), real), np.empty(len(x), real), np.empty((), real)
    found = {}
    for name, w in ("plain", None), ("weighted", weight):
        args = label, w
        k.nll_loss(x, *args, each, total, ignore, False)
        found[f"nll {name}"] = each.copy()
        mean, _ = k.nll_loss(x, *args, np.empty((), real), total, ignore, True)
        dx = k.nll_loss_grad(dy, *args, total, np.empty_like(x), ignore, False)
        found |= {f"nll mean {name}": mean, f"nll dx {name}": dx}
        for smoothing in (0.0, 0.1):
            y, *saved = k.cross_entropy_weighted(
                x, *args, np.empty((), real), lse, total, ignore, smoothing, True
            )
            dx = k.cross_entropy_weighted_grad(
                dy, x, *args, *saved, np.empty_like(x), ignore, smoothing, False
            )
            found |= {f"y {name} {smoothing}": y, f"dx {name} {smoothing}": dx}
        y, _ = k.cross_entropy_soft(x, target, w, np.empty((), real), lse, 0.1, 0.5)
        dx = k.cross_entropy_soft_grad_x(dy, x, target, w, lse, np.empty_like(x), 0.1, 0.5, False)
        dtarget = k.cross_entropy_soft_grad_target(dy, x, w, lse, np.empty_like(x), 0.1, 0.5, False)
        found |= {f"soft {name}": y, f"soft dx {name}": dx, f"dtarget {name}": dtarget}
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [10, 33, 1000, 4097])
def test_weighted_rows_of_any_length_agree_with_the_definition(k, device, classes, dtype):
    rng = np.random.default_rng(classes)
    rows = 3 if classes > 99 else 9
    x, dy = rng.normal(0, 3, (rows, classes)), rng.normal(size=rows)
    target, weight = rng.dirichlet(np.ones(classes), rows), rng.uniform(0.5, 2, classes)
    label = rng.integers(0, classes, rows)
    floats = [a.astype(dtype) for a in (x, target, weight, dy)]
    x, target, weight, dy = floats
    mine = all_of_likelihood(k, x, target, label, weight, dy)
    x64, target64, weight64, dy64 = (a.astype("float64") for a in floats)
    want = all_of_likelihood(reference, x64, target64, label, weight64, dy64)
    for name, a in mine.items():
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(a, want[name], rtol=100 * eps, atol=200 * eps, err_msg=name)
    again = device.same_bits(
        lambda *args: all_of_likelihood(k, *args).values(), x, target, label, weight, dy
    )
    assert [a.tobytes() for a in again] == [a.tobytes() for a in mine.values()]


def test_a_wrong_label_is_nan_in_its_row_of_a_weighted_loss(k):
    x = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    label, weight = np.array([1, -100, 40]), np.ones(40, np.float32)
    each, lse, total = np.empty(3, np.float32), np.empty(3, np.float32), np.empty((), np.float32)
    k.cross_entropy_weighted(x, label, weight, each, lse, total, -100, 0.1, False)
    assert np.isnan(each).tolist() == [False, False, True] and each[1] == 0
    dx = k.cross_entropy_weighted_grad(
        each[:1].reshape(()), x, label, weight, lse, total, np.empty_like(x), -100, 0.1, False
    )
    assert np.isnan(dx).all(axis=1).tolist() == [False, False, True] and not dx[1].any()
    k.nll_loss(x, label, weight, each, total, -100, False)
    assert np.isnan(each).tolist() == [False, False, True]
    dx = k.nll_loss_grad(lse[:1].reshape(()), label, weight, total, np.empty_like(x), -100, False)
    assert np.isnan(dx).all(axis=1).tolist() == [False, False, True] and not dx[1].any()


@pytest.mark.emulator
@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_blocks_of_the_weighted_losses_find_registers(k, dtype):
    from minidl.kernels.cuda import cubin
    from minidl.kernels.cuda._numba import recording

    x, label = np.ones((2, 5000), dtype), np.array([0, 1])
    with recording() as launches:
        all_of_likelihood(k, x, x.copy(), label, x[0].copy(), x[:, 0].copy())
    for kernel, signature, threads in {launch[:3] for launch in launches}:
        for cc in ((7, 5), (8, 0), (9, 0)):
            taken = cubin.compiled(kernel, signature, cc).resources
            assert (taken.stack, taken.spills, taken.divisions) == (0, 0, 0), (kernel, cc)
            assert dtype == "float64" or taken.f64 == 0, (kernel, cc)
            assert taken.registers * threads <= 65536, (kernel, cc)


def test_the_sum_of_many_numbers_has_a_fixed_order(k, device):
    for n in (0, 1, 255, 2049, 70001):
        x = np.random.default_rng(n).normal(size=n).astype(np.float32)
        y = device.same_bits(k.mse_loss, x, x * 0, np.empty((), np.float32), 0.5)
        np.testing.assert_allclose(y, 0.5 * (x.astype("float64") ** 2).sum(), rtol=1e-5)
