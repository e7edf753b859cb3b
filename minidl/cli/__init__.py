"""The command `minidl`: train, predict, export, bench, sanitize, mutants, data, doctor, cache.

What a user can put right is one line on stderr and exit code 1 (2 for the command line itself).
MINIDL_DEBUG=1 shows the traceback.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .. import __version__
from ..later import later

__getattr__, _ = later(__name__, scripts="script Script")

_TOLD = (
    ValueError, OSError, RuntimeError, TypeError, ArithmeticError, ImportError, MemoryError
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments, argv) or 0
    except KeyboardInterrupt:
        print("\nminidl: stopped, nothing was saved", file=sys.stderr)
        return 130
    except _TOLD as error:
        if os.environ.get("MINIDL_DEBUG"):
            raise
        lines = [str(error) or type(error).__name__, *getattr(error, "__notes__", ())]
        print("minidl: " + "; ".join(lines).replace("\n", " "), file=sys.stderr)
        return 1


def _train(arguments: argparse.Namespace, argv: list[str]) -> None:
    from .training import train

    train(arguments, argv)


def _predict(arguments: argparse.Namespace, argv: list[str]) -> None:
    from .predicting import predict_images

    predict_images(arguments.model, arguments.images, arguments.invert)


def _export(arguments: argparse.Namespace, argv: list[str]) -> None:
    from .exporting import export

    export(arguments.model, arguments.out, arguments.sparse)


def _bench(arguments: argparse.Namespace, argv: list[str]) -> None:
    from .bench import bench

    bench(arguments, argv)


def _mutants(arguments: argparse.Namespace, argv: list[str]) -> int:
    from .mutants import mutants

    return mutants(arguments, argv)


def _fetch(arguments: argparse.Namespace, argv: list[str]) -> None:
    from ..data import fetch
    from ..data.catalog import LICENCES

    print(f"{arguments.name}: verified, in {fetch(arguments.name, arguments.root)}")
    print(f"licence: {LICENCES[arguments.name]}")


def _list(arguments: argparse.Namespace, argv: list[str]) -> None:
    from ..data.catalog import FILES, HOW, PACKED, files, find

    print(f"{'digits':14} 10,000 + 2,000 images of MNIST, part of minidl")
    for name in FILES:
        for wanted in filter(None, (files(name), PACKED.get(name))):
            found = [path for file in wanted if (path := find(name, file))]
            if len(found) == len(wanted):
                print(f"{name:14} in {found[0].parent}")
                break
        else:
            how = HOW.get(name, f"`minidl data fetch {name}` downloads it")
            print(f"{name:14} not here; {how[0].lower() + how[1:]}")


def _doctor(arguments: argparse.Namespace, argv: list[str]) -> int:
    from .doctor import doctor

    return doctor(arguments, argv)


def _sanitize(arguments: argparse.Namespace, argv: list[str]) -> int:
    from .sanitizing import sanitize

    return sanitize(arguments, argv)


def _cache(action: str) -> Callable[[argparse.Namespace, list[str]], None]:
    def run(arguments: argparse.Namespace, argv: list[str]) -> None:
        from . import cache

        getattr(cache, action)(arguments, argv)

    return run


def _number(kind: type, what: str, fits: Callable[[Any], bool]) -> Callable[[str], Any]:
    """A type for argparse: numbers that fit."""

    def read(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if fits(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")

    return read


_COUNT = _number(int, "a whole number from 1 on", lambda n: n >= 1)
_SEED = _number(int, "a whole number from 0 on", lambda n: n >= 0)
_RATE = _number(float, "a number above 0", lambda x: 0 < x < float("inf"))


def _recipe(text: str) -> str:
    """A type for argparse: the name of a recipe."""
    from ..check import known
    from .recipes import RECIPES

    try:
        known("model", text, RECIPES)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _folder_name(text: str) -> str:
    if text in ("", ".", "..") or os.path.basename(text) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a folder; see --out")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minidl", description="Train small networks.")
    parser.add_argument("--version", action="version", version=f"minidl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a network and save it")
    train.set_defaults(run=_train)
    add = train.add_argument
    add("model", type=_recipe, metavar="MODEL", help="mnist-cnn, mnist-mlp or cifar10-cnn")
    add("--data", metavar="digits|full|PATH",
        help="the digits that come with minidl (default for mnist-*), the full set, or a folder "
        "with its files")  # fmt: skip
    add("--epochs", type=_COUNT, metavar="N")
    add("--batch-size", type=_COUNT, metavar="N")
    add("--lr", type=_RATE, metavar="RATE", help="learning rate")
    add("--seed", type=_SEED, default=0, metavar="N", help="default 0")
    add("--device", default="cpu", help="cpu (default) or cuda")
    add("--out", default="runs", metavar="FOLDER", help="where runs are saved; default runs")
    add("--name", type=_folder_name, help="of this run; default: the model. A number is added "
        "when it is taken")  # fmt: skip

    predict = commands.add_parser("predict", help="name what is on pictures")
    predict.set_defaults(run=_predict)
    predict.add_argument("model", metavar="MODEL", help="a run's folder, or a .safetensors file")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help=".png or .npy")
    predict.add_argument("--invert", action="store_true", help="the pictures are dark on light")

    _model_commands(commands)
    _mutants_command(commands)
    sets = commands.add_parser("data", help="list and fetch data sets")
    actions = sets.add_subparsers(required=True, metavar="list|fetch")
    actions.add_parser("list", help="which sets there are, and where").set_defaults(run=_list)
    fetch = actions.add_parser("fetch", help="download a set, verified")
    fetch.set_defaults(run=_fetch)
    fetch.add_argument("name", metavar="NAME")
    fetch.add_argument("--root", metavar="FOLDER", help="where to; default: the user's cache")

    doctor = commands.add_parser("doctor", help="what the GPU needs, what of it is here")
    doctor.set_defaults(run=_doctor)
    doctor.add_argument("--json", action="store_true", help="for programs")

    _sanitize_command(commands)
    _cache_command(commands)
    return parser


def _model_commands(commands: Any) -> None:
    export = commands.add_parser("export", help="write a trained network to another file")
    export.set_defaults(run=_export)
    export.add_argument("model", metavar="MODEL", help="a run's folder, or a file of a network")
    export.add_argument("out", metavar="FILE", help="what it ends in says in which format")
    export.add_argument("--sparse", action="store_true", help="leave out weights that are 0")

    bench = commands.add_parser("bench", help="train the same network on every device, timed")
    bench.set_defaults(run=_bench)
    add = bench.add_argument
    add("model", type=_recipe, nargs="?", default="mnist-cnn", metavar="MODEL",
        help="mnist-cnn (default), mnist-mlp or cifar10-cnn")  # fmt: skip
    add("--data", metavar="digits|full|PATH", help="as of train")
    add("--batch-size", type=_COUNT, metavar="N", help="default: the recipe's")
    add("--seconds", type=_RATE, default=5.0, metavar="S", help="to measure each; default 5")
    add("--device", action="append", help="one to measure; may be repeated. Default: all")
    add("--json", metavar="FILE", help="write the numbers to a file; - prints nothing else")


def _mutants_command(commands: Any) -> None:
    mutants = commands.add_parser("mutants", help="do the tests notice when their kernel is wrong?")
    mutants.set_defaults(run=_mutants)
    add = mutants.add_argument
    add("tests", nargs="+", metavar="TESTS", help="a file for pytest, a folder, or FILE::TEST")
    add("--kernel", action="append", metavar="FILE.py:NAME",
        help="under test; NAME, FILE.py or both. Default: what the tests import")  # fmt: skip
    add("--limit", type=_COUNT, metavar="N", help="plant N faults, drawn; default: all")
    add("--seed", type=_SEED, default=0, metavar="N", help="of that, and of Hypothesis; default 0")
    add("--jobs", type=_COUNT, metavar="N", help="processes at a time; default: one a core")
    add("--seconds", type=_RATE, metavar="S",
        help="for one fault; default: 4 times what the tests take, and 10")  # fmt: skip
    add("--json", metavar="FILE", help="write what was found to a file; - prints nothing else")
    add("--fail-under", type=_RATE, metavar="PERCENT", help="exit code 1 if fewer are killed")


def _size(text: str) -> tuple[int, ...]:
    """A type for argparse: 64, or 16,16 along the axes of a grid or a block."""
    parts = text.replace("x", ",").split(",")
    if len(parts) > 3 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64 or 16,16")
    return tuple(map(int, parts))


def _sanitize_command(commands: Any) -> None:
    sanitize = commands.add_parser(
        "sanitize", help="run CUDA kernels on this CPU and say what is wrong with them",
        description="Run a program that launches numba-cuda kernels, without a GPU, and watch "
        "every access of theirs. Exit code: 0 nothing found, 1 something, 2 it could not be run.",
        epilog="example: minidl sanitize sums.py:block_sum --grid 4 --block 128 --arg "
        "x=float32[500] --arg out=zeros:float32[4] --arg n=500",
    )  # fmt: skip
    sanitize.set_defaults(run=_sanitize)
    add = sanitize.add_argument
    add("target", metavar="FILE[:NAME]", help="a program; a function of it that launches kernels; "
        "or a kernel of it, which needs --grid, --block and --arg")  # fmt: skip
    add("--grid", type=_size, metavar="N[,N[,N]]", help="blocks")
    add("--block", type=_size, metavar="N[,N[,N]]", help="threads of a block")
    add("--arg", action="append", default=[], metavar="NAME=VALUE", help="of the kernel: "
        "n=100, x=float32[100], y=zeros:float32[8,8], z=int32:7, w=data.npy")  # fmt: skip
    add("--shared", type=_SEED, default=0, metavar="BYTES", help="of dynamic shared memory")
    add("--json", action="store_true", help="for programs")
    add("rest", nargs="*", metavar="...", help="after --: what the program itself is given")


def _cache_command(commands: Any) -> None:
    cache = commands.add_parser("cache", help="compiled kernels: how many, compile, delete")
    actions = cache.add_subparsers(required=True, metavar="info|warm|clear")
    actions.add_parser("info", help="what is kept, and where").set_defaults(run=_cache("info"))
    warm = actions.add_parser("warm", help="compile all kernels of the CPU now")
    warm.set_defaults(run=_cache("warm"))
    warm.add_argument("--jobs", type=_COUNT, metavar="N", help="processes; default: one a core")
    clear = actions.add_parser("clear", help="delete what is kept")
    clear.set_defaults(run=_cache("clear"))
    clear.add_argument("--older", action="store_true", help="only of other versions and machines")
