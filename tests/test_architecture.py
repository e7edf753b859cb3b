"""The shape of the code: who may import whom, how long things are, what backends share."""

import ast
import inspect
import io
import os
import subprocess
import sys
import tokenize
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from minidl.kernels.roles import kernels_of, roles

ROOT = Path(__file__).parent.parent
FILES = sorted((*ROOT.glob("minidl/**/*.py"), *ROOT.glob("kernels/**/*.py")))

# Leftwards only: a layer imports itself and what stands in a row above it.
LAYERS = (
    {"backend", "atomic", "later", "version"},
    {"autograd"},
    {"rows"},
    {"tensor"},
    {"op", "check", "random", "cuda", "threads", "mistakes"},
    {"ops", "convolution", "custom"},
    {"nn", "optim", "metrics", "confusion", "layout"},
    {"models", "data", "capture", "ranking", "sparse"},
    {"train", "io", "plot", "anomaly"},
    {"callbacks", "tune", "prune", "energy", "linting", "lr_finder"},
    {"keras"},
    {"cli"},
    {"__main__"},
)
# What layers import besides the standard library and NumPy. Numba: none of them.
PACKAGES = {
    "data": {"tqdm", "PIL"},  # who reads photographs has it
    "train": {"tqdm"},
    "io": {"safetensors", "h5py"},
    "plot": {"matplotlib"},
    "sparse": {"scipy"},  # to hand a matrix over
    "energy": {"pynvml"},  # NVIDIA's own, where it is installed
    "cli": {"tqdm", "cuda"},  # the doctor asks NVIDIA's finder of libraries
}
# kernels/: packages, then other parts of kernels/.
KERNELS = {
    "": (set(), {"cuda"}),  # sanitize, when it is first asked for
    "roles": (set(), set()),
    "families": (set(), {""}),
    "shapes": (set(), set()),
    "disk": (set(), set()),
    "scalars": (set(), set()),
    "ahead": ({"numpy"}, {"", "roles", "cpu"}),
    "reference": ({"numpy"}, {"roles", "shapes", "families"}),
    "cpu": (
        {"numpy", "numba", "llvmlite"},
        {"roles", "shapes", "scalars", "disk", "ahead", "reference", "families"},
    ),
    "cuda": ({"numpy"}, {"roles", "shapes", "scalars", "families"}),
    "cuda.memory": ({"numpy", "cupy"}, {"roles"}),
    "cuda._numba": ({"numpy", "numba", "cupy"}, {"roles", "cuda"}),
    "cuda.arguments": ({"numpy", "numba"}, {"cuda"}),
    "cuda.declared": ({"numpy", "numba"}, {"cuda"}),
    "cuda.cache": ({"numpy"}, {"cuda", "disk"}),
    "cuda.cubin": ({"cuda"}, {"cuda"}),
    "cuda.gpu": ({"cupy"}, {"cuda"}),
    "mutants": ({"pytest"}, set()),  # tests of others run in it
    "mutants.warm": ({"numpy", "numba"}, {"cuda"}),
    "warm": ({"numpy"}, {"", "ahead", "cases", "cpu"}),
    "report": ({"numpy", "numba"}, {"", "roles", "cases", "cuda"}),
    "cuda.distance": (set(), {"roles", "reference", "cuda"}),  # the bounds of its logs
    "cuda.linear": ({"numpy", "cupy"}, {"roles", "shapes", "cuda"}),
    "cuda.intrinsics": ({"numba", "llvmlite"}, {"roles", "cuda"}),
    "cuda.sanitizer": ({"numpy", "numba", "llvmlite"}, {"cuda"}),
    "cuda.emulator": ({"numpy", "numba", "llvmlite"}, {"roles", "cuda"}),
    "cases": ({"numpy", "hypothesis"}, {"roles", "shapes", "families", "reference", "testing"}),
    "differences": ({"numpy"}, set()),
    "testing": (
        {"numpy", "hypothesis"},
        {"roles", "shapes", "reference", "cpu", "cuda", "cases", "differences"},
    ),
    "strategies": ({"numpy", "hypothesis"}, {"cases", "testing"}),
    "pytest_plugin": ({"pytest"}, {"", "cuda", "strategies"}),
}


def name_of(path: Path) -> str:
    """Name under which a file is imported: kernels/cpu/window.py is minidl.kernels.cpu.window."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("minidl", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at its top or later."""
    package = name_of(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else base for name in inner}
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            found.add(target_of(node.args[0], ".".join(package)))
    return found


def target_of(argument: ast.expr, package: str) -> str:
    """What import_module("name"), or import_module(f".{name}", __name__), imports."""
    if isinstance(argument, ast.Constant):
        return argument.value
    start = argument.values[0] if isinstance(argument, ast.JoinedStr) else None
    if isinstance(start, ast.Constant) and start.value == ".":
        return package  # some part of this very package
    return "a computed name"


