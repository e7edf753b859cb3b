"""Recurrent layers under PyTorch's names. Loaded when asked for."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import check, ops
from ..autograd import no_grad
from ..tensor import Tensor
from . import functional as F
from . import init
from .layers import _count, _new
from .module import Module


class GRU(Module):
    """Gated recurrent units: x (T, N, input_size) -> (output, h_n), as in PyTorch.

    output (T, N, D hidden_size) has the states of the last layer at every step, h_n
    (num_layers D, N, hidden_size) the last state of each layer. D is 2 if bidirectional, else 1:
    then a second unit reads the sequence from its end, and both states stand side by side.
    batch_first: x and output are (N, T, ...), as nn.Conv1d and nn.TimeDistributed have them.
    dropout: of what goes from one layer to the next, in training.

    Weights are (in, 3 hidden_size), PyTorch's transposed, with its names and its order of gates:
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, those of the reader from the end with
    _reverse behind them. They begin as U(-1, 1) / sqrt(hidden_size).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ):
        _count("GRU", input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0 <= dropout <= 1:
            check.fail("GRU", f"the probability dropout is {dropout}, but must lie in [0, 1]")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional = bidirectional
        bound = 1 / math.sqrt(hidden_size)
        for layer, suffix in self._units():
            inputs = hidden_size * (1 + bidirectional) if layer else input_size
            for kind, rows in (("ih", inputs), ("hh", hidden_size)):
                weight = init.uniform_(_new(rows, 3 * hidden_size), -bound, bound)
                setattr(self, f"weight_{kind}{suffix}", weight)
            for kind in ("ih", "hh"):
                vector = init.uniform_(_new(3 * hidden_size), -bound, bound) if bias else None
                setattr(self, f"bias_{kind}{suffix}", vector)

    def _units(self) -> Iterator[tuple[int, str]]:
        """The layer of each unit, and how the names of its parameters end."""
        for layer in range(self.num_layers):
            for end in ("", "_reverse")[: 1 + self.bidirectional]:
                yield layer, f"_l{layer}{end}"

    def forward(self, x: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (T, N, input_size), or (N, T, input_size); hx: the first states, as h_n; unset, 0."""
        order = "(N, T, input_size)" if self.batch_first else "(T, N, input_size)"
        hint = "add a batch axis" if x.ndim == 2 else ""
        check.rank("GRU", "x", x, 3, f"a batch of sequences {order}", hint)
        if x.shape[2] != self.input_size:
            wrong = f"x has {x.shape[2]} features, but input_size is {self.input_size}"
            check.fail("GRU", wrong, f"x is {order}", x=x)
        x = x if self.batch_first else x.permute(1, 0, 2)
        units = list(self._units())
        shape = len(units), x.shape[0], self.hidden_size
        if hx is not None and hx.shape != shape:
            check.fail("GRU", f"hx needs the shape {shape}: (units, N, hidden_size)", hx=hx)
        last: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for suffix in [s for at, s in units if at == layer]:
                outputs.append(self._unit(x, None if hx is None else hx[len(last)], suffix))
                last.append(outputs[-1][:, 0 if suffix.endswith("_reverse") else -1])
            x = ops.concat(outputs, axis=2) if self.bidirectional else outputs[0]
        return x if self.batch_first else x.permute(1, 0, 2), ops.stack(last)

    def _unit(self, x: Tensor, h: Tensor | None, suffix: str) -> Tensor:
        """All states of one unit: x (N, T, I), h (N, H) or None -> (N, T, H)."""
        w, b, w_h, b_h = (
            getattr(self, name + suffix)
            for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
        )
        return ops.gru(F.linear(x, w, b), h, w_h, b_h, reverse=suffix.endswith("_reverse"))

    def extra_repr(self) -> str:
        """As in PyTorch."""
        text = f"{self.input_size}, {self.hidden_size}"
        defaults: dict[str, Any] = dict(num_layers=1, bias=True, batch_first=False, dropout=0.0)
        for name, default in (defaults | dict(bidirectional=False)).items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


@no_grad()
def orthogonal_(tensor: Tensor) -> Tensor:
    """Rows, or columns where these are fewer, of length 1 at right angles (Saxe et al. 2014).

    As Keras begins the weights between states, so that these neither grow nor fade at first.
    """
    tall = tensor.shape[0] >= tensor.shape[1]
    drawn = init.normal_(tensor).numpy_view()
    q, r = np.linalg.qr(drawn if tall else drawn.T)
    q *= np.sign(np.diag(r))
    return tensor.copy_(q if tall else q.T)
