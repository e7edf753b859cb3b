"""The CPU kernels: equal to the definition, the same bits on any number of threads, cached well."""

import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import minidl.kernels
from minidl.kernels import cpu, reference, shapes
from minidl.kernels.cpu import _threads, vector
from minidl.kernels.roles import roles

KERNELS = Path(minidl.kernels.__file__).parent
VALID, SAME = ((0, 0), (0, 0)), ((1, 1), (1, 1))


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def image_cases() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Arguments of the kernels on images; an output is given as its shape."""
    for x, w, stride, pad, dilation, groups in [
        ((3, 7, 6, 3), (3, 3, 3, 4), (1, 1), SAME, (1, 1), 1),
        ((2, 9, 8, 2), (2, 3, 2, 5), (2, 1), ((0, 1), (2, 0)), (1, 1), 1),
        ((2, 4, 4, 2), (3, 3, 2, 3), (1, 2), ((7, 7), (8, 9)), (1, 1), 1),
        ((2, 5, 5, 4), (1, 1, 4, 3), (3, 2), VALID, (1, 1), 1),
        ((40, 30, 30, 8), (3, 3, 8, 8), (1, 1), VALID, (1, 1), 1),  # several blocks, threads
        ((2, 9, 8, 4), (2, 3, 4, 3), (2, 1), ((0, 1), (2, 0)), (3, 2), 1),
        ((3, 7, 6, 6), (3, 3, 2, 9), (1, 2), SAME, (1, 1), 3),
        ((2, 4, 5, 6), (2, 2, 3, 4), (1, 1), ((7, 7), (8, 9)), (2, 3), 2),
        ((40, 30, 30, 8), (3, 3, 4, 8), (1, 1), VALID, (2, 1), 2),
    ]:
        y, how = shapes.conv2d(x, w, stride, pad, dilation), (stride, pad, dilation, groups)
        yield "conv2d", (draw(*x), draw(*w), draw(w[3]), y, *how, True)
        yield "conv2d", (draw(*x), draw(*w), None, y, *how, False)
        yield "conv2d_grad_x", (draw(*y), draw(*w), x, *how, False)
        yield "conv2d_grad_w", (draw(*y), draw(*x), w, *how, False)
    for x, size, stride, pad in [
        ((5, 8, 8, 3), (2, 2), (2, 2), VALID),
        ((32, 30, 31, 16), (2, 2), (2, 2), VALID),
        ((2, 7, 6, 5), (3, 2), (1, 2), SAME),
        ((2, 5, 5, 2), (1, 2), (2, 3), ((2, 2), (3, 3))),  # some windows hold only padding
    ]:
        y = shapes.pool2d(x, size, stride, pad)
        ties = np.round(draw(*x))
        ties.reshape(-1)[::17], ties.reshape(-1)[::19] = np.nan, -np.inf
        yield "max_pool2d", (ties, y, y, size, stride, pad)
        arg = reference.max_pool2d(ties, np.empty(y), np.empty(y, np.int32), size, stride, pad)[1]
        yield "max_pool2d_grad", (draw(*y), arg, x, size, stride, pad, False)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 6, 3), dtype=np.uint8)
    index, scale = np.array([3, 0, 8, 3]), np.array([0.5, 2, 0.25], np.float32)
    for images, pad, flip in [(pixels, 0, False), (pixels, 2, True), (draw(9, 7, 6, 3), 9, True)]:
        yield "image_batch", (images, index, scale, -scale, (4, 7, 6, 3), 2**40 + 5, 3, pad, flip)
        matrix = np.random.default_rng(pad).integers(-(2**33), 2**33, (4, 2, 3))
        yield "affine_batch", (images, index, matrix, scale, -scale, (4, 9, 5, 3), flip)


def depthwise_cases() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Whole and broken vectors of channels; lines of pixels that fours do not fill; edges alone."""
    for x, w, stride, pad, dilation in [
        ((3, 7, 6, 3), (3, 3, 3, 1), (1, 1), SAME, (1, 1)),
        ((2, 9, 31, 70), (3, 3, 70, 1), (1, 1), SAME, (1, 1)),
        ((2, 12, 23, 33), (3, 4, 33, 2), (2, 3), ((1, 0), (4, 2)), (2, 2)),
        ((2, 9, 22, 64), (2, 5, 64, 1), (3, 2), ((2, 1), (3, 4)), (3, 1)),
        ((2, 4, 4, 2), (3, 3, 2, 1), (1, 2), ((7, 7), (8, 9)), (1, 1)),
        ((2, 8, 9, 32), (2, 2, 32, 1), (4, 4), VALID, (1, 2)),  # pixels that no window covers
        ((64, 20, 20, 32), (3, 3, 32, 1), (2, 2), SAME, (1, 1)),  # threads
    ]:
        size = shapes.pool2d(x, shapes.extent(w[:2], dilation), stride, pad)[:3]
        y, static = (*size, w[2] * w[3]), (stride, pad, dilation)
        yield "depthwise_conv2d", (draw(*x), draw(*w), draw(y[3]), y, *static, True)
        yield "depthwise_conv2d", (draw(*x), draw(*w), None, y, *static, False)
        yield "depthwise_conv2d_grad_x", (draw(*y), draw(*w), x, *static, False)
        yield "depthwise_conv2d_grad_w", (draw(*y), draw(*x), w, *static, False)
    for x, size, stride, pad in [
        ((32, 30, 31, 16), (2, 2), (2, 2), VALID),
        ((2, 7, 6, 5), (3, 2), (1, 2), SAME),
        ((2, 9, 9, 3), (2, 2), (3, 4), VALID),
    ]:
        y = shapes.pool2d(x, size, stride, pad)
        for counted in (True, False):
            yield "avg_pool2d", (draw(*x), y, size, stride, pad, counted)
            yield "avg_pool2d_grad", (draw(*y), x, size, stride, pad, counted, False)


