"""Kernels say nothing about inf and NaN, and leave alone what the user told NumPy."""

import threading
import warnings

import numpy as np
import pytest

import minidl
from minidl import Tensor
from minidl.kernels.reference.elementwise import quiet

EVERYTHING = dict(divide="raise", over="warn", under="raise", invalid="call")


@quiet
def inner(x):
    return 1 / x


@quiet
def outer(x):
    return inner(x) + np.log(-x)


def test_a_kernel_within_a_kernel_is_silent_and_settings_outside_stay():
    with np.errstate(**EVERYTHING), warnings.catch_warnings():
        warnings.simplefilter("error")
        before = np.geterr()
        assert np.isnan(outer(np.array([0.0, 1.0]))).tolist() == [True, True]
        assert np.geterr() == before
        with pytest.raises(FloatingPointError):
            np.array([1.0]) / 0


def test_settings_stay_after_an_error():
    @quiet
    def fails(x):
        raise ValueError("no")

    with np.errstate(**EVERYTHING):
        before = np.geterr()
        with pytest.raises(ValueError, match="no"):
            fails(1)
        assert np.geterr() == before


def test_threads_are_silent_at_once():
    failed = []

    def work():
        with np.errstate(all="raise"):
            for _ in range(300):
                outer(np.array([0.0, 1.0]))
            try:
                np.array([1.0]) / 0
                failed.append("silent outside")
            except FloatingPointError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("n", [3, 5000])
def test_an_op_is_silent_forward_and_backward(n):
    x = Tensor(np.linspace(-1, 1, n, dtype=np.float32), requires_grad=True)
    with np.errstate(all="raise"):
        y = (minidl.ops.log(x) / (x - x)).exp() * x
        y.backward(Tensor(np.ones(n, np.float32)))
        assert np.geterr()["invalid"] == "raise"
    assert not np.isfinite(x.grad.numpy()).all()
