"""Workers of the emulator: what they compute does not depend on their number, and what goes wrong
in one launch is told once and does not touch the next."""

import platform
import threading

import numpy as np
import pytest

if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    pytest.skip("the CUDA emulator runs on Linux x86-64 only", allow_module_level=True)
from minidl.kernels.cuda import guarded
from minidl.kernels.cuda._numba import cuda, emulation, jit
from minidl.kernels.cuda.emulator import schedule, workers

pytestmark = pytest.mark.emulator


@jit
def row_sums(x, y):
    s = cuda.shared.array(64, x.dtype)
    row, i = cuda.blockIdx.x, cuda.threadIdx.x
    s[i] = x[row, i]
    step = 32
    while step:
        cuda.syncthreads()
        if i < step:
            s[i] += s[i + step]
        step //= 2
    if i == 0:
        y[row] = s[0]


@jit
def scaled(x, y, a):
    i = cuda.grid(1)
    if i < x.size:
        y[i] = a * x[i]


@jit
def who_ran(order):
    order[cuda.atomic.add(order, order.size - 1, 1)] = cuda.blockIdx.x


@jit
def stuck_in_one_block(y, block):
    if cuda.blockIdx.x == block and cuda.threadIdx.x > 3:
        cuda.syncwarp()
    cuda.syncthreads()
    y[cuda.grid(1)] = 1


@jit
def one_off(x, at):
    if cuda.grid(1) == 5:
        x[at] = x.dtype.type(1)


@jit
def reads_one_off(x, y):
    i = cuda.grid(1)
    y[i] = x[i + 1]


@jit
def adds_one_off(x, at):
    cuda.atomic.add(x, at, x.dtype.type(1))


@jit
def clears(x, n):
    for i in range(n):
        x[i] = x.dtype.type(0)


