"""Compiling CUDA kernels without a GPU: the report on all of them, fingerprints, what is kept."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from minidl.kernels import report
from minidl.kernels.cuda import _numba, arguments, cache, cubin
from minidl.kernels.cuda._numba import Launch, cuda, device, intrinsic, jit

pytestmark = pytest.mark.emulator
ROOT = Path(__file__).parents[1]


# ---- our kernels


@pytest.mark.slow
def test_every_kernel_keeps_the_rules():
    done = subprocess.run(
        [sys.executable, "-m", "minidl.kernels.report", "--json"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["cc"] for row in rows} == {"7.5", "8.0", "9.0"}
    assert {row["kernel"] for row in rows} == {report.name_of(k) for k in report.kernels()}
    assert all(row["registers"] > 0 for row in rows)
    tensor_cores = {row["cc"] for row in rows if row["kernel"] == "ladder._tensor_cores"}
    assert tensor_cores == {"8.0", "9.0"}


def test_every_kernel_has_a_fingerprint():
    found = report.kernels()
    assert len(found) > 50
    assert [report.name_of(k) for k in found if cache.fingerprint(k) is None] == []


# ---- kernels that break a rule


@jit
def clean(x, y):
    i = cuda.grid(1)
    if i < x.size:
        y[i] = x[i] + x.dtype.type(1)


@jit
def leaks_float64(x, y):
    y[0] = x[0] * 0.1


@jit
def has_a_stack_frame(x, y):
    a = cuda.local.array(64, x.dtype)
    for i in range(x.size):
        a[i] = x[i]
    y[0] = a[int(x[0])]


@jit
def spills(x, y):
    a, b = cuda.local.array(20, x.dtype), cuda.local.array(16, x.dtype)
    total = cuda.local.array((20, 16), x.dtype)  # more than the 255 registers of a thread
    for i in range(20):
        for j in range(16):
            total[i, j] = x.dtype.type(0)
    for k in range(x.size - 36):
        for i in range(20):
            a[i] = x[k + i]
        for j in range(16):
            b[j] = x[k + 20 + j]
        for i in range(20):
            for j in range(16):
                total[i, j] += a[i] * b[j]
    for i in range(20):
        for j in range(16):
            y[16 * i + j] = total[i, j]


@jit
def does_not_compile(x, y):
    y[0] = x[0].no_such_thing


@jit(min_cc=(9, 0))
def of_today(x, y):
    y[0] = x[0]


def launch(kernel, threads=64, dtype="f4", shared=0):
    given = np.zeros(500, dtype), np.zeros(500, dtype)
    return Launch(kernel, arguments.signature(kernel, given), threads, shared)


@pytest.fixture
def report_on(monkeypatch, tmp_path, capsys):
    """The report, on other launches: exit status, output, errors."""
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))

    def run(*launches, flags=(), more=()):
        monkeypatch.setattr(report, "launches", lambda: list(launches))
        monkeypatch.setattr(report, "kernels", lambda: [*{a.kernel for a in launches}, *more])
        status = report.main(["--jobs", "1", *flags])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("cc", "threads", "registers", "shared", "share"),
    [
        ((8, 0), 256, 32, 0, 1.0),  # 8 blocks of 256 are all threads that there can be
        ((8, 0), 256, 64, 0, 0.5),  # 16,384 registers each: 4 blocks
        ((8, 0), 256, 32, 48 << 10, 3 / 8),  # 49 KB each, the system's included, of 164
        ((7, 5), 256, 32, 48 << 10, 1 / 4),  # one block of 64 KB
        ((9, 0), 32, 32, 0, 0.5),  # 32 blocks at most
        ((7, 5), 1, 8, 0, 0.5),  # a warp is a warp
        ((12, 0), 256, 32, 0, None),
    ],
)
def test_occupancy_is_what_the_scarcest_resource_allows(cc, threads, registers, shared, share):
    assert report.occupancy(cc, threads, registers * max(threads, 32), shared) == share


def test_nothing_to_complain_about(report_on):
    status, table, errors = report_on(launch(clean), launch(clean, dtype="f8"))
    assert status == 0 and not errors
    lines = table.splitlines()
    assert len(lines) == 1 + 3 + 1 + 1  # head, float32 on three architectures, float64 on one
    assert lines[0].split()[:3] == ["kernel", "types", "cc"]
    assert lines[1].split()[:4] == ["test_compile_report.clean", "2x", "f32[1]", "7.5"]
    assert lines[0].endswith("occupancy") and lines[1].endswith(" 100%")  # 16 blocks of 64
    assert lines[-1] == "4 specialisations of 1 kernels, 0 wrong"


@pytest.mark.parametrize(
    ("kernel", "rule"),
    [(leaks_float64, "f64"), (has_a_stack_frame, "stack"), (spills, "spills")],
    ids=lambda a: getattr(a, "__name__", a),
)
def test_a_broken_rule_is_told(report_on, kernel, rule):
    status, table, errors = report_on(launch(clean), launch(kernel), flags=["--cc", "8.0"])
    assert status == 1
    assert rule in table.splitlines()[2].partition("<-")[2]
    assert f"{kernel.__name__} (2x f32[1]; 8.0): " in errors
    assert "clean" not in errors
    status, _, _ = report_on(launch(kernel, dtype="f8"), flags=["--cc", "8.0"])
    assert status == 0  # of float64 nothing but the registers is asked


def test_an_exception_is_allowed_by_name(report_on, monkeypatch):
    name = report.name_of(leaks_float64)
    monkeypatch.setitem(report.ALLOWED, (name, "f64"), "because")
    assert report_on(launch(leaks_float64))[0] == 0


def test_more_registers_than_there_are(report_on):
    fits, too_many = launch(spills, 256, "f8"), launch(spills, 1024, "f8")
    assert report_on(fits)[0] == 0
    status, _, errors = report_on(too_many)
    assert status == 1 and errors.rstrip().endswith(": registers")


def test_a_kernel_that_does_not_compile(report_on):
    status, _, errors = report_on(launch(does_not_compile))
    assert status == 1 and "TypingError" in errors


def test_a_kernel_that_nobody_launches(report_on):
    status, _, errors = report_on(launch(clean), more=[leaks_float64])
    assert status == 1 and "leaks_float64 (; ): nothing here launches it" in errors


def test_older_architectures_are_left_out(report_on):
    _, text, _ = report_on(launch(of_today), flags=["--json"])
    assert [row["cc"] for row in json.loads(text)] == ["9.0"]


def test_other_architectures(report_on):
    _, text, _ = report_on(launch(clean), flags=["--json", "--cc", "8.6,12.0"])
    assert [row["cc"] for row in json.loads(text)] == ["8.6", "12.0"]


def test_types_in_few_letters():
    given = np.zeros(3, "f4"), np.zeros((2, 2), "f4"), np.zeros((2, 2), "f4"), True, 3
    kernel = jit(lambda a, b, c, d, e: None)
    assert report.short(arguments.signature(kernel, given)) == "f32[1] 2x f32[2] bool i64"
    strided = np.zeros(6, "f4")[::2]
    assert report.short(arguments.signature(clean, (strided, strided))) == "2x f32[1]*"


# ---- what is kept


def test_a_cubin_is_kept_and_read_back(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    kinds = launch(clean).signature
    first = cubin.compiled(clean, kinds, (8, 0))
    assert first.code.startswith(b"\x7fELF") and first.entry.encode() in first.code
    monkeypatch.setattr(cubin, "compile_ptx", lambda *_: pytest.fail("compiled again"))
    assert cubin.compiled(clean, kinds, (8, 0)) == first
    for file in tmp_path.rglob("*.cubin"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(pytest.fail.Exception, match="compiled again"):
        cubin.compiled(clean, kinds, (8, 0))


def test_a_folder_that_cannot_be_written_is_told_once(monkeypatch, tmp_path, capsys):
    (tmp_path / "kernels").write_text("in the way")
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    cache._say_once.cache_clear()
    for _ in range(2):
        cache.store("cubin", "key", b"code")
    assert capsys.readouterr().err.count("CUDA kernels cannot be kept") == 1
    assert cache.load("cubin", "key") is None


def test_compilers_that_are_missing_or_do_not_fit(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    ptx = cubin.compile_ptx
    monkeypatch.setattr(
        cubin, "compile_ptx", lambda *a: ptx(*a).replace(".version 9.0", ".version 9.9")
    )
    with pytest.raises(RuntimeError, match=r"newer than nvJitLink.*pip install 'cuda-toolkit"):
        cubin.compiled(clean, launch(clean).signature, (8, 0))
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    cubin.toolkit.cache_clear()
    with pytest.raises(RuntimeError, match=r"one is missing: pip install 'minidl\[cuda13\]'"):
        cubin.toolkit()


# ---- fingerprints


def kernel_of(source, **names):
    """A kernel from source, which refers to the given names."""
    found = {"cuda": cuda, **names}
    exec(source, found)
    return jit(found["f"])


def mark(source, **names):
    return cache.fingerprint(kernel_of(source, **names))


def test_a_fingerprint_is_that_of_the_code_not_of_its_place():
    source = "def f(x):\n    x[0] = 1\n"
    assert mark(source) == mark("\n\n# moved\n" + source)
    assert mark(source) != mark("def f(x):\n    x[0] = 2\n")
    assert mark(source) != mark("def f(x):\n    x[1] = 1\n")


def twice(x):
    return 2 * x


def thrice(x):
    return 3 * x


class Point(NamedTuple):
    x: int
    y: int


def calls(inner):
    @device
    def outer(x):
        return inner(x)

    return outer


@intrinsic
def one(typing, x):
    return x(x), lambda context, builder, signature, args: args[0]


@intrinsic
def another(typing, x):
    return x(x), lambda context, builder, signature, args: builder.fadd(args[0], args[0])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 2),
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ((1, 2), (2, 1)),
        (Point(1, 2), Point(2, 1)),
        (Point(1, 2), (1, 2)),
        (np.float32(1), np.float64(1)),
        (np.dtype("f4"), np.dtype("f8")),
        (np.arange(3), np.arange(3) * 2),
        ("a", "b"),
        (twice, thrice),
        (device(twice), device(thrice)),
        (calls(device(twice)), calls(device(thrice))),
        (one, another),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_value_that_a_kernel_refers_to_is_in_its_fingerprint(a, b):
    source = "def f(x):\n    x[0] = N\n"
    marks = [mark(source, N=value) for value in (a, b, a)]
    assert None not in marks
    assert marks[0] != marks[1] and marks[0] == marks[2]


def test_names_of_our_modules_count_by_value():
    source = "def f(x):\n    x[0] = ours.SIZE\n"
    ours = types.ModuleType("minidl.ours")
    ours.SIZE, ours.OTHER = 16, 1
    first = mark(source, ours=ours)
    ours.OTHER = 2
    assert mark(source, ours=ours) == first
    ours.SIZE = 32
    assert mark(source, ours=ours) not in (first, None)


@dataclasses.dataclass
class Mutable:
    n: int = 0


@pytest.mark.parametrize("value", [{}, [1], object(), Mutable(), types.ModuleType("minidl.x")])
def test_what_has_no_value_that_stays_has_no_fingerprint(value, monkeypatch, tmp_path):
    assert mark("def f(x):\n    x[0] = N\n", N=value) is None
    assert mark("def f(x):\n    x[0] = NOWHERE\n") is None


def test_without_a_fingerprint_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "fingerprint", lambda kernel: None)
    cubin.compiled(clean, launch(clean).signature, (8, 0))
    assert not list(tmp_path.rglob("*.cubin"))


# ---- recorded launches


def test_a_recorded_launch_does_not_run():
    x, y = np.ones(70, "f4"), np.zeros(70, "f4")
    with _numba.recording() as noted:
        clean[2, (32, 2), 64](x, y)
        clean[0, 32](x, y)
        with pytest.raises(TypeError, match="got 1 arguments"):
            clean[1, 32](x)
    assert not y.any()
    assert noted == [Launch(clean, arguments.signature(clean, (x, y)), 64, 64)]
    clean[2, (64, 1)](x, y)
    assert (y == 2).all()  # outside of the block they run
