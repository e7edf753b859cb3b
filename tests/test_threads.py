"""The number of threads: what sets it, and that it changes nothing but the time."""

import os
import subprocess
import sys
import threading
import time

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


@pytest.fixture
def team():
    if REFERENCE:
        pytest.skip("NumPy alone has no threads of ours")
    from minidl.kernels.cpu import team

    md.set_num_threads(2)
    return team


def adding():
    """A compiled loop that threads share: adds a number to each element."""
    from minidl.kernels.cpu._numba import loop

    @loop
    def add(start, stop, x, number):
        for i in range(start, stop):
            x[i] += number

    return lambda x, number: add(x.size, 1 << 30, x, number)


def meeting():
    """A compiled loop of two tasks, each of which waits until the other one has begun."""
    from minidl.kernels.cpu._numba import loop
    from minidl.kernels.cpu.team import _plus, _read

    @loop
    def meet(start, stop, at, met, patience):
        for task in range(start, stop):
            _plus(at, 1)
            while _read(at) < 2 and patience > 0:
                patience -= 1
            met[task] = _read(at)

    return lambda at, met, patience: meet(2, 1 << 30, at, met, patience)


def test_members_of_the_team_work_at_the_same_time(team):
    meet, at, met, times = meeting(), np.zeros(1, np.int64), np.zeros(2), 0
    for _ in range(200):  # one that was just going to sleep is not waited for
        at[:] = 0
        meet(at.ctypes.data, met, 10**7)
        times += met.tolist() == [2, 2]
    assert times


def test_as_many_members_as_there_may_be(team):
    md.set_num_threads(4)
    adding()(np.zeros(1000), 1.0)
    assert len(team._members) == 3
    md.set_num_threads(1)
    meet, at, met = meeting(), np.zeros(1, np.int64), np.zeros(2)
    meet(at.ctypes.data, met, 10**6)
    assert met[0] == 1  # the first task met nobody: all members stayed away


def test_each_part_is_done_once_whoever_calls_at_the_same_time(team):
    add, wrong = adding(), []

    def caller():
        x = np.zeros(1001)
        for _ in range(500):
            add(x, 1.0)
        if (x != 500).any():
            wrong.append(x)

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong
    gate = team._state[team.GATE // 8]
    assert gate // team.JOB > 1 and gate % team.JOB == 0  # jobs were there; closed, nobody inside


def test_a_member_without_work_sleeps_and_is_woken(team):
    meet, at, met = meeting(), np.zeros(1, np.int64), np.zeros(2)
    meet(at.ctypes.data, met, 10**11)
    deadline = time.monotonic() + 60
    while len(team._asleep) < len(team._members) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(team._asleep) == len(team._members)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.15
    at[:] = 0
    meet(at.ctypes.data, met, 10**11)
    assert met.tolist() == [2, 2]


def test_a_product_next_to_a_parallel_region_takes_no_longer(team):
    """NumPy's BLAS has threads of its own, which want the cores that the team waits on."""
    add, x = adding(), np.zeros(1 << 16, np.float32)
    a, b = np.ones((128, 2304), np.float32), np.ones((2304, 64), np.float32)
    y = a @ b

    def once(before):
        before()
        start = time.perf_counter()
        np.matmul(a, b, out=y)
        return time.perf_counter() - start

    for _ in range(5):  # as much as a neighbour may disturb
        pairs = [(once(lambda: add(x, np.float32(1))), once(lambda: None)) for _ in range(100)]
        beside, alone = (min(times) for times in zip(*pairs, strict=True))
        if beside < 1.5 * alone:
            break
    assert beside < 1.5 * alone
