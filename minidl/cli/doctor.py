"""minidl doctor: what the device "cuda" needs, what of it is here, and what to do about the rest.

Every probe works without the packages it asks about. The report is made from what the probes found
alone, so that each machine it may meet can be tried on any other.
"""

import argparse
import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import __version__
from ..backend import FOR_A_GPU, FOR_AN_OLD_DRIVER, FOR_THE_EMULATOR, cuda_kernels
from ..kernels import disk

PACKAGES = ("numpy", "numba", "llvmlite", "numba-cuda")
CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
PARTS = ("nvvm", "nvrtc", "nvJitLink")
NUMBA_CUDA = "0.30.4"  # the emulator reads its LLVM IR; a test compares this with pyproject.toml
COLAB = (
    "on Colab: choose Runtime > Change runtime type > GPU, install, then Runtime > Restart session "
    "before the first import"
)
# What a driver says when it cannot run code that was made for a newer one.
TOO_NEW = "UNSUPPORTED_PTX_VERSION", "INVALID_PTX", "NO_BINARY_FOR_GPU", "PTX was compiled"

Version = tuple[int, int]


class Gpu(NamedTuple):
    """A GPU as its driver describes it."""

    name: str
    compute_capability: Version
    memory: int


class Driver(NamedTuple):
    """NVIDIA's driver: its release, the newest CUDA it runs, what cuInit answers, its GPUs."""

    release: str
    cuda: Version
    status: int
    gpus: tuple[Gpu, ...]


class Part(NamedTuple):
    """A library of the CUDA toolkit: which version, where, and who brought it."""

    version: Version | None
    path: str
    found_via: str


class Machine(NamedTuple):
    """What the probes found."""

    packages: dict[str, str]
    cupy: dict[str, str]
    driver: Driver | None
    parts: dict[str, Part | str]  # a str: why it is not there
    cache: tuple[str, int, int]  # folder, files, bytes
    emulates: bool  # whether the emulator can run here
    colab: bool


class Finding(NamedTuple):
    """A line of the report. state: "ok", "missing" (only what needs it fails), or "broken"."""

    name: str
    state: str
    text: str
    fix: str = ""


def doctor(arguments: argparse.Namespace, argv: list[str]) -> int:
    """Print the report. Returns 1 where something that is installed does not work, else 0."""
    machine = probe()
    findings = report(machine)
    if not any(f.state == "broken" for f in findings) and "numba-cuda" in machine.packages:
        findings.append(try_a_kernel(machine))
    broken = any(f.state == "broken" for f in findings)
    about = {"minidl": __version__, "python": platform.python_version(), "platform": _platform()}
    if arguments.json:
        checks = [f._asdict() for f in findings]
        print(json.dumps({"ok": not broken, **about, "checks": checks}, indent=1))
        return int(broken)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for f in findings:
        print(f"{f.state:8} {f.name:11} {f.text}")
        for line in f.fix.splitlines():
            print(f"{'':8} {'':11} -> {line}")
    print("something is broken: see above" if broken else "what is installed works")
    return int(broken)


# ---- probes


def probe() -> Machine:
    """Look at this machine."""
    numba_cuda = _versions(("numba-cuda",))
    return Machine(
        packages=_versions(PACKAGES),
        cupy=_versions(CUPY),
        driver=_driver(),
        parts=_parts() if numba_cuda else {},
        cache=_cache(),
        emulates=(platform.system(), platform.machine()) == ("Linux", "x86_64"),
        colab="COLAB_RELEASE_TAG" in os.environ,
    )


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _library() -> Any:
    """The driver's library. OSError where there is none."""
    return ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")


def _driver() -> Driver | None:
    """What the driver says, asked in C: no package is needed."""
    try:
        cuda = _library()
    except OSError:
        return None
    number, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    status = cuda.cuInit(0)
    if not status:
        cuda.cuDeviceGetCount(ctypes.byref(count))
    version = number.value // 1000, number.value % 1000 // 10
    return Driver(_release(), version, status, tuple(_gpu(cuda, i) for i in range(count.value)))


