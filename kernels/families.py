"""The families of maths: files in `reference/`, `cases/` and `cuda/`, in `cpu/` where it pays."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

FAMILIES = (
    "augment", "ctc", "depthwise", "distance", "elementwise", "index", "likelihood", "linear",
    "loss", "move", "norm", "optim", "pool", "random", "recurrent", "reduce", "window",
)  # fmt: skip


def files_of(package: str) -> list[ModuleType]:
    """A package's files of all families that it has, imported."""
    found = [name for name in FAMILIES if find_spec(f"{package}.{name}")]
    return [import_module(f".{name}", package) for name in found]
