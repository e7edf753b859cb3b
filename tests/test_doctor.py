"""minidl doctor: what it says about machines that are not here, and about this one."""

import ctypes
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from minidl.cli import doctor, main
from minidl.cli.doctor import COLAB, Driver, Gpu, Machine, Part

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
H200 = Gpu("NVIDIA H200", (9, 0), 141 * 2**30)
T4 = Gpu("Tesla T4", (7, 5), 15 * 2**30)


def parts(nvvm, linker=None):
    def part(version):
        return Part(version, "/lib/lib.so", "site-packages")

    return {"nvvm": part(nvvm), "nvrtc": part(nvvm), "nvJitLink": part(linker or nvvm)}


def machine(**changes):
    """A machine with a GPU on which everything is right, but for some changes."""
    right = Machine(
        packages={"numpy": "2.4.6", "numba": "0.68.1", "llvmlite": "0.50.0",
                  "numba-cuda": doctor.NUMBA_CUDA},
        cupy={"cupy-cuda13x": "14.2.0"},
        driver=Driver("580.95.05", (13, 0), 0, (H200,)),
        parts=parts((13, 0)),
        cache=("/home/me/.cache/minidl/kernels", 12, 3 * 2**20),
        emulates=True,
        colab=False,
    )  # fmt: skip
    return right._replace(**changes)


def found(of, name):
    (finding,) = [f for f in doctor.report(of) if f.name == name]
    return finding


def without(*names):
    return {n: v for n, v in machine().packages.items() if n not in names}


def test_nothing_is_said_against_a_machine_that_is_right():
    findings = doctor.report(machine())
    assert {f.state for f in findings} == {"ok"}
    assert [f.fix for f in findings if f.fix] == []
    assert found(machine(), "driver").text == "580.95.05 for CUDA 13.0 and older"
    assert found(machine(), "gpu 0").text == "NVIDIA H200, compute capability 9.0, 141.0 GiB"
    assert found(machine(), "nvvm").text == "13.0, /lib/lib.so (site-packages)"
    assert found(machine(), "cache").text == "/home/me/.cache/minidl/kernels: 12 files, 3.0 MiB"


OLD = Driver("550.54.15", (12, 4), 0, (T4,))


