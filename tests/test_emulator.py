"""The emulator itself: what it computes, what it catches, and what our kernels compile to.

That the kernels agree with their definition is the business of the Cases (test_kernels.py).
"""

import itertools
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minidl.kernels.cuda as k
from minidl.kernels import reference, report
from minidl.kernels.cuda import _numba, arguments, elementwise, norm
from minidl.kernels.cuda._numba import cuda, jit
from minidl.kernels.cuda.emulator import schedule

pytestmark = pytest.mark.emulator

TILE = 16
FULL = 0xFFFFFFFF
ORDERS = ("forward", "reverse", "shuffled")


@jit
def matmul_tiled(a, b, y):
    """Three barriers' worth of trouble: the textbook kernel, with ragged edges."""
    left = cuda.shared.array((TILE, TILE), a.dtype)
    right = cuda.shared.array((TILE, TILE), a.dtype)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = cuda.blockIdx.y * TILE + ty, cuda.blockIdx.x * TILE + tx
    zero = a.dtype.type(0)
    total = zero
    for t in range(0, a.shape[1], TILE):
        inside = row < a.shape[0] and t + tx < a.shape[1]
        left[ty, tx] = a[row, t + tx] if inside else zero
        inside = t + ty < b.shape[0] and column < b.shape[1]
        right[ty, tx] = b[t + ty, column] if inside else zero
        cuda.syncthreads()
        for p in range(TILE):
            total += left[ty, p] * right[p, tx]
        cuda.syncthreads()
    if row < y.shape[0] and column < y.shape[1]:
        y[row, column] = total


@jit
def axpy(x, y, a):
    i = cuda.grid(1)
    if i < x.size:
        y[i] += a * x[i]


@jit
def mirror(x, y):
    s = cuda.shared.array(64, x.dtype)
    i = cuda.threadIdx.x
    s[i] = x[i]
    cuda.syncthreads()
    y[i] = s[63 - i]


@jit
def mirror_without_barrier(x, y):
    s = cuda.shared.array(64, x.dtype)
    i = cuda.threadIdx.x
    s[i] = x[i]
    y[i] = s[63 - i]


@jit
def sums_of_two(x, barrier, y):
    """Both sums of a block go through the same shared memory, one after the other."""
    part = cuda.shared.array(2, x.dtype)
    i = cuda.threadIdx.x
    for n in range(2):
        v = x[n, i]
        for step in (16, 8, 4, 2, 1):
            v += cuda.shfl_xor_sync(FULL, v, step)
        if i & 31 == 0:
            part[i >> 5] = v
        cuda.syncthreads()
        y[n, i] = part[0] + part[1]
        if barrier:  # else a warp that runs ahead writes the second sum where others read the first
            cuda.syncthreads()


@jit
def shuffles(x, y):
    i = cuda.threadIdx.x
    v = x[i]
    y[0, i] = cuda.shfl_sync(FULL, v, 5)
    y[1, i] = cuda.shfl_up_sync(FULL, v, 3)
    y[2, i] = cuda.shfl_down_sync(FULL, v, 3)
    y[3, i] = cuda.shfl_xor_sync(FULL, v, 6)


@jit
def half_warps(x, y):
    i = cuda.threadIdx.x
    if i % 32 < 16:  # two groups of lanes, each at a shuffle of its own
        y[i] = cuda.shfl_xor_sync(0x0000FFFF, x[i], 1)
    else:
        y[i] = cuda.shfl_xor_sync(0xFFFF0000, x[i], 2)


@jit
def divergent(y):
    if cuda.threadIdx.x < 16:
        cuda.syncthreads()
    else:
        cuda.syncwarp()
    y[cuda.threadIdx.x] = 1


@jit
def early_return(x, y):
    if cuda.threadIdx.x >= x.size:
        return
    cuda.syncthreads()
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x]


@jit
def stranger_lane(x, y):
    y[cuda.threadIdx.x] = cuda.shfl_sync(FULL, x[cuda.threadIdx.x], 20)


