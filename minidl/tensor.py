"""Tensor: an array, its device, and the node that remembers how it was made.

It holds no arithmetic: the operators are hung on by `ops/__init__.py`.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .autograd import Node, backward, mode
from .backend import Array, Device, device
from .backend import from_dlpack as array_from_dlpack

_FLOAT = np.dtype("float32")


class Tensor:
    """An n-dimensional array that can be differentiated.

    data: an array, a number, nested lists, or a Tensor. Python floats become float32, as do
    lists of them; arrays keep their dtype. requires_grad: gradients are wanted for it.
    """

    __slots__ = ("data", "node", "version", "device", "__weakref__")
    __array_ufunc__ = None  # np_array * tensor asks Tensor.__rmul__
    data: Array
    node: Node | None
    version: list[int]  # counts in-place changes; views of one tensor share it
    device: Device

    if TYPE_CHECKING:  # the table in ops/__init__.py hangs these on

        def _binary(self, other: Any, /) -> "Tensor": ...
        def _unary(self) -> "Tensor": ...
        def _reduction(
            self,
            axis: Any = None,
            keepdims: bool = False,
            *,
            dim: Any = None,
            keepdim: bool = False,
        ) -> "Tensor": ...
        def _any(self, *args: Any, **named: Any) -> "Tensor": ...
        def astype(self, dtype: Any) -> "Tensor": ...
        def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Tensor": ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __matmul__ = _binary
        __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __rmatmul__ = __getitem__ = _binary
        __lt__ = __le__ = __gt__ = __ge__ = maximum = minimum = _binary
        __neg__ = __abs__ = abs = exp = log = sqrt = relu = sigmoid = tanh = _unary
        sum = mean = max = argmax = _reduction
        reshape = view = permute = transpose = clip = clamp = where = split = chunk = gather = _any
        T: "Tensor"

    def __init__(
        self,
        data: Any,
        requires_grad: bool = False,
        *,
        dtype: Any = None,
        device: "str | Device | None" = None,
    ):
        if isinstance(data, Tensor):
            device = _device(device or data.device)
            data = data.data if device is data.device else data.numpy_view()
        elif dtype is None and not hasattr(data, "dtype"):
            data = np.asarray(data)
            dtype = _FLOAT if data.dtype.kind == "f" else None
        self.device = _device(device or "cpu")
        self.data = self.device.array(data, dtype)
        if self.data.dtype.kind not in "fiub":
            raise TypeError(f"Tensor: cannot hold {self.data.dtype} ({type(data).__name__})")
        self.node, self.version = None, [0]
        if requires_grad:
            self.requires_grad = True

    # --- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each axis."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return self.data.dtype

    def numel(self) -> int:
        """Number of elements, as PyTorch spells it."""
        return self.data.size

    def __len__(self) -> int:
        if not self.data.ndim:
            raise TypeError("len() of a 0-d tensor")
        return len(self.data)

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        text = np.array2string(self.numpy_view(), separator=", ", prefix="tensor(", precision=4)
        marks = [] if self.dtype in (_FLOAT, np.int64, np.bool_) else [f"dtype={self.dtype}"]
        if self.device.name != "cpu":
            marks.append(f"device={self.device.name!r}")
        if self.node is not None:
            marks.append("requires_grad=True" if self.is_leaf else f"op={self.node.name}")
        return f"tensor({', '.join([text, *marks])})"

    __hash__ = object.__hash__

    # --- to the host and to other libraries

    def numpy_view(self) -> np.ndarray:
        """The values on the host, without asking whether gradients are wanted."""
        return self.device.numpy(self.data)

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: shared with a tensor on the CPU, else a copy.

        RuntimeError for a tensor with gradients: what NumPy does to it would not be recorded.
        """
        if self.node is not None:
            raise RuntimeError("this tensor requires gradients: call .detach() first")
        return self.numpy_view()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        if self.node is not None:
            raise RuntimeError("this tensor requires gradients: call .detach() first")
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def item(self) -> Any:
        """The only element, as a Python number."""
        return self.numpy_view().item()

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self.numpy_view().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self.numpy_view().__index__()

    def __bool__(self) -> bool:
        return bool(self.numpy_view())

    def to(self, device: "str | Device") -> "Tensor":
        """This tensor on a device: itself if it is there already, else a copy, through NumPy.

        Gradients find the way back.
        """
        here, there = self.device, _device(device)
        if there is here:
            return self
        result = _wrap(there.array(self.numpy_view()), there)
        if self.node is not None and mode.recording:

            def grad(dy: Array, dx: Array, add: bool) -> Array:
                return here.kernels.copy(here.array(there.numpy(dy)), dx, add)

            like = (self.shape, self.dtype, None)
            result.node = Node("to", (self.node,), (grad,), like, there)
        return result

    def cuda(self) -> "Tensor":
        """This tensor on the GPU."""
        return self.to("cuda")

    def cpu(self) -> "Tensor":
        """This tensor on the CPU."""
        return self.to("cpu")

    # --- gradients

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this tensor. Can be set on a leaf."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if not self.is_leaf:
            raise RuntimeError("requires_grad can be set on leaves only; use .detach()")
        if wanted and self.dtype.kind != "f":
            raise TypeError(f"only floating tensors can require gradients, not {self.dtype}")
        if wanted != self.requires_grad:
            like = (self.shape, self.dtype, None)
            self.node = Node("leaf", (), None, like, self.device, True) if wanted else None

    def requires_grad_(self, wanted: bool = True) -> "Tensor":
        """Set requires_grad, and return the tensor."""
        self.requires_grad = wanted
        return self

    @property
    def is_leaf(self) -> bool:
        """True for a tensor that no recorded op made."""
        return self.node is None or self.node.leaf

    @property
    def grad(self) -> "Tensor | None":
        """The gradient that backward left here: for leaves, and after retain_grad()."""
        node = self.node
        if node is not None and node.rows:
            from .rows import whole  # few networks have tables with gradients of rows

            return _wrap(whole(node), self.device)
        return None if node is None or node.grad is None else _wrap(node.grad, self.device)

    @grad.setter
    def grad(self, value: "Tensor | None") -> None:
        if self.node is None:
            raise RuntimeError("this tensor does not require gradients")
        if value is not None:
            self._check_gradient("grad", value)
        self.node.grad, self.node.rows = None if value is None else value.data, None

    def _check_gradient(self, name: str, value: "Tensor") -> None:
        if (value.shape, value.dtype, value.device) != (self.shape, self.dtype, self.device):
            given, own = (f"{t.dtype} {t.shape} on {t.device.name!r}" for t in (value, self))
            raise ValueError(f"{name}: the gradient is {given}, but the tensor is {own}")

    def retain_grad(self) -> None:
        """Keep the gradient of this tensor in `grad` though it is no leaf."""
        if self.node is None:
            raise RuntimeError("this tensor does not require gradients")
        self.node.keep = True

    def register_hook(self, hook: Callable[["Tensor"], "Tensor | None"]) -> Callable[[], None]:
        """Call hook with this tensor's gradient in backward; what it returns replaces it.

        Returns a function that removes the hook.
        """
        node = self.node
        if node is None:
            raise RuntimeError("this tensor does not require gradients")

        def run(dy: Array) -> Array:
            new = hook(_wrap(dy, self.device))
            return dy if new is None else new.data

        hooks = node.hooks = node.hooks or {}
        hooks[id(run)] = run

        def remove() -> None:
            hooks.pop(id(run), None)

        return remove

    def detach(self) -> "Tensor":
        """The same values without the history; shares memory, and the count of changes."""
        result = _wrap(self.data, self.device)
        result.version = self.version
        return result

    def __deepcopy__(self, memo: dict) -> "Tensor":
        """A leaf of its own with the same values; the gradient, hooks and optimizer stay behind."""
        if not self.is_leaf:
            raise RuntimeError("deepcopy: of leaves only; use .detach()")
        result = type(self).__new__(type(self))
        result.device, result.node, result.version = self.device, None, [0]
        k = self.device.kernels
        result.data = k.copy(self.data, k.empty(self.shape, self.dtype), False)
        return result.requires_grad_(self.requires_grad)

    def backward(
        self,
        gradient: "Tensor | None" = None,
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> None:
        """Add d(self)/d(leaf) to the grad of every leaf that self was made from.

        gradient: d(result)/d(self), needed unless self has one element. retain_graph: keep the
        graph for another backward.
        """
        if create_graph:
            raise NotImplementedError(
                "backward: create_graph=True (second derivatives) is left out of minidl by "
                "design: its gradients are kernels, not ops"
            )
        if self.node is None:
            raise RuntimeError("backward: nothing that led to this tensor requires gradients")
        if gradient is None:
            if self.size != 1:
                raise RuntimeError(
                    f"backward: of a tensor of shape {self.shape}; give its gradient, or reduce "
                    "it to a number first, say with .mean()"
                )
            k = self.device.kernels
            dy = k.fill(k.empty(self.shape, self.dtype), 1)
        else:
            self._check_gradient("backward", gradient)
            dy = gradient.data
        backward(self.node, dy, retain_graph)

    # --- changes in place

    def changed(self) -> "Tensor":
        """Note that the values were changed in place, so that backward can tell."""
        self.version[0] += 1
        return self

    def _check_writable(self) -> None:
        if self.node is not None and mode.recording:
            raise RuntimeError(
                "a tensor that requires gradients is changed in place only under no_grad()"
            )

    def copy_(self, source: Any) -> "Tensor":
        """Overwrite the values with those of source: of the same shape or broadcast to it, on any
        device.
        """
        self[...] = source
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        self._check_writable()
        key = key.data if isinstance(key, Tensor) else key
        if isinstance(value, Tensor):
            value = value.data if value.device is self.device else value.numpy_view()
        self.device.assign(self.data, key, value)
        self.changed()


def _wrap(data: Array, device: Device) -> Tensor:
    result = Tensor.__new__(Tensor)
    result.data, result.node, result.version, result.device = data, None, [0], device
    return result


_device = device  # within Tensor the name is the attribute


def tensor(
    data: Any, requires_grad: bool = False, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """A new Tensor with its own copy of data."""
    source = data
    if isinstance(data, Tensor):
        source, device = data.numpy_view(), device or data.device
    if hasattr(source, "dtype"):
        source = source.copy()
    return Tensor(source, requires_grad, dtype=dtype, device=device)


def from_dlpack(source: Any) -> Tensor:
    """A Tensor that shares the memory of any object with __dlpack__ (PyTorch, JAX, CuPy ...)."""
    data, where = array_from_dlpack(source)
    return Tensor(data, device=where)
