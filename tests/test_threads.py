"""The number of threads: what sets it, and that it changes nothing but the time."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import minidl as md
from minidl.nn import functional as F

REFERENCE = os.environ.get("MINIDL_CPU") == "reference"
compiled = pytest.mark.skipif(REFERENCE, reason="NumPy alone has no threads of ours")


@pytest.fixture(autouse=True)
def as_before():
    if REFERENCE:
        yield
        return
    from minidl.kernels.cpu import _threads

    before = _threads._chosen, _threads._blas and _threads._blas[0]()
    yield
    if before[1]:
        _threads.set_threads(before[1])
    _threads._chosen = before[0]


def layer():
    """A convolution and its gradients, large enough for several threads."""
    rng = np.random.default_rng(0)
    x, w = (
        md.Tensor(rng.standard_normal(s, np.float32), True)
        for s in ((64, 24, 24, 16), (3, 3, 16, 32))
    )
    y = F.conv2d(x, w).relu()
    y.sum().backward()
    return [a.numpy().tobytes() for a in (y.detach(), x.grad, w.grad)]


@compiled
def test_the_bits_do_not_depend_on_the_threads():
    found = []
    for n in (1, 2, 3):
        md.set_num_threads(n)
        assert md.get_num_threads() == n
        found.append(layer())
    assert found[0] == found[1] == found[2]


@compiled
def test_one_thread_is_the_calling_one(monkeypatch):
    from minidl.kernels.cpu import _threads

    md.set_num_threads(1)
    seen = set()
    _threads.share(8, lambda i: seen.add(threading.get_ident()))
    assert seen == {threading.get_ident()}
    if _threads._blas:
        assert _threads._blas[0]() == 1


@compiled
def test_blas_has_its_threads_again_after_a_launcher_took_them():
    from minidl.kernels.cpu import _threads

    if not _threads._blas:
        pytest.skip("this BLAS cannot be told its number of threads")
    md.set_num_threads(2)
    with _threads.single_blas():
        assert _threads._blas[0]() == 1
        md.set_num_threads(3)
        assert _threads._blas[0]() == 1
    assert _threads._blas[0]() == 3


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_a_wrong_number_is_refused(n, error):
    with pytest.raises(error, match="set_num_threads: n is "):
        md.set_num_threads(n)


def test_the_reference_says_who_decides():
    code = "import minidl; minidl.set_num_threads(2)"
    environment = os.environ | {"MINIDL_CPU": "reference"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "OPENBLAS_NUM_THREADS" in done.stderr
