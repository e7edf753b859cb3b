"""docs/documents.md against the tests of its rows, and the documents' programs on a little data."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "documents.md").read_text(encoding="utf-8")
ROWS = {int(n): line for n, line in re.findall(r"^\| (\d+) (\|.*)$", PAGE, re.MULTILINE)}
TESTS = "".join(f.read_text(encoding="utf-8") for f in (ROOT / "tests").rglob("test_*.py"))


def test_every_row_is_there_once():
    assert [*ROWS] == [*range(1, 69)]
    assert re.findall(r"^\| (\d+) ", PAGE, re.MULTILINE) == [str(n) for n in ROWS]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_its_test_or_says_why_not(row):
    named = re.findall(rf"^(?:def )?test_row_{row:02}_\w+", TESTS, re.MULTILINE)
    absent = re.search(r"^\|[^|]*\| not there yet", ROWS[row])
    assert bool(named) != bool(absent), ROWS[row]


def program(tmp_path, name, *flags):
    """What a document's program prints, run in an empty folder."""
    command = [sys.executable, ROOT / "examples" / "documents" / name, *flags]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_first_documents_program(tmp_path):
    said = program(tmp_path, "s0_networks.py", "--quick")
    assert "Epoch 1" in said and share(said, "Test") > 0.5
    said = program(tmp_path, "s0_networks.py", "--quick", "--model", "mobilenet")
    assert "Test: " in said


def test_the_second_documents_program(tmp_path):
    assert share(program(tmp_path, "s1_pictures_and_sounds.py", "--quick"), "pictures") > 0.6


@pytest.mark.download
def test_the_second_documents_program_with_sounds(tmp_path):
    said = program(tmp_path, "s1_pictures_and_sounds.py", "--sounds", "--epochs", "5")
    assert share(said, "pictures") > 0.85 and share(said, "sounds") > 0.5


@pytest.mark.download
def test_the_third_documents_program(tmp_path):
    said = program(tmp_path, "s2_cifar10.py", "--quick")
    assert "167,562" in said and share(said, "test loss") > 0.25
    assert (tmp_path / "runs" / "s2-cifar10" / "curves.png").stat().st_size > 1000


@pytest.mark.numba  # half a minute on NumPy alone
def test_the_fourth_documents_program(tmp_path):
    pytest.importorskip("h5py")
    flags = "--gpustat=on", "--model_file=your_model.h5", "--batch_size=20", "--num_epochs=1"
    first = program(tmp_path, "s3_vgg16.py", "--quick", *flags)
    assert "no GPU" in first or "% busy" in first
    again = program(tmp_path, "s3_vgg16.py", "--quick", *flags)  # goes on with the file
    assert share(again, "Model accuracy") > max(0.3, share(first, "Model accuracy"))


def test_the_fifth_documents_program(tmp_path):
    assert share(program(tmp_path, "s4_mnist.py", "--quick"), "Epoch 2") > 0.85


def share(said, start):
    """The last percentage in the last line that begins so, as a number from 0 to 1."""
    line = [line for line in said.splitlines() if line.startswith(start)][-1]
    return float(re.findall(r"([\d.]+)%", line)[-1]) / 100
