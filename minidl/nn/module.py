"""Module: parameters, buffers and layers inside layers, found by looking at the attributes."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..autograd import no_grad
from ..backend import Array, Device, device
from ..tensor import Tensor

if TYPE_CHECKING:
    from .summary import Summary


assignments = [0]  # to attributes of any module so far: who watches them looks here first


class Parameter(Tensor):
    """A Tensor that a Module trains."""

    __slots__ = ()

    def __init__(
        self,
        data: Any,
        requires_grad: bool = True,
        *,
        dtype: Any = None,
        device: "str | Device | None" = None,
    ):
        super().__init__(data, requires_grad, dtype=dtype, device=device)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Loaded(NamedTuple):
    """What load_state_dict(strict=False) passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A part of a network: attributes hold its parameters, buffers and other modules.

    A subclass assigns them in __init__ and defines forward. There is no registry beside the
    attributes, so that super().__init__() may be called or left out.
    """

    training: bool = True
    frozen: bool = False

    # --- calling it

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the module computes: every subclass defines it."""
        name = type(self).__name__
        hint = "rename `call` to `forward`" if hasattr(self, "call") else "def forward(self, x)"
        raise NotImplementedError(f"{name} does not say what it computes: {hint}")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """forward; an error from inside says in which layer it arose."""
        try:
            return self.forward(*inputs, **options)
        except Exception as error:
            self._note_layer(error)
            raise

    def _note_layer(self, error: Any) -> None:
        """Note on the error which layer failed, by its path from self.

        Every module that the error passes writes it anew, so that the outermost has the last word.
        """
        layer, old = getattr(error, "_minidl_layer", (self, None))
        path = next((name for name, module in self.named_modules() if module is layer), "")
        note = f"in layer {path} ({type(layer).__name__})" if path else old
        if note != old:
            error.__notes__ = [n for n in getattr(error, "__notes__", []) if n != old]
            error.add_note(note)
        error._minidl_layer = layer, note

    # --- what it holds

    def __setattr__(self, name: str, value: Any) -> None:
        mine, owner = vars(self).get(name), type(self).__name__
        if isinstance(mine, Parameter) and not isinstance(value, Parameter | None):
            raise TypeError(
                f"{owner}.{name} is a parameter and stays one: assign an nn.Parameter, or change "
                "its values with .copy_(...) under no_grad()"
            )
        if isinstance(value, list | tuple | dict):
            inside = value.values() if isinstance(value, dict) else value
            if any(isinstance(part, Module | Parameter) for part in inside):
                raise TypeError(
                    f"{owner}.{name}: parameters() does not look into a {type(value).__name__}; "
                    "put layers into nn.Sequential, and each Parameter into an attribute"
                )
        assignments[0] += 1
        object.__setattr__(self, name, value)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Hold a tensor that is not trained; persistent: state_dict has it too."""
        if not isinstance(tensor, Tensor | None):
            raise TypeError(f"register_buffer: {name} is a {type(tensor).__name__}, not a Tensor")
        vars(self).setdefault("_buffers", {})[name] = persistent
        setattr(self, name, tensor)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """The modules that are attributes, with their names; one held twice comes once."""
        seen: set[int] = set()
        for name, value in vars(self).items():
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator["Module"]:
        """The modules that are attributes."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, prefix: str = "", seen: set[int] | None = None
    ) -> Iterator[tuple[str, "Module"]]:
        """This module and all within, outside in, by paths like "features.0"; each one once."""
        seen = set() if seen is None else seen
        if id(self) not in seen:
            seen.add(id(self))
            yield prefix, self
            for name, child in self.named_children():
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator["Module"]:
        """This module and all within, each one once."""
        return (module for _, module in self.named_modules())

    def _tensors(
        self, parameters: bool, buffers: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Parameters, and "all" or the "persistent" buffers, module by module; each one once."""
        seen: set[int] = set()
        for path, module in self.named_modules() if recurse else [("", self)]:
            held: dict[str, bool] = vars(module).get("_buffers", {})
            names = [n for n, v in vars(module).items() if parameters and isinstance(v, Parameter)]
            names += [n for n, keep in held.items() if buffers == "all" or (buffers and keep)]
            for name in names:
                tensor = getattr(module, name)
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{path}.{name}" if path else name, tensor

    def named_parameters(self, recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """All parameters by their paths; one that several layers share comes once."""
        return self._tensors(True, recurse=recurse)  # type: ignore[return-value]

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each one once: what an optimizer takes. recurse=False: only its own."""
        return (parameter for _, parameter in self.named_parameters(recurse))

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """All buffers by their paths."""
        return self._tensors(False, "all")

    def buffers(self) -> Iterator[Tensor]:
        """All buffers."""
        return (buffer for _, buffer in self.named_buffers())

    # --- changing it

    def train(self, mode: bool = True, *data: Any, **options: Any) -> "Module":
        """Switch training mode on or off: dropout and batch norm behave accordingly."""
        if not isinstance(mode, bool) or data or options:
            raise TypeError(
                "train(mode) switches training mode on and off and takes True or False only; to "
                "train on data, use fit"
            )
        for module in self.modules():
            module.training = mode and not module.frozen
        return self

    def eval(self) -> "Module":
        """Switch to evaluation: the same as train(False)."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            if parameter.node is not None:
                parameter.node.grad = parameter.node.rows = None

    def requires_grad_(self, wanted: bool = True) -> "Module":
        """Ask for gradients of every parameter, or (False) freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad = wanted
        return self

    def freeze(self, frozen: bool = True) -> "Module":
        """Keep this part as it is while the rest trains: no gradients, and evaluation mode.

        So statistics of batch norms stay too, which requires_grad_(False) alone does not do.
        freeze(False) lets it train again.
        """
        for module in self.modules():
            module.frozen = frozen
        return self.requires_grad_(not frozen).train(not frozen)

    def apply(self, function: Callable[["Module"], Any]) -> "Module":
        """Call a function with every module within, inside out, then with this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def to(self, where: "str | Device") -> "Module":
        """Move parameters and buffers to a device. Make the optimizer after it, not before."""
        target = device(where)
        for _, tensor in self._tensors(True, "all"):
            if tensor.device is not target:
                _replace(tensor, tensor.detach().to(target).data, target)
        return self

    def cuda(self) -> "Module":
        """Move parameters and buffers to the GPU."""
        return self.to("cuda")

    def cpu(self) -> "Module":
        """Move parameters and buffers to the CPU."""
        return self.to("cpu")

    def astype(self, dtype: Any) -> "Module":
        """Convert floating parameters and buffers. Make the optimizer after it, not before."""
        dtype = np.dtype(dtype)
        if dtype.kind != "f":
            raise TypeError(f"astype: parameters are floats, they cannot be {dtype}")
        for _, tensor in self._tensors(True, "all"):
            if tensor.dtype.kind == "f" and tensor.dtype != dtype:
                _replace(tensor, tensor.detach().astype(dtype).data, tensor.device)
        return self

    def double(self) -> "Module":
        """Convert to float64."""
        return self.astype(np.float64)

    # --- saving and loading it

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter and persistent buffer, by path: later training leaves it be."""
        return {name: t.numpy_view().copy() for name, t in self._tensors(True, "persistent")}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Loaded:
        """Overwrite parameters and buffers with those of a state_dict (arrays or tensors).

        Checks everything first: ValueError lists what is missing, unexpected, or of another shape
        or dtype, and nothing is changed. strict=False lets names differ.
        """
        from .loading import load  # few runs load one

        return load(self, state, strict)

    # --- looking at it

    def flops(self, x: Tensor, y: Tensor) -> int | None:
        """Additions and multiplications of forward(x) = y in evaluation; None: not known."""
        return None

    def summary(self, input: Any = None) -> "Summary":
        """Print and return a table of the layers. input: a shape with its batch axis, or a Tensor.

        Runs the network once, in evaluation mode. Networks of minidl.models know their input.
        """
        from .summary import summarize  # on demand: training does not need it

        result = summarize(self, input)
        print(result.text)
        return result

    def extra_repr(self) -> str:
        """What stands between the parentheses of repr."""
        return ""

    def __repr__(self) -> str:
        name, children = type(self).__name__, list(vars(self).items())
        lines = [f"({key}): {child!r}" for key, child in children if isinstance(child, Module)]
        if not lines:
            return f"{name}({self.extra_repr()})"
        body = "\n".join([*filter(None, [self.extra_repr()]), *lines])
        return f"{name}(\n  " + body.replace("\n", "\n  ") + "\n)"

    # Last, since within the class `float` is this method from here on.
    def float(self) -> "Module":
        """Convert to float32."""
        return self.astype(np.float32)


@contextlib.contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Within it: evaluation mode, nothing recorded; after it each layer has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _replace(tensor: Tensor, array: Array, where: Device) -> None:
    """Give a leaf other data, and a node that fits it; the old gradient is dropped."""
    wanted = tensor.requires_grad
    tensor.requires_grad = False
    tensor.data, tensor.device = array, where
    tensor.changed().requires_grad = wanted
