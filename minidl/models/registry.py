"""Networks known by their names, and what it takes to build the same one again."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ..nn import Module

Network = TypeVar("Network", bound=Module)
MODELS: dict[str, Callable[..., Any]] = {}


def model(factory: Callable[..., Network]) -> Callable[..., Network]:
    """Make a function that builds a network known by its name, in small letters, with - for _.

    What it builds carries `config`, its name and arguments: minidl.save writes them beside the
    weights, so that minidl.load can build it again. The arguments must be what JSON can hold.
    An `input_shape` (H, W, C) is also an attribute. device= moves the network there.
    """
    name, signature = factory.__name__.replace("_", "-").lower(), inspect.signature(factory)

    @functools.wraps(factory)
    def build_it(*args: Any, device: Any = "cpu", **kwargs: Any) -> Network:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            takes = ", ".join([*signature.parameters, "device"])
            hint = f"; minidl.load(path, {factory.__name__}(...)) reads weights"
            said = f"{factory.__name__}: {error}; it takes {takes}{hint * ('weights' in kwargs)}"
            raise TypeError(said) from None
        given.apply_defaults()
        network = factory(**given.arguments)
        network.config = {"name": name, "args": given.arguments}
        if "input_shape" in given.arguments:
            network.input_shape = tuple(given.arguments["input_shape"])
        return network.to(device)  # type: ignore[return-value]

    MODELS[name] = build_it
    return build_it