def other_cases() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Arguments of all other kernels."""
    for r, i, o in [(4, 3, 2), (64, 784, 128)]:
        x, w, dy = draw(r, i), draw(i, o), draw(r, o)
        yield "linear", (x, w, draw(o), (r, o), True)
        yield "linear", (x, w, None, (r, o), False)
        yield "linear_grad_x", (dy, w, (r, i), False)
        yield "linear_grad_w", (dy, x, (i, o), False)
    key, label = np.array([2**35 + 5, 2**32 - 3], np.uint64), np.array([2, 0, 1, 1, 2, 0, 1])
    for shape in [(7, 3), (33, 4, 5, 8), (90, 30, 100, 1)]:
        x, dy, c = draw(*shape), draw(*shape, seed=1), shape[-1]
        x.reshape(-1)[::29] = 0
        mean, var, w = draw(c), np.square(draw(c, seed=2)), draw(c, seed=3)
        yield "relu_grad", (dy, np.maximum(x, 0), shape, False)
        for name in ("abs_grad", "relu6_grad", "sigmoid_grad", "tanh_grad", "silu_grad"):
            yield name, (dy, 4 * x, shape, False)
        yield "clip_grad", (dy, x, shape, -0.5, 1.0, False)
        yield "leaky_relu", (x, shape, 0.1)
        yield "leaky_relu_grad", (dy, x, shape, 0.1, False)
        for approximate in ("none", "tanh"):
            yield "gelu", (x, shape, approximate)
            yield "gelu_grad", (dy, x, shape, approximate, False)
        yield "sum_rows", (dy, (c,), False)
        yield "dropout", (x, key, shape, 0.3)
        yield "dropout", (x, key, shape, 1.0)
        yield "dropout_grad", (dy, key, shape, 0.3, False)
        yield "batch_norm", (x, w, mean, dy, shape, (c,), (c,), 1e-5, True)
        yield "batch_norm", (x, None, None, None, shape, (c,), (c,), 1e-5, False)
        yield "batch_norm_eval", (x, w, None, None, mean, var, shape, 1e-5, True)
        outs = shape, (c,), (c,), shape
        for relu in (True, False):
            yield "batch_norm_grad", (dy, x, w, mean, var, x, *outs, 1e-5, relu, (False,) * 4)
    x, strange = draw(7, 3), draw(7, 3)
    strange[1, 0], strange[2], strange[3, 1], strange[4] = np.inf, -np.inf, np.nan, 80
    for logits in (x, 100 * x, strange):
        lse = run(reference.cross_entropy, (logits, label, (7,), (7,), 1))[1]
        yield "log_softmax", (logits, (7, 3))
        yield "cross_entropy", (logits, label, (), (7,), 0.25)
        yield "cross_entropy", (logits, label, (7,), (7,), 0.25)
        yield "cross_entropy_grad", (draw(), logits, label, lse, (7, 3), 0.25, False)
        yield "cross_entropy_grad", (draw(7), logits, label, lse, (7, 3), 0.25, False)
    yield "take_grad", (draw(2, 3, 4), np.array([[1, -1, 1], [0, 4, 1]]), (5, 4), False)
    places = np.array([[[2, -1, 0]], [[1, 1, -3]]])
    yield "gather", (draw(2, 3, 3), places, (2, 1, 3), 1)
    yield "gather_grad", (draw(2, 1, 3), places, (2, 3, 3), 1, False)
    betas = np.float32([(beta, 1 - beta, math.log(beta)) for beta in (0.9, 0.999)])
    momentum = betas[0, :1]
    dp, p, lr, t = draw(1000), draw(1000, seed=1), np.array([0.1], "f"), np.array([3])
    m, v = draw(1000, seed=2), np.square(draw(1000, seed=3))
    yield "sgd_step_", (dp, lr, momentum, p, None, 0.0, False)
    yield "sgd_step_", (dp, lr, momentum, p, m, 0.01, True)
    yield "adam_step_", (dp, lr, betas, t, p, m, v, 1e-8, 0.01, False)
    yield "adam_step_", (dp, lr, betas, t, p, m, v, 1e-8, 0.01, True)
    yield "rmsprop_step_", (dp, lr, momentum, p, v, None, None, 0.9, 1e-8, 0.0)
    yield "rmsprop_step_", (dp, lr, momentum, p, v, draw(1000, seed=4), m, 0.9, 0.1, 0.01)
    yield "adagrad_step_", (dp, lr, t, p, v, 0.1, 0.01, 1e-10, 0.01)


def run(kernel: Callable[..., Any], arguments: tuple[Any, ...], dtype=np.float32, form=None):
    """Call a kernel on copies of its arguments; returns what it wrote, outputs set to NaN before.

    form: how each array is brought into another memory layout.
    """
    given, written = [], []
    for value, role in zip(arguments, roles(kernel).values(), strict=True):
        name = list(roles(kernel))[len(given)]
        if role == "out":
            value = np.full(value, -99, np.int32) if name == "arg" else np.full(value, np.nan, "f")
        if isinstance(value, np.ndarray):
            value = value.astype(dtype) if value.dtype == np.float32 else value.copy()
            value = form(value) if form else value
        if role in ("out", "inout") and value is not None:
            written.append(value)
        given.append(value)
    with np.errstate(all="ignore"):
        kernel(*given)
    return written


CASES = [*image_cases(), *depthwise_cases(), *other_cases()]
NUMBERED = pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: f"{CASES[n][0]}-{n}")


@NUMBERED
def test_equals_the_definition(number: int) -> None:
    name, arguments = CASES[number]
    found = run(getattr(cpu, name), arguments)
    exact = run(getattr(reference, name), arguments, np.float64)
    for mine, right in zip(found, exact, strict=True):
        finite = np.abs(right[np.isfinite(right)])
        scale = finite.max(initial=1e-30) if right.dtype.kind == "f" else 0
        np.testing.assert_allclose(mine, right, rtol=1e-6, atol=1e-5 * scale)


def shifted(x: np.ndarray) -> np.ndarray:
    """x at an odd address, in Fortran order."""
    room = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape[::-1]).T
    room[...] = x
    return room


def images(x: np.ndarray) -> np.ndarray:
    """Batches of images in the memory order H, W, N, C."""
    if x.ndim != 4:
        return x
    return np.ascontiguousarray(x.transpose(1, 2, 0, 3)).transpose(2, 0, 1, 3)


def gaps(x: np.ndarray) -> np.ndarray:
    """x with holes between its elements, counted backwards."""
    room = np.empty([2 * n for n in x.shape], x.dtype)[(..., *[slice(None, None, -2)] * x.ndim)]
    room[...] = x
    return room


@NUMBERED
@pytest.mark.parametrize("form", [shifted, gaps, images])
def test_any_memory_layout_gives_the_same(number: int, form: Callable[..., Any]) -> None:
    name, arguments = CASES[number]
    plain, strange = (
        run(getattr(cpu, name), arguments),
        run(getattr(cpu, name), arguments, form=form),
    )
    for a, b in zip(plain, strange, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(np.nan_to_num(a)).max())


@NUMBERED
def test_adding_equals_a_separate_add(number: int) -> None:
    name, arguments = CASES[number]
    kernel = getattr(cpu, name)
    if "add" not in roles(kernel):
        return
    flags = arguments[-1]
    added = (True,) * len(flags) if isinstance(flags, tuple) else True
    outs = [s for s, role in zip(arguments, roles(kernel).values(), strict=True) if role == "out"]
    before = [draw(*shape, seed=9) for shape in outs]
    filled, waiting = run(kernel, arguments), iter([b.copy() for b in before])
    given = [
        next(waiting) if role == "out" else value
        for value, role in zip(arguments[:-1], roles(kernel).values(), strict=False)
    ]
    got = kernel(*given, added)
    for sum_, old, value in zip(
        got if isinstance(got, tuple) else [got], before, filled, strict=True
    ):
        np.testing.assert_array_equal(sum_, old + value)


# ---- the cache of compiled code

STEP = """
import sys, numpy as np
sys.path.insert(0, {root!r})
import minidl
from minidl.kernels import ahead, cpu
from minidl.kernels.cpu import elementwise, random
ahead.NOTICEABLE = 0
x = np.ones(4096, np.float32)
cpu.relu_grad(x, x, np.empty_like(x), False)
cpu.dropout(x, np.array([1, 2], np.uint64), x_ := np.empty_like(x), 0.5)
print(x_.sum())
"""


def child(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    keep = {k: v for k, v in os.environ.items() if k not in ("MINIDL_QUIET", "OMP_WAIT_POLICY")}
    return subprocess.run(
        [sys.executable, "-B", "-c", code],
        env=keep | environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=KERNELS.parent,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of our own, whose kernels a test may edit."""
    ours = Path(minidl.__file__).parent
    shutil.copytree(
        ours, tmp_path / "minidl", ignore=shutil.ignore_patterns("__pycache__", "files")
    )
    hidden = shutil.ignore_patterns("__pycache__", "cuda")
    shutil.copytree(KERNELS, tmp_path / "kernels", ignore=hidden)
    return tmp_path


