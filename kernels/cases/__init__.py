"""One Case per op: how to draw its arguments. `testing.py` makes every check out of that.

    >>> example("conv2d", seed=1)["stride"]
    (2, 2)

A Case draws a dict of what the kernel of its name takes: arrays, a Blank for each output, statics.
Its gradients are the kernels `<name>_grad*` of the reference, and the ones it names in `grads`;
they find x, w, arg, dy ... by parameter name, and their output dx is the gradient of x.
The files are the families of kernels, as in `reference/`.
"""

from ..families import files_of
from .calls import DEFINITION, Call, Definition, Example, bind, draw_example, gradients, op_call
from .case import CASES, Case, Reject, case, example
from .draw import Blank, Draw, Seeded, Values

__all__ = [
    "CASES", "DEFINITION", "Blank", "Call", "Case", "Definition", "Draw", "Example", "Reject",
    "Seeded", "Values", "bind", "case", "draw_example", "example", "gradients", "op_call",
]  # fmt: skip

files_of(__name__)
