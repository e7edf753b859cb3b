"""The README is true: its Python runs, its quotations are the code, its commands exist."""

import re
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from minidl.kernels.testing import check

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- from (\S+) -->\n)?```(\S*) ?(\S*)\n(.*?)```", TEXT, re.DOTALL)


def test_quoted_code_stands_in_the_file_it_is_said_to_be_from():
    quoted = [(path, code) for _, path, _, _, code in BLOCKS if path]
    assert len(quoted) >= 2
    for path, code in quoted:
        assert code in (ROOT / path).read_text(encoding="utf-8"), path


def test_the_python_runs(capsys):
    blocks = [code for quoted, _, kind, mark, code in BLOCKS if kind == "python"]
    runnable = [
        code for quoted, _, kind, mark, code in BLOCKS if (kind, mark, quoted) == ("python", "", "")
    ]
    assert len(blocks) > len(runnable) >= 2
    for code in runnable:
        space: dict = {}
        exec(compile(code, "README.md", "exec"), space)
    out = capsys.readouterr().out
    assert re.search(r"relu\[careless, float32\] y.* = nan, reference 0", out), out
    accuracy = float(re.search(r"'accuracy': ([\d.]+)", out)[1])
    assert accuracy > 0.9


@pytest.mark.emulator
def test_the_kernel_without_its_barrier_fails_as_quoted():
    code = next(code for _, _, _, mark, code in BLOCKS if mark == "emulated")
    exec(compile(code, "README.md", "exec"), {})  # says nothing

    path = ROOT / "kernels" / "cuda" / "ladder.py"
    line = re.search(r"With the line `(.*)` deleted", TEXT)[1]
    before, after = path.read_text(encoding="utf-8").split(line)
    broken = ModuleType("broken")
    broken.__package__ = "minidl.kernels.cuda"
    exec(compile(before + after, path, "exec"), vars(broken))
    with pytest.raises(AssertionError) as found:
        check(broken.tiled, against="matmul")
    said = "".join(str(found.value).splitlines(keepends=True)[:2])
    assert said in [code for _, _, kind, _, code in BLOCKS if kind == "text"]


@pytest.mark.emulator
def test_the_sanitizer_finds_what_the_page_says(capsys):
    _, code = (code for _, _, _, mark, code in BLOCKS if mark == "emulated")
    exec(compile(code, "<page>", "exec"), {"__name__": "page"})  # it asserts what is found
    assert "reverse: " in capsys.readouterr().out


def test_every_path_in_the_tree_exists():
    tree = next(code for _, _, kind, _, code in BLOCKS if code.startswith("kernels/"))
    top = ""
    for line in tree.splitlines():
        names = re.findall(r"(?<!\S)[\w/]+(?:\.py|/)(?!\S)", line)
        top = "" if not line.startswith(" ") else top
        for name in names:
            assert (ROOT / top / name).exists(), f"{top}{name}"
        top = names[0] if not line.startswith(" ") and names else top


def test_every_path_in_the_text_exists():
    for path in re.findall(r"`((?:kernels|minidl|notebooks|benchmarks|tests)/[\w/.]+)`", TEXT):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", re.findall(r"`python -m (benchmarks\.\w+)", TEXT))
def test_every_benchmark_exists(command):
    assert (ROOT / (command.replace(".", "/") + ".py")).exists()


def test_every_example_exists_and_is_run_by_a_test():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"python examples/([\w/]+)\.py", TEXT))
    assert len(named) >= 6
    for name in named:
        assert (ROOT / "examples" / f"{name}.py").exists(), name
        assert re.search(rf"import {name}\b|{name}\.py", tests), name


def test_every_minidl_command_is_accepted_by_the_command_line():
    from minidl.cli import _parser

    sh = "\n".join(code for _, _, kind, _, code in BLOCKS if kind == "sh")
    commands = re.findall(r"(?:^|&& |/)minidl ([^&#\n]+)", sh, re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        _parser().parse_args(textwrap.dedent(command).split())


def test_every_make_target_exists():
    targets = set(re.findall(r"^make (\w+)", TEXT, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == {"train", "test"}
    assert all(re.search(rf"^{t}:", makefile, re.MULTILINE) for t in targets)
