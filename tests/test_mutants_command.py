"""minidl mutants: which faults are planted, and that weak tests let through what strong ones see.

The worked example of docs/mutants.md is run here, too.
"""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from minidl.cli import main
from minidl.kernels.mutants import HINTS, Source, faults

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.numba  # what it plants does not depend on who computes, and it takes long


def planted(tmp_path, text, *names):
    """The faults of functions of a source: (kind, what stands in the line now)."""
    path = tmp_path / "kernel.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    source = Source(path)
    return [(f.kind, f.after) for f in faults(source, source.chosen(names or source.functions))]


def of(body):
    """The faults of the lines of one kernel."""
    return "@cuda.jit\ndef kernel(x, y, n):\n" + textwrap.indent(textwrap.dedent(body), "    ")


# ---- the operators, each with all that it makes of a few lines

LINES = {
    "a guard": (
        "i = cuda.grid(1)\nif i < x.size:\n    y[i] = x[i]",
        [
            ("grid", "i = cuda.threadIdx.x"), ("neighbour", "i = cuda.grid(1) + 1"),
            ("guard", "if True:"), ("edge", "if i <= x.size:"), ("neighbour", "y[i] = x[i + 1]"),
        ],
    ),
    "an early return": (
        "i = cuda.grid(1)\nif i >= n:\n    return\ny[i] = n",
        [
            ("grid", "i = cuda.threadIdx.x"), ("neighbour", "i = cuda.grid(1) + 1"),
            ("guard", "(deleted)"), ("edge", "if i > n:"),
        ],
    ),
    "two axes": (
        "i, j = cuda.grid(2)\nif i < x.shape[0] and j < x.shape[1]:\n    y[j, i] = x[i, j]",
        [
            ("axis", "j, i = cuda.grid(2)"),
            ("guard", "if j < x.shape[1]:"), ("guard", "if i < x.shape[0]:"),
            ("edge", "if i <= x.shape[0] and j < x.shape[1]:"),
            ("axis", "if i < x.shape[1] and j < x.shape[1]:"),
            ("edge", "if i < x.shape[0] and j <= x.shape[1]:"),
            ("axis", "if i < x.shape[0] and j < x.shape[0]:"),
            ("indices", "y[i, j] = x[i, j]"), ("indices", "y[j, i] = x[j, i]"),
            ("neighbour", "y[j, i] = x[i, j + 1]"),
        ],
    ),
    "the place of a thread: no minus, which would hit all elements from behind": (
        "i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x",
        [
            ("term", "i = cuda.threadIdx.x"), ("term", "i = cuda.blockIdx.x * cuda.blockDim.x"),
            ("axis", "i = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x"),
            ("axis", "i = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.x"),
            ("axis", "i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.y"),
        ],
    ),
    "a stride: no shorter one, which does the same twice": (
        "for i in range(cuda.grid(1), n, cuda.gridDim.x * cuda.blockDim.x):\n    y[i] = i",
        [
            ("loop", "for i in range(cuda.grid(1), n - 1, cuda.gridDim.x * cuda.blockDim.x):"),
            ("grid", "for i in range(cuda.threadIdx.x, n, cuda.gridDim.x * cuda.blockDim.x):"),
            ("neighbour",
             "for i in range(cuda.grid(1) + 1, n, cuda.gridDim.x * cuda.blockDim.x):"),
            ("grid", "for i in range(cuda.grid(1), n, cuda.gridDim.x * cuda.blockDim.x + 1):"),
        ],
    ),
    "a tree: no endless loop, no other writer of the same sum, room in the array": (
        """\
        s = cuda.shared.array(32 + 1, numba.float32)
        t = cuda.threadIdx.x
        half = 16
        while half > 0:
            if t < half:
                s[t] += s[t + half]
            cuda.syncthreads()
            half //= 2
        if t == 0:
            y[0] = s[0]
        cuda.syncthreads()""",
        [
            ("whole numbers", "s = cuda.shared.array(32 + 1, numba.int32)"),
            ("axis", "t = cuda.threadIdx.y"), ("number", "half = 17"),
            ("number", "while half > 1:"), ("guard", "if True:"), ("edge", "if t <= half:"),
            ("overwrite", "s[t] = s[t + half]"), ("sign", "s[t] -= s[t + half]"),
            ("sign", "s[t] += s[t - half]"), ("term", "s[t] += s[t]"), ("barrier", "(deleted)"),
            ("number", "half //= 3"), ("number", "y[1] = s[0]"), ("number", "y[0] = s[1]"),
        ],
    ),
    "atomics": (
        "cuda.atomic.add(y, (x[n], n), 1)\ncuda.atomic.max(y, n, x[n])",
        [
            ("atomic", "y[x[n], n] += 1"), ("overwrite", "y[x[n], n] = 1"),
            ("number", "cuda.atomic.add(y, (x[n], n), 2)"),
            ("atomic", "y[n] = max(y[n], x[n])"), ("min for max", "cuda.atomic.min(y, n, x[n])"),
        ],
    ),
    "one thread that adds for all": (
        "if cuda.threadIdx.x == 0:\n    cuda.atomic.add(y, n, n)",
        [
            ("guard", "if True:"), ("axis", "if cuda.threadIdx.y == 0:"),
            ("atomic", "y[n] += n"), ("overwrite", "y[n] = n"),
        ],
    ),
    "a shuffle": (
        "v = n + cuda.shfl_down_sync(0xFFFFFFFF, n, 4)\ncuda.syncwarp()\ny[n] = v",
        [
            ("sign", "v = n - cuda.shfl_down_sync(0xFFFFFFFF, n, 4)"), ("term", "v = n"),
            ("shuffle", "v = n + cuda.shfl_up_sync(0xFFFFFFFF, n, 4)"),
            ("shuffle", "v = n + cuda.shfl_down_sync(65535, n, 4)"),
            ("number", "v = n + cuda.shfl_down_sync(0xFFFFFFFF, n, 5)"),
            ("barrier", "(deleted)"),
        ],
    ),
    "a maximum: at equal values both sides are the same": (
        "best = -math.inf\nfor k in range(n):\n    if x[k] > best:\n        best = x[k]",
        [
            ("start", "best = 0.0"), ("loop", "for k in range(n - 1):"),
            ("loop", "for k in range(1, n):"), ("condition", "if True:"),
            ("min for max", "if x[k] < best:"), ("neighbour", "if x[k + 1] > best:"),
            ("neighbour", "best = x[k + 1]"),
        ],
    ),
    "relu": (
        "v = x[n] if x[n] > 0 else 0.0",
        [
            ("condition", "v = x[n] if True else 0.0"),
            ("min for max", "v = x[n] if x[n] < 0 else 0.0"),
            ("number", "v = x[n] if x[n] > 1 else 0.0"),
            ("number", "v = x[n] if x[n] > 0 else 1.0"),
        ],
    ),
    "leaky relu": (
        "if n > 0:\n    v = n\nelse:\n    v = 0.1 * n",
        [
            ("min for max", "if n < 0:"), ("number", "if n > 1:"), ("number", "v = 0.2 * n"),
        ],
    ),
    "a sum and a mean": (
        "total = 0.0\nfor k in range(2, n):\n    total += x[k] * 0.5\ny[0] = -total / n\ny[n] = 0",
        [
            ("start", "total = 1.0"), ("loop", "for k in range(2, n - 1):"),
            ("loop", "for k in range(2 + 1, n):"), ("overwrite", "total = x[k] * 0.5"),
            ("sign", "total -= x[k] * 0.5"), ("neighbour", "total += x[k + 1] * 0.5"),
            ("number", "total += x[k] * 1.0"), ("whole numbers", "y[0] = -total // n"),
            ("number", "y[1] = -total / n"), ("sign", "y[0] = total / n"),
            ("start", "(deleted)"), ("start", "y[n] = 1"),
        ],
    ),
    "NumPy": (
        "y[...] = np.maximum(x.T, n).sum(axis=0)\ny[n] = x.max(axis=-1, keepdims=True)",
        [
            ("axis", "y[...] = np.maximum(x.T, n).sum(axis=1)"),
            ("min for max", "y[...] = np.minimum(x.T, n).sum(axis=0)"),
            ("indices", "y[...] = np.maximum(x, n).sum(axis=0)"),
            ("axis", "y[n] = x.max(axis=0, keepdims=True)"),
            ("min for max", "y[n] = x.min(axis=-1, keepdims=True)"),
        ],
    ),
    "what a program says is no fault": (
        'if n < 0:\n    raise ValueError(f"n is {n + 1}")\nassert n + 1 > 0, "no " + "n"', [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_the_faults_of_a_few_lines_are_these(tmp_path, case):
    body, expected = LINES[case]
    assert sorted(planted(tmp_path, of(body))) == sorted(expected)


@pytest.mark.parametrize(
    "up", ["(n + 63) // 64", "(n + size - 1) // size", "(n + (size - 1)) // size", "-(-n // size)",
           "blocks(n, size)"]
)  # fmt: skip
def test_a_grid_that_is_rounded_up_loses_its_last_block(tmp_path, up):
    text = f"def launch(x, n):\n    size = 64\n    kernel[{up}, size](x)\n"
    assert planted(tmp_path, text) == [
        ("number", "size = 63"),
        ("grid", f"kernel[n // {'64' if '64' in up else 'size'}, size](x)"),
    ]


def test_every_kind_of_fault_occurs_here_and_has_a_hint():
    assert {kind for _, expected in LINES.values() for kind, _ in expected} == set(HINTS)


def test_a_fault_changes_one_piece_and_nothing_else(tmp_path):
    path = tmp_path / "kernel.py"
    text = (
        'S = "ä"  # ü\ndef f(a, b):\n    """Doc."""\n    ß = (a  -  b) * 2  # why\n    return ß\n'
    )
    path.write_text(text, encoding="utf-8")
    source = Source(path)
    found = {f.after: f for f in faults(source, ["f"])}
    assert set(found) == {
        "ß = (a + b) * 2  # why",
        "ß = (a) * 2  # why",
        "ß = (a  -  b) * 3  # why",
    }
    for after, fault in found.items():
        assert fault.source == text.replace("ß = (a  -  b) * 2  # why", after)
        assert (fault.line, fault.function) == (4, "f")
    assert path.read_text(encoding="utf-8") == text


def test_what_a_test_reaches_is_changed_and_a_definition_beside_it_is_not(tmp_path):
    path = tmp_path / "kernel.py"
    path.write_text(
        "def expected(x):\n    return x + 1\n\n"
        "@cuda.jit(device=True)\ndef more(v):\n    return v + 1\n\n"
        "@cuda.jit\ndef kernel(x):\n    x[0] = more(x[0])\n\n"
        "def launch(x):\n    kernel[1, 1](x)\n\n"
        "def other(x):\n    return x + 2\n"
    )
    source = Source(path)
    assert source.chosen(["launch", "expected"]) == ["more", "kernel", "launch"]
    assert source.chosen(["expected"]) == ["expected"]
    assert source.chosen(["other", "expected"], ["other"]) == ["other"]


# ---- the command


def mutants(folder, *arguments):
    """Run the command in a folder of its own: (exit code, what it prints, what it complains)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "mutants", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


NORM = """\
import numpy as np


def norm(x, y):
    total = 0.0
    for k in range(x.size):
        total += x[k] * x[k]
    y[0] = np.sqrt(total)


def forever(x, y):
    k = 0
    while k < x.size:
        y[k] = x[k]
        k += 1
"""
WEAK = """\
import numpy as np
from norm import norm

def test_of_nothing():
    y = np.zeros(1)
    norm(np.zeros(3), y)
    assert y[0] == 0
"""
STRONG = """\
import numpy as np
import norm

def test_of_numbers():
    y = np.full(1, np.nan)
    norm.norm(np.array([3.0, 0.0, 0.0, 4.0]), y)
    assert y[0] == 5
"""


@pytest.fixture
def project(tmp_path):
    """A learner's folder: a kernel in plain Python, weak tests and strong ones."""
    for name, text in (("norm", NORM), ("test_weak", WEAK), ("test_strong", STRONG)):
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def found(out):
    return {(f["line"], f["after"]): f for f in json.loads(out)["faults"]}


def test_weak_tests_let_through_what_strong_ones_notice(project):
    before = {p: p.read_bytes() for p in project.iterdir()}
    code, out, error = mutants(project, "test_weak.py", "--json", "-")
    assert (code, error) == (0, "")
    weak = found(out)
    assert {at for at, f in weak.items() if f["outcome"] == "killed"} == {
        (5, "total = 1.0"), (7, "total += x[k + 1] * x[k]"), (7, "total += x[k] * x[k + 1]"),
        (8, "y[1] = np.sqrt(total)"),
    }  # fmt: skip
    survived = weak[7, "total -= x[k] * x[k]"]
    assert survived["outcome"] == "survived"
    assert survived["hint"] == HINTS["sign"]
    code, out, error = mutants(project, "test_strong.py", "--json", "-", "--fail-under", "100")
    assert (code, error) == (0, "")
    strong = found(out)
    assert strong.keys() == weak.keys()
    assert all(f["outcome"] == "killed" for f in strong.values())
    assert strong[5, "total = 1.0"]["by"] == "test_strong.py::test_of_numbers"
    assert strong[5, "total = 1.0"]["said"].startswith("assert np.float64(5.09")
    assert {p: p.read_bytes() for p in project.iterdir()} == before  # no byte, and no file, more


def test_a_part_of_the_faults_is_drawn_and_a_score_can_be_asked_for(project):
    code, out, _ = mutants(
        project, "test_weak.py", "--limit", "2", "--seed", "3", "--fail-under", "99"
    )
    assert code == 1
    assert re.search(
        r"^\d of 2 faults \(of 8 possible\) killed, \d+ %, in \d+ s$", out, re.MULTILINE
    )
    assert "SURVIVED" in out
    assert "What would notice them" in out


def test_a_loop_without_end_is_noticed(project):
    (project / "test_forever.py").write_text(
        "import numpy as np\nimport norm\n\ndef test_copy():\n    x, y = np.ones(3), np.zeros(3)\n"
        "    norm.forever(x, y)\n    assert (x == y).all()\n"
    )
    (project / "norm.py").write_text(
        NORM.replace("y[k]", "y[k % 3]")
        .replace("x[k]\n", "x[k % 3]\n")
        .replace("k += 1", "k = k + 1")
    )
    code, out, error = mutants(project, "test_forever.py", "--seconds", "2", "--json", "-")
    assert (code, error) == (0, "")
    assert found(out)[15, "k = k - 1"]["by"] == "a loop without end"
    assert found(out)[15, "k = k"]["outcome"] == "killed"


@pytest.mark.numba
def test_a_kernel_may_stand_among_its_tests_and_numba_may_keep_its_code(project):
    text = (
        "import numba\nimport numpy as np\n\n@numba.njit(cache=True)\ndef twice(x, y):\n"
        "    for i in range(x.size):\n        y[i] = 2 * x[i]\n\ndef test_twice():\n"
        "    x, y = np.arange(4.0), np.zeros(4)\n"
        "    twice(x, y)\n    assert list(y) == [0, 2, 4, 6]\n"
    )
    (project / "test_twice.py").write_text(text)
    code, out, error = mutants(project, "test_twice.py", "--json", "-")
    assert (code, error) == (0, "")
    assert {at: f["outcome"] for at, f in found(out).items()} == {
        (6, "for i in range(x.size - 1):"): "killed",
        (6, "for i in range(1, x.size):"): "survived",  # it is 0 there, by luck
        (7, "y[i] = 3 * x[i]"): "killed",
        (7, "y[i] = 2 * x[i + 1]"): "killed",
    }
    assert not (project / "__pycache__").exists()


def test_what_does_not_run_in_a_forked_process_runs_in_a_fresh_one(project):
    (project / "test_strong.py").write_text(
        STRONG + "\ndef test_of_processes():\n    import multiprocessing, os\n"
        "    assert os.getppid() == multiprocessing.parent_process().pid\n"
    )
    code, out, _ = mutants(project, "test_strong.py", "--json", "-", "--limit", "2")
    assert code == 0
    assert {f["by"] for f in json.loads(out)["faults"]} == {"test_strong.py::test_of_numbers"}


def test_what_passes_only_once_is_told(project):
    marks = project / "marks"
    (project / "test_once.py").write_text(
        "from pathlib import Path\nfrom norm import norm\n\ndef test_once():\n"
        f"    Path({str(marks)!r}).mkdir()\n"
    )
    code, _, error = mutants(project, "test_once.py")
    assert code == 1
    assert error.startswith(
        "minidl: the tests pass once, and not a second time: test_once.py::test_once: FileExists"
    )


WRONG = {
    "there is no test_gone.py": ("test_gone.py",),
    "no test of empty.py ran: pytest found none": ("empty.py",),
    "no test of test_skipped.py ran: pytest skipped them all": ("test_skipped.py",),
    "the tests fail before anything is wrong with the kernel, so they could not tell; first put "
    "this right: test_fails.py::test_of_two: assert 1 == 2": ("test_fails.py",),
    "test_none.py imports no kernel from a file of yours; say which one they test: "
    "--kernel FILE.py, or --kernel FILE.py:NAME": ("test_none.py",),
    "the tests import no kernel nrm; they import norm": ("test_weak.py", "--kernel", "nrm"),
    "norm.py has no function nrm; it has forever, norm": (
        "test_weak.py", "--kernel", "norm.py:nrm"),
    "there is no nrm.py": ("test_weak.py", "--kernel", "nrm.py"),
    "there is nothing in empty.py that a fault could be planted in": (
        "test_weak.py", "--kernel", "empty.py"),
}  # fmt: skip


@pytest.mark.parametrize("said", WRONG, ids=lambda s: s[:24])
def test_what_is_wrong_with_the_command_line_is_one_sentence(project, said, monkeypatch, capsys):
    (project / "empty.py").write_text("X = 1\n")
    (project / "test_none.py").write_text("def test_of_one():\n    assert 1\n")
    (project / "test_fails.py").write_text("def test_of_two():\n    assert 1 == 2\n")
    (project / "test_skipped.py").write_text(
        "import pytest\n\n@pytest.mark.skip\ndef test_of_one():\n    assert 1\n"
    )
    monkeypatch.chdir(project)
    assert main(["mutants", *WRONG[said]]) == 1
    assert capsys.readouterr() == ("", f"minidl: {said}\n")


def test_a_test_that_crashes_is_told(project):
    (project / "test_crash.py").write_text(
        "import os, sys\n\ndef test_crash():\n    os.write(2, b'gone')\n    os._exit(3)\n"
    )
    code, _, error = mutants(project, "test_crash.py")
    assert code == 1
    assert error.startswith("minidl: the tests of test_crash.py did not come to an end: crashed, ")
    assert "exit code 3" in error


def test_without_pytest_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["mutants", "test_gone.py"]) == 1
    assert capsys.readouterr().err.endswith("which is not here: pip install pytest\n")


@pytest.mark.emulator
def test_a_kernel_without_end_is_noticed_before_its_time_is_over(tmp_path):
    (tmp_path / "copies.py").write_text(
        "from numba import cuda\n\n\n@cuda.jit\ndef copied(x, y):\n"
        "    i = cuda.grid(1)\n    while i < x.size:\n"
        "        y[i] = x[i]\n        i = i + cuda.gridsize(1)\n"
    )
    (tmp_path / "test_copies.py").write_text(
        "import numpy as np\nfrom copies import copied\n\n"
        "def test_copy(kernel_runner):\n"
        "    x, y = np.arange(9.0), np.zeros(9)\n"
        "    kernel_runner(copied, 1, 4, x, y)\n    assert (x == y).all()\n"
    )
    drawn = "--limit", "1", "--seed", "19", "--seconds", "200", "--json", "-"
    code, out, error = mutants(tmp_path, "test_copies.py", *drawn)
    assert (code, error) == (0, "")
    fault = found(out)[9, "i = i"]
    assert fault["outcome"] == "killed" and fault["by"].startswith("test_copies.py::test_copy")
    assert fault["seconds"] < 100  # else it was the limit


# ---- docs/mutants.md

TEXT = (ROOT / "docs" / "mutants.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```\w+ (\S+)\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def example(tmp_path):
    for name, code in BLOCKS.items():
        if name.endswith(".py"):
            (tmp_path / name).write_text(code, encoding="utf-8")
    return tmp_path


@pytest.mark.emulator
def test_the_example_of_the_document_prints_what_it_says(example):
    code, out, error = mutants(example, "test_dot.py")
    assert (code, error) == (0, "")
    timeless = re.compile(r", in \d+ s$", re.MULTILINE)
    assert timeless.sub("", out) == timeless.sub("", BLOCKS["weak"])
    assert out.count("SURVIVED") == 9  # in words, below


@pytest.mark.emulator
def test_the_better_tests_of_the_document_notice_the_faults_that_only_a_gpu_has(example):
    drawn = "--kernel", "_dot", "--limit", "4", "--seed", "91", "--json", "-"
    code, out, error = mutants(example, "test_dot_better.py", *drawn)
    assert (code, error) == (0, "")
    assert {f["outcome"] for f in json.loads(out)["faults"]} == {"killed"}
    kinds = [f["kind"] for f in json.loads(out)["faults"]]
    assert kinds == ["grid", "edge", "barrier", "atomic"]


@pytest.mark.slow
@pytest.mark.emulator
def test_the_better_tests_of_the_document_notice_everything(example):
    code, out, error = mutants(example, "test_dot_better.py", "--fail-under", "100")
    assert (code, error) == (0, "")
    assert BLOCKS["strong"].strip() in out


def test_every_option_is_in_the_document(capsys):
    with pytest.raises(SystemExit):
        main(["mutants", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert options == set(re.findall(r"`(--[a-z-]+)", TEXT))
