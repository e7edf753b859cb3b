"""Flat buffers: parameters side by side in memory, so that one kernel call steps them all."""

import weakref
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from ..backend import Array
from ..tensor import Tensor

Numbers = Callable[[dict], dict[str, tuple[float, ...]]]  # of a group, by name

ALIGNMENT = 64  # bytes: a cache line, and the widest vector loads, from the buffer's start

# id of a gradient's place in a flat buffer -> that buffer, while it lives
_places: "weakref.WeakValueDictionary[int, Flat]" = weakref.WeakValueDictionary()


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
            _places[id(grad)] = self

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
        data, grad = self.homes[i]
        if p.data is not data:
            self._bring_back(i, p)
        if node.grad is not grad:
            node.grad = node.home = self.device.kernels.copy(node.grad, grad, False)
        return True

    def _bring_back(self, i: int, p: Tensor) -> None:
        data, grad = self.homes[i]
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


def gradients(parameters: Iterable[Tensor]) -> list[tuple[Any, Array]]:
    """(kernels, array) pairs that cover the gradients: stretches of flat buffers where they can.

    A stretch ends before a gap: NaN, scaled in there with the gradients, would stay for good.
    """
    arrays: list[tuple[Any, Array]] = []
    flats: dict[Flat, list[int]] = {}
    for p in {id(p): p for p in parameters}.values():
        grad = None if p.node is None else p.node.grad
        flat = _places.get(id(grad))
        if flat is not None:
            flats.setdefault(flat, []).append(flat.index[id(grad)])
        elif grad is not None:
            arrays.append((p.device.kernels, grad))
    for flat, indices in flats.items():
        ends = [start + p.size for start, p in zip(flat.bounds, flat.parameters, strict=False)]
        cuts = {i for i, end in enumerate(ends, 1) if end < flat.bounds[i]}
        for first, stop in neighbours(sorted(indices), cuts):
            arrays.append((flat.device.kernels, flat.grad[flat.bounds[first] : ends[stop - 1]]))
    return arrays
