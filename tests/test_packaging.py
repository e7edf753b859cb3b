"""What a stranger gets: each way of installing minidl, tried from an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = ("minidl", "kernels", "tests", "notebooks", "benchmarks", "docs", "pyproject.toml")
SOURCES += ("MANIFEST.in", "README.md", "CONTRIBUTING.md", "LICENSE", "Makefile")

INSTALLED = """
import importlib.util, sys
import minidl, minidl.kernels
from minidl.data import digits
for name in ("kernels", "tests", "notebooks", "benchmarks"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed at the top level"
assert digits("test").images.shape == (2000, 28, 28, 1)
print(minidl.__file__)
"""


def python(code: str, cwd: Path, executable: str | Path = sys.executable, **env: str) -> str:
    """What a fresh Python prints when it runs the code in a folder; its error if it fails."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MINIDL_", "PYTHON"))}
    run = subprocess.run(
        [executable, "-W", "error", "-c", code],
        cwd=cwd,
        env=clean | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def pip(*arguments: str | Path) -> None:
    """Run this environment's pip, which builds with this environment's setuptools, offline.

    It leaves nothing in the user's folders.
    """
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    run = subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        env=os.environ | offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    """A copy of the sources: builds leave build/ and *.egg-info where they run."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def sdist(checkout, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", out, checkout]
    run = subprocess.run(build, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from the source distribution, so that it proves that one to be complete."""
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", out, sdist)
    return next(out.glob("*.whl"))


@pytest.fixture
def environment(tmp_path) -> Path:
    """A new environment that sees NumPy and the rest of this one, but not this one's minidl."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    windows = os.name == "nt"
    site = next(folder.glob("Lib/site-packages" if windows else "lib/python*/site-packages"))
    # A folder named in a .pth file is searched last, and its own .pth files, where an editable
    # minidl would hide, are not read.
    (site / "outer.pth").write_text(sysconfig.get_path("purelib"))
    return folder / ("Scripts/python.exe" if windows else "bin/python")


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("what", ["wheel", "sdist", "editable"])
def test_installed_it_works_from_an_empty_folder(what, request, environment, empty):
    source = request.getfixturevalue("checkout" if what == "editable" else what)
    how = ["--editable"] if what == "editable" else []
    pip("--python", environment, "install", "--no-deps", "--no-build-isolation", *how, source)
    home = Path(python(INSTALLED, empty, environment))
    assert home.is_relative_to(source if what == "editable" else environment.parent.parent)
    script = environment.with_name("minidl" + environment.suffix)
    shown = subprocess.run(
        [script, "--help"], cwd=empty, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr


def test_a_bare_checkout_works(empty):
    seen = "import minidl.kernels.shapes, minidl.data; print(len(minidl.data.digits().images))"
    assert python(seen, cwd=ROOT) == "10000"
    assert python(seen, cwd=empty, PYTHONPATH=str(ROOT)) == "10000"


def test_kernels_is_refused_at_the_top_level_and_says_why(empty):
    code = "try: import kernels\nexcept ImportError as error: print(error)"
    for cwd, path in ((ROOT, ""), (empty, str(ROOT))):
        said = python(code, cwd, PYTHONPATH=path)
        assert "minidl.kernels" in said
        assert "belongs to another package" in said


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        metadata = next(file.read(n).decode() for n in names if n.endswith("dist-info/METADATA"))
    info = wheel.name.split("-py3")[0] + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"minidl", info}
    assert {"minidl/py.typed", "minidl/kernels/shapes.py", "minidl/data/files/digits.npz"} <= set(
        names
    )
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/minidl/data/files/LICENSE.digits"} <= set(
        names
    )
    assert "License-Expression: MIT AND CC-BY-SA-3.0" in metadata
    sources = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("minidl/**/*.py")}
    sources |= {"minidl/" + p.relative_to(ROOT).as_posix() for p in ROOT.glob("kernels/**/*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


@pytest.mark.slow
def test_the_source_distribution_holds_the_tests(sdist):
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {
        "pyproject.toml",
        "LICENSE",
        "kernels/shapes.py",
        "minidl/data/files/digits.npz",
    } <= names
    assert {"tests/conftest.py", "tests/test_packaging.py", "Makefile"} <= names


def test_the_package_list_equals_the_folders():
    folders = {p.parent.relative_to(ROOT).parts for p in ROOT.glob("minidl/**/__init__.py")}
    folders |= {
        ("minidl", *p.parent.relative_to(ROOT).parts) for p in ROOT.glob("kernels/**/__init__.py")
    }
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(map(".".join, folders))


def test_import_is_quick_and_loads_nothing_heavy():
    code = """
import sys, time
start = time.process_time()  # what else runs here takes none of it
import minidl
seconds = time.process_time() - start
heavy = {"numba", "numba_cuda", "llvmlite", "cupy", "hypothesis", "matplotlib"}
print(seconds, sorted(heavy & set(sys.modules)))
"""
    seconds, heavy = min(python(code, ROOT).split(" ", 1) for _ in range(3))
    assert heavy == "[]"
    assert float(seconds) < 0.5