def codes(root: Path) -> list[Path]:
    return sorted(root.rglob("*.code"))


SAID = re.compile(
    "minidl: compiling kernels for this machine, once ...\\n"
    r"(.*)minidl: compiled (\d+) kernels? in \d+\.\d s(, cached for next time)?\n",
    re.DOTALL,
)


def compiled(done: subprocess.CompletedProcess[str]) -> int:
    """How many kernels a process says that it compiled and put into the cache."""
    if not done.stderr:
        return 0
    said = SAID.fullmatch(done.stderr)
    assert said and said[1] == "" and said[3], done.stderr
    return int(said[2])


def test_a_second_process_compiles_nothing(checkout: Path) -> None:
    home = str(checkout / "cache")
    step = STEP.format(root=str(checkout))
    first = child(step, MINIDL_CACHE=home)
    kept = {path: path.stat().st_mtime_ns for path in codes(checkout)}
    assert compiled(first) == len(kept)
    assert len({path.name.split("-")[0] for path in kept}) == 4, list(kept)
    second = child(step, MINIDL_CACHE=home)
    assert second.stderr == "" and second.stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in codes(checkout)} == kept
    assert child(step, MINIDL_CACHE=home + "2", MINIDL_QUIET="1").stderr == ""
    patient = step.replace("NOTICEABLE = 0", "NOTICEABLE = 60")
    assert child(patient, MINIDL_CACHE=home + "3").stderr == ""


