"""What a Case is, and the table of all of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..roles import Array
from .bounds import Bound, products
from .draw import Draw, Seeded, Values


class Reject(NamedTuple):
    """A call that the op refuses: with which error, and words that its message holds."""

    error: type[Exception]
    words: str
    inputs: tuple[Any, ...]
    static: Values


def bad(words: str, *inputs: Any, error: type[Exception] = ValueError, **static: Any) -> Reject:
    """A call of the op that it refuses; arrays are given to it as tensors."""
    return Reject(error, words, inputs, static)


def zeros(*shape: int, dtype: str = "float32") -> Array:
    """Zeros for a call that is refused before anyone reads them."""
    return np.zeros(shape, dtype)


@dataclass(frozen=True)
class Case:
    """Everything that checking an op needs to know about it.

    bound: how far a result may be off, in units of the dtype's epsilon; one for all kernels of the
    op, or by the kernel's name ("": for the others). specials: names of what may hold inf and NaN
    (None: everything). blas: BLAS may compute it, which leaves out some products with a factor 0;
    so 0 times inf may be 0. op: the name of the op where it is not the kernel's; inputs: its
    tensors where they are not the kernel's inputs, None for what is not drawn; static: its static
    arguments, from what was drawn, where they are not the kernel's.
    """

    name: str
    draw: Callable[["Draw"], Values]
    bound: Bound | dict[str, Bound]
    grads: tuple[str, ...] = ()
    specials: Callable[[Values], Iterable[str]] | None = None
    blas: bool = False
    op: str = ""
    inputs: str = ""
    static: Callable[[Values], Values] | None = None
    rejects: tuple[Reject, ...] = ()


CASES: dict[str, Case] = {}


def case(*names: str, **fields: Any) -> Callable:
    """Register a drawing function as the Case of each name."""

    def register(draw: Callable[[Draw], Values]) -> Callable:
        for name in names:
            CASES[name] = Case(name, draw, **({"bound": products} | fields))
        return draw

    return register


def example(name: str, dtype: str = "float64", seed: int = 0, mode: str = "any") -> Values:
    """Arguments of an op by parameter name, the same for the same seed; a Blank for an output."""
    return CASES[name].draw(Draw(Seeded(seed), dtype, mode))
