"""CONTRIBUTING.md is true: its op, added to a copy of the project as the page says, is green."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
TEXT = PAGE.read_text(encoding="utf-8")
EDITS = re.findall(r"^`(\S+)`\n\n```(python|diff)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def followed(folder: Path) -> Path:
    """A copy of the project with the page's edits."""
    keep = (
        "kernels",
        "minidl",
        "tests",
        "benchmarks",
        "docs",
        "examples",
        "notebooks",
        "pyproject.toml",
        "README.md",
        PAGE.name,
    )
    for name in keep:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    for name, kind, code in EDITS:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        if kind == "python":
            text += f"\n\n{code}"
        else:
            old, new = (
                "".join(line[1:] for line in code.splitlines(keepends=True) if line[0] == mark)
                for mark in "-+"
            )
            assert text.count(old) == 1, f"put the line that {name} has now into {PAGE.name}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str) -> str:
    """What a command says that succeeds in a folder, with no other minidl in its way."""
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def test_it_is_five_edits():
    numbers = re.findall(r"^\*\*(\d)\. ", TEXT, re.MULTILINE)
    assert numbers == list("12345")
    assert len(EDITS) == 7  # the kernel and the op are two files each


def test_the_op_of_the_page_is_green_on_the_cpu(tmp_path):
    folder = followed(tmp_path)
    quick = "not emulator and not gpu and not slow"
    said = run(folder, "pytest", "-q", "-k", "softsign", "-m", quick, "-p", "no:cacheprovider")
    assert int(re.search(r"(\d+) passed", said)[1]) >= 10, said
    run(folder, "pytest", "-q", "tests/test_architecture.py", "-p", "no:cacheprovider")


@pytest.mark.emulator
def test_the_op_of_the_page_is_green_on_cuda(tmp_path):
    folder = followed(tmp_path)
    emulated = "emulator and not gpu and not slow"
    said = run(folder, "pytest", "-q", "-k", "softsign", "-m", emulated, "-p", "no:cacheprovider")
    assert int(re.search(r"(\d+) passed", said)[1]) >= 5, said
    said = run(folder, "minidl.kernels.report", "softsign", "--cc", "8.0", "--jobs", "1")
    assert re.search(r"of \d+ kernels, 0 wrong", said), said