def test_an_edit_of_a_function_called_from_another_file_is_seen(checkout: Path) -> None:
    home, step = str(checkout / "cache"), STEP.format(root=str(checkout))
    callee = checkout / "kernels" / "cpu" / "scalar.py"
    callee.write_text("from ._numba import jit\n@jit\ndef twice(x):\n    return x * 2\n")
    (checkout / "kernels" / "cpu" / "caller.py").write_text(
        "from ._numba import jit\nfrom .scalar import twice\n@jit\ndef f(x):\n    return twice(x)\n"
    )
    step += "\nfrom minidl.kernels.cpu.caller import f\nprint(f(10))"
    assert child(step, MINIDL_CACHE=home).stdout.split()[-1] == "20"
    callee.write_text(callee.read_text().replace("x * 2", "x * 3"))
    edited = child(step, MINIDL_CACHE=home)
    assert edited.stdout.split()[-1] == "30" and compiled(edited)
    assert len({path.parent for path in codes(checkout)}) == 2


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_a_damaged_file_is_compiled_again(checkout: Path, harm: str) -> None:
    home, step = str(checkout / "cache"), STEP.format(root=str(checkout))
    whole = child(step, MINIDL_CACHE=home)
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in codes(checkout)}
    for path in before:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[harm])
    again = child(step, MINIDL_CACHE=home)
    assert again.stdout == whole.stdout and compiled(again) == len(before)
    assert codes(checkout) == sorted(before)
    assert child(step, MINIDL_CACHE=home).stderr == ""


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have owners on POSIX only")
def test_the_code_of_another_user_is_not_run(checkout: Path) -> None:
    home, step = str(checkout / "cache"), STEP.format(root=str(checkout))
    child(step, MINIDL_CACHE=home)
    somebody_else = "import os\nos.getuid = lambda: -1\n" + step
    assert compiled(child(somebody_else, MINIDL_CACHE=home)) == len(codes(checkout))