@jit
def library(x, y):
    v = x[cuda.threadIdx.x]
    y[0, cuda.threadIdx.x] = math.isfinite(v)
    y[1, cuda.threadIdx.x] = math.isnan(v)
    y[2, cuda.threadIdx.x] = math.isinf(v)
    y[3, cuda.threadIdx.x] = math.exp(v)
    y[4, cuda.threadIdx.x] = math.tanh(v)


@jit
def uninitialised(y):
    s = cuda.shared.array(32, y.dtype)
    y[cuda.threadIdx.x] = s[cuda.threadIdx.x]


missing = cuda.declare_device("missing", "int32(int32)")


@jit
def elsewhere(y):
    y[0] = missing(y[0])


@jit
def too_much_shared(y):
    s = cuda.shared.array(16000, y.dtype)
    s[0] = y[0]
    y[0] = s[0]


@jit
def too_much_local(y):
    a = cuda.local.array(10000, y.dtype)
    for i in range(10000):
        a[i] = y[0]
    y[0] = a[9999]


@jit
def who(y):
    i = cuda.threadIdx.x + cuda.blockDim.x * (cuda.threadIdx.y + cuda.blockDim.y * cuda.threadIdx.z)
    b = cuda.blockIdx.x + cuda.gridDim.x * (cuda.blockIdx.y + cuda.gridDim.y * cuda.blockIdx.z)
    y[b, i] += 1000 * b + i


@jit
def in_turn(y):
    i = cuda.threadIdx.x + cuda.blockDim.x * cuda.threadIdx.y
    y[cuda.atomic.add(y, y.size - 1, 1)] = i


