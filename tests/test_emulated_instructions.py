"""Instructions of a GPU, each in a kernel, against what the PTX ISA says of it.

Each test runs under three orders of threads, and on one worker and on two.
"""

import math

import numpy as np
import pytest

from minidl.kernels.cuda._numba import cuda, jit
from minidl.kernels.cuda.emulator import schedule
from minidl.kernels.cuda.intrinsics import ld4, mma_m16n8k8_tf32, round_tf32, st4

pytestmark = pytest.mark.emulator

FULL = 0xFFFFFFFF
TABLE = np.array([3, 1, 4, 1], np.float32)
float32, int32, int64, uint32 = np.float32, np.int32, np.int64, np.uint32


@pytest.fixture(
    params=[(order, workers) for order in ("forward", "reverse", "shuffled") for workers in (1, 2)],
    ids=lambda p: f"{p[0]}-{p[1]}",
    autouse=True,
)
def some_schedule(request):
    order, workers = request.param
    with schedule(order, seed=7, workers=workers):
        yield


def f32(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


# ---- lanes of a warp


@jit
def votes(y):
    i = cuda.grid(1)
    y[0, i] = cuda.ballot_sync(FULL, i % 3 == 0)
    y[1, i] = cuda.all_sync(FULL, i < 32)
    y[2, i] = cuda.any_sync(FULL, i == 40)
    y[3, i] = cuda.eq_sync(FULL, i != 40)


def test_votes():
    y = np.zeros((4, 64), np.int64)
    votes[2, 32](y)
    i = np.arange(64)
    bits = [sum(1 << lane for lane in range(32) if (w * 32 + lane) % 3 == 0) for w in (0, 1)]
    np.testing.assert_array_equal(y[0].astype(np.uint32), np.repeat(bits, 32))
    np.testing.assert_array_equal(y[1:], [i < 32, i >= 32, i < 32])


@jit
def half_ballot(y):
    i = cuda.threadIdx.x
    if i < 20:
        y[i] = cuda.ballot_sync(0x000FFFFF, i % 2)
    else:
        y[i] = cuda.ballot_sync(0xFFF00000, i % 4 == 0)


def test_votes_of_parts_of_a_warp():
    y = np.zeros(32, np.uint32)
    half_ballot[1, 32](y)
    np.testing.assert_array_equal(y[:20], 0x000AAAAA)
    np.testing.assert_array_equal(y[20:], 0x11100000)


@jit
def matches(x, y):
    i = cuda.grid(1)
    y[0, i] = cuda.match_any_sync(FULL, x[i])
    y[1, i], same = cuda.match_all_sync(FULL, x[i])
    y[2, i] = same


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_matches(dtype):
    x = np.concatenate([np.arange(32) // 8, np.full(32, 5)]).astype(dtype)
    y = np.zeros((3, 64), np.int64)
    matches[2, 32](x, y)
    expected = [0xFF << (lane // 8 * 8) for lane in range(32)] + [FULL] * 32
    np.testing.assert_array_equal(y[0].astype(np.uint32), expected)
    np.testing.assert_array_equal(y[1].astype(np.uint32), np.repeat([0, FULL], 32))
    np.testing.assert_array_equal(y[2], np.repeat([0, 1], 32))


@jit
def places(y):
    i = cuda.threadIdx.x + 8 * cuda.threadIdx.y
    y[0, i] = cuda.laneid
    y[1, i] = cuda.warpsize
    y[2, i] = cuda.lanemask_lt()
    y[3, i] = cuda.activemask() >> cuda.laneid & 1


def test_where_a_lane_is():
    y = np.zeros((4, 64), np.int64)
    places[1, (8, 8)](y)
    lane = np.arange(64) % 32
    np.testing.assert_array_equal(y[0], lane)
    np.testing.assert_array_equal(y[1], 32)
    np.testing.assert_array_equal(y[2].astype(np.uint32), (1 << lane) - 1)
    np.testing.assert_array_equal(y[3], 1)


@jit
def through_a_warp(x, y):
    s = cuda.shared.array(32, x.dtype)
    i = cuda.threadIdx.x
    s[i] = x[i]
    cuda.syncwarp()
    y[i] = s[31 - i]
    cuda.threadfence()
    cuda.threadfence_block()
    cuda.threadfence_system()
    cuda.nanosleep(uint32(100))


def test_a_warp_waits_for_its_lanes():
    x, y = f32(32), f32(32)
    through_a_warp[1, 32](x, y)
    np.testing.assert_array_equal(y, x[::-1])


# ---- a block


@jit
def counts(y):
    i = cuda.threadIdx.x
    y[0, i] = cuda.syncthreads_count(int32(i % 3 == 0))
    y[1, i] = cuda.syncthreads_and(int32(i < 99))
    y[2, i] = cuda.syncthreads_and(int32(i != 5))
    y[3, i] = cuda.syncthreads_or(int32(i == 99))
    y[4, i] = cuda.syncthreads_or(int32(4 * (i == 5)))


def test_barriers_that_count():
    y = np.zeros((5, 50), np.int64)
    counts[1, 50](y)
    np.testing.assert_array_equal(y, np.repeat([[17], [1], [0], [0], [1]], 50, 1))


@cuda.jit(device=True)
def meet(v):
    cuda.syncthreads()
    return v


@jit
def apart(y, n):
    if cuda.threadIdx.x < n:
        cuda.syncthreads()
    else:
        cuda.syncthreads()
    y[0] = 1


@jit
def apart_by_kind(y, n):
    if cuda.threadIdx.x < n:
        cuda.syncthreads()
    else:
        y[0] = cuda.syncthreads_count(int32(1))


@jit
def apart_counting(y, n):
    y[0] = cuda.syncthreads_count(1) if cuda.threadIdx.x < n else cuda.syncthreads_count(2)


@jit
def apart_and(y, n):
    y[0] = cuda.syncthreads_and(1) if cuda.threadIdx.x < n else cuda.syncthreads_and(2)


@jit
def apart_or(y, n):
    y[0] = cuda.syncthreads_or(1) if cuda.threadIdx.x < n else cuda.syncthreads_or(2)


@jit
def apart_in_a_function(y, n):
    y[0] = meet(y[1]) if cuda.threadIdx.x < n else meet(y[2])


@jit
def one_ahead(y, n):
    if cuda.threadIdx.x < n:
        cuda.syncthreads()
    y[0] = 1
    cuda.syncthreads()
    y[1] = 1


@pytest.mark.parametrize(
    "kernel",
    [apart, apart_by_kind, apart_counting, apart_and, apart_or, apart_in_a_function, one_ahead],
)
@pytest.mark.parametrize("threads, n", [(32, 16), (64, 32), (64, 1)])
def test_different_barriers_do_not_meet(kernel, threads, n):
    y = np.zeros(3, np.int32)
    kernel[2, threads](y, 0)
    kernel[2, threads](y, threads)
    groups = rf"{n} threads at syncthreads \(0 to {n - 1}\); "
    groups += rf"{threads - n} threads at another syncthreads \({n} to {threads - 1}\)$"
    with pytest.raises(RuntimeError, match=r"divergent barrier in block .*: " + groups):
        kernel[1, threads](y, n)


@jit
def barriers_that_compilers_copy(y):
    """A loop's condition is in Python's bytecode twice; LLVM unrolls the loop inside."""
    i = cuda.threadIdx.x
    n = int32(0)
    while cuda.syncthreads_or(int32(n < 3)):
        for _ in range(2):
            cuda.syncthreads()
        n += 1
    y[i] = meet(n) if y.size > 1 else meet(-n)
    meet(n)


def test_copies_of_a_barrier_do_not_diverge():
    y = np.zeros(64, np.int32)
    barriers_that_compilers_copy[1, 64](y)
    np.testing.assert_array_equal(y, 3)


@jit
def reverse_in_dynamic_memory(x, y):
    s = cuda.shared.array(0, x.dtype)
    first = cuda.shared.array(4, x.dtype)
    i = cuda.threadIdx.x
    y[i] = s[i]  # what a block before this one left must not be seen
    cuda.syncthreads()
    s[i] = x[i]
    if i < 4:
        first[i] = x[i]
    cuda.syncthreads()
    y[i] = s[s.size - 1 - i] + first[0] if y[i] != y[i] else y[i]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dynamic_shared_memory(dtype):
    x, y = f32(48).astype(dtype), np.zeros(48, dtype)
    reverse_in_dynamic_memory[3, 48, x.nbytes](x, y)
    np.testing.assert_array_equal(y, x[::-1] + x[0])
    x, y = f32(7).astype(dtype), np.zeros(7, dtype)
    reverse_in_dynamic_memory[1, 7, x.nbytes](x, y)
    np.testing.assert_array_equal(y, x[::-1] + x[0])


def test_limits_of_dynamic_shared_memory():
    x, y = f32(48), np.zeros(48, np.float32)
    with pytest.raises(ValueError, match="49168 bytes of shared memory; a block has 49152"):
        reverse_in_dynamic_memory[1, 48, 48 * 1024](x, y)
    where = r"past the end of shared array 2 of 184 bytes, by [48] bytes"
    with pytest.raises(RuntimeError, match=where):
        reverse_in_dynamic_memory[1, 48, x.nbytes - 8](x, y)


@jit
def beside(y, at):
    a = cuda.shared.array(10, y.dtype)
    b = cuda.shared.array(10, y.dtype)
    a[cuda.threadIdx.x] = 1
    b[cuda.threadIdx.x] = 2
    a[at] = 3
    y[cuda.threadIdx.x] = a[cuda.threadIdx.x] + b[cuda.threadIdx.x]


def test_writes_beside_a_shared_array_are_seen():
    y = np.zeros(10, np.float64)
    beside[4, 10](y, 9)
    np.testing.assert_array_equal(y, [3] * 9 + [5])
    for at in (10, 14):
        where = rf"past the end of shared array 1 of 80 bytes, by {8 * (at - 9)} bytes"
        with pytest.raises(RuntimeError, match=rf"beside: thread \d of block .* writes {where}"):
            beside[4, 10](y, at)


# ---- atomics


@jit
def atomics(y, x):
    i = cuda.grid(1)
    v = x[i]
    cuda.atomic.add(y, 0, v)
    cuda.atomic.sub(y, 1, v)
    cuda.atomic.max(y, 2, v)
    cuda.atomic.min(y, 3, v)
    cuda.atomic.nanmax(y, 4, v)
    cuda.atomic.nanmin(y, 5, v)


@jit
def integer_atomics(y, x):
    i = cuda.grid(1)
    cuda.atomic.and_(y, 0, x[i])
    cuda.atomic.or_(y, 1, x[i])
    cuda.atomic.xor(y, 2, x[i])
    cuda.atomic.cas(y, 3, 7, x[i])
    cuda.atomic.exch(y, 4, x[i])


@jit
def shared_atomics(y, x):
    s = cuda.shared.array(1, y.dtype)
    if cuda.threadIdx.x == 0:
        s[0] = 0
    cuda.syncthreads()
    cuda.atomic.add(s, 0, x[cuda.threadIdx.x])
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        y[cuda.blockIdx.x] = s[0]


@jit
def circles(y):
    cuda.atomic.inc(y, 0, y.dtype.type(6))
    cuda.atomic.dec(y, 1, y.dtype.type(6))


INTEGERS = [np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", [*INTEGERS, np.float32, np.float64])
def test_atomics(dtype):
    x = np.random.default_rng(0).permutation(2048).astype(dtype)  # exact sums in any order
    y = np.array([1, 0, 5, 5, 5, 5], dtype)
    atomics[16, 128](y, x)
    total = x.astype(np.int64).sum()
    wrap = np.int64(-total).astype(dtype)
    np.testing.assert_array_equal(y, np.array([total + 1, wrap, 2047, 0, 2047, 0], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_atomic_extremes_and_nan(dtype):
    x, nan = np.array([1, np.nan, 3, -2], dtype), np.nan
    y = np.array([0, 0, nan, nan, nan, nan], dtype)
    atomics[1, 4](y, x)
    np.testing.assert_array_equal(y[2:], [nan, nan, 3, -2])
    y = np.zeros(6, dtype)
    atomics[1, 4](y, x)
    np.testing.assert_array_equal(y[2:], [3, -2, 3, -2])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_atomics_on_bits(dtype):
    x = (np.arange(64) % 8 + 16).astype(dtype)
    y = np.array([31, 0, 5, 7, 0], dtype)
    integer_atomics[2, 32](y, x)
    np.testing.assert_array_equal(y[:3], np.array([16, 23, 5], dtype))
    assert y[3] in x and y[4] in x


@pytest.mark.parametrize("dtype", [*INTEGERS, np.float32, np.float64])
def test_atomics_in_shared_memory(dtype):
    x, y = np.arange(64).astype(dtype), np.zeros(4, dtype)
    shared_atomics[4, 64](y, x)
    np.testing.assert_array_equal(y, 2016)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_atomics_in_circles(dtype):
    y = np.array([0, 0], dtype)
    circles[4, 16](y)
    np.testing.assert_array_equal(y, [64 % 7, (7 - 64 % 7) % 7])
    y = np.array([50, 50], dtype)  # out of range: inc gives 0, dec the limit
    circles[1, 1](y)
    np.testing.assert_array_equal(y, [0, 6])


@jit
def old_values(y, seen):
    seen[cuda.grid(1)] = cuda.atomic.add(y, 0, 1)


def test_no_atomic_is_lost_between_workers():
    y, seen = np.zeros(1, np.int64), np.zeros(1 << 15, np.int64)
    old_values[128, 256](y, seen)
    np.testing.assert_array_equal(np.sort(seen), np.arange(1 << 15))


# ---- functions, constants, bits, halves


@cuda.jit(device=True)
def lane_sum(v):
    for step in (16, 8, 4, 2, 1):
        v += cuda.shfl_down_sync(FULL, v, step)
    return v


@cuda.jit(device=True)
def block_sum(v):
    s = cuda.shared.array(32, float32)
    warp = cuda.threadIdx.x >> 5
    v = lane_sum(v)
    if cuda.threadIdx.x & 31 == 0:
        s[warp] = v
    cuda.syncthreads()
    v = s[cuda.threadIdx.x] if cuda.threadIdx.x < cuda.blockDim.x >> 5 else float32(0)
    return lane_sum(v)


@jit
def sums(x, y):
    v = block_sum(x[cuda.grid(1)])
    if cuda.threadIdx.x == 0:
        y[cuda.blockIdx.x] = v


def test_device_functions_that_call_and_wait():
    x, y = np.arange(512, dtype=np.float32), np.zeros(2, np.float32)
    sums[2, 256](x, y)
    np.testing.assert_array_equal(y, x.reshape(2, -1).sum(1))


@jit
def tables(x, y):
    table = cuda.const.array_like(TABLE)
    mine = cuda.local.array(4, y.dtype)
    for j in range(4):
        mine[j] = table[j] * x[cuda.threadIdx.x]
    cuda.syncthreads()
    y[cuda.threadIdx.x] = mine[cuda.threadIdx.x % 4]


def test_constant_and_local_arrays():
    x, y = f32(16), np.zeros(16, np.float32)
    tables[1, 16](x, y)
    np.testing.assert_array_equal(y, np.tile(TABLE, 4) * x)


@jit
def bits(x, y):
    i = cuda.threadIdx.x
    y[0, i] = cuda.popc(x[i])
    y[1, i] = cuda.clz(x[i])
    y[2, i] = cuda.ffs(x[i])
    y[3, i] = cuda.brev(x[i])


@pytest.mark.parametrize("dtype, width", [(np.uint32, 32), (np.uint64, 64)])
def test_bits(dtype, width):
    x = np.array([0, 1, 2, 12, 2**width - 1, 2 ** (width - 1)], dtype)
    y = np.zeros((4, 6), np.uint64)
    bits[1, 6](x, y)
    text = [f"{int(v):0{width}b}" for v in x]
    expected = [
        [t.count("1") for t in text],
        [len(t) - len(t.lstrip("0")) for t in text],
        [width - t.rindex("1") if "1" in t else 0 for t in text],
        [int(t[::-1], 2) for t in text],
    ]
    np.testing.assert_array_equal(y, np.array(expected, np.uint64))


@jit(mixed=True)
def through_half(h, y):
    i = cuda.grid(1)
    if i < h.size:
        y[i] = float32(h[i]) * float32(3)
        h[i] = y[i] + float32(1)


def test_half_is_loaded_and_stored():
    h = np.array([0, 1, -2.5, 0.1, 6e4, 6e-8, np.inf, np.nan], np.float16)
    y = np.zeros(8, np.float32)
    expected = h.astype(np.float32) * np.float32(3)
    through_half[1, 32](h, y)
    np.testing.assert_array_equal(y, expected)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(h, (expected + np.float32(1)).astype(np.float16))


@jit
def mathematics(x, y):
    v = x[cuda.threadIdx.x]
    y[0, cuda.threadIdx.x] = math.sqrt(v)
    y[1, cuda.threadIdx.x] = math.erf(v)
    y[2, cuda.threadIdx.x] = math.pow(v, x[1])
    y[3, cuda.threadIdx.x] = math.floor(v)
    y[4, cuda.threadIdx.x] = cuda.fma(v, v, v)
    y[5, cuda.threadIdx.x] = math.log1p(v)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_of_the_mathematical_library(dtype):
    x, y = np.array([0.5, 1.5, 2], dtype), np.zeros((6, 3), dtype)
    mathematics[1, 3](x, y)
    erf = [math.erf(v) for v in x]
    expected = [np.sqrt(x), erf, x ** x[1], np.floor(x), x * x + x, np.log1p(x)]
    np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(dtype).eps)


# ---- 128 bits at once, tensor cores


@jit
def four_by_four(x, y, skip):
    i = 4 * cuda.grid(1)
    a, b, c, d = ld4(x, i)
    st4(y, i + skip, d, c, b, a)


def floats(n, off=0):
    """Zeros in float32 that begin `off` numbers behind a multiple of 16 bytes."""
    y = np.zeros(n + 8, np.float32)
    start = -y.ctypes.data // 4 % 4
    return y[start + off : start + off + n]


def test_vector_loads_and_stores():
    x, y = floats(512), floats(512)
    x[:] = f32(512)
    four_by_four[4, 32](x, y, 0)
    np.testing.assert_array_equal(y, x.reshape(-1, 4)[:, ::-1].ravel())


def test_four_numbers_that_begin_inside_an_array_and_end_past_it():
    for n in (1, 3):
        where = rf"past the end of {{}} \({n},\), by {16 - 4 * n} bytes"
        with pytest.raises(RuntimeError, match="thread 0 .* reads " + where.format("x")):
            four_by_four[1, 1](floats(n), floats(4), 0)
        with pytest.raises(RuntimeError, match="thread 0 .* writes " + where.format("y")):
            four_by_four[1, 1](floats(4), floats(n), 0)


def test_a_vector_load_at_a_wrong_address_is_an_error():
    y = floats(512)
    with pytest.raises(RuntimeError, match=r"thread .* reads 128 bits at address 0x"):
        four_by_four[4, 32](floats(512, off=1), y, 0)
    with pytest.raises(
        RuntimeError, match=r"four_by_four: .* writes 128 bits .* not a multiple of 16"
    ):
        four_by_four[1, 2](floats(512), y, 2)
    four_by_four[1, 2](floats(512), y, 4)  # and the next launch is none the worse


@jit
def product(a, b, c, d):
    lane = cuda.laneid
    g, t = lane >> 2, lane & 3
    d0, d1, d2, d3 = mma_m16n8k8_tf32(
        a[g, t], a[g + 8, t], a[g, t + 4], a[g + 8, t + 4], b[t, g], b[t + 4, g],
        c[g, 2 * t], c[g, 2 * t + 1], c[g + 8, 2 * t], c[g + 8, 2 * t + 1],
    )  # fmt: skip
    d[g, 2 * t], d[g, 2 * t + 1] = d0, d1
    d[g + 8, 2 * t], d[g + 8, 2 * t + 1] = d2, d3


@pytest.mark.parametrize("block", [32, 64])
def test_a_tensor_core_multiplies(block):
    a, b, c, d = f32(16, 8), f32(8, 8, seed=1), f32(16, 8, seed=2), f32(16, 8)
    product[1, block](a, b, c, d)
    cut = [(m.view(np.int32) & ~0x1FFF).view(np.float32).astype(np.float64) for m in (a, b)]
    np.testing.assert_array_equal(d, (cut[0] @ cut[1] + c).astype(np.float32))
    assert np.abs(d - (a @ b + c)).max() > 1e-5  # TF32 is coarser than float32


def test_a_tensor_core_needs_a_whole_warp():
    a, c = f32(16, 8), f32(16, 8)
    with pytest.raises(RuntimeError, match="product: divergent barrier"):
        product[1, 16](a, a[:8], c, c.copy())


@jit
def rounded(x, y):
    y[cuda.threadIdx.x] = round_tf32(x[cuda.threadIdx.x])


def test_rounding_to_tf32():
    ulp = 2.0**-10
    x = np.array(
        [1, 1 + ulp, 1 + ulp / 2, -1 - ulp / 2, 1 + 0.49 * ulp, np.inf, 3.4e38, np.nan, 0],
        np.float32,
    )
    y = np.zeros(9, np.float32)
    rounded[1, 9](x, y)
    expected = [1, 1 + ulp, 1 + ulp, -1 - ulp, 1, np.inf, 3.4e38, np.nan, 0]
    np.testing.assert_allclose(y, np.array(expected, np.float32), rtol=2**-11)
    np.testing.assert_array_equal(y[:6], np.array(expected[:6], np.float32))
