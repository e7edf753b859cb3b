"""Winograd's convolution: the algorithm itself, its kernels within their bound, and set_conv."""

import dataclasses
import functools
import os
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from unittest import mock

import numba
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import minidl as md
from minidl.kernels import cpu, reference, shapes
from minidl.kernels.cases import CASES, Blank
from minidl.kernels.cpu import simd, transforms, winograd
from minidl.kernels.testing import Backend, Mismatch, verify
from minidl.nn import functional as F

pytestmark = [
    pytest.mark.numba,
    pytest.mark.skipif(not simd.choose(), reason="Winograd's convolution needs AVX2"),
]
TILES = pytest.mark.parametrize("tile", [2, 4])
HERE = [t for t in simd.TARGETS.values() if simd.choose() and t.width <= simd.choose().width]
PASSES = "conv2d", "conv2d_grad_x", "conv2d_grad_w"
STATIC = (1, 1), ((1, 1), (1, 1)), (1, 1), 1  # stride, pad, dilation, groups


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(simd, "chosen", simd.choose())  # whatever MINIDL_SIMD says
    before = cpu.get_conv()
    yield
    cpu.set_conv(*before)


def draw(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def threads(n):
    return mock.patch.object(numba.config, "NUMBA_NUM_THREADS", n)


# The algorithm in NumPy, as Lavin and Gray write it, and its bound.


def matrices(scheme, magnitude=False):
    """A', B' and G as arrays; their magnitudes."""
    found = (np.array([[float(x) for x in row] for row in m]) for m in scheme[1:])
    return [np.abs(m) if magnitude else m for m in found]


def squares(matrix, d):
    """M d M' for d (..., n, n, C)."""
    return np.einsum("ai,...ijc,bj->...abc", matrix, d, matrix)


def tiles_of(x, before, side, step, count):
    """Tiles (N, down, across, n, n, C) of images: so many pixels before them are 0, and behind."""
    room = [step * n + side for n in count]
    wide = np.zeros((len(x), *room, x.shape[3]))
    top, left = (max(0, -b) for b in before)
    x = x[:, top:, left:]
    row, column = (max(0, b) for b in before)
    part = x[:, : max(0, room[0] - row), : max(0, room[1] - column)]
    wide[:, row : row + part.shape[1], column : column + part.shape[2]] = part
    view = sliding_window_view(wide, (side, side), (1, 2))[:, ::step, ::step]
    return view[:, : count[0], : count[1]].transpose(0, 1, 2, 4, 5, 3)


def convolved(scheme, x, w, before, area, magnitude=False):
    """Forward, or back to the images."""
    a, b, g = matrices(scheme, magnitude)
    count = [-(-n // scheme.outputs) for n in area]
    v = squares(b, tiles_of(x, before, scheme.side, scheme.outputs, count))
    u = np.einsum("ai,ijcf,bj->abcf", g, w, g)
    y = squares(a, np.einsum("nyxabc,abcf->nyxabf", v, u))
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(
        len(x), *(scheme.outputs * n for n in count), w.shape[3]
    )
    return y[:, : area[0], : area[1]]


def gradient(scheme, dy, x, pad, magnitude=False):
    """Of the filters."""
    a, b, g = matrices(scheme, magnitude)
    step, before = scheme.outputs, (pad[0][0], pad[1][0])
    count = [-(-n // step) for n in dy.shape[1:3]]
    v = squares(b, tiles_of(x, before, scheme.side, step, count))
    d = squares(a.T, tiles_of(dy, (0, 0), step, step, count))
    return np.einsum("ai,ijcf,bj->abcf", g.T, np.einsum("nyxabc,nyxabf->abcf", v, d), g.T)


def turned(w):
    return w[::-1, ::-1].swapaxes(2, 3)


def bounds(scheme):
    """Of each kernel, by winograd.py's docstring, in units of epsilon: half of them are u."""

    def y(v, run):
        x, w, before = np.abs(v.x), np.abs(v.w), (v.pad[0][0], v.pad[1][0])
        k = v.x.shape[3] + scheme.roundings("images", "filters", "products") + 1
        w = convolved(scheme, x, w, before, v.y.shape[1:3], True)
        return k / 2 * (w + (0 if v.b is None else np.abs(v.b)))

    def dx(v, run):
        before = 2 - v.pad[0][0], 2 - v.pad[1][0]
        k = v.dy.shape[3] + scheme.roundings("images", "filters", "products")
        w = turned(np.abs(v.w))
        return k / 2 * convolved(scheme, np.abs(v.dy), w, before, v.dx.shape[1:3], True)

    def dw(v, run):
        tiles = np.prod([-(-n // scheme.outputs) for n in v.dy.shape[1:3]]) * len(v.dy)
        k = tiles + scheme.roundings("images", "slopes", "sums")
        return k / 2 * gradient(scheme, np.abs(v.dy), np.abs(v.x), v.pad, True)

    return dict(zip(PASSES, (y, dx, dw))) | {"": CASES["conv2d"].bound}


@TILES
def test_the_algorithm_is_a_convolution_to_the_last_bit(tile):
    scheme = transforms.SCHEMES[tile]
    rng = np.random.default_rng(tile)
    d, g = ([Fraction(int(n)) for n in rng.integers(-99, 99, n)] for n in (scheme.side, 3))

    def times(matrix, numbers):
        return [sum(a * b for a, b in zip(row, numbers)) for row in matrix]

    m = [u * v for u, v in zip(times(scheme.g, g), times(scheme.b, d))]
    direct = [sum(g[k] * d[o + k] for k in range(3)) for o in range(tile)]
    assert times(scheme.a, m) == direct
    slopes = direct[::-1]  # any numbers: the transposed algorithm gives dg = sum of d times slopes
    a, g = (list(zip(*matrix)) for matrix in (scheme.a, scheme.g))
    m = [u * v for u, v in zip(times(a, slopes), times(scheme.b, d))]
    assert times(g, m) == [sum(d[o + k] * slopes[o] for o in range(tile)) for k in range(3)]


def test_multiplications_and_roundings_are_those_the_text_tells():
    two, four = transforms.SCHEMES[2], transforms.SCHEMES[4]
    assert (two.side**2, four.side**2) == (16, 36)
    found = [s.roundings("images", "filters", "products") for s in (two, four)]
    assert [f"{n} more for F({m}x{m}" in winograd.__doc__ for n, m in zip(found, (2, 4))] == [1, 1]


# The kernels.


def by_winograd(tile):
    """The kernels of convolution, of which all are Winograd's that can be."""

    def wrapped(name):
        @functools.wraps(getattr(cpu, name))
        def run(*args):
            cpu.set_conv("winograd", tile)
            return getattr(cpu, name)(*args)

        return run

    schedules = (lambda: threads(1), lambda: threads(2))
    return Backend(f"winograd{tile}", {name: wrapped(name) for name in PASSES}, schedules=schedules)


def _draw(d):
    pads = (1, 1), (0, 0), (2, 2), (0, 2), (1, 0), (3, 1)
    pad = d.pick("pad", *((a, b) for a in pads for b in pads))
    channels, filters = (d.size(1, 4, 35) for _ in "cf")
    height, width = (d.size(max(1, 3 - sum(p)), 9, 13) for p in pad)
    x, w = d.array((d.batch(), height, width, channels)), d.array((3, 3, channels, filters))
    b = d.pick("b", None, True) and d.array((filters,))
    y = Blank(shapes.conv2d(x.shape, w.shape, (1, 1), pad))
    how = dict(stride=(1, 1), pad=pad, dilation=(1, 1), groups=1)
    return dict(x=x, w=w, b=b, y=y, relu=d.pick("relu", False, True)) | how


@TILES
def test_all_passes_are_within_the_bound(tile):
    case = dataclasses.replace(
        CASES["conv2d"], draw=_draw, bound=bounds(transforms.SCHEMES[tile]), grads=()
    )
    verify(case, by_winograd(tile), "float32")


@TILES
def test_the_bound_tells_one_scheme_from_a_wrong_one(tile, monkeypatch):
    scheme = transforms.SCHEMES[tile]
    near = [list(row) for row in scheme.b]
    near[1][2] *= 1 + Fraction(1, 4096)  # what few would see in a picture of the result
    wrong = scheme._replace(b=tuple(map(tuple, near)))
    monkeypatch.setitem(winograd.SCHEMES, tile, wrong)
    case = dataclasses.replace(CASES["conv2d"], draw=_draw, bound=bounds(scheme), grads=())
    with (
        mock.patch.object(simd, "_compiled", functools.partial(simd._compiled, fresh=True)),
        pytest.raises(Mismatch, match=r"error .*x the bound"),
    ):
        verify(case, by_winograd(tile), "float32", max_examples=5)


@pytest.mark.parametrize("target", HERE, ids=lambda t: t.name)
@TILES
@pytest.mark.parametrize(
    ("x", "filters", "pad"),
    [
        ((1, 9, 11, 3), 17, ((1, 1), (1, 1))),
        ((40, 13, 14, 17), 33, ((0, 0), (2, 0))),  # several blocks
        ((200, 5, 5, 32), 32, ((1, 1), (1, 1))),  # the images of a tile in several blocks
        ((5, 1, 2, 4), 6, ((1, 1), (1, 1))),  # a tile that is mostly padding
        ((24, 7, 6, 130), 150, ((1, 0), (0, 1))),  # planes shared by threads
    ],
)
def test_large_and_odd_shapes(x, filters, pad, tile, target, monkeypatch):
    monkeypatch.setattr(simd, "chosen", target)
    monkeypatch.setattr(winograd, "_WIDE", 1 << 20)  # several blocks there, too
    scheme = transforms.SCHEMES[tile]
    how, limits = ((1, 1), pad, (1, 1), 1), bounds(scheme)
    x, w, b = draw(*x), draw(3, 3, x[3], filters), draw(filters)
    y = shapes.conv2d(x.shape, w.shape, (1, 1), pad)
    dy = draw(*y)
    calls = {
        "conv2d": ((x, w, b), y, (*how, True)),
        "conv2d_grad_x": ((dy, w), x.shape, (*how, False)),
        "conv2d_grad_w": ((dy, x), w.shape, (*how, False)),
    }
    cpu.set_conv("winograd", tile)
    for name, (arrays, shape, numbers) in calls.items():
        want = np.empty(shape)
        getattr(reference, name)(*(a.astype(float) for a in arrays), want, *numbers)
        found = []
        for n in (1, 2):
            with threads(n):
                out = (
                    cpu.empty_image(shape, "f") if name != "conv2d_grad_w" else np.empty(shape, "f")
                )
                found.append(getattr(cpu, name)(*arrays, out, *numbers))
        assert found[0].tobytes() == found[1].tobytes()
        v = mock.Mock(x=x, w=w, b=b, y=np.empty(y), dy=dy, dx=x, pad=pad)
        limit = limits[name](v, None) * np.finfo(np.float32).eps
        assert np.all(np.abs(found[0] - want) <= limit + 1e-12), name


@TILES
def test_winograds_it_is(tile):
    """Not the direct convolution under another name: the bits differ."""
    x, w, y = draw(16, 9, 9, 16), draw(3, 3, 16, 16), np.empty((16, 9, 9, 16), np.float32)
    found = set()
    for choice in ("direct", "winograd"):
        cpu.set_conv(choice, tile)
        found.add(cpu.conv2d(x, w, None, y, *STATIC, False).tobytes())
    assert len(found) == 2


# What is not finite.


@TILES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_as_without_winograd(tile, value):
    """Also sums that overflow here alone, in outputs that relu would make 0, and with add."""
    x, w, b, dy = draw(16, 9, 9, 16), draw(3, 3, 16, 16), draw(16), draw(16, 9, 9, 16)
    x[3, 4, 4, 5] = dy[7, 8, 8, 3] = value
    x[3, 4, 5, 5] = -value  # what Winograd's differences would make larger
    found = []
    for choice in ("direct", "winograd"):
        cpu.set_conv(choice, tile)
        found.append([
            cpu.conv2d(x, w * 1e-3, b, np.empty_like(x), *STATIC, True),
            cpu.conv2d_grad_x(dy, w * 1e-3, np.ones_like(x), *STATIC, True),
            cpu.conv2d_grad_w(dy, x * 1e-3, np.ones_like(w), *STATIC, True),
        ])  # fmt: skip
    for direct, mine in zip(*found):
        np.testing.assert_array_equal(np.isfinite(mine), np.isfinite(direct))
        if not np.isfinite(value):
            assert mine.tobytes() == direct.tobytes()


# Which convolutions are Winograd's.


def suited(x, filters, how=((1, 1), (1, 1), 1), pad=1, size=3, of="y"):
    stride, dilation, groups = how
    pad = (pad, pad), (pad, pad)
    w = (size, size, x[3] // groups, filters)
    arrays = (np.broadcast_to(np.float32(0), s) for s in (x, w))
    y = np.broadcast_to(np.float32(0), shapes.conv2d(x, w, stride, pad, dilation))
    return winograd.suited(of, *arrays, y, stride, pad, dilation, groups)


def test_auto_takes_what_was_measured_to_be_faster():
    cpu.set_conv("auto", 2)
    for of in "yxw":
        assert suited((128, 15, 15, 32), 64, pad=0, of=of)  # the second layer of S2's network
        assert suited((128, 14, 14, 32), 64, of=of)
        assert suited((32, 32, 32, 64), 64, of=of)
        assert not suited((32, 2, 2, 512), 512, of=of), "all but four of nine cells are padding"
        assert not suited((128, 30, 30, 3), 32, of=of)
        assert not suited((32, 15, 15, 32), 64, pad=0, of=of), "too little to do"
    assert not suited((32, 4, 4, 512), 512)
    assert not suited((128, 32, 32, 16), 16)
    cpu.set_conv("auto", 4)
    assert suited((128, 32, 32, 16), 16).outputs == 4


@pytest.mark.parametrize("choice", ["winograd", "auto"])
def test_only_plain_convolutions_of_three_by_three(choice):
    cpu.set_conv(choice, 2)
    x = 128, 16, 16, 64
    assert suited(x, 64)
    assert not suited(x, 64, size=5)
    for how in (((2, 1), (1, 1), 1), ((1, 1), (1, 2), 1), ((1, 1), (1, 1), 2)):
        assert not suited(x, 64, how)
    cpu.set_conv("direct", 2)
    assert not suited(x, 64)


@pytest.mark.parametrize(
    ("x", "filters", "pad"), [((32, 15, 15, 32), 64, 0), ((8, 16, 16, 64), 64, 1)]
)
def test_autos_error_is_within_four_times_that_of_direct(x, filters, pad):
    pad = (pad, pad), (pad, pad)
    x, w = draw(*x), draw(3, 3, x[3], filters)
    dy = draw(*shapes.conv2d(x.shape, w.shape, (1, 1), pad))
    calls = {
        "conv2d": ((x, w, None), dy),
        "conv2d_grad_x": ((dy, w), x),
        "conv2d_grad_w": ((dy, x), w),
    }
    for name, (arrays, like) in calls.items():
        numbers = (1, 1), pad, (1, 1), 1, False
        wide = [a if a is None else a.astype(float) for a in arrays]
        want = getattr(reference, name)(*wide, np.empty(like.shape), *numbers)
        error = {}
        for choice in ("direct", "winograd"):
            cpu.set_conv(choice, 2)
            got = getattr(cpu, name)(*arrays, np.empty_like(like), *numbers)
            error[choice] = np.sqrt(np.square(got - want).mean())
        assert 0 < error["winograd"] < 4 * error["direct"], name


# set_conv.


def test_auto_with_two_by_two_is_what_one_gets():
    code = "import minidl; print(*minidl.get_conv())"
    env = {k: v for k, v in os.environ.items() if k != "MINIDL_CPU"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.stdout.split() == ["auto", "2"], run.stderr


def test_wrong_choices_name_the_right_ones(monkeypatch):
    with pytest.raises(ValueError, match=r"did you mean 'winograd'.*known: auto, direct, winograd"):
        md.set_conv("vinograd")
    with pytest.raises(ValueError, match="tile is 3, but must be 2 or 4"):
        md.set_conv("auto", tile=3)
    with pytest.raises(ValueError, match="known"):
        cpu.set_conv("auto", 3)
    md.set_conv("winograd", tile=4)
    assert md.get_conv() == ("winograd", 4)
    monkeypatch.setattr(simd, "chosen", None)
    with pytest.raises(RuntimeError, match="needs the vectors"):
        md.set_conv("winograd")


def test_numpy_alone_is_direct():
    code = """
import minidl
assert minidl.get_conv() == ("direct", 2)
minidl.set_conv("auto")
try:
    minidl.set_conv("winograd")
except RuntimeError as error:
    print(error)
"""
    env = os.environ | {"MINIDL_CPU": "reference"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "computes convolutions directly, always" in run.stdout, run.stderr


def test_captured_steps_follow_set_conv():
    """A program calls the launchers, which ask what is chosen: it is never baked in."""
    md.manual_seed(0)
    layer = md.nn.Conv2d(16, 16, 3, padding=1)
    x = md.Tensor(draw(16, 9, 9, 16))

    def step(x):
        for p in layer.parameters():
            p.grad = None
        y = layer(x)
        (y * y).sum().backward()
        return y.detach(), layer.weight.grad

    def bits(found):
        return [t.numpy().tobytes() for t in found]

    captured, seen = md.capture(step), []
    for choice, tile in (("direct", 2), ("winograd", 2), ("winograd", 4), ("direct", 2)):
        md.set_conv(choice, tile)
        for _ in range(3):
            result = bits(captured(x))
            assert result == bits(step(x))
        assert captured.replayed
        seen.append(tuple(result))
    assert len(set(seen)) == 3
    assert seen[0] == seen[3]


@TILES
def test_working_space_is_reused(tile):
    """After the first call nothing that grows with the images is allocated."""
    cpu.set_conv("winograd", tile)
    x, w, dw = (
        (draw(16, 16, 16, 32) for _ in "x"),
        draw(3, 3, 32, 32),
        np.empty((3, 3, 32, 32), "f"),
    )
    x = next(x).transpose(1, 2, 0, 3).copy().transpose(2, 0, 1, 3)
    y = cpu.empty_like(x)

    def step():
        cpu.conv2d(x, w, w[0, 0, 0], y, *STATIC, True)
        cpu.conv2d_grad_x(y, w, x, *STATIC, False)
        cpu.conv2d_grad_w(y, x, dw, *STATIC, True)

    with threads(1):
        step()
        tracemalloc.start()
        try:
            step()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 50_000


def test_a_layer_through_the_front_door():
    md.set_conv("winograd", tile=2)
    x, w = (md.Tensor(draw(*s), requires_grad=True) for s in ((8, 6, 6, 4), (3, 3, 4, 8)))
    F.conv2d(x, w, padding="same").sum().backward()
    ones = np.ones((8, 6, 6, 8))
    want = reference.conv2d_grad_w(
        ones, x.detach().numpy().astype(float), np.empty((3, 3, 4, 8)), *STATIC, False
    )
    np.testing.assert_allclose(w.grad.numpy(), want, rtol=1e-4, atol=1e-4)
