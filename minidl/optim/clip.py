"""Limits on gradients."""

from collections.abc import Iterable

from .. import check
from ..backend import Array, Device
from ..rows import gathered
from ..tensor import Tensor
from .flat import Flat, neighbours, places


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
    if len({device for device, _ in pieces}) > 1:
        raise RuntimeError("clip_grad_norm_: the gradients are on several devices")
    if not pieces:
        return Tensor(0.0)
    device, first = pieces[0]
    k = device.kernels
    square = k.fill(k.empty((), first.dtype), 0)
    for _, grad in pieces:
        k.sum_squares(grad, square, True)
    for _, grad in pieces:
        k.clip_(square, grad, max_norm)
    return Tensor(k.sqrt(square, k.empty((), first.dtype)), device=device)


def gradients(parameters: Iterable[Tensor]) -> list[tuple[Device, Array]]:
    """(device, array) pairs that cover the gradients: stretches of flat buffers where they can.

    A stretch ends before a gap: NaN, scaled in there with the gradients, would stay for good.
    """
    arrays: list[tuple[Device, Array]] = []
    flats: dict[Flat, list[int]] = {}
    for p in {id(p): p for p in parameters}.values():
        grad = None if p.node is None else p.node.grad
        flat = places.get(id(grad))
        if flat is not None:
            flats.setdefault(flat, []).append(flat.index[id(grad)])
        elif grad is not None:
            arrays.append((p.device, grad))
        if p.node is not None and p.node.rows:
            arrays.append((p.device, gathered(p.node)[1]))
    for flat, indices in flats.items():
        ends = [start + p.size for start, p in zip(flat.bounds, flat.parameters, strict=False)]
        cuts = {i for i, end in enumerate(ends, 1) if end < flat.bounds[i]}
        for first, stop in neighbours(sorted(indices), cuts):
            arrays.append((flat.device, flat.grad[flat.bounds[first] : ends[stop - 1]]))
    return arrays
