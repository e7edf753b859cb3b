"""Which networks there are, and what it takes to build the same one again."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .. import check
from ..nn import Module

_MODELS: dict[str, Callable[..., Module]] = {}


def model(factory: Callable[..., Module]) -> Callable[..., Module]:
    """Make a function that builds a network known by its name, with - for _.

    What it builds carries `config`, its name and arguments: minidl.save writes them beside the
    weights, so that minidl.load can build it again. The arguments must be what JSON can hold.
    """
    name, signature = factory.__name__.replace("_", "-"), inspect.signature(factory)

    @functools.wraps(factory)
    def build_it(*args: Any, **kwargs: Any) -> Module:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        network = factory(**given.arguments)
        network.config = {"name": name, "args": given.arguments}
        return network

    _MODELS[name] = build_it
    return build_it


def names() -> list[str]:
    """The names that build knows, sorted."""
    return sorted(_MODELS)


def build(name: str, **arguments: Any) -> Module:
    """The network of a name. ValueError with the nearest one for a name that is unknown."""
    check.known("model", name, _MODELS)
    return _MODELS[name](**arguments)
