"""Limits on gradients."""

from collections.abc import Iterable

from .. import check
from ..tensor import Tensor
from .flat import gradients


def clip_grad_norm_(parameters: Iterable[Tensor] | Tensor, max_norm: float) -> Tensor:
    """Scale all gradients together so that their norm, as one vector, is at most max_norm.

    Returns the norm before, a Tensor (): nothing is read back from the device. Gradients that an
    optimizer holds side by side are scaled in one call. Pascanu et al. 2013.
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not max_norm >= 0:
        check.fail("clip_grad_norm_", f"max_norm is {max_norm}, but must be at least 0")
    pieces = gradients(parameters)
    kinds = {str(array.dtype) for _, array in pieces}
    if len(kinds) > 1:
        raise TypeError(f"clip_grad_norm_: gradients of {' and '.join(sorted(kinds))} together")
    if len({p.device for p in parameters if p.grad is not None}) > 1:
        raise RuntimeError("clip_grad_norm_: the gradients are on several devices")
    if not pieces:
        return Tensor(0.0)
    k, first = pieces[0]
    square = k.fill(k.empty((), first.dtype), 0)
    for k, grad in pieces:
        k.sum_squares(grad, square, True)
    for k, grad in pieces:
        k.clip_(square, grad, max_norm)
    return Tensor(k.sqrt(square, k.empty((), first.dtype)), device=parameters[0].device)
