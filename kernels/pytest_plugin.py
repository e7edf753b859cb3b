"""The pytest plugin: CUDA kernels of any project, run in the emulator, and on a GPU where one is.

    def test_add(kernel_runner):
        out = np.zeros_like(x)
        kernel_runner(add, 4, 64, x, y, out)
        np.testing.assert_array_equal(out, x + y)

pytest loads this file, and with it minidl and NumPy, for everybody who has installed minidl. Numba,
numba-cuda and Hypothesis are loaded by the first test that asks for them.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable
from typing import Any

import pytest

PLACES = "emulated", "gpu"


def pytest_addoption(parser: pytest.Parser) -> None:
    """--cuda, --cuda-emulate and --cuda-sanitize."""
    add = parser.getgroup("minidl", "CUDA kernels (minidl)").addoption
    where = "where `backend` and `kernel_runner` run kernels; default: wherever they can here"
    add("--cuda", choices=("all", *PLACES), default="all", help=where)
    emulate = "serve numba-cuda in all tests by minidl's emulator: launches, arrays, streams"
    add("--cuda-emulate", action="store_true", help=emulate)
    sanitize = "the same, and fail at each launch in which minidl's sanitizer finds something"
    add("--cuda-sanitize", action="store_true", help=sanitize)


@pytest.hookimpl(tryfirst=True)  # before Hypothesis looks for its profile
def pytest_configure(config: pytest.Config) -> None:
    """Name the markers; do what was asked for by name before tests are imported."""
    config.addinivalue_line("markers", "emulator: runs CUDA kernels on the CPU, emulated")
    config.addinivalue_line("markers", "gpu: needs a real NVIDIA GPU")
    if str(config.getoption("--hypothesis-profile", None) or "").startswith("minidl"):
        _on("strategies").register_profiles()
    if config.getoption("cuda_emulate") or config.getoption("cuda_sanitize"):
        stand_in = _on("cuda.stand_in")
        serve = [_sanitized] if config.getoption("cuda_sanitize") else []
        serving = contextlib.ExitStack()
        serving.enter_context(stand_in.standing_in(*serve))
        config.add_cleanup(serving.close)


def _on(name: str) -> Any:
    return importlib.import_module(f".{name}", __package__)


def _sanitized(asked: Any) -> None:
    """Run a launch under the sanitizer; the test fails where it finds something."""
    __tracebackhide__ = True
    _held(_on("cuda.stand_in").watched(asked))


def _held(report: Any) -> None:
    __tracebackhide__ = True
    if not report:
        raise SanitizerError(f"the sanitizer found\n\n{report}")


class SanitizerError(AssertionError):
    """A kernel that does what no kernel may: the report."""


class Place:
    """Where a test runs kernels: `backend.name` is "emulated" or "gpu"."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def run(
        self,
        kernel: Any,
        grid: Any,
        block: Any,
        *args: Any,
        shared: int = 0,
        fresh: tuple[str, ...] = (),
        sanitize: bool = True,
    ) -> Any:
        """Launch a kernel on NumPy arrays, which hold what it wrote when this returns.

        kernel: of `cuda.jit`, or a plain function. Arrays may have any strides. shared: bytes of
        dynamic shared memory. Emulated, the launch is watched, and SanitizerError tells what was
        found; sanitize=False runs it a few times faster. fresh: names of arrays in which nothing is
        yet. Returns the sanitizer's report, None where nothing was watched.
        """
        __tracebackhide__ = True
        if self.name == "gpu":
            _on("cuda.real").launch(kernel, grid, block, args, shared)
            return None
        launched = functools.partial(_on("cuda.stand_in").launched, kernel, grid, block, args)
        if not sanitize:
            launched(shared)
            return None
        report = launched(shared, fresh, watch=True)
        _held(report)
        return report


@functools.cache
def _gpu() -> bool:
    """Whether there is a GPU, for numba-cuda."""
    try:
        return bool(_on("cuda._numba").cuda.is_available())
    except ImportError:
        return False


@functools.cache
def _lacks() -> str:
    """Why no kernel can be emulated on this system; "" where they can.

    ImportError where a package is missing: that can be put right, and is no reason to skip tests.
    """
    try:
        _on("cuda.emulator")
    except RuntimeError as error:
        return str(error)
    return ""


@pytest.fixture(scope="session", params=[
    pytest.param(Place("emulated"), id="emulated", marks=pytest.mark.emulator),
    pytest.param(Place("gpu"), id="gpu", marks=pytest.mark.gpu),
])  # fmt: skip
def backend(request: pytest.FixtureRequest) -> Place:
    """Each place where kernels can run here, one after the other."""
    if request.param.name == "emulated" and (why := _lacks()):
        pytest.skip(why)
    return request.param


@pytest.fixture(scope="session")
def kernel_runner(backend: Place) -> Callable[..., Any]:
    """kernel_runner(kernel, grid, block, *arrays): a launch; see Place.run."""
    return backend.run


def _place(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    place = callspec.params.get("backend") if callspec else None
    return place.name if isinstance(place, Place) else ""


@pytest.hookimpl(trylast=True)  # what -m leaves out need not be asked about
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here, and what --cuda does not ask for."""
    places = {name: [i for i in items if _place(i) == name] for name in PLACES}
    if not any(places.values()):
        return
    wanted = config.getoption("cuda")
    served = config.getoption("cuda_emulate") or config.getoption("cuda_sanitize")
    if wanted == "gpu" and (served or not _gpu()):
        raise pytest.UsageError("--cuda=gpu: numba-cuda finds no GPU here")
    dropped = places["emulated"] if wanted == "gpu" else []
    if places["gpu"] and (wanted == "emulated" or served or not _gpu()):
        dropped = dropped + places["gpu"]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        out = set(map(id, dropped))
        items[:] = [item for item in items if id(item) not in out]
