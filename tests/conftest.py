"""Settings of the suite: how many examples Hypothesis draws, and what can run here."""

import contextlib
import ctypes
import functools
import importlib
import os
import platform
import sys
import types

import numpy as np
import pytest
from hypothesis import settings

pytest_plugins = ["minidl.kernels.pytest_plugin"]  # the entry point, where it is installed

# No deadlines: the first example of a kernel compiles it.
settings.register_profile("fast", max_examples=20, deadline=None)
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("emulator", max_examples=20, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("MINIDL_HYPOTHESIS", "fast"))


REFERENCE = os.environ.get("MINIDL_CPU") == "reference"
HERE = f"{platform.system()} on {platform.machine()}"
EMULATES = HERE == "Linux on x86_64"
ELSEWHERE = f"compiled CUDA kernels are emulated on Linux on x86_64 only; this is {HERE}"

collect_ignore_glob: list[str] = []
if REFERENCE:
    sys.modules["numba"] = None  # type: ignore[assignment]  # whoever imports it now fails
    collect_ignore_glob += ["test_cpu_kernels.py", "test_cuda_*.py"]
    collect_ignore_glob += ["test_maths.py", "test_simd.py", "test_winograd.py"]
if REFERENCE or not EMULATES:  # these import what compiles CUDA kernels
    collect_ignore_glob += [
        "test_compile_report.py", "test_cuda_elementwise.py", "test_cuda_mutants.py",
        "test_emulat*.py", "test_gpu_*.py", "test_ladder.py", "test_sanitizer.py",
        "test_stand_in.py",
    ]  # fmt: skip


def pytest_report_header() -> str | None:
    return None if EMULATES else f"left out: {ELSEWHERE}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fake-gpu", action="store_true", help="rehearse what is marked gpu: tests/fake_cupy.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("fake_gpu"):
        importlib.import_module("fake_cupy").Fake().install()


def on(name):
    return importlib.import_module(f"minidl.{name}")  # some of the suite runs without Numba


PLACES = [
    pytest.param("emulated", marks=pytest.mark.emulator),
    pytest.param("real", marks=pytest.mark.gpu),
]


@pytest.fixture(autouse=True)
def emulation(request):
    """What is marked `emulator` is emulated and what is marked `gpu` is not, on any machine."""
    if request.node.get_closest_marker("emulator"):
        with on("kernels.cuda._numba").emulation():
            yield
        return
    if request.node.get_closest_marker("gpu") and on("kernels.cuda.memory").emulated():
        pytest.fail("a test on a real GPU: there is none here, or MINIDL_CUDA=emulate is set")
    yield


@pytest.fixture(params=PLACES)
def cuda(request, monkeypatch):
    """The device "cuda": the emulator, and under `-m gpu` a real one."""
    from minidl import backend

    monkeypatch.setattr(backend, "_CUDA", backend.Cuda("cuda"))  # none for the tests without it
    monkeypatch.setattr("minidl.random._default", {})  # generators live where they were made
    if request.param == "emulated":
        monkeypatch.setenv("MINIDL_CUDA", "emulate")
    yield backend.device("cuda")


class OnGpu:
    """The memory that some NumPy arrays are views of, copied to a GPU and back.

    A view lies there as it does here: as far from a multiple of 256 bytes, with the same strides,
    and beside what it lies beside here.
    """

    def __init__(self, arrays):
        self.memory = on("kernels.cuda.memory")
        self.copies = {}  # by the address of what owns the memory
        for owner in map(owner_of, arrays):
            here, ahead = bytes_of(owner), owner.ctypes.data % 256
            padded = np.zeros(ahead + here.size + 16, np.uint8)  # 16: a place for no elements, too
            padded[ahead : ahead + here.size] = here
            self.copies[owner.ctypes.data] = owner, ahead, self.memory.from_host(padded)

    def view(self, x):
        owner, ahead, there = self.copies[owner_of(x).ctypes.data]
        start = ahead + x.ctypes.data - owner.ctypes.data
        first = there[start : start + x.itemsize].view(x.dtype)
        return self.memory.as_strided(first, x.shape, x.strides)

    def bring_back(self):
        for owner, ahead, there in self.copies.values():
            if owner.flags.writeable:
                here = bytes_of(owner)
                here[...] = self.memory.to_host(there)[ahead : ahead + here.size]


def owner_of(x):
    base = x.base
    if base is not None and not isinstance(base, np.ndarray):
        base = getattr(base, "base", None)  # as_strided puts an object of its own between
    return owner_of(base) if isinstance(base, np.ndarray) else x


def bytes_of(owner):
    """The memory of an array that owns it, whatever the order of its axes."""
    size = owner.nbytes
    return np.ndarray(size, np.uint8, (ctypes.c_char * size).from_address(owner.ctypes.data))


class Device:
    """Where a test runs CUDA kernels on NumPy arrays: in the emulator, or on a real GPU.

    schedules: circumstances under which the bits must be the same.
    """

    def __init__(self, real):
        self.real = real
        orders = "forward", "reverse", "shuffled"
        schedule = None if real else on("kernels.cuda.emulator").schedule
        plain = [contextlib.nullcontext] * len(orders)  # once more, with nothing else
        self.schedules = plain if real else [functools.partial(schedule, o) for o in orders]

    def __call__(self, launch):
        """A launch of kernels that takes NumPy arrays in any layout, and returns those it filled.

        The emulator gets them as they are. On a GPU all that they are views of goes there and
        comes back, what lies beside them included.
        """

        @functools.wraps(launch)
        def launched(*args):
            arrays = [a for a in args if isinstance(a, np.ndarray)]
            copies = OnGpu(arrays)
            views = [copies.view(a) for a in arrays]
            left = iter(views)
            result = launch(*(next(left) if isinstance(a, np.ndarray) else a for a in args))
            copies.bring_back()

            def here(y):
                return next(a for a, view in zip(arrays, views) if view is y)

            if result is None:  # a kernel, and not its launcher
                return None
            return tuple(map(here, result)) if isinstance(result, tuple) else here(result)

        return launched if self.real else launch

    def same_bits(self, run, *args):
        """What run(*args) returns, one array or some, after seeing that it is always the same."""
        results = []
        for schedule in self.schedules:
            with schedule():
                result = run(*args)
                single = isinstance(result, np.ndarray | np.generic)
                results.append([np.array(a) for a in ([result] if single else result)])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert a.tobytes() == b.tobytes()
        return results[0][0] if single else results[0]

    def needs(self, *cc):
        """Skip a test of what only GPUs from a compute capability on can do."""
        if on("kernels.cuda.memory").describe()[1] < cc:
            pytest.skip(f"for compute capability {'.'.join(map(str, cc))} and newer")


@pytest.fixture(params=PLACES)
def device(request):
    """Both places where CUDA kernels run, one after the other."""
    return Device(request.param == "real")


@pytest.fixture
def k(device):
    """All CUDA kernels, on NumPy arrays."""
    kernels, names = on("kernels.cuda"), on("kernels.cases").DEFINITION
    return types.SimpleNamespace(**{name: device(getattr(kernels, name)) for name in names})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if REFERENCE:
        dropped = [
            i for i in items if i.get_closest_marker("numba") or i.get_closest_marker("emulator")
        ]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]
    for item in items:
        if not EMULATES and item.get_closest_marker("emulator"):
            item.add_marker(pytest.mark.skip(reason=ELSEWHERE))
