"""docs/testing-kernels.md is true: its files, in an empty folder, do what the page says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "testing-kernels.md").read_text(encoding="utf-8")
FILES = re.findall(r"`(\w+\.py)`[\w ,)]*:\n\n```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
INSTALL, PYTEST, PROGRAM, KERNEL, WRONG = (shlex.split(command) for command in COMMANDS)
PLUGIN = "-p", "minidl.kernels.pytest_plugin", "-p", "no:cacheprovider"

pytestmark = pytest.mark.emulator


@pytest.fixture
def folder(tmp_path):
    """An empty folder, and in it what the page writes."""
    assert [name for name, _ in FILES] == [
        "vectors.py", "test_vectors.py", "wrong.py", "test_square.py",
    ]  # fmt: skip
    for name, code in FILES:
        (tmp_path / name).write_text(code, encoding="utf-8")
    return tmp_path


def run(folder: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess:
    """A command of the page, as this Python's module, with no other settings in its way."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("MINIDL_", "PYTEST_"))}
    clean |= {n: v for n, v in os.environ.items() if n == "MINIDL_CACHE"}
    plugin = PLUGIN if tool == "pytest" else ()
    return subprocess.run(
        [sys.executable, "-m", tool, *plugin, *arguments],
        cwd=folder, env=clean | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_extra_that_it_installs_is_there():
    extra = re.search(r"minidl\[(\w+)\]", INSTALL[-1])[1]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(rf'^{extra} = \[.*"pytest.*"hypothesis', project, re.MULTILINE)
    assert TEXT.count(INSTALL[-1]) == 2  # the snippet of GitHub Actions has it, too
    assert '"minidl.kernels.pytest_plugin" = "minidl.kernels.pytest_plugin"' in project


def test_its_tests_pass_and_can_fail(folder):
    done = run(folder, *PYTEST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b4 passed", done.stdout), done.stdout
    vectors = folder / "vectors.py"
    vectors.write_text(vectors.read_text().replace("        cuda.syncthreads()\n", ""))
    done = run(folder, *PYTEST, "test_vectors.py")
    assert done.returncode == 1
    assert re.search(r"\b2 failed, 1 passed", done.stdout), done.stdout
    assert "race of partial[" in done.stdout


def test_what_it_says_of_sanitize(folder):
    assert run(folder, *PROGRAM).returncode == 0
    assert run(folder, *KERNEL).returncode == 0
    done = run(folder, *WRONG)
    assert done.returncode == 1
    assert "race of partial[" in done.stdout
    assert "syncthreads() in between would make them wait" in done.stdout
