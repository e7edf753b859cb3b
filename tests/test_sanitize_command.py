"""minidl sanitize: a program, a function or a kernel of somebody's, and what is told of it."""

import json

import numpy as np
import pytest

from minidl.cli import main
from minidl.cli.sanitizing import value_of

pytestmark = pytest.mark.emulator

PROGRAM = """
import sys
import numpy as np
from numba import cuda

@cuda.jit
def count(x, out, step):
    i = cuda.grid(1)
    if i < x.size and x[i] > 0:
        out[0] += step

def launch():
    count[2, 32](np.ones(40), np.zeros(1, np.int64), 1)

if __name__ == "__main__":
    print("given", sys.argv[1:])
    if len(sys.argv) > 1:
        sys.exit("stop")
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / 'a "folder" of Zoé\'s' / "counting.py"  # its lines are quoted all the same
    path.parent.mkdir()
    path.write_text(PROGRAM)
    return str(path)


def test_a_kernel_with_arguments_made_for_it(program, capsys):
    launch = ["--grid", "2", "--block", "32", "--arg", "out=zeros:int64[1]", "--arg", "step=1"]
    assert main(["sanitize", f"{program}:count", *launch, "--arg", "x=ones:float64[40]"]) == 1
    told = capsys.readouterr().out
    assert "race of out[0]" in told
    assert "out[0] += step" in told
    assert main(["sanitize", f"{program}:count", *launch, "--arg", "x=zeros:float64[40]"]) == 0
    assert "1 launch, no findings" in capsys.readouterr().out


def test_a_function_that_launches_in_json(program, capsys):
    assert main(["sanitize", f"{program}:launch", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failure"] is None
    assert [launch["kernel"] for launch in told["launches"]] == ["count"]
    assert told["launches"][0]["findings"][0]["kind"] == "race"
    assert told["launches"][0]["threads"] == 64


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "launched no kernel"),
        (["--", "a", "-b"], "ended with exit code stop"),
        ([":counts"], "there is no counts in it; its kernels: count"),
        ([":count", "--arg", "x=1"], "the kernel takes out, step too"),
        ([":count", "--arg", "z=1"], "--arg z=1: write NAME=VALUE, of (x, out, step)"),
        ([":count", "--arg", "x=float31[3]"], "'float31[3]' is no argument: write a number"),
    ],
)
def test_what_cannot_be_run_says_why(program, capsys, more, said):
    name, more = (more[0], more[1:]) if more and more[0][0] == ":" else ("", more)
    assert main(["sanitize", program + name, *more]) == 2
    told = capsys.readouterr()
    assert said in told.err
    if more[:1] == ["--"]:
        assert "given ['a', '-b']" in told.out


def test_the_words_for_arguments(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    rng = np.random.default_rng(0)

    def made(text):
        return value_of(text, rng)[0]

    assert (made("100"), made("-0.5"), type(made("1e3"))) == (100, -0.5, float)
    assert made("int32:7") == np.int32(7)
    assert made("int32:7").dtype == np.int32
    np.testing.assert_array_equal(made(str(tmp_path / "x.npy")), [0, 1, 2])
    np.testing.assert_array_equal(made("arange:int32[2,3]"), np.arange(6).reshape(2, 3))
    assert made("float32[5]").dtype == np.float32
    assert np.unique(made("float32[50]")).size == 50
    assert value_of("empty:float64[4]", rng)[1]
    assert np.isnan(made("empty:float64[4]")).all()
