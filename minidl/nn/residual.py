"""A sum with what came before. Loaded when it is asked for."""

from .. import check
from ..tensor import Tensor
from .module import Module


class Residual(Module):
    """body(x) + x, or body(x) + shortcut(x) where body changes the shape. He et al. 2016.

    So that a deep network can begin as a shallow one: a body that gives zeros changes nothing.
    """

    def __init__(self, body: Module, shortcut: Module | None = None):
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """x -> what body makes of its shape."""
        y, x = self.body(x), x if self.shortcut is None else self.shortcut(x)
        if y.shape != x.shape:
            hint = "give a shortcut that makes the same shape"
            check.fail("Residual", "body and shortcut differ in shape", hint, body=y, shortcut=x)
        return y + x

    def flops(self, x: Tensor, y: Tensor) -> int:
        """The sum: layers within have rows of their own."""
        return y.size
