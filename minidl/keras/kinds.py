"""What losses, metrics and optimizers share: names, options with defaults, and being found by name.

A kind is made of a function: `MeanSquaredError = kind(Loss, mean_squared_error)`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from .. import check
from ..io.keras_config import snake


class Kind:
    """Something with a name and options, which a file can hold."""

    function: Any
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, name: str | None = None, **options: Any):
        options |= dict(zip(self.defaults, args))
        for key in options:
            check.known(f"option of {type(self).__name__}", key, [*self.defaults, "name"])
        self.name = name or snake(type(self).__name__)
        self.options = {**self.defaults, **options}

    def get_config(self) -> dict[str, Any]:
        """What builds the same one again."""
        return {"name": self.name, **self.options}


def kind(base: Any, name: str, function: Any, **defaults: Any) -> Any:
    """A class of losses, metrics or optimizers, for a function and the defaults of its options."""
    about = {"__doc__": function.__doc__, "__module__": base.__module__}
    return type(name, (base,), {"function": staticmethod(function), "defaults": defaults, **about})


def chosen(what: str, given: Any, kinds: Mapping[str, Any], base: Any) -> Any:
    """One by name, which it then has, or as it is given: an object, or a function."""
    if isinstance(given, str):
        check.known(what, given.lower(), kinds)
        return kinds[given.lower()](name=given.lower())
    if isinstance(given, base):
        return given
    if not callable(given) or isinstance(given, type):
        raise TypeError(f"{what}: a name, a {base.__name__} or a function, not {given!r}")
    own = base(name=getattr(given, "__name__", what))
    own.function = given
    return own
