"""Register tiles and what is built on them, for each kind of vectors that this CPU has."""

import os
import re
import subprocess
import sys
from unittest import mock

import numba
import numpy as np
import pytest

from minidl.kernels import cpu, reference, shapes
from minidl.kernels.cpu import simd
from minidl.kernels.cpu._numba import jit
from minidl.kernels.roles import roles

pytestmark = pytest.mark.numba
HERE = [t for t in simd.TARGETS.values() if simd.choose() and t.width <= simd.choose().width]


@pytest.fixture(params=[*HERE, None], ids=lambda target: target.name if target else "none")
def target(request, monkeypatch):
    """Vectors that matrix products use, whatever MINIDL_SIMD says."""
    monkeypatch.setattr(simd, "chosen", request.param)
    return request.param


def draw(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


@jit
def run_tile(code, given):
    simd.call(code, given[0], given[1], given[2], given[3], given[4], given[5], given[6], given[7],
              given[8], given[9], given[10], given[11], given[12], given[13], given[14],
              given[15])  # fmt: skip


@jit
def run_transposer(code, source, to):
    simd.call(code, source.ctypes.data, 4 * source.shape[1], to.ctypes.data, 4 * to.shape[1])


def fill(target, rows, vectors, columns, transposed=False, depth=5, bias=None, flags=0, out=None):
    """Run one tile on two pairs of matrices; returns what it wrote and what it should have."""
    wide = vectors * target.width
    a, b = draw(2, depth, rows) if transposed else draw(2, rows, depth), draw(2, depth, wide)
    out = np.full((rows, wide), np.nan, np.float32) if out is None else out.copy()
    product = np.einsum(
        "tkm,tkn->mn" if transposed else "tmk,tkn->mn", *(m.astype(float) for m in (a, b))
    )
    a_taps, b_taps = np.array([0, a[0].nbytes]), np.array([0, b[0].nbytes])
    a_row, a_step = (4, 4 * rows) if transposed else (4 * depth, 4)
    code = simd.tile(target, rows, vectors, transposed)
    where = [0 if x is None else x.ctypes.data for x in (a, a_taps, b, b_taps)]
    begin = 0 if bias is None else bias.ctypes.data
    run_tile(code, np.array([
        *where, 2, depth, a_row, a_step, 4 * wide, out.ctypes.data, 4 * wide, begin, columns, flags,
        1 << 40, 1 << 20,  # what FETCH asks for
    ]))  # fmt: skip
    return out, product


@pytest.mark.parametrize("target", HERE, ids=lambda t: t.name)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("vectors", [1, 2])
def test_tiles_of_all_heights_and_widths(target, vectors, transposed):
    most = target.rows[vectors - 1]
    for rows in (1, 2, 5, most):
        for columns in (1, target.width - 1, vectors * target.width):
            out, product = fill(target, rows, vectors, columns, transposed)
            np.testing.assert_allclose(out[:, :columns], product[:, :columns], atol=2e-6)
            assert np.isnan(out[:, columns:]).all()  # not written


@pytest.mark.parametrize("target", HERE, ids=lambda t: t.name)
def test_what_the_flags_of_a_tile_say(target):
    old, bias = draw(3, 2 * target.width, seed=1), draw(2 * target.width, seed=2)
    plain, product = fill(target, 3, 2, 2 * target.width)
    added, _ = fill(target, 3, 2, 2 * target.width, flags=simd.ADD, out=old)
    np.testing.assert_array_equal(added, old + plain)  # the finished sum: to the bit
    for given, start in [
        ({"bias": bias}, bias), ({"flags": simd.CONTINUE, "out": old}, old),
    ]:  # fmt: skip
        out, _ = fill(target, 3, 2, 2 * target.width, **given)
        np.testing.assert_allclose(out, start + product, atol=2e-6)
    cut, _ = fill(target, 3, 2, 2 * target.width, flags=simd.RELU)
    np.testing.assert_array_equal(cut, np.maximum(plain, 0))
    nan, _ = fill(target, 3, 2, 2 * target.width, bias=bias * np.nan, flags=simd.RELU)
    assert np.isnan(nan).all()
    empty, _ = fill(target, 3, 2, 2 * target.width, bias=bias, depth=0)
    np.testing.assert_array_equal(empty, np.broadcast_to(bias, empty.shape))


@pytest.mark.parametrize("target", HERE, ids=lambda t: t.name)
def test_a_tile_may_ask_for_what_is_not_there(target):
    plain, fetching = (
        fill(target, 3, 2, 2 * target.width, True, depth=21, flags=flags)[0]
        for flags in (0, simd.FETCH)
    )
    np.testing.assert_array_equal(plain, fetching)


@pytest.mark.parametrize("target", HERE, ids=lambda t: t.name)
def test_squares_are_transposed(target):
    source, to = draw(target.width, 37), np.zeros((target.width, 41), np.float32)
    run_transposer(simd.transposer(target), source, to)
    np.testing.assert_array_equal(to[:, : target.width], source[:, : target.width].T)
    assert not to[:, target.width :].any()


@pytest.mark.skipif(not HERE, reason="vectors of x86-64, which this CPU does not have")
@pytest.mark.parametrize(
    ("target", "cpu_name", "features", "registers"),
    [
        ("avx2", "haswell", "+avx,+avx2,+fma", "ymm"),
        ("avx512", "skylake-avx512", "+avx,+avx2,+fma,+avx512f", "zmm"),
    ],
)
def test_sums_stay_in_registers(target, cpu_name, features, registers):
    # code is only compiled, in a process that takes this CPU for another one
    code = f"""
from minidl.kernels.cpu import simd
target = simd.TARGETS[{target!r}]
for transposed in (False, True):
    for vectors in (1, 2):
        print(simd.assembly(target.rows[vectors - 1], vectors, target, transposed), end="====")
"""
    told = {"NUMBA_CPU_NAME": cpu_name, "NUMBA_CPU_FEATURES": features, "MINIDL_SIMD": "none"}
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | told,
        capture_output=True,
        text=True,
        check=True,
    )
    loops = child.stdout.split("====")[:-1]
    assert len(loops) == 4
    for i, loop in enumerate(loops):
        vectors, kind = 1 + i % 2, simd.TARGETS[target]
        tiles = kind.rows[vectors - 1] * kind.steps[vectors - 1]
        assert loop.count("vfmadd") == tiles * vectors
        assert set(re.findall("[xyz]mm", loop)) == {registers}
        assert not re.search("mm.*rsp|rsp.*mm", loop), loop  # no vector is kept on the stack


