"""Programs for numba-cuda run without a GPU: their arrays, launches and reductions."""

import enum
from collections import namedtuple

import numpy as np
import pytest
from numba import cuda as nb
from numba import types

from minidl.kernels.cuda.emulator import schedule

pytestmark = pytest.mark.emulator


@pytest.fixture
def cuda():
    """numba-cuda while minidl stands in for the GPU."""
    from numba import cuda

    from minidl.kernels.cuda.stand_in import standing_in

    with standing_in():
        yield cuda


@pytest.fixture
def reports():
    """The same under the sanitizer; what it said of each launch."""
    from minidl.kernels.cuda.stand_in import standing_in, watched

    found = []
    with standing_in(lambda asked: found.append(watched(asked))):
        yield found


def test_a_program_runs_as_on_a_gpu(cuda):
    assert cuda.is_available()
    stream, start, end = cuda.stream(), cuda.event(), cuda.event()

    @cuda.jit
    def double(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = x[i] + x[i]

    x = np.arange(100.0)
    y = cuda.device_array_like(x)
    start.record(stream)
    double.forall(x.size)(cuda.to_device(x, stream=stream), y)
    double[4, 32, stream](cuda.to_device(x), y)
    end.record(stream)
    stream.synchronize()
    assert start.elapsed_time(end) == 0
    np.testing.assert_array_equal(y.copy_to_host(), x + x)
    double[1, 32](cuda.to_device([1, 2]), y[:2])  # a view of it
    np.testing.assert_array_equal(y.copy_to_host()[:3], [2, 4, 4])
    host = np.ones(100)
    double[4, 32](host, host)  # copied to the GPU and back
    np.testing.assert_array_equal(host, 2)
    with pytest.raises(ValueError, match="array with gaps is no argument"):
        double[4, 32](host[::2], host[::2])


def test_a_signature_casts_numbers_and_numbers_keep_their_types(cuda):
    @cuda.jit("void(float32[:], float32)")
    def declared(y, by):
        y[0] = by

    @cuda.jit(["(float64[:], float32)", "(float64[:], float64)"])
    def either(y, by):
        y[0] = by

    @cuda.jit("int64(int64)", device=True)
    def whole(x):
        return x

    @cuda.jit
    def free(y, by):
        y[0] = by
        y[-1] += whole(by)

    y = np.zeros(2, np.float64)
    with pytest.raises(TypeError, match="no signature of it fits"):
        declared[1, 1](y, 0.1)
    free[1, 1](y, 2.7)  # numba-cuda makes it float64, whatever dtype arrays have
    np.testing.assert_array_equal(y, [2.7, 2])
    either[1, 1](y, 0.1)
    assert y[0] == 0.1
    either[1, 1](y, np.float32(0.1))
    assert y[0] == np.float32(0.1)
    z = np.zeros(1, np.float32)
    declared[1, 1](z, 0.1)
    assert z[0] == np.float32(0.1)


def test_globals_are_those_of_the_first_launch(reports):
    from numba import cuda

    rate = np.array([2.0])

    @cuda.jit
    def tell(y):
        y[0] = rate[0]

    y = np.zeros(1)
    tell[1, 1](y)
    rate[0] = 3
    tell[1, 1](y)
    assert y[0] == 2
    assert all(reports)


def test_an_array_on_the_device_by_name(reports):
    from numba import cuda

    there = cuda.to_device(np.arange(4.0))

    @cuda.jit(device=True)
    def read(i):
        return there[i]

    @cuda.jit
    def refers(y):
        i = cuda.threadIdx.x
        y[i] = read(i)
        there[i] = 0

    y = np.zeros(5)
    refers[1, 4](y)
    np.testing.assert_array_equal(y, [0, 1, 2, 3, 0])
    np.testing.assert_array_equal(there.copy_to_host(), 0)
    refers[1, 5](y)
    assert reports[0] and "past the end of there, by 8 bytes" in str(reports[1])


@pytest.mark.parametrize("n", [1, 82, 128, 1234])
def test_numba_cudas_own_reductions_are_right(cuda, n):
    largest, total = cuda.reduce(lambda a, b: max(a, b)), cuda.reduce(lambda a, b: a + b)
    x = np.arange(n, dtype=np.float64)
    assert largest(x) == n - 1  # not the code of the other one
    assert total(x) == x.sum()


def test_what_is_found_in_numba_cudas_own_reduction(reports):
    from numba import cuda

    total = cuda.reduce(lambda a, b: a + b)
    assert total(np.arange(82.0)) == 81 * 41
    assert all(reports)
    total(np.arange(128.0))  # two lanes of a warp call syncwarp(), which is for all 32
    assert [finding.kind for finding in reports[-1].findings] == ["divergent shuffle"]


def test_a_new_array_on_the_device_is_not_written_yet(reports):
    from numba import cuda

    @cuda.jit
    def copy(x, y):
        y[cuda.grid(1)] = x[cuda.grid(1)]

    empty, y = cuda.device_array(32), cuda.device_array(32)
    copy[1, 32](empty[:], y)
    copy[1, 32](y, empty)
    assert [f.kind for f in reports[0].findings] == ["uninitialised read"]
    assert reports[1]  # y was written


def test_numba_cuda_is_itself_again_afterwards():
    from numba import cuda

    from minidl.kernels.cuda.stand_in import standing_in

    before = cuda.to_device, cuda.dispatcher.CUDADispatcher.call, cuda.is_available
    with standing_in():
        assert cuda.to_device is not before[0]
    assert before == (cuda.to_device, cuda.dispatcher.CUDADispatcher.call, cuda.is_available)


def complex_sum(x, by, y):
    i = nb.grid(1)
    y[i] = x[i] * by + abs(x[i])


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_arrays_and_numbers(cuda, dtype):
    x, y = (np.arange(32) - 3j).astype(dtype), np.zeros(32, dtype)
    cuda.jit(complex_sum)[1, 32](x, dtype(2 - 1j), y)
    np.testing.assert_allclose(y, x * dtype(2 - 1j) + abs(x), rtol=4 * np.finfo(dtype).eps)


def halves(a, b, c, sums, products, quotients, fused, roots):
    i = nb.grid(1)
    if i < a.size:
        sums[i] = a[i] + b[i] - c[i]
        products[i] = a[i] * b[i]
        quotients[i] = a[i] / b[i]
        fused[i] = nb.fp16.hfma(a[i], b[i], c[i])
        roots[i] = nb.fp16.hsqrt(a[i])


@np.errstate(all="ignore")
def test_halves_have_the_bits_of_exact_results_rounded_once(cuda):
    """Any bits are a half: denormals, infinities and NaN among them."""
    random = np.random.default_rng(0)
    a, b, c = random.integers(0, 1 << 16, (3, 4096), dtype=np.uint16).view(np.float16)
    found = np.zeros((5, a.size), np.float16)
    cuda.jit(halves)[32, 128](a, b, c, *found)
    wide = [x.astype(np.longdouble) for x in (a, b, c)]  # has digits enough for a b + c
    exact = [a + b - c, a * b, a / b, (wide[0] * wide[1] + wide[2]).astype(np.float16), np.sqrt(a)]
    for got, want in zip(found, exact):
        np.testing.assert_array_equal(got, want)
        number = ~np.isnan(want)
        assert (got[number].view(np.uint16) == want[number].view(np.uint16)).all()  # -0, too


def test_tuples_are_their_items(reports):
    Point = namedtuple("Point", "x y")

    def move(t, p, n):
        i = nb.threadIdx.x
        t[1][i] = t[0][i] + p.x * p.y + n[0][0] + n[1].imag

    kernel = nb.jit(move)
    x, y = np.arange(4.0), np.zeros(4)
    kernel[1, 4]((x, y), Point(2, 0.5), ((np.int8(1),), 5j))
    np.testing.assert_array_equal(y, x + 7)
    there = nb.device_array(4)  # an array in a tuple is written where it is
    kernel[1, 4]((nb.to_device(x), there), Point(2, 0.5), ((np.int8(1),), 5j))
    np.testing.assert_array_equal(there.copy_to_host(), y)
    kernel[1, 5]((x, y), Point(2, 0.5), ((np.int8(1),), 5j))
    assert reports[0] and reports[1]
    assert {f.array for f in reports[2].findings} == {"t[0]", "t[1]"}


def test_records_dates_and_members_of_an_enum(reports):
    class Sign(enum.IntEnum):
        PLUS = 1
        MINUS = -1

    kind = np.dtype([("a", np.int32), ("b", np.float64, 2)], align=True)

    @nb.jit
    def take(r, days, sign, out):
        if sign == Sign.MINUS:
            out[0] = -(r.a + r.b[1])
        days[2] = days[1] - days[0]
        r.a = 7

    r, out = np.zeros(1, kind), np.zeros(1)
    r[0] = 2, (3, 4)
    days = np.array([3, 8, 0], "m8[D]")
    take[1, 1](r[0], days, Sign.MINUS, out)
    assert out[0] == -6 and days[2] == np.timedelta64(5, "D") and r[0]["a"] == 7
    assert all(reports)


def test_whole_powers_and_functions_that_call_themselves(cuda):
    @cuda.jit("int64(int64)", device=True)
    def below(n):
        return below(n - 1) + 1 if n > 0 else 0

    @cuda.jit
    def kernel(x, n):
        x[0] = x[0] ** n + below(n)

    x = np.full(1, 3.0)
    kernel[1, 1](x, np.int32(4))
    assert x[0] == 85


def test_what_no_launch_of_numba_cuda_takes(cuda):
    kernel = cuda.jit(lambda x: None)
    for value, kind in ((None, "NoneType"), ("one", "str"), ([1], "list")):
        with pytest.raises(TypeError, match=f"x is a {kind}; kernels take arrays, numbers, rec"):
            kernel[1, 1](value)


def test_what_is_printed(cuda, capsys):
    @cuda.jit
    def tell(x, t):
        i = cuda.threadIdx.x
        print(i, "is 100 %", x[i], x[i] > 1, t)
        print()

    tell[2, 2](np.array([0.5, -(2.0**60)]), (np.uint8(200), (np.float32(2),)))
    lines = (
        "0 is 100 % 0.500000 False (200, (2.000000,))\n\n",
        ("1 is 100 % -1152921504606846976.000000 False (200, (2.000000,))\n\n"),
    )
    assert capsys.readouterr().out == "".join(lines) * 2

    @cuda.jit
    def much(x):
        print("0123456789" * 10)

    with schedule("forward"):
        much[500, 100](np.zeros(1))
    lines = capsys.readouterr().out.splitlines()
    assert {*lines} == {"0123456789" * 10} and 20_000 < len(lines) < 50_000  # as on a GPU


@pytest.mark.parametrize("threads", [1, 33])
def test_exceptions_under_debug_are_raised(cuda, threads):
    @cuda.jit(debug=True, opt=False)
    def mean(x, n):
        i = cuda.threadIdx.x
        if n[0] < 0 and i == threads - 1:
            raise ValueError("a negative count", 3)
        cuda.syncthreads()
        x[i] = x[i] / n[0]

    x = np.ones(threads)
    mean[1, threads](x, np.full(1, 2.0))
    assert (x == 0.5).all()
    told = rf"In function 'mean', file .*test_stand_in.py, line \d+, tid=\[0, 0, {threads - 1}\] "
    with pytest.raises(ValueError, match=told + r"ctaid=\[0, 0, 0\]: a negative count") as raised:
        mean[(1, 1, 2), threads](x, np.full(1, -2.0))
    assert raised.value.args[1:] == (3,)
    with pytest.raises(ZeroDivisionError):
        mean[1, threads](x, np.zeros(1))
    mean[1, threads](x, np.ones(1))  # the next launch is none the worse


def test_what_is_raised_has_the_report_with_it(reports):
    @nb.jit(debug=True, opt=False)
    def wrong(x):
        i = nb.threadIdx.x
        x[i + 1] = i
        if i == 3:
            raise KeyError

    with pytest.raises(KeyError) as raised:
        wrong[1, 4](np.zeros(4))
    assert "out of bounds of x[4]" in raised.value.__notes__[0]
    with pytest.raises(KeyError) as raised:
        wrong[1, 4](np.zeros(5))
    assert not hasattr(raised.value, "__notes__")


@pytest.mark.parametrize("options", [{"opt": False}, {"debug": True, "opt": False}])
def test_functions_that_are_not_to_be_inlined_do_not_end_the_process(cuda, options):
    @cuda.jit(device=True, **options)
    def inner(x):
        return x + 1

    @cuda.jit(device=True, inline="never")
    def outer(x):
        return inner(x) * 2

    @cuda.jit(opt=False)
    def kernel(x):
        x[0] = outer(x[0])

    x = np.zeros(1)
    kernel[1, 1](x)
    assert x[0] == 2


def test_hints_to_the_cache_and_pointers(reports):
    @nb.jit(types.void(types.CPointer(types.float32), types.float32[::1], types.int64))
    def copy(p, y, n):
        i = nb.threadIdx.x
        if i < n:
            nb.stcs(y, i, nb.ldcg(p, i) + nb.ldcs(y, i))

    x, y = nb.to_device(np.arange(4, dtype=np.float32)), np.ones(4, np.float32)
    address = x.__cuda_array_interface__["data"][0]
    copy[1, 8](address + 4, y, 3)
    np.testing.assert_array_equal(y, [2, 3, 4, 1])
    copy[1, 8](address + 4, y, 4)
    assert reports[0]
    assert [(f.kind, f.array) for f in reports[1].findings] == [("out of bounds", "p")]
    with pytest.raises(TypeError, match="0x7 is no address in an array on the device"):
        copy[1, 8](7, y, 4)


def test_somebody_elses_array_on_the_device(cuda):
    class Theirs:
        def __init__(self, a):
            self.__cuda_array_interface__ = a.__cuda_array_interface__

    @cuda.jit
    def one(x):
        x[cuda.threadIdx.x] = 1

    x = cuda.to_device(np.zeros((2, 3)).T)
    one[1, 3](Theirs(x[:, 1]))
    np.testing.assert_array_equal(x.copy_to_host(), [[0, 1]] * 3)
    np.testing.assert_array_equal(cuda.as_cuda_array(Theirs(x)).copy_to_host(), [[0, 1]] * 3)
    with pytest.raises(TypeError):
        one[1, 3](object())


def test_what_is_only_given_in_is_not_written(cuda):
    @cuda.jit
    def one(x, y):
        x[0] = y[0] = 1

    x, y = np.zeros(1), np.zeros(1)
    one[1, 1](cuda.In(x), cuda.InOut(y))
    assert (x[0], y[0]) == (0, 1)


def rows(m):
    column, grid = nb.grid(1), nb.cg.this_grid()
    for row in range(1, m.shape[0]):
        m[row, column] = m[row - 1, m.shape[1] - column - 1] + 1
        grid.sync()


def test_blocks_that_wait_for_each_other(cuda):
    kernel = cuda.jit([(types.int32[:, ::1],)])(rows)
    m = np.zeros((9, 128), np.int32)
    kernel[4, 32](m)
    np.testing.assert_array_equal(m, np.arange(9)[:, None] + np.zeros_like(m))
    (compiled,) = kernel.overloads.values()
    assert compiled.max_cooperative_grid_blocks((8, 8)) == 32 * 132
    assert compiled.max_cooperative_grid_blocks(1024, 100 * 1024) == 2 * 132
    with pytest.raises(ValueError, match=r"265 blocks that wait .* room for 264 of this size"):
        kernel[265, 1024](m)

    @cuda.jit
    def some(x, first, last, block):
        if cuda.blockIdx.x < block and first <= cuda.threadIdx.x < last:
            cuda.cg.this_grid().sync()
            x[cuda.grid(1)] = 1

    x = np.zeros(12)
    some[3, 4](x, 0, 3, 3)  # a GPU waits neither for threads that have returned
    assert x.sum() == 9
    with pytest.raises(RuntimeError, match=r"barrier in block \(1, 0, 0\): 4 threads at grid.sync"):
        some[3, 4](x, 0, 4, 2)
    with pytest.raises(
        RuntimeError, match=r"block \(0, 0, 0\): 3 threads at grid.sync\(\) \(1 to 3\)"
    ):
        some[3, 4](x, 1, 4, 3)  # but the first thread of a block speaks for it


def test_a_kernel_tells_what_numba_cuda_makes_of_it(cuda):
    @cuda.jit
    def double(x):
        x[cuda.threadIdx.x] *= 2

    double[1, 2](np.ones(2, np.float32))
    double[1, 2](np.ones(2))
    assert [kinds[0].dtype for kinds in double.signatures] == [types.float32, types.float64]
    assert "fmul double" in double.inspect_llvm(double.signatures[1])
    assert ".entry" in double.inspect_asm(double.signatures[0])
