"""What leaves layers in the middle of a network."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import check
from ..nn import Module
from ..tensor import Tensor


class Features(Module):
    """A network that returns what leaves some of its layers: x -> {path: output}.

    layers: paths as named_modules() has them, such as "features.16" or "layer3.0.bn1"; the whole
    network is "". The layers stay the network's own, so training one trains the other; a layer that
    is called more than once gives its last output. ValueError for a path that is not there.
    """

    def __init__(self, network: Module, layers: Iterable[str]):
        paths = [layers] if isinstance(layers, str) else list(layers)
        known = dict(network.named_modules())
        for path in paths:
            check.known("layer", path, known)
        self.network, self.layers = network, paths

    def forward(self, x: Any) -> dict[str, Tensor]:
        """What leaves each of the layers, in the order they were named."""
        found: dict[str, Tensor] = {}
        with _noted(self.network, self.layers, found):
            self.network(x)
        if missing := [path for path in self.layers if path not in found]:
            raise RuntimeError(f"Features: the network did not call {', '.join(missing)}")
        return {path: found[path] for path in self.layers}

    def extra_repr(self) -> str:
        """Which layers."""
        return ", ".join(map(repr, self.layers))


@contextmanager
def _noted(network: Module, paths: list[str], found: dict[str, Tensor]) -> Iterator[None]:
    """Within it, what leaves the layers is written into found."""
    modules = dict(network.named_modules())
    try:
        for path in paths:
            # An attribute hides the method, so a Sequential does not fuse a relu into this layer.
            vars(modules[path])["forward"] = _noting(modules[path].forward, path, found)
        yield
    finally:
        for path in paths:
            vars(modules[path]).pop("forward", None)


def _noting(forward: Any, path: str, found: dict[str, Tensor]) -> Any:
    def noted(*inputs: Any, **options: Any) -> Any:
        found[path] = y = forward(*inputs, **options)
        return y

    return noted