@pytest.mark.parametrize(
    ("asked", "features", "found"),
    [
        ("", "", simd.choose() and simd.choose().name),
        ("none", "", None),
        ("", "-avx512f,+avx2,+fma", "avx2"),
        ("", "-avx512f,-avx2", None),
        ("avx512", "+avx2,+fma", RuntimeError),
        ("sse", "", RuntimeError),
    ],
)
def test_vectors_are_chosen_by_what_the_cpu_has(asked, features, found, monkeypatch):
    monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
    if found is RuntimeError:
        with pytest.raises(RuntimeError, match="MINIDL_SIMD is"):
            simd.choose(asked)
    else:
        chosen = simd.choose(asked)
        assert (chosen and chosen.name) == found


# Convolutions: images, window, stride, padding, dilation, groups, filters.
CONVOLUTIONS = [
    ((17, 7, 6, 3), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 19),  # few channels
    ((8, 9, 8, 8), (2, 3), (2, 1), ((0, 1), (2, 0)), (1, 1), 1, 33),
    ((9, 4, 5, 33), (3, 3), (1, 2), ((7, 7), (8, 9)), (1, 1), 1, 47),  # windows of padding alone
    ((25, 5, 5, 16), (1, 1), (3, 2), ((0, 0), (0, 0)), (1, 1), 1, 16),  # pixels that nobody reads
    ((11, 8, 9, 24), (3, 2), (2, 2), ((1, 1), (2, 1)), (2, 3), 3, 18),
    ((1, 14, 14, 32), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 40),  # one image
    ((5, 11, 6, 12), (3, 3), (2, 2), ((1, 1), (2, 1)), (2, 3), 4, 24),
    ((3, 1, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, 1),
    ((64, 14, 15, 40), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 80),  # several tasks
    ((16, 2, 2, 130), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 1300),  # large filters
]


def inside(x):
    """x in the memory order H, W, N, C."""
    return np.ascontiguousarray(x.transpose(1, 2, 0, 3)).transpose(2, 0, 1, 3)


def odd(x):
    """x with gaps, counted backwards."""
    room = np.empty([2 * n for n in x.shape], x.dtype)[(..., *[slice(None, None, -2)] * x.ndim)]
    room[...] = x
    return room


@pytest.mark.parametrize("form", [np.array, inside, odd])
@pytest.mark.parametrize("number", range(len(CONVOLUTIONS)))
def test_convolutions_in_any_memory_order(target, number, form):
    image, size, stride, pad, dilation, groups, f = CONVOLUTIONS[number]
    w = (*size, image[3] // groups, f)
    y = shapes.conv2d(image, w, stride, pad, dilation)
    x, filters, b, dy = draw(*image), draw(*w), draw(f), draw(*y)
    for name, inputs, out, last in [
        ("conv2d", (x, filters, b), y, True),
        ("conv2d_grad_x", (dy, filters), image, False),
        ("conv2d_grad_w", (dy, x), w, False),
    ]:
        static = stride, pad, dilation, groups, last
        exact = getattr(reference, name)(*(a.astype(float) for a in inputs), np.empty(out), *static)
        given = [form(a) if a.ndim == 4 else a for a in inputs]
        mine = form(np.full(out, np.nan, np.float32))
        results = []
        for threads in (1, 2):
            with mock.patch.object(numba.config, "NUMBA_NUM_THREADS", threads):
                mine[...] = np.nan
                assert getattr(cpu, name)(*given, mine, *static) is mine
                results.append(mine.copy())
        np.testing.assert_allclose(mine, exact, atol=4e-6 * np.abs(exact).max())
        np.testing.assert_array_equal(*results)
        if "add" in roles(getattr(cpu, name)):
            old = draw(*out, seed=3)
            mine[...] = old
            getattr(cpu, name)(*given, mine, *static[:-1], True)
            np.testing.assert_array_equal(mine, old + results[0])


@pytest.mark.parametrize(
    "shape", [(1, 3, 2), (33, 70, 129), (64, 784, 128), (100, 40, 210), (300, 257, 66)]
)
def test_linear_layers(target, shape):
    rows, i, o = shape
    x, w, b, dy = draw(rows, i), draw(i, o), draw(o), draw(rows, o)
    for name, inputs, out, last in [
        ("linear", (x, w, b), (rows, o), True),
        ("linear", (x, w, None), (rows, o), False),
        ("linear_grad_x", (dy, w), (rows, i), False),
        ("linear_grad_w", (dy, x), (i, o), False),
    ]:
        wide = (a if a is None else a.astype(float) for a in inputs)
        exact = getattr(reference, name)(*wide, np.empty(out), last)
        for form in (np.array, np.asfortranarray, odd):
            given = [a if a is None else form(a) for a in inputs]
            mine = form(np.full(out, np.nan, np.float32))
            assert getattr(cpu, name)(*given, mine, last) is mine
            np.testing.assert_allclose(mine, exact, atol=4e-6 * np.abs(exact).max())


def test_images_of_a_batch_lie_inside(target):
    x = cpu.empty_image((8, 3, 5, 16), np.float32)
    assert x.shape == (8, 3, 5, 16)
    assert reference.memory_order(x) == (None if target is None else (1, 2, 0, 3))
    assert reference.memory_order(reference.empty_like(x)) == reference.memory_order(x)
    for shape, dtype in [((7, 3, 5, 16), "f4"), ((8, 3, 5, 3), "f4"), ((8, 3, 5, 16), "f8")]:
        assert cpu.empty_image(shape, dtype).flags.c_contiguous
