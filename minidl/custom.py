"""Ops made of kernels of your own: on the tape, in captured steps, and checked by one call.

from minidl.kernels.cuda import cuda, jit

@jit
def square_kernel(x, y):
    i = cuda.grid(1)
    if i < y.size:
        y[i] = x[i] * x[i]

@jit
def square_grad_kernel(dy, x, dx):
    i = cuda.grid(1)
    if i < dx.size:
        dx[i] = dy[i] * (x[i] + x[i])

@minidl.op(forward=square_kernel, backward=square_grad_kernel, reference=np.square)
def square(x):
    "x * x, of x (N,)."

square.check(np.linspace(-2, 2, 9))
square(x).sum().backward()
"""

import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .backend import own_kernel
from .cuda import launch_config
from .kernels import shapes
from .kernels.differences import gradient
from .kernels.roles import Array, Out
from .op import op as engine_op
from .tensor import Tensor

Kernel = Callable[..., Any]
_count = itertools.count()
ROUNDINGS = 1000  # that a kernel may be off by, in units of the dtype's epsilon
SLOPE = 1e-6  # how far a gradient may be off; differences of smooth functions are off by less


def op(
    function: Callable | None = None,
    *,
    forward: Kernel | Mapping[str, Kernel] | None = None,
    backward: Kernel | Mapping[str, Kernel] | None = None,
    reference: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """Make an op of kernels: `@op(forward=..., backward=..., reference=...)` on its declaration.

    The decorated function says the name, the inputs and, by keyword, the numbers of the op. It may
    return the shape of the output; if it returns None, that is the shape of the inputs, broadcast.

    forward(x, y) fills y; backward(dy, x, dx) fills the gradient dx. They are bound by the names of
    their parameters: the inputs, y, dy, d<input> for each gradient, and the op's numbers. Each may
    be a function that fills arrays (with NumPy, with Numba, by launching CUDA kernels), or a CUDA
    kernel itself, which is launched with a thread for each element of what it fills; or a dict with
    one for "cpu" and one for "cuda". A CUDA kernel on the CPU is emulated. Without backward the op
    has no gradient.

    reference: the op in NumPy, which returns its output. `check(*arrays)` of the op compares with
    it: the kernel in float32 and float64, the gradient with numeric differences.

    Without forward it is the engine's own decorator, for functions of (kernels, arrays): see op.py.
    options: integer=("name", ...), inputs that are no floats.
    """
    if forward is None:
        if backward is not None or reference is not None:
            raise TypeError("op: backward and reference go with forward, the kernel of the op")
        return engine_op(function, **options)

    def make(declared: Callable) -> Any:
        return _made(declared, forward, backward, reference, options)

    return make if function is None else make(function)


def _made(
    declared: Callable, forward: Any, backward: Any, reference: Any, options: dict[str, Any]
) -> Any:
    name, given = declared.__name__, list(inspect.signature(declared).parameters.values())
    inputs = [p.name for p in given if p.kind is not p.KEYWORD_ONLY]
    numbers = [p.name for p in given if p.kind is p.KEYWORD_ONLY]
    if not inputs:
        raise TypeError(f"op: {name} has no inputs")
    defaults = {p.name: p.default for p in given if p.default is not p.empty}
    run = _Launchers(name, forward, inputs, ["y"], numbers)
    slopes = [f"d{n}" for n in inputs]
    back = backward and _Launchers(f"{name}_grad", backward, ["dy", *inputs, "y"], slopes, numbers)

    def body(k: Any, *arrays: Array, **static: Any) -> Any:
        static = {n: static.get(n, defaults.get(n)) for n in numbers}
        shape = declared(*arrays, **static)
        shape = shapes.broadcast(*(a.shape for a in arrays)) if shape is None else tuple(shape)
        dtype = next((a.dtype for a in arrays if a.dtype.kind == "f"), arrays[0].dtype)
        where = "cpu" if arrays[0].device == "cpu" else "cuda"
        y = run.on(k, where)(*arrays, k.empty(shape, dtype), *static.values())
        if not back:
            return y, None

        def grad(dy: Array, outs: Any, adds: Any) -> None:
            back.refuse([n for n, out in zip(slopes, outs) if out is not None])
            like = [None if out is None and n not in back.filled else a
                    for n, out, a in zip(slopes, outs, arrays)]  # fmt: skip
            rooms = [out if out is not None and not add else _room(k, a)
                     for out, add, a in zip(outs, adds, like)]  # fmt: skip
            back.on(k, where)(dy, *arrays, y, *rooms, *static.values())
            for out, add, room in zip(outs, adds, rooms):
                if out is not None and add:
                    k.copy(room, out, True)

        return y, grad

    body.__name__, body.__doc__ = name, declared.__doc__
    k = inspect.Parameter("k", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    body.__signature__ = inspect.Signature([k, *given])  # type: ignore[attr-defined]
    made = engine_op(body, **options)
    made.reference = reference
    made.check = lambda *arrays, **static: _check(made, name, reference, arrays, static)
    return made


def _room(k: Any, like: Array | None) -> Array | None:
    return None if like is None else k.empty(like.shape, like.dtype)


class _Launchers:
    """A kernel of an op, on each device, as the backends' own kernels: inputs, outputs, numbers."""

    def __init__(self, name: str, kernel: Any, inputs: list, outputs: list, numbers: list):
        self.name, self.key = name, f"{name}#{next(_count)}"
        given = dict(kernel) if isinstance(kernel, Mapping) else {"cpu": kernel, "cuda": kernel}
        given = {where: own_kernel(k) for where, k in given.items()}
        if not given.keys() <= {"cpu", "cuda"}:
            raise ValueError(f"op: {name} has kernels for {[*given]}; there are 'cpu' and 'cuda'")
        known = inputs, outputs, numbers
        self.kernels = {where: _launcher(name, k, *known) for where, k in given.items()}
        self.filled = set.union(*({*_names(k)} & {*outputs} for k in given.values()))

    def on(self, k: Any, where: str) -> Kernel:
        """The launcher for a device's kernels k, among which it is from now on."""
        raw = getattr(k, "_raw", k)  # while a step is recorded, k stands before them
        if not hasattr(raw, self.key):
            if where not in self.kernels:
                raise RuntimeError(f"{self.name}: there is no kernel of it for {where!r}")
            setattr(raw, self.key, self.kernels[where])
        return getattr(k, self.key)

    def refuse(self, wanted: list[str]) -> None:
        """RuntimeError for a gradient that the kernel does not fill."""
        missing = [n for n in wanted if n not in self.filled]
        if missing:
            raise RuntimeError(f"{self.name}: the kernel has no parameter {missing[0]!r} to fill")


def _names(kernel: Any) -> list[str]:
    """The parameters of a function, or of a CUDA kernel."""
    return list(inspect.signature(getattr(kernel, "function", kernel)).parameters)


def _launcher(name: str, kernel: Any, inputs: list, outputs: list, numbers: list) -> Kernel:
    own, order = _names(kernel), [*inputs, *outputs, *numbers]
    strange = [n for n in own if n not in order]
    filled = [n for n in own if n in outputs]
    if strange or not filled:
        problem = f"a parameter {strange[0]!r}" if strange else f"none of {', '.join(outputs)}"
        raise TypeError(
            f"op: the kernel of {name} has {problem}; they are bound by name, to {', '.join(order)}"
        )

    def launch(*args: Any) -> Any:
        values = dict(zip(order, args))
        bound = [values[n] for n in own]
        if hasattr(kernel, "function"):
            kernel[launch_config(values[filled[0]].size)](*bound)
        else:
            kernel(*bound)
        found = tuple(values[n] for n in outputs)
        return found if len(found) > 1 else found[0]

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter(n, kind, annotation=Out if n in outputs else inspect.Parameter.empty)
        for n in order
    ]
    launch.__name__ = launch.__qualname__ = name
    launch.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return launch


# --- checks


def check_op(
    op: Any,
    *arrays: Any,
    reference: Callable[..., Any] | None = None,
    device: Any = None,
    **static: Any,
) -> None:
    """Check an op, or a pair of kernels, against NumPy: AssertionError where they disagree.

        check_op(minidl.relu, x, reference=lambda x: np.maximum(x, 0))
        check_op((square_kernel, square_grad_kernel), x, reference=np.square)

    On these arrays, in float32 and in float64; gradients in float64, against numeric differences of
    the reference, for a dy that is not all ones. So no array should have a kink of the op within
    0.002 of its elements.

    op: of minidl, or made by `op`, which may know its reference. Or (forward, backward): functions
    that fill arrays, or CUDA kernels of numba-cuda or minidl, one thread for each element; as of
    `op`, they are bound by the names of their parameters: the inputs, y; dy, d<input>. backward may
    be None. static: the op's numbers. device: "cpu", where CUDA kernels are emulated, or "cuda".
    """
    if isinstance(op, tuple):
        forward, backward = op
        op = _paired(forward, backward, reference, arrays, static)
    reference = reference or getattr(op, "reference", None)
    _check(op, getattr(op, "__name__", "op"), reference, arrays, static, device)


def _paired(forward: Any, backward: Any, reference: Any, arrays: tuple, static: dict) -> Any:
    """An op of two kernels; its output has the shape that the reference gives."""
    inputs = [n for n in _names(own_kernel(forward)) if n != "y" and n not in static]

    def declared(*_: Any, **__: Any) -> tuple[int, ...]:
        return np.shape(reference(*arrays, **static))

    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    declared.__name__ = getattr(own_kernel(forward), "__name__", "op")
    declared.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(n, kinds[n in static]) for n in (*inputs, *static)]
    )
    integer = tuple(n for n, a in zip(inputs, arrays) if np.asarray(a).dtype.kind in "iub")
    return op(declared, forward=forward, backward=backward, reference=reference, integer=integer)