def test_a_folder_that_cannot_be_written_costs_one_warning(checkout: Path) -> None:
    (checkout / "file").write_text("in the way")
    done = child(STEP.format(root=str(checkout)), MINIDL_CACHE=str(checkout / "file"))
    said = SAID.fullmatch(done.stderr)
    assert done.stdout and said and not said[3]
    assert said[1].startswith("minidl: compiled kernels cannot be kept")
    assert said[1].count("\n") == 1


def test_processes_may_race_for_the_folder(checkout: Path) -> None:
    home, step = str(checkout / "cache"), STEP.format(root=str(checkout))
    environment = os.environ | {"MINIDL_CACHE": home}
    racers = [
        subprocess.Popen([sys.executable, "-c", step], env=environment, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [racer.wait() for racer in racers] == [0, 0]
    assert child(step, MINIDL_CACHE=home).stderr == ""
    assert all(path.suffix == ".code" for path in (checkout / "cache").rglob("*") if path.is_file())


def test_vectors_are_values_in_compiled_functions() -> None:
    lanes, load, at_least = vector.LANES, vector.load, vector.at_least
    plus, plus_product, splat, store = (
        getattr(vector, name) for name in ("plus", "plus_product", "splat", "store")
    )

    @numba.njit
    def both(x, y, low):
        total = splat(np.float32(1))
        for i in range(0, x.size, lanes):  # a value that a loop carries on
            total = plus_product(total, load(x, i), splat(np.float32(2)))
        store(y, 1, at_least(plus(total, total), splat(low)))

    x, y = draw(3 * lanes), np.full(lanes + 2, 7, np.float32)
    x[:2] = np.nan, -np.inf
    both(x, y, np.float32(0.5))
    expected = np.maximum(2 * (1 + 2 * x.reshape(3, lanes).sum(axis=0)), 0.5)
    np.testing.assert_allclose(y[1:-1], expected, rtol=1e-5)
    assert (y[0], y[-1]) == (7, 7)


def test_numba_itself_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own jitted functions keep Numba's settings and its threads."""
    names = {"NUMBA_CACHE_DIR", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"}
    for name in names:  # whoever runs the tests may have set them
        monkeypatch.delenv(name, raising=False)
    code = "import minidl.kernels.cpu, numba, os; print(numba.config.CACHE_DIR, *os.environ)"
    assert not names & set(child(code).stdout.split())


# ---- threads

BITS = """
import hashlib, sys
import numpy as np
from minidl.kernels import cpu
rng = np.random.default_rng(0)
def draw(*shape): return rng.normal(size=shape).astype(np.float32)
x, w, dy = draw(48, 30, 30, 8), draw(3, 3, 8, 8), draw(48, 28, 28, 8)
one, pool = ((0, 0), (0, 0)), ((2, 2), (2, 2), ((0, 0), (0, 0)))
own, apart = draw(3, 3, 8, 1), ((1, 1), one, (1, 1), False)
y, arg = cpu.max_pool2d(x, np.empty((48, 15, 15, 8), "f"), np.empty((48, 15, 15, 8), "i4"), *pool)
how = (1, 1), one, (1, 1), 1
key, c = np.array([3, 4], np.uint64), np.empty(8, "f")
betas = np.array([[0.9, 0.1, -0.105], [0.999, 0.001, -0.001]], "f")
out = np.empty_like(x), c.copy(), c.copy()
n, mean, var = cpu.batch_norm(x, c * 0 + 2, None, None, *out, 1e-5, True)
p, m, v = draw(200_000), draw(200_000), np.abs(draw(200_000))
for name, result in {
    "conv2d": cpu.conv2d(x, w, draw(8), np.empty_like(dy), *how, False),
    "conv2d_grad_x": cpu.conv2d_grad_x(dy, w, np.empty_like(x), *how, False),
    "conv2d_grad_w": cpu.conv2d_grad_w(dy, x, np.empty_like(w), *how, False),
    "max_pool2d": y, "arg": arg, "batch_norm": n, "mean": mean, "var": var,
    "max_pool2d_grad": cpu.max_pool2d_grad(y, arg, np.empty_like(x), *pool, False),
    "relu_grad": cpu.relu_grad(x, n, np.empty_like(x), False),
    "dropout": cpu.dropout(x, key, np.empty_like(x), 0.5),
    "depthwise_conv2d": cpu.depthwise_conv2d(x, own, None, np.empty_like(dy), *apart),
    "depthwise_conv2d_grad_x": cpu.depthwise_conv2d_grad_x(dy, own, np.empty_like(x), *apart),
    "depthwise_conv2d_grad_w": cpu.depthwise_conv2d_grad_w(dy, x, np.empty_like(own), *apart),
    "avg_pool2d": cpu.avg_pool2d(x, np.empty_like(y), *pool, True),
    "avg_pool2d_grad": cpu.avg_pool2d_grad(y, np.empty_like(x), *pool, True, False),
    "sum_rows": cpu.sum_rows(dy, c.copy(), False),
    "batch_norm_grad": cpu.batch_norm_grad(
        x, x, None, mean, var, n, np.empty_like(x), c.copy(), c.copy(), np.empty_like(x),
        1e-5, True, (False,) * 4
    ),
    "adam_step_": cpu.adam_step_(
        p[::-1], draw(1), betas, np.array([2]), p, m, v, 1e-8, 0.01, False
    ),
}.items():
    for part in result if isinstance(result, tuple) else [result]:
        print(name, hashlib.sha256(np.ascontiguousarray(part)).hexdigest())
"""


def test_one_and_two_threads_give_the_same_bits() -> None:
    one, two, again = (child(BITS, NUMBA_NUM_THREADS=n).stdout for n in ("1", "2", "2"))
    assert len(one.splitlines()) == 24
    assert one == two == again


def test_tasks_are_done_once_each_and_errors_come_through() -> None:
    done: list[int] = []
    _threads.share(1000, done.append)
    assert sorted(done) == list(range(1000))

    def fails(number: int) -> None:
        if number == 500:
            raise KeyError(number)

    with pytest.raises(KeyError, match="500"):
        _threads.share(1000, fails)


def test_a_forked_child_can_share_work() -> None:
    code = BITS.split("for name, result")[0] + "\n".join(
        [
            "import os, warnings",
            "warnings.simplefilter('ignore')",
            "child = os.fork()",
            "cpu.conv2d(x, w, None, np.empty_like(dy), *how, False)",
            "os._exit(0) if child == 0 else sys.exit(os.waitpid(child, 0)[1])",
        ]
    )
    if hasattr(os, "fork"):
        child(code, NUMBA_NUM_THREADS="2")


def test_blas_gets_its_threads_back() -> None:
    if _threads._blas is None:
        with _threads.single_blas() as alone:
            assert not alone
        return
    count, limit = _threads._blas
    before = count()
    try:
        limit(2)
        with _threads.single_blas() as alone, _threads.single_blas():
            assert alone and count() == 1
        assert count() == 2
    finally:
        limit(before)


def test_helpers_are_as_quiet_about_inf_as_their_caller() -> None:
    def task(number: int) -> None:
        time.sleep(0.001)  # long enough for helpers to take part
        np.subtract(np.array(np.inf), np.inf)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        _threads.share(100, task)


def test_depthwise_windows_outside_of_the_image_on_both_sides_are_not_alike():
    """Pixels are done four at a time where the same cells lie inside; these four differ within."""
    from minidl.kernels import cpu, reference

    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((1, 4, 5, 3), (3, 1, 3, 1)))
    how = (2, 2), ((1, 1), (1, 1)), (1, 1), False
    mine, want = np.empty((1, 2, 4, 3), np.float32), np.empty((1, 2, 4, 3), np.float32)
    cpu.depthwise_conv2d(x, w, None, mine, *how)
    reference.depthwise_conv2d(x, w, None, want, *how)
    np.testing.assert_allclose(mine, want, rtol=1e-5, atol=1e-6)
