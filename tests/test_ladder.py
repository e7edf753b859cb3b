"""The matrix products on CUDA: every step of the ladder, and the kernels that minidl runs.

At sizes that straddle the edges of tiles, under three orders of threads, with the same bits.
"""

import itertools
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import minidl
import minidl.kernels.cuda as kernels
from minidl.kernels.cuda import gemm, ladder

TF32 = 2.0**-11  # by how much rounding to TF32 is off at most, relatively


def straddling(tile, *others):
    return (0, 1, tile - 1, tile, tile + 1, *others)


def draw(*shape, dtype="float32"):
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


@pytest.fixture
def run(device):
    """What a launcher makes of an old output: the same bits in every order of threads."""

    def run(launch, inputs, old, *static):
        return device.same_bits(lambda: device(launch)(*inputs, old.copy(), *static))

    return run


def close(y, expected, scale, terms):
    """y is within the bound of any sum of `terms` products (Higham 2002, 3.1) and three steps."""
    eps = np.finfo(y.dtype).eps
    np.testing.assert_array_less(abs(y - expected), (4 + terms) * eps * scale + np.finfo("f").tiny)


def wide_product(a, b):
    """a b and |a| |b| in float64."""
    a, b = a.astype("float64"), b.astype("float64")
    return a @ b, abs(a) @ abs(b)


# The ladder


SIZES = {  # of M, K and N, each with each
    "naive": [straddling(16, 37)] * 3,
    "tiled": [straddling(16, 37)] * 3,
    "blocked": [straddling(64, 97), straddling(16, 37), straddling(64, 130)],
    "vectorised": [straddling(64, 97), (0, 4, 12, 16, 20, 36, 18), (0, 4, 60, 64, 68, 132, 7)],
    "tensor_cores": [straddling(64, 97), straddling(16, 8, 37), straddling(64, 130)],
}


def test_every_step_is_tried():
    assert [step.__name__ for step in ladder.STEPS] == list(SIZES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in SIZES if name != "tensor_cores"])
def test_a_step_at_the_edges_of_its_tiles(run, name, dtype):
    for m, k, n in itertools.product(*SIZES[name]):
        a, b = draw(m, k, dtype=dtype), draw(k, n, dtype=dtype)
        y = run(getattr(ladder, name), (a, b), np.full((m, n), np.nan, dtype))
        close(y, *wide_product(a, b), k)