def _check(
    made: Any, name: str, reference: Any, arrays: tuple, static: dict, device: Any = None
) -> None:
    """AssertionError where an op and a reference disagree on arrays, in float32 or float64."""
    if reference is None:
        raise TypeError(f"{name}.check: there is no reference to compare with")
    for dtype in (np.float32, np.float64):
        inputs = [a if a.dtype.kind in "iub" else a.astype(dtype) for a in map(np.asarray, arrays)]
        right = np.asarray(reference(*map(_wide, inputs), **static))
        tensors = [Tensor(a, a.dtype.kind == "f", device=device) for a in inputs]
        result = made(*tensors, **static)
        y = result.detach().numpy()
        if y.shape != right.shape:
            raise AssertionError(f"{name}: y has shape {y.shape}, reference's {right.shape}")
        _compare(name, f"y in {y.dtype}", y, right, ROUNDINGS * float(np.finfo(dtype).eps))
    if result.node is None:
        return
    dy = np.random.default_rng(0).uniform(0.5, 1.5, right.shape)  # no sum of gradients is blind
    result.backward(Tensor(dy, device=device))
    for i, (a, t) in enumerate(zip(inputs, tensors)):
        if t.node is not None:
            found = np.zeros(a.shape) if t.grad is None else t.grad.numpy()
            right = gradient(lambda x: _moved(reference, inputs, i, x, static), a, dy)  # noqa: B023
            _compare(name, f"the gradient of input {i}", found, right, SLOPE)


def _moved(reference: Any, inputs: list, i: int, x: np.ndarray, static: dict) -> np.ndarray:
    return np.asarray(reference(*inputs[:i], x, *inputs[i + 1 :], **static))


def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) if a.dtype.kind == "f" else a


def _compare(name: str, what: str, found: np.ndarray, right: np.ndarray, share: float) -> None:
    limit = share * (np.abs(right) + np.abs(right).max(initial=1.0))
    wrong = ~((np.abs(found - right) <= limit) | ((found != found) & (right != right)))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{name}: {what} is {found[place]} at {place}, reference {right[place]}; "
            f"{int(wrong.sum())} of {wrong.size} are off"
        )
