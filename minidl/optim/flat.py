"""Flat buffers: parameters side by side in memory, so that one kernel call steps them all."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from ..backend import Array
from ..tensor import Tensor

Numbers = Callable[[dict], dict[str, tuple[float, ...]]]  # of a group, by name

ALIGNMENT = 64  # bytes: a cache line, and the widest vector loads, from the buffer's start

# id of a gradient's place in a flat buffer -> that buffer, while it lives: what clipping asks
places: "weakref.WeakValueDictionary[int, Flat]" = weakref.WeakValueDictionary()


class Flat:
    """Parameters of one dtype and device, with their gradients and an optimizer's state.

    data, grad, and what state() returns: arrays (n,), each parameter in the same place in all of
    them. numbers: small arrays of what may change from step to step, the learning rate first;
    t (number of parameters,) int64: the steps each one has made.
    """

    def __init__(self, parameters: list[Tensor], numbers: dict[str, tuple[int, ...]]):
        self.parameters = parameters
        self.device, self.dtype = parameters[0].device, parameters[0].dtype
        self.kernels = k = self.device.kernels
        unit = ALIGNMENT // self.dtype.itemsize
        widths = (-(-p.size // unit) * unit for p in parameters)
        self.bounds = list(accumulate(widths, initial=0))
        self.data, self.grad = self.zeros(), self.zeros()
        self.numbers = {name: k.empty(shape, self.dtype) for name, shape in numbers.items()}
        self._set: dict[tuple[str, int], float] = {}
        self.t = k.fill(k.empty((len(parameters),), "int64"), 0)
        self.cuts: set[int] = set()
        self._state: dict[str, Array] = {}
        # Kept, since an array is known by identity to lie where it should.
        self.homes = list(zip(self.views(self.data), self.views(self.grad), strict=True))
        self.index = {id(grad): i for i, (_, grad) in enumerate(self.homes)}
        for p, (data, grad) in zip(parameters, self.homes, strict=True):
            p.data = k.copy(p.data, data, False)
            if p.node is not None:
                p.node.home = grad
            places[id(grad)] = self

    def zeros(self) -> Array:
        """A new flat buffer."""
        k = self.kernels
        return k.fill(k.empty((self.bounds[-1],), self.dtype), 0)

    def state(self, name: str) -> Array:
        """A flat buffer of the optimizer by its name, zeros at first."""
        if name not in self._state:
            self._state[name] = self.zeros()
        return self._state[name]

    def views(self, buffer: Array) -> list[Array]:
        """A flat buffer as one array for each parameter, in its shape."""
        pairs = zip(self.parameters, self.bounds, strict=False)
        return [buffer[start : start + p.size].reshape(p.shape) for p, start in pairs]

    def states(self) -> dict[str, list[Array]]:
        """The optimizer's buffers so far, as views for each parameter."""
        return {name: self.views(buffer) for name, buffer in self._state.items()}

    def span(self, first: int, stop: int) -> slice:
        """Where the parameters from first to before stop lie."""
        return slice(self.bounds[first], self.bounds[stop])

    def bring(self, numbers: Numbers, group: dict, *arrays: Array) -> None:
        """Bring numbers(group) into their arrays, those that are not there yet."""
        for name, values in numbers(group).items():
            for i, value in enumerate(values):
                if self._set.get((name, i)) != value:
                    self.kernels.fill(self.numbers[name].reshape(-1)[i : i + 1], value)
                    self._set[name, i] = value

    def parts(self, counted: bool) -> Iterator[tuple["Flat", int, int]]:
        """What a step changes: parameters from first to before stop of a Flat, this or another."""
        for i, p in enumerate(self.parameters):
            if p.node is not None and p.node.rows:
                from .rows import step  # few networks have tables with gradients of rows

                yield from step(self, i, p.node)
        for first, stop in self.runs(counted):
            yield self, first, stop

    def runs(self, counted: bool) -> list[tuple[int, int]]:
        """Neighbours (first, stop) that have gradients, now in their homes: usually one run.

        counted: the parameters of a run have made the same number of steps. Where numbers may
        differ is noted in `cuts`, so that none is ever read back from the device.
        """
        ready = [i for i, p in enumerate(self.parameters) if self._at_home(i, p)]
        runs = neighbours(ready, self.cuts)
        if counted:
            self.cuts.update(*runs)
        return runs

    def _at_home(self, i: int, p: Tensor) -> bool:
        """Whether p has a gradient. Brings it, and p's values, home if need be."""
        node = p.node
        if node is None or node.grad is None:
            return False
        self.bring_home(i)
        grad = self.homes[i][1]
        if node.grad is not grad:
            node.grad = node.home = self.device.kernels.copy(node.grad, grad, False)
        return True

    def bring_home(self, i: int) -> None:
        """Copy the values of parameter i to where they should be, if they are elsewhere."""
        p, (data, grad) = self.parameters[i], self.homes[i]
        if p.data is data:
            return
        if p.node is not None and p.node.home is not None and p.node.home is not grad:
            raise RuntimeError(
                f"step: parameter {i} {p.shape} belongs to another optimizer, made after this one; "
                "use that one, or give each its own parameters"
            )
        if (p.shape, p.dtype, p.device) != (data.shape, self.dtype, self.device):
            raise RuntimeError(
                f"step: parameter {i} is {p.dtype} {p.shape} on {p.device.name!r}, but was "
                f"{self.dtype} {data.shape} on {self.device.name!r}; make the optimizer after "
                "model.to() or .double()"
            )
        p.data = self.device.kernels.copy(p.data, data, False)


def neighbours(indices: Iterable[int], cuts: Iterable[int] = ()) -> list[tuple[int, int]]:
    """Ascending indices as ranges (first, stop), none of which goes across a cut."""
    runs: list[tuple[int, int]] = []
    for i in indices:
        if runs and runs[-1][1] == i and i not in cuts:
            runs[-1] = runs[-1][0], i + 1
        else:
            runs.append((i, i + 1))
    return runs