def called(node: ast.Call) -> str:
    """Last part of the name that is called."""
    f = node.func
    return f.attr if isinstance(f, ast.Attribute) else f.id if isinstance(f, ast.Name) else ""


def part(name: str) -> str:
    """Row of KERNELS that a module of kernels/ belongs to."""
    rest = name.removeprefix("minidl.kernels").removeprefix(".")
    while rest not in KERNELS and "." in rest:
        rest = rest.rpartition(".")[0]
    return rest


def layer(name: str) -> str:
    """First part of a module's name inside minidl; "" for minidl itself."""
    return name.removeprefix("minidl").removeprefix(".").split(".")[0]


@pytest.mark.parametrize("name", [m for m in MODULES if m.startswith("minidl.kernels")])
def test_a_kernel_file_imports_only_what_its_part_may(name):
    packages, parts = KERNELS[part(name)]
    for target in imports(MODULES[name]):
        top = target.split(".")[0]
        if top == "minidl":
            assert target.startswith("minidl.kernels"), f"{name} imports the engine: {target}"
            assert part(target).split(".")[0] in {*parts, part(name).split(".")[0]}, target
        else:
            assert top in sys.stdlib_module_names or top in packages, f"{name} imports {target}"


@pytest.mark.parametrize(
    "name", [m for m in MODULES if m != "minidl" and not m.startswith("minidl.kernels")]
)
def test_a_layer_imports_only_leftwards(name):
    mine = layer(name)
    rank = [i for i, row in enumerate(LAYERS) if mine in row]
    assert rank, f"{name} is new: give it a place in LAYERS"
    left = set().union(*LAYERS[: rank[0]], {mine})
    if mine == "cli":
        left.add("")  # the public face: what any user may import
    for target in imports(MODULES[name]):
        top = target.split(".")[0]
        if target.startswith("minidl.kernels"):
            open_to_all = target.split(".")[2] in ("shapes", "roles", "differences")
            assert open_to_all or mine in ("backend", "cli"), f"{name} imports {target}"
        elif name == "minidl.later" and target == "minidl":
            pass  # it imports for a module, from the module's own package
        elif top == "minidl":
            assert layer(target) in left, f"{name} imports {target}, which stands to its right"
        else:
            allowed = top in sys.stdlib_module_names or top in {"numpy"} | PACKAGES.get(mine, set())
            assert allowed, f"{name} imports {target}"


def test_one_file_imports_numba_cuda():
    found = {name for name, path in MODULES.items() if any(map(is_cuda, imports(path)))}
    found |= {name for name, path in MODULES.items() if imports_name(path, "numba", {"cuda"})}
    assert found <= {"minidl.kernels.cuda._numba"}


def is_cuda(target: str) -> bool:
    return target.split(".")[0] == "numba_cuda" or target.startswith("numba.cuda")


def imports_name(path: Path, module: str, names: set[str]) -> bool:
    """Whether a file says `from module import name`, or uses `module.name`."""
    return any(
        (isinstance(node, ast.ImportFrom) and node.module == module and names & spelled(node))
        or (
            isinstance(node, ast.Attribute)
            and node.attr in names
            and isinstance(node.value, ast.Name)
            and node.value.id in (module, "nb")
        )
        for node in ast.walk(tree(path))
    )