def f32(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_the_same_bits_on_any_number_of_workers():
    x, results = f32(101, 64), set()
    for n in (1, 2, 3, 8):
        y = np.zeros(101, np.float32)
        with schedule("shuffled", seed=2, workers=n):
            row_sums[101, 64](x, y)
        np.testing.assert_allclose(y, x.sum(1), atol=1e-4)
        results.add(y.tobytes())
    assert len(results) == 1


def test_workers_share_the_blocks(monkeypatch):
    ran, prepare = [], workers.Worker.prepare

    def noted(self, work):
        run = prepare(self, work)
        return lambda *part: ran.append(part) or run(*part)

    monkeypatch.setattr(workers.Worker, "prepare", noted)
    x, y = f32(7), np.zeros(7, np.float32)
    with schedule("forward", workers=2):
        scaled[7, 1](x, y, 2.0)
        scaled[1, 7](x, y, 2.0)
    assert sorted(ran) == [(0, 1), (0, 2), (1, 2)]  # one block is never shared


def test_large_launches_go_to_every_core_and_small_ones_do_not(monkeypatch):
    monkeypatch.setattr(workers.config, "NUMBA_NUM_THREADS", 2)
    shared = []
    run = workers._share
    monkeypatch.setattr(workers, "_share", lambda work, n: shared.append(n) or run(work, n))
    x, y = f32(1 << 21), np.zeros(1 << 21, np.float32)
    for _ in range(2):
        scaled[1 << 13, 256](x, y, 2.0)
        scaled[1, 32](x, y, 2.0)
    assert shared == [2, 1, 2, 1]
    np.testing.assert_array_equal(y, 2 * x)


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
def test_one_worker_keeps_the_order_of_blocks(order):
    ran = np.zeros(101, np.int64)
    with schedule(order, seed=5):
        who_ran[100, 1](ran)
    line = np.arange(100)
    expected = {
        "forward": line,
        "reverse": line[::-1],
        "shuffled": np.random.default_rng(5).permutation(line),
    }
    np.testing.assert_array_equal(ran[:100], expected[order])


@pytest.mark.parametrize("n", [1, 2])
def test_an_error_in_one_block_is_told_and_forgotten(n):
    y = np.zeros(320, np.float32)
    for block in (0, 3, 9):
        with schedule("forward", workers=n):
            where = rf"stuck_in_one_block: divergent barrier in block \({block}, 0, 0\)"
            with pytest.raises(RuntimeError, match=where + ": 4 threads at syncthreads"):
                stuck_in_one_block[10, 32](y, block)
            x, sums = f32(20, 64), np.zeros(20, np.float32)
            row_sums[20, 64](x, sums)
            np.testing.assert_allclose(sums, x.sum(1), atol=1e-4)
            stuck_in_one_block[10, 32](y, -1)
            np.testing.assert_array_equal(y, 1)


def test_launches_from_several_threads():
    x = f32(64, 64)
    results = [np.zeros(64, np.float32) for _ in range(8)]

    def work(i):
        for _ in range(20):
            row_sums[64, 64](x * np.float32(i), results[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, y in enumerate(results):
        np.testing.assert_allclose(y, i * x.sum(1), atol=1e-3)


def test_a_schedule_is_that_of_the_thread_that_asked_for_it():
    ran = np.zeros(5, np.int64)
    with schedule("reverse"):
        other = threading.Thread(target=who_ran[4, 1], args=(ran,))
        other.start()
        other.join()
    np.testing.assert_array_equal(ran[:4], range(4))


# ---- accesses outside all arrays


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "at, where",
    [
        (10, r"past the end of x \(10,\), by 4 bytes"),
        (40, r"past the end of x \(10,\), by 124 bytes"),
        (10**12, r"past the end of x \(10,\), by 3999999999964 bytes"),
        (-11, r"before the start of x \(10,\), by 4 bytes"),
        (-30, r"before the start of x \(10,\), by 80 bytes"),
    ],
)
def test_a_wild_write_is_named_and_goes_nowhere(at, where, n):
    x = f32(10)
    before = x.copy()
    with schedule("forward", workers=n):
        expected = rf"^one_off: thread 5 of block \(0, 0, 0\) writes {where}$"
        with pytest.raises(RuntimeError, match=expected):
            one_off[2, 32](x, at)
        np.testing.assert_array_equal(x, before)
        one_off[2, 32](x, 9)  # and the next launch is none the worse
    assert x[9] == 1


def test_a_read_outside_is_named():
    x, y = f32(64), f32(64)
    reads_one_off[1, 63](x, y)
    np.testing.assert_array_equal(y[:63], x[1:])
    with pytest.raises(
        RuntimeError, match=r"thread 63 of .* reads past the end of x \(64,\), by 4 b"
    ):
        reads_one_off[1, 64](x, y)
    with pytest.raises(RuntimeError, match=r"reads_one_off: .* reads past the end of x \(0,\)"):
        reads_one_off[1, 1](x[:0], y)


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float32, np.float64])
def test_an_atomic_outside_is_named(dtype):
    x = np.zeros(8, dtype)
    adds_one_off[1, 4](x, 7)
    assert x[7] == 4
    where = rf"reads and writes past the end of x \(8,\), by {x.itemsize} bytes"
    with pytest.raises(RuntimeError, match=rf"adds_one_off: .* {where}"):
        adds_one_off[1, 4](x, 8)


@pytest.mark.parametrize("n", [10, 11, 40])
def test_guards_see_what_is_written_by_many_at_once(n):
    """A loop that fills memory becomes one call of memset, which is not looked at before."""
    with emulation():
        x = guarded.empty((10,), np.dtype(np.float32))
        if n == 10:
            clears[1, 1](x, n)
            np.testing.assert_array_equal(guarded.host(x), 0)
        else:
            with pytest.raises(RuntimeError, match=r"clears: .* x \(10,\)"):
                clears[1, 1](x, n)


def test_strides_and_views():
    x, y = f32(4, 6), np.zeros((6, 4), np.float32)
    scaled[1, 32](x.reshape(24)[::-1], y.reshape(24), 2.0)
    np.testing.assert_array_equal(y.ravel()[::-1], 2 * x.ravel())
    with pytest.raises(RuntimeError, match=r"writes before the start of x \(6,\), by 4 bytes"):
        one_off[1, 32](x[1, ::-1], 6)
    everything = np.broadcast_to(x[:1], (5, 6))
    row_sums_of_six[5, 6](everything, y[0])


@jit
def row_sums_of_six(x, y):
    cuda.atomic.add(y, 0, x[cuda.blockIdx.x, cuda.threadIdx.x])
