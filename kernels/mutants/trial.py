"""Runs somebody's tests in a process of their own, with a fault in a file or without.

Nothing is written where the tests are: no bytecode, no caches of pytest, Hypothesis or Numba. The
file under test keeps its contents; whoever imports it in that process gets the changed source.
"""

import ast
import contextlib
import importlib.util
import linecache
import multiprocessing
import os
import signal
import sys
import sysconfig
import tempfile
import time
from importlib import machinery
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

# imported once, in the process that all trials are forked from, if the tests need them
_COMMON = (
    "numpy", "pytest", "hypothesis", "numba", "numba.cuda", "minidl.kernels.cuda._numba",
    "minidl.kernels.cuda", "minidl.kernels.cuda.emulator", "minidl.kernels.cuda.sanitizer",
    "minidl.kernels.testing",
)  # fmt: skip
# minidl's own: no learner's, wherever it is installed
_OWN = Path(__file__).resolve().parents[1], Path(sys.modules["minidl"].__file__ or "").parent


class Asked(NamedTuple):
    """A run of tests: pytest's arguments, and what a file is to contain."""

    tests: tuple[str, ...]
    seed: int
    file: str = ""
    source: str = ""
    plain: bool = False  # asserts are not rewritten: the kernel stands in the file of tests


class Seen(NamedTuple):
    """What came of a run: pytest's exit code (None: it did not come back), and what failed first.

    found: files of kernels, with the functions that the tests import, and those that are compiled.
    """

    code: int | None
    seconds: float
    passed: int = 0
    failed: str = ""
    said: str = ""
    output: str = ""
    found: dict[str, tuple[list[str], list[str]]] = {}  # noqa: RUF012
    modules: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012


class Runner:
    """Starts trials. Where this system can fork, they begin with NumPy and Numba imported."""

    def __init__(self) -> None:
        self.context: Any = multiprocessing.get_context("spawn")
        self.stopped = False  # by the user: trials that are under way end, too

    def prepare(self, asked: Asked, first: Seen) -> Seen:
        """Fork from now on, from a process that has imported what a first run did.

        Returns what came of a second run, without a fault. Tests that do not pass in a forked
        process, such as those that use a GPU, run in a fresh one each.
        """
        if "forkserver" in multiprocessing.get_all_start_methods():
            fresh, self.context = self.context, multiprocessing.get_context("forkserver")
            os.environ.update(first.environment)
            known = [m for m in _COMMON if m in first.modules]
            self.context.set_forkserver_preload([*known, f"{__package__}.warm"])
            second = self.run(asked)
            if (second.code, second.passed) == (0, first.passed):
                return second
            self.context = fresh
        return self.run(asked)

    def run(self, asked: Asked, limit: float | None = None) -> Seen:
        """Run tests; after a time limit, in seconds, end them."""
        begin = time.monotonic()
        end = begin + (limit or float("inf"))
        ours, theirs = self.context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            process = self.context.Process(target=_child, args=(theirs, asked, folder))
            process.start()
            theirs.close()
            try:
                while not (there := ours.poll(0.2)) and time.monotonic() < end and not self.stopped:
                    pass
                seen = ours.recv() if there else Seen(None, 0, said="a loop without end")
                if there:
                    process.join(5)  # what it has of the system it gives back itself
            except EOFError:  # it is gone: a crash of compiled code
                process.join(1)
                output = Path(folder, "output")
                told = output.read_text(errors="replace")[-1000:] if output.exists() else ""
                seen = Seen(None, 0, said=f"crashed, {_why(process.exitcode)}", output=told)
            finally:
                _end(process)
                ours.close()
        return seen._replace(seconds=time.monotonic() - begin)


