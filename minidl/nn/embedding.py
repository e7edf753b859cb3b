"""Rows of a table that is learned. Loaded when it is asked for."""

from .. import check, ops
from ..autograd import Node, mode, no_grad
from ..rows import lookup
from ..tensor import Tensor
from . import init
from .layers import _count, _new
from .module import Module


def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, *, sparse: bool = False
) -> Tensor:
    """For each number of input (...) its row of weight (M, D) -> (..., D).

    The row padding_idx gets no gradient. IndexError where a number is not in [0, M); on a GPU,
    where nobody looks, its row is NaN, or counted from the end. sparse: as in Embedding.
    """
    if not sparse or weight.node is None or not mode.recording:
        return ops.embedding(input, weight, padding_idx=padding_idx)
    if not weight.is_leaf:
        check.fail("embedding", "sparse=True needs a parameter", "leave it out", weight=weight)
    y = ops.embedding(input, weight.detach(), padding_idx=padding_idx)
    padding = None if padding_idx is None else padding_idx % len(weight)
    # the gradient ends here: what goes on to a leaf is a gradient of all of it
    y.node = Node("embedding", (), (), (y.shape, y.dtype, None), y.device)
    y.node.hooks = {0: lookup(weight.node, input.data, padding)}
    return y


class Embedding(Module):
    """A vector that is learned for each of num_embeddings numbers: (...) -> (..., embedding_dim).

    They begin normally distributed, with mean 0 and variance 1. That of padding_idx, which may
    count from the end, is 0 and stays so. sparse: only the vectors that were looked up get
    gradients, and a step changes these alone, their momentum and means and by weight decay too.
    Without weight decay, with Adagrad and with SGD without momentum, that is what a gradient of all
    does; not so with the others (as PyTorch's SparseAdam). A step costs what the vectors in use
    cost, however many there are.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        sparse: bool = False,
    ):
        _count("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"Embedding: padding_idx is {padding_idx}, but must be one of {num_embeddings} rows"
            )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.sparse = sparse
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = init.normal_(_new(num_embeddings, embedding_dim))
        if padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """x (...) of integers -> (..., embedding_dim)."""
        return embedding(x, self.weight, self.padding_idx, sparse=self.sparse)

    def flops(self, x: Tensor, y: Tensor) -> int:
        """None: rows are copied."""
        return 0

    def extra_repr(self) -> str:
        """As in PyTorch."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        sparse = ", sparse=True" if self.sparse else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}{sparse}"
