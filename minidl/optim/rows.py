"""Steps that change the rows of a table that have gradients, and no others. Loaded when needed."""

import math
from collections.abc import Iterator

from ..autograd import Node
from ..backend import Array
from ..rows import gathered, put_into
from .flat import Flat


class Rows(Flat):
    """The rows of one parameter that have gradients, side by side: what update takes for a Flat.

    flat, i: where the whole table and its state are; node: its leaf. `put_back` brings there what
    update leaves here; rows that nobody looked up keep their values and their state.
    """

    def __init__(self, flat: Flat, i: int, node: Node):
        self.parameters = [table] = flat.parameters[i : i + 1]
        self.device, self.dtype = flat.device, flat.dtype
        self.numbers, self.t = flat.numbers, flat.t[i : i + 1]
        self.rows, grad = gathered(node)
        self.shape, self.grad = grad.shape, grad.reshape(-1)
        self._flat, self._at = flat, slice(flat.bounds[i], flat.bounds[i] + math.prod(table.shape))
        self._state: dict[str, Array] = {}
        self.data = self._taken(flat.data)

    def state(self, name: str) -> Array:
        """The rows' part of a buffer of the optimizer."""
        if name not in self._state:
            self._state[name] = self._taken(self._flat.state(name))
        return self._state[name]

    def span(self, first: int, stop: int) -> slice:
        """All there is."""
        return slice(None)

    def _table(self, buffer: Array) -> Array:
        return buffer[self._at].reshape(self.parameters[0].shape)

    def _taken(self, buffer: Array) -> Array:
        k = self.device.kernels
        return k.take(self._table(buffer), self.rows, k.empty(self.shape, self.dtype)).reshape(-1)

    def put_back(self) -> None:
        """Bring values and state of the rows to the table's."""
        pairs = [(self.data, self._flat.data)]
        pairs += [(held, self._flat.state(name)) for name, held in self._state.items()]
        k = self.device.kernels
        for held, buffer in pairs:
            k.put_(held.reshape(self.shape), self.rows, self._table(buffer))


def step(flat: Flat, i: int, node: Node) -> Iterator[tuple[Flat, int, int]]:
    """What update is to change of table i, whose node has gradients of rows; it uses them up.

    Nothing where the whole table has a gradient, too: it takes them up.
    """
    if node.grad is not None:
        put_into(node, node.grad)
    else:
        flat.bring_home(i)
        rows = Rows(flat, i, node)
        yield rows, 0, 1
        rows.put_back()
        flat.cuts |= {i, i + 1}  # from now on it may have made fewer steps than its neighbours
    node.rows = None
