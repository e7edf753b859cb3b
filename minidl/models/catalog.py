"""Which networks there are, and any of them by its name. Loaded when it is asked for."""

from importlib import import_module
from typing import Any

from .. import check
from ..nn import Module
from .registry import MODELS

FILES = ("mnist", "cifar", "lenet", "vgg", "mobilenet", "resnet")


def names() -> list[str]:
    """The names that build knows, sorted."""
    for file in FILES:
        import_module(f".{file}", __package__)
    return sorted(MODELS)


def build(name: str, **arguments: Any) -> Module:
    """The network of a name. ValueError with the nearest one for a name that is unknown."""
    check.known("model", name, names())
    return MODELS[name](**arguments)
