"""Optimizer steps on CUDA: four parameters a thread, wherever they lie, and not one too many."""

import math

import numpy as np
import pytest

from minidl.kernels import reference

SIZES = [0, 1, 2, 3, 4, 5, 1023, 1024, 1025, 1026]  # a thread steps 4 parameters, a block 1024
DTYPES = ["float32", "float64"]


def steps(k, buffers):
    """Every kind of step, one after the other, on four buffers of a length."""
    dp, p, m, v = buffers
    lr, t, square = np.array([0.1], p.dtype), np.array([3]), np.array(9.0, p.dtype)
    k.clip_(square, dp, 1.0)
    betas = np.array([[0.9, 0.1, math.log(0.9)], [0.999, 0.001, math.log(0.999)]], p.dtype)
    momentum = betas[0, :1].copy()
    k.adam_step_(dp, lr, betas, t, p, m, v, 1e-8, 0.01, False)
    k.adam_step_(dp, lr, betas, t, p, m, v, 1e-8, 0.01, True)
    k.rmsprop_step_(dp, lr, momentum, p, v, None, None, 0.99, 1e-8, 0.01)
    k.rmsprop_step_(dp, lr, momentum, p, v, m.copy(), m, 0.99, 0.1, 0.01)
    k.adagrad_step_(dp, lr, t, p, v, 0.1, 0.01, 1e-10, 0.01)
    k.sgd_step_(dp, lr, momentum, p, m, 0.01, True)
    k.sgd_step_(dp, lr, momentum, p, None, 0.0, False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_gives_the_same_bits_wherever_the_buffers_start(k, dtype):
    """One by one where no 128-bit load may touch them, else in fours; what lies beside stays."""
    for n in SIZES:
        rng = np.random.default_rng(n)
        before, results = np.abs(rng.normal(size=(4, n))).astype(dtype), []
        for start in (0, 1, 2, 3):
            around = np.full((4, (n + 8) // 4 * 4), 7, dtype)  # each row starts aligned
            around[:, start : start + n] = before
            steps(k, [row[start : start + n] for row in around])
            results.append(around[:, start : start + n].copy())
            around[:, start : start + n] = 7
            assert (around == 7).all()
        for other in results[1:]:
            assert other.tobytes() == results[0].tobytes()
        steps(reference, before)
        np.testing.assert_allclose(results[0], before, rtol=200 * np.finfo(dtype).eps)


def test_nan_is_not_clipped_away(k):
    for square, limit, want in (
        (np.nan, 1.0, np.nan), (np.inf, 1.0, 0.0), (4.0, np.inf, 5.0), (1e-30, 0.0, 0.0),
    ):  # fmt: skip
        x = np.full(5, 5, np.float32)
        k.clip_(np.array(square, np.float32), x, limit)
        np.testing.assert_array_equal(x, np.full(5, want, np.float32))


@pytest.mark.emulator
def test_a_float32_step_stays_in_registers_and_in_float32(k):
    from minidl.kernels.cuda import cubin
    from minidl.kernels.cuda._numba import recording

    with recording() as launches:
        steps(k, np.ones((4, 8), np.float32))
        k.count_(np.zeros(3, np.int64))
    assert len(launches) == 9
    for kernel, signature, threads, _ in launches:
        for cc in ((7, 5), (8, 0), (9, 0)):
            taken = cubin.compiled(kernel, signature, cc).resources
            assert taken[2:] == (0, 0, 0, 0), (kernel, cc, taken)  # stack, spills, f64, divisions
            assert taken.registers * threads <= 65536