def f32(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


# ---- it computes what a GPU computes ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiled_matmul(dtype):
    a, b = f32(64, 64).astype(dtype), f32(64, 64, seed=1).astype(dtype)
    y = np.empty((64, 64), dtype)
    matmul_tiled[(4, 4), (TILE, TILE)](a, b, y)
    start = time.perf_counter()
    matmul_tiled[(4, 4), (TILE, TILE)](a, b, y)
    print(f"64 x 64 x 64: {(time.perf_counter() - start) * 1e3:.1f} ms")
    np.testing.assert_allclose(y, a @ b, rtol=0, atol=64 * np.finfo(dtype).eps * 30)


def test_ragged_strided_matmul():
    a, b = f32(34, 19)[::2, ::-1], f32(50, 19, seed=1).T
    y = np.zeros((50, 17), np.float32).T
    matmul_tiled[(4, 2), (TILE, TILE)](a, b, y)
    np.testing.assert_allclose(y, a @ b, atol=1e-4)


def test_100_000_threads_take_milliseconds():
    x, y = f32(100_000), np.zeros(100_000, np.float32)
    axpy[1000, 100](x, y, 2.0)
    np.testing.assert_array_equal(y, 2 * x)
    best = 1.0
    for _ in range(5):
        start = time.process_time()  # of all workers
        axpy[1000, 100](x, y, 2.0)
        best = min(best, time.process_time() - start)
    print(f"100,000 threads: {best * 1e3:.2f} ms")
    assert best < 0.05


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_every_block_runs_once(order):
    y = np.zeros((24, 24), np.int64)
    with schedule(order, seed=3):
        who[(2, 3, 4), (4, 3, 2)](y)
    np.testing.assert_array_equal(y, 1000 * np.arange(24)[:, None] + np.arange(24))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_shuffles(dtype, order):
    x = np.arange(64).astype(dtype)
    y = np.zeros((4, 64), dtype)
    with schedule(order):
        shuffles[1, 64](x, y)
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    np.testing.assert_array_equal(y[0], warp + 5)
    np.testing.assert_array_equal(y[1], warp + np.where(lane < 3, lane, lane - 3))
    np.testing.assert_array_equal(y[2], warp + np.where(lane > 28, lane, lane + 3))
    np.testing.assert_array_equal(y[3], warp + (lane ^ 6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mathematical_library(dtype):
    x = np.array([0, 1, -2, np.inf, -np.inf, np.nan], dtype)
    y = np.zeros((5, 6), dtype)
    library[1, 6](x, y)
    expected = [np.isfinite(x), np.isnan(x), np.isinf(x), np.exp(x), np.tanh(x)]
    np.testing.assert_allclose(y, expected, rtol=2 * np.finfo(dtype).eps)


def test_shuffles_of_half_warps():
    y = np.zeros(32, np.float32)
    half_warps[1, 32](np.arange(32, dtype=np.float32), y)
    np.testing.assert_array_equal(y, np.where(np.arange(32) < 16, 1, 2) ^ np.arange(32))


def test_threads_that_returned_do_not_hold_a_barrier():
    y = np.zeros(8, np.float32)
    early_return[2, 32](f32(8), y)
    np.testing.assert_array_equal(y, f32(8))


def test_a_grid_with_a_zero_launches_nothing():
    y = np.zeros(1, np.float32)
    axpy[0, 32](y, y, 1.0)
    axpy[(3, 0), 32](y, y, 1.0)


# ---- it catches what a GPU hides ----


def both_ways(kernel, *args):
    """What a kernel writes into its last argument, forward and in reverse."""
    results = []
    for order in ("forward", "reverse"):
        with schedule(order):
            kernel[1, 64](*args)
        results.append(args[-1].copy())
    return results


def test_a_missing_barrier_shows_between_schedules():
    x, y = f32(64), np.zeros(64, np.float32)
    forward, reverse = both_ways(mirror, x, y)
    np.testing.assert_array_equal(forward, x[::-1])
    np.testing.assert_array_equal(reverse, x[::-1])
    forward, reverse = both_ways(mirror_without_barrier, x, y)
    assert np.isnan(forward).sum() == np.isnan(reverse).sum() == 32
    assert not np.array_equal(forward, reverse, equal_nan=True)


def test_a_warp_that_runs_ahead_through_its_shuffles_shows_between_schedules():
    x, y = np.arange(128, dtype=np.float32).reshape(2, 64), np.zeros((2, 64), np.float32)
    expected = x.sum(1, keepdims=True).repeat(64, 1)
    for result in both_ways(sums_of_two, x, True, y):
        np.testing.assert_array_equal(result, expected)
    forward, reverse = both_ways(sums_of_two, x, False, y)
    assert not np.array_equal(forward, reverse)
    np.testing.assert_array_equal(forward[:, :32], expected[:, :32])  # warp 0 was the first
    np.testing.assert_array_equal(reverse[:, 32:], expected[:, 32:])


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_keeps_the_threads_of_a_warp_together(order):
    y = np.zeros(100 + 1, np.int64)
    with schedule(order, seed=4):
        in_turn[1, (5, 20)](y)
    assert sorted(y[:100]) == list(range(100))
    warps = [w for w, _ in itertools.groupby(y[:100] // 32)]
    assert sorted(warps) == [0, 1, 2, 3]
    if order == "shuffled":
        assert warps not in ([0, 1, 2, 3], [3, 2, 1, 0])
    else:
        assert list(y[:100]) == list(range(100))[:: 1 if order == "forward" else -1]


def test_uninitialised_shared_memory_is_nan_in_every_block():
    y = np.zeros(32, np.float32)
    s = np.zeros(64, np.float32)
    mirror[1, 64](s, s)
    uninitialised[2, 32](y)
    assert np.isnan(y).all()


def test_a_divergent_barrier_is_an_error_and_the_next_launch_works():
    y = np.zeros(32, np.float32)
    with pytest.raises(RuntimeError, match=r"divergent: divergent barrier in block \(0, 0, 0\)"):
        divergent[2, 32](y)
    x, z = f32(64), np.zeros(64, np.float32)
    mirror[1, 64](x, z)
    np.testing.assert_array_equal(z, x[::-1])


def test_a_lane_that_is_not_there_gives_nan():
    y = np.zeros(16, np.float32)
    stranger_lane[1, 16](f32(16), y)
    assert np.isnan(y).all()


def test_what_the_emulator_does_not_know_is_named():
    with pytest.raises(NotImplementedError, match=r"elsewhere: the emulator does not know missing"):
        elsewhere[1, 32](np.zeros(1, np.int32))


def test_limits_of_a_gpu():
    y = np.zeros(32, np.float32)
    with pytest.raises(ValueError, match="bytes of shared memory"):
        too_much_shared[1, 1](y)
    with pytest.raises(ValueError, match="2048 threads in a block"):
        uninitialised[1, (64, 32)](y)
    with pytest.raises(ValueError, match="grid"):
        uninitialised[(1, 70000), 32](y)
    with pytest.raises(ValueError, match="local arrays beyond"):
        too_much_local[1, 1](y)


@pytest.mark.parametrize(
    "bad, message",
    [
        ([1.0], "x is a list; kernels take arrays and numbers"),
        (None, "x is a NoneType"),
        (np.zeros(1, object), "x is object; kernels take bool, int and float"),
        (np.zeros(1, ">i4"), "not in native byte order"),
        (np.zeros(1, np.float64), "mixed float dtypes .x float64, y float32."),
    ],
)
def test_arguments_are_checked_before_the_launch(bad, message):
    with pytest.raises(TypeError, match=f"axpy: .*{message}"):
        axpy[1, 1](bad, np.zeros(1, np.float32), 1.0)


def test_number_of_arguments_and_name_of_schedule():
    with pytest.raises(TypeError, match=r"axpy: got 1 arguments for \(x, y, a\)"):
        axpy[1, 1](np.zeros(1))
    with pytest.raises(ValueError, match="'sideways'"), schedule("sideways"):
        pass


# ---- our kernels ----


def calls():
    """Every launcher once, on shapes that leave no tile full: (name, outputs, call)."""
    x, w, b = f32(3, 9, 7, 5), f32(3, 2, 5, 35, seed=1), f32(35, seed=2)
    dy = f32(3, 5, 8, 35, seed=3)
    how = (2, 1), ((1, 1), (1, 1)), (1, 1), 1
    logits, label = f32(21, 40), np.arange(21, dtype=np.int64)
    lse = np.log(np.exp(logits).sum(1))
    one, flat = np.ones((), np.float32), w.reshape(-1)
    betas = np.array([[0.9, 0.1, -0.105], [0.999, 0.001, -0.001]], np.float32)
    yield "conv2d", (dy,), lambda k, y: k.conv2d(x, w, b, y, *how, True)
    yield "conv2d_grad_x", (x,), lambda k, dx: k.conv2d_grad_x(dy, w, dx, *how, True)
    yield "conv2d_grad_w", (w,), lambda k, dw: k.conv2d_grad_w(dy, x, dw, *how, True)
    yield "sum_rows", (b,), lambda k, db: k.sum_rows(dy, db, True)
    yield "cross_entropy", (lse, lse), lambda k, y, z: k.cross_entropy(logits, label, y, z, 0.5)
    yield (
        "cross_entropy to a number",
        (one, lse),
        lambda k, y, z: k.cross_entropy(logits, label, y, z, 0.5),
    )
    yield (
        "cross_entropy_grad",
        (logits,),
        lambda k, dx: k.cross_entropy_grad(one, logits, label, lse, dx, 0.5, True),
    )
    yield (
        "adam_step_",
        (flat, flat, flat * flat),
        lambda k, p, m, v: k.adam_step_(
            flat, one.reshape(1), betas, np.full(1, 3), p, m, v, 1e-8, 0.1, False
        ),
    )
    yield (
        "rmsprop_step_",
        (flat, flat * flat, flat, flat),
        lambda k, p, v, m, b: k.rmsprop_step_(
            flat, one.reshape(1), betas[0, :1], p, v, m, b, 0.99, 1e-2, 0.1
        ),
    )
    yield (
        "adagrad_step_",
        (flat, flat * flat),
        lambda k, p, v: k.adagrad_step_(
            flat, one.reshape(1), np.full(1, 3), p, v, 0.1, 0.01, 1e-2, 0.1
        ),
    )
    yield "count_", (np.arange(3),), lambda k, t: k.count_(t)


CALLS = {name: (outputs, call) for name, outputs, call in calls()}


@pytest.mark.parametrize("name", CALLS)
def test_schedules_agree_bit_for_bit(name):
    outputs, call = CALLS[name]
    results = []
    for order, seed in [("forward", 0), ("reverse", 0), ("shuffled", 1), ("shuffled", 2)]:
        got = [np.array(o) for o in outputs]
        with schedule(order, seed):
            call(k, *got)
        results.append(b"".join(o.tobytes() for o in got))
    assert len(set(results)) == 1
    expected = [np.array(o) for o in outputs]
    call(reference, *expected)
    for g, e in zip(got, expected):
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-4)


def test_many_rows_sum_in_two_stages():
    dy, db = f32(40, 50, 33), np.zeros(33, np.float32)
    k.sum_rows(dy[:, ::2], db, False)
    np.testing.assert_allclose(db, dy[:, ::2].sum((0, 1), dtype=np.float64), rtol=1e-4, atol=1e-3)


def test_a_float64_leak_would_be_seen():
    kinds = arguments.signature(axpy, (f32(3), f32(3), 0.1))  # a Python float is float64
    ptx, _ = cuda.compile(axpy.function, kinds, device=False, abi="numba", cc=(8, 0))
    assert ".f64" in ptx


# ---- the border to numba-cuda ----


def test_the_private_compiler_entry_is_where_we_think():
    """If this fails, numba-cuda was updated: read the message and edit _library."""
    kinds = arguments.signature(axpy, (f32(3), f32(3), np.float32(1)))
    (text,) = _numba.compile_ir(axpy.function, kinds)
    assert "llvm.nvvm.read.ptx.sreg.tid.x" in text
    assert "nvptx64" in text


@pytest.mark.parametrize("cc", [(7, 5), (8, 0), (9, 0), (12, 0)])
def test_lowered_once_it_is_the_ptx_of_each_architecture(cc):
    """Every kernel with a mathematical function that numba-cuda could lower in several ways."""
    for kernel in (elementwise._tanh.dense, elementwise._pow.dense, norm._layer_norm):
        kinds = next(a.signature for a in report.launches() if a.kernel is kernel)
        apart, _ = cuda.compile(kernel.function, kinds, device=False, abi="numba", cc=cc)
        shared = _numba.compile_ptx(kernel.function, kinds, cc, "mark")
        assert without_names(shared) == without_names(apart)


def without_names(ptx):
    """PTX in which symbols are numbered: their names count how often a function was compiled."""
    seen = {}
    return re.sub(
        r"_Z\w+|\w*smem_\d+", lambda name: seen.setdefault(name[0], f"symbol{len(seen)}"), ptx
    )


def test_if_it_moves_the_error_says_what_to_do(monkeypatch):
    import numba.cuda.compiler as compiler

    monkeypatch.delattr(compiler, "_compile_pyfunc_with_fixup")
    with pytest.raises(RuntimeError, match=r"update _library in kernels/cuda/_numba\.py"):
        _numba.compile_ir(axpy.function, ())


def run_python(code, **environment):
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_without_numba_cuda_the_error_gives_the_pip_line():
    hide = "import sys, importlib.util as u; f = u.find_spec\n"
    hide += "u.find_spec = lambda n, *a: None if n == 'numba_cuda' else f(n, *a)\n"
    done = run_python(hide + "import minidl.kernels.cuda")
    assert "ImportError" in done.stderr.splitlines()[-1]
    assert "pip install 'minidl[cuda13]'" in done.stderr.splitlines()[-1]


def test_elsewhere_the_emulator_says_what_is_missing():
    code = "import platform; platform.machine = lambda: 'arm64'\n"
    done = run_python(code + "import minidl.kernels.cuda.emulator")
    assert "Linux x86-64 only" in done.stderr.splitlines()[-1]
    done = run_python("import minidl.kernels.cuda", MINIDL_CUDA="emulator")
    assert "it can be 'emulate' or unset" in done.stderr.splitlines()[-1]


def test_a_kernel_that_is_missing_names_the_place():
    with pytest.raises(AttributeError, match="'max_pool3d' yet: write it in kernels/cuda/"):
        _ = k.max_pool3d