def _why(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _end(process: Any) -> None:
    """End a process and all that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    process.close()


# ---- in the process of the trial


def _child(pipe: Any, asked: Asked, folder: str) -> None:
    if hasattr(os, "setsid"):
        os.setsid()
    sys.dont_write_bytecode = True
    kept = {name: os.path.join(folder, name) for name in ("numba", "hypothesis")}
    os.environ["NUMBA_CACHE_DIR"] = kept["numba"]
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = kept["hypothesis"]
    if "numba" in sys.modules:  # then it has read the environment
        sys.modules["numba"].config.CACHE_DIR = kept["numba"]
    before = dict(os.environ)
    with open(os.path.join(folder, "output"), "w+", errors="replace") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
        if asked.file:
            plant(asked.file, asked.source)
        watch = _Watch()
        code = _pytest(asked, watch)
        sys.stdout.flush()
        sys.stderr.flush()
        output.seek(0)
        told = output.read()[-4000:]
    changed = {k: v for k, v in os.environ.items() if before.get(k) != v}
    pipe.send(
        Seen(
            code, 0, watch.passed, watch.failed, watch.said, told,
            {} if asked.file else _found(watch.modules),
            tuple(m for m in _COMMON if m in sys.modules),
            {k: v for k, v in changed.items() if not k.startswith("PYTEST_")},
        )
    )  # fmt: skip


def _pytest(asked: Asked, watch: "_Watch") -> int:
    import pytest

    # the packages of plugins are imported before pytest can rewrite their asserts
    options = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]
    has = importlib.util.find_spec
    options += [f"--hypothesis-seed={asked.seed}"] * (has("hypothesis") is not None)
    options += ["-n0"] * (has("xdist") is not None)  # its processes would import the file as it is
    options += ["--no-cov"] * (has("pytest_cov") is not None)
    options += ["--assert=plain"] * asked.plain
    return int(pytest.main([*asked.tests, *options], plugins=[watch]))


class _Watch:
    """A plugin of pytest that notes what ran, and what failed first."""

    def __init__(self) -> None:
        self.passed, self.failed, self.said = 0, "", ""
        self.modules: dict[str, ModuleType] = {}

    def pytest_collection_finish(self, session: Any) -> None:
        modules = [item.module for item in session.items if hasattr(item, "module")]
        self.modules = {m.__file__: m for m in modules if m.__file__}

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._fail(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.passed and report.when == "call"
        if report.failed:
            self._fail(report)

    def _fail(self, report: Any) -> None:
        if not self.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.failed = report.nodeid
            self.said = (crash.message if crash else str(report.longrepr)).strip().split("\n")[0]


def plant(file: str, source: str) -> None:
    """From now on, whoever imports a file in this process gets this source."""
    read = machinery.SourceFileLoader.get_code

    def get_code(loader: Any, name: str) -> Any:
        if os.path.realpath(loader.path) != file:
            return read(loader, name)
        # what Numba and inspect quote; None: it does not come from the disk
        lines = source.splitlines(keepends=True)
        linecache.cache[loader.path] = len(source), None, lines, loader.path
        return compile(source, loader.path, "exec", dont_inherit=True)

    machinery.SourceFileLoader.get_code = get_code  # type: ignore[assignment,method-assign]


# ---- which kernels do the tests import


def _found(modules: dict[str, ModuleType]) -> dict[str, tuple[list[str], list[str]]]:
    found: dict[str, tuple[list[str], list[str]]] = {}
    for path, module in modules.items():
        mentioned = _mentioned(path)
        for value in vars(module).values():
            inner = isinstance(value, ModuleType) and _is_theirs(getattr(value, "__file__", None))
            values = [v for n, v in vars(value).items() if n in mentioned] if inner else [value]
            for function, compiled in filter(None, map(_function, values)):
                file = os.path.realpath(function.__code__.co_filename)
                if not _is_theirs(file) or (file == os.path.realpath(path) and not compiled):
                    continue  # what stands among the tests is a kernel only if it is compiled
                wanted, known = found.setdefault(file, ([], []))
                wanted.append(function.__name__)
                known += [function.__name__] * compiled
    for file, (_, known) in found.items():
        for module in list(sys.modules.values()):
            if os.path.realpath(getattr(module, "__file__", None) or "") == file:
                everything = filter(None, map(_function, list(vars(module).values())))
                known += [f.__name__ for f, compiled in everything if compiled]
    return found


def _mentioned(path: str) -> set[str]:
    """Attributes that a file speaks of: `square` of `kernels.square(x)`."""
    tree = ast.parse(Path(path).read_bytes())
    return {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}


def _function(value: Any) -> tuple[FunctionType, bool] | None:
    """The Python function that something was made of, and whether a compiler made it."""
    compiled = False
    for _ in range(8):  # wrappers around wrappers
        if type(value).__module__.split(".")[0] in ("numba", "numba_cuda", "minidl"):
            names = ("py_func", "function", "_dispatcher", "gufunc_builder")
            inner = next((getattr(value, n) for n in names if hasattr(value, n)), None)
            compiled = True
        else:
            inner = getattr(value, "__dict__", {}).get("__wrapped__")
        if inner is None:
            break
        value = inner
    return (value, compiled) if isinstance(value, FunctionType) else None


def _is_theirs(file: str | None) -> bool:
    """Whether a file belongs to the project under test: to no package that is installed."""
    if not file or not file.endswith(".py"):
        return False
    path = Path(os.path.realpath(file))
    library = Path(sysconfig.get_path("stdlib")).resolve()
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not (installed or any(map(path.is_relative_to, (library, *_OWN))))