def _gpu(cuda: Any, index: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(name.value.decode(errors="replace"), (capability[0], capability[1]), memory.value)


def _release() -> str:
    """The driver's release, such as 580.95.05; empty where the system does not tell."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
    except OSError:
        return ""
    return next((w for w in words if w.count(".") and w.replace(".", "").isdecimal()), "")


def _parts() -> dict[str, Part | str]:
    """The libraries that compile kernels, as numba-cuda will look for them."""
    try:
        load = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib
    except ImportError as error:
        return dict.fromkeys(PARTS, f"cuda-pathfinder, which finds it, does not load: {error}")
    found: dict[str, Part | str] = {}
    for name in PARTS:
        try:
            library = load(name)
            found[name] = Part(_version_of(name, library), library.abs_path, library.found_via)
        except (RuntimeError, OSError) as error:
            found[name] = str(error).splitlines()[0]
    return found


def _version_of(name: str, library: Any) -> Version | None:
    """The CUDA version of a library; of NVVM, which does not tell, that of its package."""
    if name != "nvvm":
        handle, major, minor = ctypes.CDLL(library.abs_path), ctypes.c_int(), ctypes.c_int()
        ask = handle.nvrtcVersion if name == "nvrtc" else handle.nvJitLinkVersion
        ask(ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value
    known = _versions(("nvidia-nvvm", "nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu12"))
    if library.found_via != "site-packages" or not known:
        return None
    first, second = next(iter(known.values())).split(".")[:2]
    return int(first), int(second)


def _cache() -> tuple[str, int, int]:
    folder, sizes = disk.home(), []
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                sizes.append(path.stat().st_size)
        except OSError:
            continue  # another process was quicker
    return str(folder), len(sizes), sum(sizes)


# ---- the report


def report(machine: Machine) -> list[Finding]:
    """What to say about a machine, before a kernel is tried."""
    install = _install(machine)
    findings = [*_of_packages(machine, install), _of_driver(machine), *_of_gpus(machine)]
    findings += _of_cupy(machine, install) + _of_parts(machine, install)
    folder, files, size = machine.cache
    findings.append(Finding("cache", "ok", f"{folder}: {files:,} files, {size / 2**20:,.1f} MiB"))
    return findings


def _install(machine: Machine) -> str:
    """The one line that brings all that is missing."""
    if machine.driver is None or not machine.driver.gpus:
        return FOR_THE_EMULATOR
    line = FOR_A_GPU if machine.driver.cuda >= (13, 0) else FOR_AN_OLD_DRIVER
    return f"{line}\n{COLAB}" if machine.colab else line


def _of_packages(machine: Machine, install: str) -> list[Finding]:
    findings = []
    for name in PACKAGES:
        version = machine.packages.get(name)
        if version is None:
            fix = install if name == "numba-cuda" else f"pip install {name}"
            findings.append(Finding(name, "missing", "not installed; kernels need it", fix))
        elif name == "numba-cuda" and version != NUMBA_CUDA:
            text = f"{version}, but minidl is checked with {NUMBA_CUDA} only"
            findings.append(Finding(name, "ok", text, f"pip install numba-cuda=={NUMBA_CUDA}"))
        else:
            findings.append(Finding(name, "ok", version))
    return findings


def _of_driver(machine: Machine) -> Finding:
    driver = machine.driver
    emulate = "without a GPU, MINIDL_CUDA=emulate runs the CUDA kernels on the CPU"
    if driver is None:
        text = "none: no NVIDIA GPU, or its driver is not installed"
        fix = COLAB if machine.colab else emulate
        return Finding("driver", "missing", text, fix if machine.emulates else "")
    text = f"{driver.release} for CUDA {_dotted(driver.cuda)} and older".strip()
    if driver.status == 100:  # CUDA_ERROR_NO_DEVICE
        return Finding("driver", "missing", f"{text}, but no GPU", emulate)
    if driver.status:
        fix = "restart the machine, or install the driver anew: its parts do not fit each other"
        return Finding("driver", "broken", f"{text}: cuInit fails with {driver.status}", fix)
    if driver.cuda < (12, 0):
        fix = "install a driver of release 525 or newer; 580 runs CUDA 13"
        return Finding("driver", "broken", f"{text}: minidl needs CUDA 12", fix)
    return Finding("driver", "ok", text)


def _of_gpus(machine: Machine) -> list[Finding]:
    found = []
    for i, gpu in enumerate(machine.driver.gpus if machine.driver else ()):
        text = f"{gpu.name}, compute capability {_dotted(gpu.compute_capability)}"
        text += f", {gpu.memory / 2**30:.1f} GiB" + (", not used by minidl" if i else "")
        old = gpu.compute_capability < (7, 5)
        fix = "minidl needs compute capability 7.5 (Turing, 2018) or newer" if old else ""
        found.append(Finding(f"gpu {i}", "broken" if old and not i else "ok", text, fix))
    return found


def _of_cupy(machine: Machine, install: str) -> list[Finding]:
    if not (machine.driver and machine.driver.gpus):
        text = ", ".join(f"{n} {v}" for n, v in machine.cupy.items()) or "not installed, not needed"
        return [Finding("cupy", "ok", text)]
    if not machine.cupy:
        text = "not installed; a GPU's memory and launches go through it"
        return [Finding("cupy", "missing", text, install)]
    text = ", ".join(f"{name} {version}" for name, version in machine.cupy.items())
    if len(machine.cupy) > 1:
        fix = f"pip uninstall -y {' '.join(machine.cupy)}\n{install}"
        return [Finding("cupy", "broken", f"{text}: more than one does not work", fix)]
    if "cupy-cuda13x" in machine.cupy and machine.driver.cuda < (13, 0):
        older = f"the driver runs CUDA {_dotted(machine.driver.cuda)}"
        fix = f"pip uninstall -y cupy-cuda13x\n{install}"
        return [Finding("cupy", "broken", f"{text}, but {older}", fix)]
    return [Finding("cupy", "ok", text)]


def _of_parts(machine: Machine, install: str) -> list[Finding]:
    findings = []
    for name, part in machine.parts.items():
        if isinstance(part, str):
            findings.append(Finding(name, "broken", f"not found: {part}", install))
        else:
            version = _dotted(part.version) if part.version else "version unknown"
            text = f"{version}, {part.path} ({part.found_via})"
            findings.append(Finding(name, "ok", text))
    return findings + _of_versions(machine)


def _of_versions(machine: Machine) -> list[Finding]:
    """Whether compiler, linker and driver fit each other: the newest PTX each of them knows."""
    parts = {n: p.version for n, p in machine.parts.items() if isinstance(p, Part) and p.version}
    nvvm, linker = parts.get("nvvm"), parts.get("nvJitLink")
    if nvvm and linker and nvvm > linker:
        text = f"NVVM {_dotted(nvvm)} writes PTX that nvJitLink {_dotted(linker)} does not read"
        return [Finding("toolkit", "broken", text, pinned(linker))]
    newest = max(parts.values(), default=None)
    if newest is None or not (machine.driver and machine.driver.gpus):
        return []
    driver = machine.driver.cuda
    if newest[0] > driver[0]:
        text = f"CUDA {_dotted(newest)}, but the driver runs CUDA {_dotted(driver)} and older"
        return [Finding("toolkit", "broken", text, _advice(machine))]
    if newest > driver:
        # minidl gives the driver machine code, which a driver of the same major version takes
        text = f"CUDA {_dotted(newest)} is newer than the driver's {_dotted(driver)}: its PTX "
        text += "fails with CUDA_ERROR_UNSUPPORTED_PTX_VERSION (minidl sends none; yours may)"
        return [Finding("toolkit", "ok", text, pinned(driver))]
    return [Finding("toolkit", "ok", f"CUDA {_dotted(newest)} suits the driver")]


def pinned(version: Version) -> str:
    """The pip line for a toolkit that is no newer than a version of CUDA."""
    major, minor = version
    compiler, linker = "nvvm", "nvidia-nvjitlink"
    if major == 12:
        compiler, linker = "nvcc", "nvidia-nvjitlink-cu12"
    upto = f">={major},<{major}.{minor + 1}"  # not every driver has a toolkit of its number
    return f"pip install 'cuda-toolkit[{compiler},nvrtc,cudart]{upto}' '{linker}{upto}'"


def _advice(machine: Machine) -> str:
    """What to install where the toolkit is too new for the driver."""
    driver = machine.driver
    if driver is None:
        return FOR_THE_EMULATOR
    lines = [FOR_A_GPU if driver.cuda >= (13, 0) else FOR_AN_OLD_DRIVER, pinned(driver.cuda)]
    return "\n".join([*lines, *([COLAB] if machine.colab else [])])


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


# ---- a kernel


def try_a_kernel(machine: Machine) -> Finding:
    """Multiply two matrices on the GPU, or emulated where there is none, and check the product."""
    on_gpu = bool(machine.driver and machine.driver.gpus and machine.cupy)
    on_gpu = on_gpu and os.environ.get("MINIDL_CUDA") != "emulate"
    if not on_gpu and not machine.emulates:
        text = f"none was tried: the emulator runs on Linux x86_64 only, this is {_platform()}"
        return Finding("kernel", "missing", text)
    try:
        text = _matmul(on_gpu)
    except Exception as error:  # whatever it is, it is what the user wants to know
        text = f"{type(error).__name__}: {error}".replace("\n", " ")
        fix = _advice(machine) if any(word in text for word in TOO_NEW) else _install(machine)
        return Finding("kernel", "broken", text, fix)
    return Finding("kernel", "ok", text)


def _matmul(on_gpu: bool) -> str:
    start, k = time.perf_counter(), cuda_kernels()
    if on_gpu and k.memory.emulated():
        raise RuntimeError("numba-cuda does not see the GPU that the driver sees")
    with contextlib.nullcontext() if on_gpu else k.memory.emulation():
        return _product(k, start)


def _product(k: Any, start: float) -> str:
    rng = np.random.default_rng(0)
    a, b = (rng.random(shape, np.float32) for shape in ((65, 33), (33, 70)))
    y = k.matmul(k.memory.from_host(a), k.memory.from_host(b), k.empty((65, 70), "float32"))
    error = float(np.abs(k.memory.to_host(y) - a.astype(np.float64) @ b).max())
    if not error < 33 * 33 * np.finfo(np.float32).eps:
        raise ArithmeticError(f"a product of matrices is wrong by {error:.3g}")
    name, capability, _ = k.memory.describe()
    seconds = time.perf_counter() - start
    return f"matmul is right on: {name} ({_dotted(capability)}), {seconds:.1f} s with loading"