def spelled(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def test_one_decorator_of_ours_compiles_the_cpu_kernels():
    # Numba's own cache=True misses edits of callees in other files: stale results.
    raw = {"jit", "njit", "vectorize", "guvectorize", "cfunc", "stencil"}
    found = {
        name
        for name, path in MODULES.items()
        if name.startswith("minidl.kernels.cpu") and imports_name(path, "numba", raw)
    }
    assert found <= {"minidl.kernels.cpu._numba"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_dangerous_and_no_assert_for_a_users_input(path):
    unsafe = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    if name_of(path) == "minidl.kernels.cpu._numba":
        unsafe.remove("pickle")  # Numba's form of machine code, in the user's own cache
    assert not unsafe & {target.split(".")[0] for target in imports(path)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            builtin = isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")
            assert not builtin, f"line {node.lineno} calls {called(node)}"
            for keyword in node.keywords:
                on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                assert not (keyword.arg == "allow_pickle" and on), f"line {node.lineno} unpickles"
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: python -O drops this check"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_named_by_what_is_in_it(path):
    vague = {"util", "utils", "common", "helper", "helpers", "misc", "manager", "base", "core"}
    keras = name_of(path) == "minidl.keras.utils"  # whose name is Keras's: programs import it
    assert keras or path.stem.strip("_") not in vague


# Budgets. Docstrings, comments and blank lines are free, so that nobody saves on them.


@cache
def code_lines(path: Path) -> frozenset[int]:
    """Numbers of the lines that hold code."""
    free = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    free |= {tokenize.ENCODING, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type not in free:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree(path)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            text = body[0].value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                lines -= set(range(text.lineno, text.end_lineno + 1))
    return frozenset(lines)


def test_lines_of_code_are_counted_right(tmp_path):
    source = tmp_path / "source.py"
    source.write_text('"""Free.\n\nFree."""\n\n# free\nx = """a\nb"""\n\ndef f():\n    "Free."\n')
    assert code_lines(source) == {6, 7, 9}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path):
    lines = code_lines(path)
    assert len(lines) <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = len(lines & set(range(node.lineno, node.end_lineno + 1)))
            assert length <= 40, f"{node.name} has {length} lines of code"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.py")), ids=lambda p: p.stem)
def test_an_example_is_read_in_minutes(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_the_engine_is_read_in_an_afternoon():
    engine = ("minidl.autograd", "minidl.tensor", "minidl.op")
    assert sum(len(code_lines(MODULES[name])) for name in engine) <= 500


def test_the_front_of_keras_is_thin():
    # Keras's files are read and written by minidl.io
    names = [name for name in MODULES if layer(name) == "keras"]
    assert sum(len(code_lines(MODULES[name])) for name in names) <= 1200


TRAINING = """
import sys
from minidl.data import DataLoader, digits
from minidl.models import mnist_cnn
from minidl.train import fit

history = fit(mnist_cnn(), DataLoader(digits("test")[:32], 16), epochs=1, progress=False)
assert history.epochs == 1
print(*sorted(sys.modules))
"""


def loaded(code: str, **env: str) -> set[str]:
    """Modules that a fresh Python has loaded after it ran the code."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.numba
def test_what_trains_the_digits_network_is_small():
    used = MODULES.keys() & loaded(TRAINING, MINIDL_CPU="numba")
    kernels = {name for name in used if name.startswith("minidl.kernels")}
    assert "minidl.kernels.cpu" in kernels
    lines = {name: len(code_lines(MODULES[name])) for name in used}
    # capture is read after the rest, as a subject of its own: fit(capture=False) runs without it
    captured = {name for name in used if name.startswith("minidl.capture")}
    assert sum(lines[name] for name in used - kernels - captured) <= 3000
    # rewrites are one after the other, and capture(fuse=False) runs without them
    names = "flow", "rewrite", "rewrite_norm"
    rewrites = captured & {f"minidl.capture.{name}" for name in names}
    assert sum(lines[name] for name in captured - rewrites) <= 1250
    assert sum(lines[name] for name in rewrites) <= 250
    # the definitions and their CPU versions are read beside the framework, one family at a time
    for family in {name.split(".")[-1] for name in kernels}:
        assert sum(lines[name] for name in kernels if name.endswith(f".{family}")) <= 500, family


def test_training_on_the_reference_never_loads_numba():
    names = loaded(TRAINING, MINIDL_CPU="reference")
    assert "minidl.kernels.reference" in names
    assert not {"numba", "llvmlite", "numba_cuda"} & names


# Backends: a namespace of flat functions each.


def kernels_in(package: str, file: str):
    return kernels_of(import_module(f"minidl.kernels.{package}.{file}"))


def family(package: str) -> list[str]:
    return sorted(p.stem for p in ROOT.glob(f"kernels/{package}/*.py") if p.stem[0] != "_")


def same_signature(package: str, file: str) -> None:
    for name, mine in kernels_in(package, file).items():
        definition = kernels_in("reference", file).get(name)
        assert definition, f"{package}/{file}.py has {name}, reference/{file}.py has not"
        expected, got = inspect.signature(definition), inspect.signature(mine)
        for a, b in zip(expected.parameters.values(), got.parameters.values(), strict=True):
            assert (a.name, a.kind, a.default) == (b.name, b.kind, b.default), f"{name}: {got}"
        assert roles(definition) == roles(mine), name


@pytest.mark.numba
@pytest.mark.parametrize("file", family("cpu"))
def test_cpu_kernels_have_the_signatures_of_the_reference(file):
    same_signature("cpu", file)


@pytest.mark.emulator
@pytest.mark.parametrize("file", [f for f in family("cuda") if f in family("reference")])
def test_cuda_kernels_have_the_signatures_of_the_reference(file):
    same_signature("cuda", file)


def test_every_kernel_is_in_the_namespace_of_its_backend():
    namespace = kernel_names("reference")
    for file in family("reference"):
        assert set(kernels_in("reference", file)) <= namespace, file


def kernel_names(package: str) -> set[str]:
    """Names of the kernels that a backend offers."""
    public = import_module(f"minidl.kernels.{package}")
    return {
        name
        for file in family(package)
        for name in kernels_in(package, file)
        if hasattr(public, name)
    }


def test_every_kernel_is_covered_by_a_case():
    from minidl.kernels.cases import CASES

    shared = {kernel for case in CASES.values() for kernel in case.grads}
    kernels = kernel_names("reference")
    assert set(CASES) <= kernels
    own = shared | CASES.keys()  # a gradient that a rewrite puts in has a Case of its own
    assert {k for k in kernels - own if k.split("_grad")[0] not in CASES} == set()
