"""What a kernel does with each parameter, read from its signature.

A kernel takes inputs, then outputs (annotated `Out`, or `InOut` where it changes them in place),
then static numbers: `def conv2d(x, w, b, y: Out, stride, pad)`.
"""

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any

Array = Any  # numpy.ndarray or cupy.ndarray: kernels index, they do not ask for the type
Out = Annotated[Any, "out"]
InOut = Annotated[Any, "inout"]


@functools.cache
def roles(kernel: Callable[..., Any]) -> dict[str, str]:
    """Map each parameter to "in", "out", "inout" or "static".

    What stands before the first output is an input, what stands after the last is static.
    """
    found, seen = {}, False
    for name, parameter in inspect.signature(kernel).parameters.items():
        if parameter.annotation in (Out, InOut):
            seen = True
            found[name] = parameter.annotation.__metadata__[0]
        else:
            found[name] = "static" if seen else "in"
    return found


def kernels_of(*modules: ModuleType) -> dict[str, Callable[..., Any]]:
    """The kernels that modules define, by name: public functions that write an output."""
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and not isinstance(value, type)
        and getattr(value, "__module__", "") == module.__name__
        and {"out", "inout"} & set(roles(value).values())
    }
