"""Programs for numba-cuda run without a GPU: their arrays, launches and reductions."""

import numpy as np
import pytest

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
    there = cuda.to_device(rate)

    @cuda.jit
    def refers(y):
        y[0] = there[0]

    with pytest.raises(TypeError, match="refers to there, an array on the device"):
        refers[1, 1](y)


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
