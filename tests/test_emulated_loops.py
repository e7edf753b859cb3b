"""Loops in which emulated threads wait: they take turns, and a loop without an end is an error."""

import platform
import signal
import threading

import numpy as np
import pytest

if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    pytest.skip("the CUDA emulator runs on Linux x86-64 only", allow_module_level=True)
from minidl.kernels import sanitize
from minidl.kernels.cuda._numba import cuda, jit
from minidl.kernels.cuda.emulator import schedule, workers
from minidl.kernels.cuda.emulator.scheduler import ALONE, CARRIED

pytestmark = pytest.mark.emulator
ORDERS = pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])


def zeros(n=1):
    return np.zeros(n, np.int32)


@jit
def locked(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    y[0] += 1
    cuda.syncwarp(1 << cuda.threadIdx.x % 32)  # others have a turn while it is locked
    cuda.atomic.exch(lock, 0, 0)


@jit
def relayed(flags, y):
    t = cuda.threadIdx.x
    while t > 0 and flags[t - 1] == 0:
        pass
    y[t] = y[t - 1] + 1 if t > 0 else 1
    cuda.atomic.exch(flags, t, 1)


@jit
def relayed_backwards(flags, y):
    t, last = cuda.threadIdx.x, cuda.blockDim.x - 1
    while t < last and flags[t + 1] == 0:
        pass
    y[t] = y[t + 1] + 1 if t < last else 1
    cuda.atomic.exch(flags, t, 1)


@jit
def met(came, y):
    if cuda.threadIdx.x == 0:
        cuda.atomic.add(came, 0, 1)
        while cuda.atomic.add(came, 0, 0) < cuda.gridDim.x:
            pass
    cuda.syncthreads()
    y[cuda.grid(1)] = came[0]


@jit
def summed(x, y, n):
    total, i = x.dtype.type(0), 0
    while i < n:
        total += x[i & 7]
        i += 1
    y[0] = total


@jit
def counted(y, n):
    i = 0
    while i != n:
        i += 2
    y[0] = i


@jit
def halved(x):
    step = 32
    while step > 0:
        if cuda.threadIdx.x < step:
            x[cuda.threadIdx.x] += x[cuda.threadIdx.x + step]
        cuda.syncthreads()


@jit
def for_loops(x):
    for i in range(x.size):
        for value in x:
            x[i] += value


@ORDERS
def test_a_lock(order):
    lock, y = zeros(), zeros()
    with schedule(order):
        locked[5, 70](lock, y)
    assert (lock[0], y[0]) == (0, 350)


@pytest.mark.parametrize("threads", [2, 64, 512])
@pytest.mark.parametrize("kernel", [relayed, relayed_backwards])
def test_a_flag_for_each_thread(kernel, threads):
    flags, y = zeros(threads), zeros(threads)
    kernel[1, threads](flags, y)
    want = np.arange(1, threads + 1)
    np.testing.assert_array_equal(y, want if kernel is relayed else want[::-1])


def test_a_kernel_that_waits_nowhere_runs_as_before():
    of_for = workers._code(for_loops, (zeros(4),))
    of_while = workers._code(summed, (zeros(8), zeros(), 4))
    assert (of_for.threads, of_while.threads) == (ALONE, CARRIED)
    assert b"nv_yield" in of_while.image and b"nv_yield" not in of_for.image


def test_blocks_wait_for_blocks_of_other_workers():
    came, y = zeros(), zeros(2 * 64)
    with schedule("forward", workers=2):
        met[2, 64](came, y)
    assert (y == 2).all()
    with (
        schedule("forward"),
        pytest.raises(RuntimeError, match=r"endless loop in block \(0, 0, 0\)"),
    ):
        met[2, 64](zeros(), y)


@ORDERS
def test_a_loop_without_an_end(order):
    told = "halved: endless loop in block .* threads at syncthreads .* 1 threads in a loop"
    with schedule(order), pytest.raises(RuntimeError, match=told):
        halved[2, 64](np.ones(64, np.float32))
    x = np.ones(8, np.float32)
    summed[1, 1](x, y := np.zeros(1, np.float32), 9)  # the next launch is not touched by it
    assert y[0] == 9


def test_a_long_loop_is_none_without_an_end():
    y = np.zeros(1, np.float32)
    summed[1, 1](np.ones(8, np.float32), y, 20_000_000)
    assert y[0] == 2**24  # where a float32 stays as it is


def test_a_launch_takes_the_time_it_is_given(monkeypatch):
    report = sanitize(counted, 1, 1, np.zeros(1, np.int64), 2**62 + 1, limit=0.5)
    (found,) = report.findings
    assert (found.kind, found.line) == (
        "endless loop",
        counted.function.__code__.co_firstlineno + 3,
    )
    assert found.hint.startswith("no thread came to its end for 0.5 s")
    monkeypatch.setattr(workers, "LIMIT", 0.5)
    with pytest.raises(RuntimeError, match=r"no thread of block .* came to its end for 0\.5 s"):
        counted[1, 1](np.zeros(1, np.int64), 2**62 + 1)


@pytest.fixture
def interruptible():
    """Ctrl-C raises, as it does unless the tests were begun in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [1, 2])
def test_control_c_ends_a_launch(number, interruptible):
    with schedule("forward", workers=number):
        counted[2, 1](np.zeros(1, np.int64), 10)  # compiled, before the time runs
        threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            counted[2, 1](np.zeros(1, np.int64), 2**62 + 1)
    counted[1, 1](y := np.zeros(1, np.int64), 10)
    assert y[0] == 10


def test_waiting_is_told_where_it_can_be_read():
    def waits(flag):
        while cuda.atomic.add(flag, 0, 0) == 0:
            pass

    def syncs(flag):
        if cuda.threadIdx.x == 3:
            cuda.syncthreads()
            cuda.atomic.exch(flag, 0, 1)
        while cuda.atomic.add(flag, 0, 0) == 0:
            pass

    (alone,) = sanitize(waits, 1, 4, zeros()).findings
    (other,) = sanitize(syncs, 1, 4, zeros()).findings
    (later,) = sanitize(waits, 3, 4, zeros()).findings
    assert "it waits for flag to change, but all others have ended or wait as well" in str(alone)
    assert "but thread 3 waits at a syncthreads and cannot change it" in str(other)
    assert "2 blocks have not begun" in str(later)
    assert str(alone).startswith("endless loop of flag\n  thread 0 of block 0 goes round")