@pytest.mark.parametrize(
    ("of", "name", "state", "text", "fix"),
    [
        (machine(packages=without("numba-cuda"), parts={}), "numba-cuda", "missing",
         "not installed", "pip install 'minidl[cuda13]'"),
        (machine(packages=without("numba-cuda"), parts={}, driver=OLD), "numba-cuda", "missing",
         "not installed", "pip install 'minidl[cuda12]'"),
        (machine(packages=without("numba-cuda"), parts={}, driver=None), "numba-cuda", "missing",
         "not installed", "pip install 'minidl[emulate]'"),
        (machine(packages=without("numba-cuda"), parts={}, driver=OLD, colab=True), "numba-cuda",
         "missing", "not installed", "Restart session"),
        (machine(packages=without("numba")), "numba", "missing", "not installed",
         "pip install numba"),
        (machine(packages={**machine().packages, "numba-cuda": "0.31.0"}), "numba-cuda", "ok",
         "checked with 0.30.4 only", "pip install numba-cuda==0.30.4"),
        (machine(driver=None), "driver", "missing", "no NVIDIA GPU", "MINIDL_CUDA=emulate"),
        (machine(driver=None, colab=True), "driver", "missing", "no NVIDIA GPU",
         "Change runtime type > GPU"),
        (machine(driver=None, emulates=False), "driver", "missing", "no NVIDIA GPU", ""),
        (machine(driver=Driver("580.1", (13, 0), 100, ())), "driver", "missing", "but no GPU",
         "MINIDL_CUDA=emulate"),
        (machine(driver=Driver("580.1", (13, 0), 803, ())), "driver", "broken",
         "cuInit fails with 803", "install the driver anew"),
        (machine(driver=Driver("", (11, 8), 0, (T4,))), "driver", "broken", "minidl needs CUDA 12",
         "release 525"),
        (machine(driver=Driver("580.1", (13, 0), 0, (Gpu("Tesla P100", (6, 0), 2**34),))), "gpu 0",
         "broken", "compute capability 6.0", "compute capability 7.5"),
        (machine(driver=Driver("580.1", (13, 0), 0, (H200, Gpu("old", (6, 0), 2**34)))), "gpu 1",
         "ok", "not used by minidl", "compute capability 7.5"),
        (machine(cupy={}), "cupy", "missing", "not installed", "pip install 'minidl[cuda13]'"),
        (machine(cupy={}, driver=None), "cupy", "ok", "not needed", ""),
        (machine(cupy={"cupy-cuda13x": "14.2.0"}, driver=OLD, parts=parts((12, 4))), "cupy",
         "broken", "the driver runs CUDA 12.4", "pip uninstall -y cupy-cuda13x"),
        (machine(cupy={"cupy-cuda13x": "14.2.0", "cupy-cuda12x": "14.2.0"}), "cupy", "broken",
         "more than one", "pip uninstall -y cupy-cuda13x cupy-cuda12x"),
        (machine(parts={**parts((13, 0)), "nvvm": "no libnvvm"}), "nvvm", "broken",
         "not found: no libnvvm", "pip install 'minidl[cuda13]'"),
        (machine(parts=parts((13, 4), (13, 0))), "toolkit", "broken",
         "NVVM 13.4 writes PTX that nvJitLink 13.0 does not read",
         "pip install 'cuda-toolkit[nvvm,nvrtc,cudart]>=13,<13.1' 'nvidia-nvjitlink>=13,<13.1'"),
        (machine(parts=parts((13, 4))), "toolkit", "ok", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
         "cuda-toolkit[nvvm,nvrtc,cudart]>=13,<13.1"),
        (machine(parts=parts((13, 0)), driver=OLD, cupy={"cupy-cuda12x": "14.2.0"}), "toolkit",
         "broken", "CUDA 13.0, but the driver runs CUDA 12.4 and older",
         "pip install 'minidl[cuda12]'\npip install 'cuda-toolkit[nvcc,nvrtc,cudart]>=12,<12.5' "
         "'nvidia-nvjitlink-cu12>=12,<12.5'"),
        (machine(parts=parts((13, 0)), driver=OLD, colab=True), "toolkit", "broken", "12.4", COLAB),
        (machine(parts=parts((12, 9)), driver=OLD, cupy={"cupy-cuda12x": "14.2.0"}), "toolkit",
         "ok", "CUDA 12.9 is newer than the driver's 12.4", "<12.5"),
        (machine(parts=parts((12, 4)), driver=OLD, cupy={"cupy-cuda12x": "14.2.0"}), "toolkit",
         "ok", "CUDA 12.4 suits the driver", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_do(of, name, state, text, fix):
    finding = found(of, name)
    assert finding.state == state
    assert text in finding.text
    assert fix in finding.fix if fix else not finding.fix


def test_the_pip_lines_are_of_extras_that_exist():
    lines = [doctor.FOR_A_GPU, doctor.FOR_AN_OLD_DRIVER, doctor.FOR_THE_EMULATOR]
    names = [re.fullmatch(r"pip install 'minidl\[(\w+)\]'", line)[1] for line in lines]
    assert set(names) <= set(EXTRAS)
    pins = {re.search(r"==([\d.]+)", d)[1] for n in names for d in EXTRAS[n] if "numba-cuda" in d}
    assert pins == {doctor.NUMBA_CUDA}


# the command


@pytest.fixture
def here(monkeypatch):
    """Let the doctor find a machine that the test describes, on which a kernel says something."""

    def set_up(of, kernel=lambda on_gpu: "matmul is right"):
        monkeypatch.setattr(doctor, "probe", lambda: of)
        monkeypatch.setattr(doctor, "_matmul", kernel)
        monkeypatch.delenv("MINIDL_CUDA", raising=False)

    return set_up


def test_exit_status_0_where_all_that_is_installed_works(here, capsys):
    here(machine())
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ok +kernel +matmul is right$", out, re.M)
    assert out.endswith("what is installed works\n")
    here(machine(packages=without("numba-cuda"), parts={}, driver=None, cupy={}))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "kernel " not in out, "there is nothing to compile one with"
    assert re.search(r"^missing +numba-cuda .*\n +-> pip install 'minidl\[emulate\]'$", out, re.M)


def test_exit_status_1_where_something_is_broken(here, capsys):
    here(machine(parts=parts((13, 4), (13, 0))))
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert "kernel" not in [check["name"] for check in told["checks"]], "it would fail with less"
    (toolkit,) = [check for check in told["checks"] if check["name"] == "toolkit"]
    assert toolkit["state"] == "broken"
    assert "nvidia-nvjitlink" in toolkit["fix"]


@pytest.mark.parametrize(
    ("of", "message", "fix"),
    [
        (machine(), "[222] CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "nvidia-nvjitlink>=13,<13.1"),
        (machine(driver=OLD, parts={}, cupy={"cupy-cuda12x": "14"}, colab=True),
         "the provided PTX was compiled with an unsupported toolchain",
         "'nvidia-nvjitlink-cu12>=12,<12.5'\non Colab"),
        (machine(driver=None), "it is all wrong", "pip install 'minidl[emulate]'"),
    ],
)  # fmt: skip
def test_a_kernel_that_fails_is_said_with_what_to_do(here, capsys, of, message, fix):
    def fail(on_gpu):
        raise RuntimeError(message)

    here(of, fail)
    assert main(["doctor", "--json"]) == 1
    kernel = json.loads(capsys.readouterr().out)["checks"][-1]
    assert (kernel["name"], kernel["state"]) == ("kernel", "broken")
    assert kernel["text"] == f"RuntimeError: {message}"
    assert fix in kernel["fix"]


def test_where_a_kernel_is_tried(here, monkeypatch):
    def tried(of):
        here(of, lambda on_gpu: "GPU" if on_gpu else "emulator")
        return doctor.try_a_kernel(of)

    assert tried(machine()).text == "GPU"
    assert tried(machine(driver=None)).text == "emulator"
    assert tried(machine(cupy={})).text == "emulator"
    here(machine(), lambda on_gpu: "GPU" if on_gpu else "emulator")
    monkeypatch.setenv("MINIDL_CUDA", "emulate")
    assert doctor.try_a_kernel(machine()).text == "emulator"
    finding = tried(machine(driver=None, emulates=False))
    assert finding.state == "missing"
    assert "Linux x86_64 only" in finding.text


@pytest.mark.parametrize(
    "cuda", [pytest.param("emulated", marks=pytest.mark.emulator)], indirect=True
)
def test_a_real_kernel_is_launched_and_a_wrong_one_is_found(monkeypatch, cuda):
    monkeypatch.setattr(doctor, "_driver", lambda: None)
    of = doctor.probe()
    finding = doctor.try_a_kernel(of)
    assert finding.state == "ok", finding.text
    assert "matmul is right on: emulated on the CPU (9.0)" in finding.text
    monkeypatch.setattr(cuda.kernels, "matmul", lambda a, b, y: cuda.kernels.fill(y, 1.0))
    finding = doctor.try_a_kernel(of)
    assert finding.state == "broken"
    assert "a product of matrices is wrong by" in finding.text


# the probes


def test_this_machine_is_looked_at():
    of = doctor.probe()
    assert of.packages["numpy"] == importlib.metadata.version("numpy")
    assert of.cache[1:] >= (0, 0)
    for part in of.parts.values():
        assert isinstance(part, str) or Path(part.path).exists()
    assert doctor.report(of)


@pytest.mark.emulator
def test_the_toolkit_is_found_with_its_version():
    for name, part in doctor._parts().items():
        assert isinstance(part, Part), f"{name}: {part}"
        assert part.version >= (12, 0)


def test_parts_that_cannot_be_found_say_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    assert "cuda-pathfinder" in doctor._parts()["nvvm"]

    def load(name):
        raise RuntimeError(f"no {name}\nand more")

    module = SimpleNamespace(load_nvidia_dynamic_lib=load)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", module)
    assert doctor._parts() == {name: f"no {name}" for name in doctor.PARTS}


def test_the_version_of_nvvm_is_unknown_outside_of_pip():
    assert doctor._version_of("nvvm", SimpleNamespace(found_via="CUDA_PATH")) is None


class FakeDriver:
    """libcuda, as far as the doctor asks it."""

    def __init__(self, status=0):
        self.status = status

    def cuDriverGetVersion(self, out):
        out._obj.value = 12040

    def cuInit(self, flags):
        return self.status

    def cuDeviceGetCount(self, out):
        out._obj.value = 1

    def cuDeviceGet(self, out, index):
        out._obj.value = index

    def cuDeviceGetName(self, out, size, device):
        out.value = b"Tesla T4"

    def cuDeviceTotalMem_v2(self, out, device):
        out._obj.value = 15 * 2**30

    def cuDeviceGetAttribute(self, out, attribute, device):
        out._obj.value = {75: 7, 76: 5}[attribute]


def test_the_driver_is_asked_in_c(monkeypatch):
    monkeypatch.setattr(doctor, "_library", FakeDriver)
    monkeypatch.setattr(doctor, "_release", lambda: "550.54.15")
    assert doctor._driver() == OLD
    monkeypatch.setattr(doctor, "_library", lambda: FakeDriver(803))
    assert doctor._driver() == OLD._replace(status=803, gpus=())

    def missing():
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor, "_library", missing)
    assert doctor._driver() is None
    assert ctypes.c_int(12040).value // 1000 == 12


def test_the_release_is_read_from_the_system(monkeypatch):
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025"
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert doctor._release() == "580.95.05"

    def missing(self):
        raise OSError

    monkeypatch.setattr(Path, "read_text", missing)
    assert doctor._release() == ""


def test_the_cache_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    folder, files, size = doctor._cache()
    assert (files, size) == (0, 0)
    Path(folder, "cuda").mkdir(parents=True)
    Path(folder, "cuda", "a").write_bytes(b"12345")
    Path(folder, "b").write_bytes(b"1")
    assert doctor._cache() == (folder, 2, 6)


def test_it_runs_without_numba_and_numba_cuda():
    code = (
        "import sys, importlib.metadata as m\n"
        "for name in ('numba', 'numba_cuda', 'cuda', 'cupy'): sys.modules[name] = None\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name != 'numpy': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "from minidl.cli import main\n"
        "sys.exit(main(['doctor']))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert re.search(r"^missing +numba-cuda ", run.stdout, re.M)
    assert "pip install 'minidl[" in run.stdout