def rounded(x):
    """x in TF32: float32 with 10 bits after the leading one, ties away from zero."""
    return (x.view(np.uint32) + np.uint32(0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


def test_rounding_to_tf32():
    x = np.array([1 + 2**-11, 1 + 2**-11 - 2**-23, -1 - 2**-11, 3, 0.1], np.float32)
    assert rounded(x).tolist() == [1 + 2**-10, 1, -1 - 2**-10, 3, 0.0999755859375]


def test_tensor_cores_at_the_edges_of_their_tiles(run, device):
    device.needs(8, 0)
    for m, k, n in itertools.product(*SIZES["tensor_cores"]):
        a, b = draw(m, k), draw(k, n)
        y = run(ladder.tensor_cores, (a, b), np.full((m, n), np.nan, "f"))
        expected, scale = wide_product(rounded(a), rounded(b))
        close(y, expected, scale, 2 * k)  # a tensor core may cut off where others round
        expected, scale = wide_product(a, b)
        bound = (2 * TF32 + TF32**2 + (4 + 2 * k) * 2.0**-23) * scale
        assert (abs(y - expected) <= bound).all()


@pytest.mark.emulator
def test_tensor_cores_are_for_float32():
    a = np.zeros((4, 4))
    with pytest.raises(TypeError, match="y is float64; TF32 is a way to multiply float32"):
        ladder.tensor_cores(a, a, a.copy())


def test_strided_matrices(device):
    a, b = draw(40, 60)[::2, ::-3], draw(20, 24)[:, ::2]
    y = np.empty((12, 20), "f").T
    for step in ladder.STEPS[:4]:
        y.fill(np.nan)
        device(step)(a, b, y)
        close(y, *wide_product(a, b), 20)


@pytest.mark.emulator
def test_a_small_tiled_product_is_quick():
    a, b, y = draw(64, 64), draw(64, 64), np.empty((64, 64), "f")
    ladder.tiled(a, b, y)  # compiled
    times = []
    for _ in range(5):
        start = time.process_time()  # of all workers
        ladder.tiled(a, b, y)
        times.append(time.process_time() - start)
    print(f"64 x 64 x 64 tiled: {1e3 * min(times):.1f} ms emulated")
    assert min(times) <= 0.020


# The product that minidl runs


def operand(m, n, turned, dtype):
    return draw(n, m, dtype=dtype).T if turned else draw(m, n, dtype=dtype)


CALLS = [  # a turned, b turned, bias, relu, add
    (False, False, True, True, False),
    (True, False, False, False, True),
    (False, True, True, False, True),
    (True, True, False, True, False),
]


def check_product(run, shape, call, dtype):
    (m, k, n), (a_turned, b_turned, biased, relu, add) = shape, call
    a, b = operand(m, k, a_turned, dtype), operand(k, n, b_turned, dtype)
    bias = draw(n, dtype=dtype) if biased else None
    old = draw(m, n, dtype=dtype) if add else np.full((m, n), np.nan, dtype)
    y = run(gemm.gemm, (a, b, bias), old, relu, add)
    value, scale = wide_product(a, b)
    if biased:
        value, scale = value + bias, scale + abs(bias)
    value = np.maximum(value, 0) if relu else value
    close(y, value + old if add else value, scale + abs(old) if add else scale, k)
    if add:
        alone = run(gemm.gemm, (a, b, bias), np.empty_like(old), relu, False)
        assert (alone + old).tobytes() == y.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_product_at_the_edges_of_its_tiles(run, dtype):
    shapes = itertools.product(straddling(64, 97), straddling(16, 4, 37), straddling(64, 130))
    for shape, call in itertools.product(shapes, CALLS):
        check_product(run, shape, call, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_product_of_whole_fours_at_the_edges_of_its_tiles(run, dtype):
    shapes = itertools.product((4, 60, 64, 68, 132), (0, 4, 12, 16, 20, 36), (4, 60, 64, 68, 132))
    for shape, call in itertools.product(shapes, CALLS):
        check_product(run, shape, call, dtype)


def test_the_product_in_large_tiles(run, monkeypatch):
    monkeypatch.setattr(gemm, "ENOUGH_LARGE", 1)
    shapes = itertools.product((4, 124, 128, 132), (0, 4, 8, 12, 20), (4, 124, 128, 132))
    for shape, call in itertools.product(shapes, CALLS):
        check_product(run, shape, call, "float32")


@pytest.mark.parametrize("shape", [(3, 255, 5), (3, 256, 8), (64, 257, 68), (1, 1000, 1)])
def test_a_long_sum_is_shared_by_blocks(run, shape):
    m, k, n = shape
    _, tasks, chunk = gemm.plan(m, n, k, True, False)
    assert (tasks > 1) == (k >= 256)
    assert (tasks - 1) * chunk < k <= tasks * chunk
    for call in CALLS:
        check_product(run, shape, call, "float32")


def test_the_same_bits_wherever_the_matrices_lie(device):
    room = draw(68 * 300 + 1)
    b, y = draw(300, 64), np.empty((68, 64), "f")
    for k in (300, 40):  # with the sum shared by blocks, and without
        there, here = room[1 : 1 + 68 * k].reshape(68, k), room[: 68 * k].reshape(68, k)
        here[...] = moved = there.copy()
        expected = device(gemm.gemm)(here, b[:k], None, y, False, False).tobytes()
        there[...] = moved
        assert device(gemm.gemm)(there, b[:k], None, y, False, False).tobytes() == expected


def test_the_plan_covers_every_sum():
    for m, n, k in itertools.product((0, 1, 64, 1000, 10**6), (0, 1, 128, 4096), (0, 1, 16, 10**5)):
        for large, tensor in itertools.product((False, True), repeat=2):
            tile, tasks, chunk = gemm.plan(m, n, k, large, tensor)
            assert 1 <= tasks <= gemm.ENOUGH_BLOCKS
            assert tasks * chunk >= k and (tasks == 1 or (tasks - 1) * chunk < k)
            assert tasks == 1 or chunk % tile.step == 0


@pytest.mark.parametrize("n", [4, 5])
def test_a_stack_of_products_is_one_launch_or_one_for_each_full_grid(run, monkeypatch, n):
    a, b, y = draw(5, 3, 300), draw(5, 300, n), np.empty((5, 3, n), "f")
    expected = run(gemm.gemm, (a, b, None), y, False, False)
    wide, scale = a.astype("d") @ b.astype("d"), abs(a).astype("d") @ abs(b).astype("d")
    close(expected, wide, scale, 300)
    turned = np.ascontiguousarray(b.swapaxes(1, 2)).swapaxes(1, 2)
    assert run(gemm.gemm, (a, turned, None), y, False, False).tobytes() == expected.tobytes()
    one = run(gemm.gemm, (a[:1], b, None), y, False, False)
    close(one, a[:1].astype("d") @ b.astype("d"), scale.max(), 300)
    monkeypatch.setattr(gemm, "MOST_BLOCKS", 2)
    close(run(gemm.gemm, (a, b, None), y, False, False), wide, scale, 300)


def test_relu_keeps_nan(run):
    a, b = np.array([[np.nan], [-1], [2]], "f"), np.ones((1, 2), "f")
    y = run(kernels.linear, (a, b, None), np.empty((3, 2), "f"), True)
    assert np.isnan(y[0]).all() and y[1:].tolist() == [[0, 0], [2, 2]]


def off_by(y, a, b):
    """The largest error of y = a b, in units of |a| |b|."""
    expected, scale = wide_product(a, b)
    return (abs(y - expected) / scale).max()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "shape", [(129, 37, 65), (127, 16, 63), (20, 300, 68), (1, 1, 1), (2, 0, 3)]
)
def test_the_product_on_tensor_cores(run, device, shape, call):
    device.needs(8, 0)
    (m, k, n), (a_turned, b_turned, biased, relu, add) = shape, call
    a, b = operand(m, k, a_turned, "f"), operand(k, n, b_turned, "f")
    bias, old = draw(n) if biased else None, draw(m, n)
    y = run(gemm.gemm, (a, b, bias), old, relu, add, True)
    value, scale = wide_product(rounded(a), rounded(b))
    value = value + bias if biased else value
    value = np.maximum(value, 0) if relu else value
    close(y, value + old if add else value, scale + abs(old) + (abs(bias) if biased else 0), 2 * k)


# minidl.set_matmul


@pytest.fixture
def set_matmul():
    yield minidl.set_matmul
    minidl.set_matmul("kernel")


@pytest.mark.emulator
def test_cublas_needs_a_gpu(set_matmul):
    a = draw(4, 4)
    set_matmul("auto")
    assert off_by(kernels.matmul(a, a, np.empty_like(a)), a, a) < 1e-6
    set_matmul("cublas")
    with pytest.raises(RuntimeError, match="cuBLAS was chosen, which needs a GPU"):
        kernels.matmul(a, a, np.empty_like(a))


@pytest.mark.emulator
def test_wrong_choices_name_the_right_ones(set_matmul):
    with pytest.raises(ValueError, match=r"did you mean 'cublas'.*known: auto, cublas, kernel"):
        set_matmul("cubla")
    with pytest.raises(ValueError, match="known: kernel, cublas, auto"):
        kernels.set_matmul("cubla", False)


@pytest.mark.parametrize("name", ["matmul", "matmul_grad_a", "matmul_grad_b", "linear"])
def test_tf32_only_where_it_was_asked_for(k, device, set_matmul, name):
    device.needs(8, 0)
    a, b = draw(8, 40), draw(40, 8)
    square = dict(matmul_grad_a=(a, b.T), matmul_grad_b=(b, a.T)).get(name, (a, b))
    more = {"matmul": (), "linear": (False,)}.get(name, (False,))
    square += (None,) if name == "linear" else ()

    def error(*arrays):
        y = getattr(k, name)(*arrays, np.empty((8, 8), arrays[0].dtype), *more)
        return off_by(y, a, b)

    assert error(*square) < 1e-6
    set_matmul("kernel", tf32=True)
    assert 1e-6 < error(*square) < 2.0**-10
    assert error(*(x if x is None else x.astype("float64") for x in square)) < 1e-12


@pytest.mark.emulator
def test_the_choice_waits_for_the_kernels():
    code = """
import sys, minidl
minidl.set_matmul("cublas", tf32=True)
assert not {"numba", "numba_cuda", "numba.cuda"} & set(sys.modules)
x = minidl.tensor([[1.0]]).to("cuda")
try:
    x @ x
except RuntimeError as error:
    assert "cuBLAS was chosen" in str(error)
    print("refused")
"""
    environment = os.environ | {"MINIDL_CUDA": "emulate"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout == "refused\n", done.stderr
