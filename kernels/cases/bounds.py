"""How far a kernel may be off, from theory: error bounds in units of the dtype's epsilon.

An epsilon is two roundings, one for each of the two sides that are compared. A bound is a function
of v, the arguments and results of the definition in float64, and run, which repeats the definition
with changes; run.floats are its float inputs, run.out names its first output, run.eps is the
epsilon. A sum of n products errs by at most (n + 1) / 2 epsilon of the sum of their magnitudes, in
any order (Higham 2002, section 3.1).
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import shapes
from .draw import Blank

Bound = Callable[[SimpleNamespace, Any], Any]


def exact(v: SimpleNamespace, run: Any) -> Any:
    """0: nothing is computed, only chosen."""
    return 0


def few(v: SimpleNamespace, run: Any) -> Any:
    """8 |y|: a few operations, none of which cancels."""
    return 8 * np.abs(run())


def magnitudes(v: SimpleNamespace, run: Any) -> Any:
    """8 times the op on magnitudes: a few operations that may cancel."""
    return 8 * np.abs(run(**{name: np.abs(a) for name, a in run.floats.items()}))


def products(v: SimpleNamespace, run: Any) -> Any:
    """(4 + terms) times the op on magnitudes; the op on ones counts the terms of a sum."""
    terms = run(**{name: np.ones_like(a) for name, a in run.floats.items()})
    return (4 + np.abs(terms)) * magnitudes(v, run) / 8


def elementwise(v: SimpleNamespace, run: Any) -> Any:
    """(4 + terms) times the sum of |y| over the axes along which the output was broadcast.

    4: exp, log and pow of good libraries err by up to 4 units in the last place.
    """
    shape = np.broadcast_shapes(*(a.shape for a in run.floats.values()))
    wide = {name: np.broadcast_to(a, shape) for name, a in run.floats.items()}
    value = np.abs(run(**wide, **{run.out: Blank(shape)}))
    out = getattr(v, run.out).shape
    lead = len(shape) - len(out)
    over = (*range(lead), *(a + lead for a, n in enumerate(out) if n == 1))
    terms = value.size / max(shapes.count(out), 1)
    return (4 + terms) * value.sum(axis=over, keepdims=True).reshape(out)
