"""Settings of the suite: how many examples Hypothesis draws, and what can run here."""

import importlib
import os
import platform
import sys

import pytest
from hypothesis import settings

# No deadlines: the first example of a kernel compiles it.
settings.register_profile("fast", max_examples=20, deadline=None)
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("emulator", max_examples=20, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("MINIDL_HYPOTHESIS", "fast"))


REFERENCE = os.environ.get("MINIDL_CPU") == "reference"
if REFERENCE:
    sys.modules["numba"] = None  # type: ignore[assignment]  # whoever imports it now fails
    # these are all about Numba
    collect_ignore_glob = [
        "test_compile_report.py", "test_cpu_kernels.py", "test_cuda_*.py", "test_emulat*.py",
        "test_gpu_*.py", "test_ladder.py",
    ]  # fmt: skip


@pytest.fixture(
    params=[
        pytest.param("emulated", marks=pytest.mark.emulator),
        pytest.param("real", marks=pytest.mark.gpu),
    ]
)
def cuda(request, monkeypatch):
    """The device "cuda": the emulator, and under `-m gpu` a real one."""
    from minidl import backend

    monkeypatch.setattr(backend, "_CUDA", backend.Cuda("cuda"))  # none for the tests without it
    monkeypatch.setattr("minidl.random._default", {})  # generators live where they were made
    if request.param == "real":
        monkeypatch.delenv("MINIDL_CUDA", raising=False)
        yield backend.device("cuda")
        return
    monkeypatch.setenv("MINIDL_CUDA", "emulate")
    yield backend.device("cuda")


@pytest.fixture(autouse=True)
def emulation(request):
    """What is marked `emulator` runs there, on a machine with a GPU too."""
    if request.node.get_closest_marker("emulator"):
        with importlib.import_module("minidl.kernels.cuda._numba").emulation():
            yield
    else:
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if REFERENCE:
        dropped = [
            i for i in items if i.get_closest_marker("numba") or i.get_closest_marker("emulator")
        ]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]
    here = f"{platform.system()} on {platform.machine()}"
    if here != "Linux on x86_64":
        reason = f"compiled CUDA kernels are emulated on Linux on x86_64 only; this is {here}"
        for item in items:
            if item.get_closest_marker("emulator"):
                item.add_marker(pytest.mark.skip(reason=reason))
