"""What a step reads of Python's world: the numbers, switches and tensors that its code can reach.

A program holds for one state of that world. `Watch` notes it before a step is recorded, and `holds`
tells before each replay whether it is still the same: a layer switched to evaluation, a frozen
parameter, another `p` of a dropout, a global that changed. A step that itself changes what is
watched does something that a replay would not, so it is not replayed.

The walk starts at the step's function and follows the names that the user's code mentions: its
closures, globals and attributes. Modules and optimizers are watched whole; of an optimizer's
options, all but those that are brought into arrays in every step.
"""

import argparse
import dis
import functools
import operator
import random
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Container, Iterator
from types import (
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy as np

from ..nn.module import Module, assignments
from ..optim.optimizer import Optimizer
from ..random import Generator
from ..tensor import Tensor

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "missing"})()
PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, np.dtype, slice)
CODE = FunctionType, property, staticmethod, classmethod  # what a class has besides data
HOLDERS = SimpleNamespace, argparse.Namespace  # of the standard library's, for the user's values
SMALL = 4096  # bytes of an array of NumPy's up to which its values are watched
MOST = 20_000  # objects that are walked through
INSTALLED = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))


Slot = tuple[Callable[[], Any], Any, str]  # how to look, what was seen then, what it is


class Overgrown(Exception):
    """What a step reaches is too much to be watched."""


class Watch:
    """The state of all that the roots, functions and objects, reach."""

    def __init__(self, *roots: Any):
        self.attributes: set[str] = set()  # that the user's code mentions
        known = -1
        while known < len(self.attributes):  # names lead to functions, and these to more names
            known = len(self.attributes)
            self.slots: list[Slot] = []
            self.counted: list[Slot] = []  # of modules: looked at when one was assigned to
            self.tensors: list[tuple[Tensor, str]] = []
            self.seen: dict[int, Any] = {}  # by id, kept alive
            self.iterator = ""  # the path of one that the code could draw from
            for root in roots:  # a root is walked through wherever its code is from
                if isinstance(root, FunctionType):
                    self._function(root)
                else:
                    self._visit(root, "")
        self.looks, self.seens, self.assignments = *_columns(self.slots), assignments[0]
        nodes = [t.node for t, _ in self.tensors if t.node is not None and t.node.leaf]
        self.grads = [(node, node.grad) for node in nodes]
        self.luck = _luck()

    def holds(self, grads: bool = True) -> bool:
        """Whether all is as it was, the gradients that are there included if `grads`."""
        identical = all(map(operator.is_, map(operator.call, self.looks), self.seens))
        if not identical and any(map(_differs, self.slots)):
            return False
        if assignments[0] != self.assignments:
            if any(map(_differs, self.counted)):
                return False
            self.assignments = assignments[0]
        if grads:
            for node, grad in self.grads:
                if node.grad is not grad:
                    return False
        return True

    def relax(self, other: "Watch") -> None:
        """Do not ask for gradients at the start where those of another, equal call differed."""
        theirs = dict(other.grads)
        self.grads = [(n, g) for n, g in self.grads if n in theirs and theirs[n] is g]

    def changes(self) -> Iterator[str]:
        """What is not as it was, in words, but for gradients."""
        for slot in filter(_differs, self.slots + self.counted):
            look, seen, path = slot
            now = look()
            values = isinstance(seen, PLAIN) and isinstance(now, PLAIN)
            yield f"{path} was {seen!r} and is {now!r}" if values else f"{path} is another one"

    def drawn(self) -> str:
        """Which of Python's and NumPy's own generators has moved on."""
        moved = (name for name, a, b in zip(("random", "np.random"), self.luck, _luck()) if a != b)
        return next(moved, "")

    # --- the walk

    def _slot(self, look: Callable[[], Any], path: str, counted: bool = False) -> Any:
        seen = look()
        (self.counted if counted else self.slots).append((look, seen, path))
        return seen

    def _visit(self, value: Any, path: str) -> None:
        if isinstance(value, PLAIN) or id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if len(self.seen) > MOST:
            raise Overgrown(f"it reaches more than {MOST} objects, the last one being {path}")
        if isinstance(value, Tensor):
            self.tensors.append((value, path))
            self._slot(functools.partial(getattr, value, "data"), f"the memory of {path}")
            self._slot(functools.partial(getattr, value, "node"), f"{path}.requires_grad")
            if value.node is not None:
                self._hooks(value.node, f"the hooks of {path}")
        elif isinstance(value, np.ndarray):
            if value.nbytes <= SMALL and value.dtype.kind != "O":
                self._slot(value.tobytes, f"the content of {path}")
        elif isinstance(value, dict):
            self._dict(value, path)
        elif isinstance(value, list | tuple | set | frozenset | deque):
            self._several(value, path)
        elif isinstance(value, FunctionType):
            if not _foreign(_root(value)):
                self._function(value)
        elif isinstance(value, MethodType):
            self._visit(value.__self__, path)
            self._visit(value.__func__, path)
        elif isinstance(value, functools.partial):
            self._visit((value.func, value.args, value.keywords), path)
        elif isinstance(value, Module):
            self._module(value, path)
            self._object(value, path)
        elif isinstance(value, Optimizer):
            self._optimizer(value, path)
            self._object(value, path)
        elif isinstance(value, Generator):
            self._visit(value.state, f"{path}.state")
        else:
            self._object(value, path)

    def _dict(self, value: dict, path: str, skip: Container = ()) -> None:
        self._slot(functools.partial(len, value), f"the number of parts of {path}")
        for key in [key for key in value if key not in skip]:
            name = f"{path}[{key!r}]"
            self._visit(self._slot(functools.partial(value.get, key, MISSING), name), name)

    def _module(self, value: Module, path: str) -> None:
        held = vars(value)
        held.setdefault("training", value.training)
        self._slot(functools.partial(len, held), f"the parts of {path}", True)
        for key in list(held):
            name = f"{path}.{key}".lstrip(".")
            self._visit(self._slot(functools.partial(held.get, key, MISSING), name, True), name)

    def _hooks(self, node: Any, path: str) -> None:
        hooks = self._slot(functools.partial(getattr, node, "hooks"), path)
        if hooks:
            self._slot(functools.partial(tuple, hooks), path)
            for hook in hooks.values():
                self._function(hook)

    def _several(self, value: Any, path: str) -> None:
        if isinstance(value, list | set | deque):
            self._slot(functools.partial(len, value), f"the number of parts of {path}")
        for i, part in enumerate(value):
            if isinstance(value, list | deque):
                look = functools.partial(_item, value, i)
                self._slot(look, f"{path}[{i}]")
            self._visit(part, f"{path}[{i}]")

    def _optimizer(self, value: Optimizer, path: str) -> None:
        self._slot(functools.partial(len, value.param_groups), f"the groups of {path}")
        self._slot(functools.partial(getattr, value, "after_step"), f"what follows {path}.step()")
        for i, group in enumerate(value.param_groups):
            name = f"{path}.param_groups[{i}]"
            self._visit(tuple(group["params"]), name)  # that they stay is up to the optimizer
            self._dict(group, name, {"params", *value.in_arrays})
            moves = functools.partial(_moves, group)
            self._slot(moves, f"whether {name} has a momentum")

    def _function(self, function: Any) -> None:
        world, names = function.__globals__, set()
        for code in _codes(function.__code__):
            for step in dis.get_instructions(code):
                if step.opname.endswith(("_GLOBAL", "_NAME")):
                    names.add(step.argval)
                elif "_ATTR" in step.opname or step.opname == "LOAD_METHOD":
                    self.attributes.add(step.argval)
        for name in sorted(names & world.keys()):
            self._visit(self._slot(functools.partial(world.get, name, MISSING), name), name)
        cells = zip(function.__code__.co_freevars, function.__closure__ or ())
        for name, cell in cells:
            self._visit(self._slot(functools.partial(_content, cell), name), name)
        self._visit((function.__defaults__, function.__kwdefaults__), function.__name__)

    def _object(self, value: Any, path: str) -> None:
        """An object of the user's, a class or a module: what the code mentions of it."""
        if isinstance(value, Iterator):
            self.iterator = self.iterator or path
        elif isinstance(value, np.random.Generator):
            state = functools.partial(getattr, value.bit_generator, "state")
            self._slot(lambda: repr(state()), f"the state of {path}")
        if "__wrapped__" in _held(value):  # a captured step within this one
            self._visit(_held(value)["__wrapped__"], path)
        owner = value.__name__ if isinstance(value, ModuleType) else _root(value)
        extends = isinstance(value, Module | Optimizer)  # ours, or a user's own
        foreign = _foreign(owner.split(".")[0]) or (_ours(value) and not extends)
        if foreign and not isinstance(value, HOLDERS):
            return
        self._methods(value)
        for name in sorted(self.attributes & _names(value)):
            found, place = _static(value, name), f"{path}.{name}"
            stored = name in _held(value)
            if stored or isinstance(found, MemberDescriptorType) or not hasattr(found, "__get__"):
                look = functools.partial(getattr, value, name, MISSING)
                self._visit(self._slot(look, place), place)
            elif not isinstance(found, CODE):  # a step that is captured as a method
                self._visit(found, place)

    def _methods(self, value: Any) -> None:
        """The code of methods that other code mentions, and what calls of the object run."""
        for name in sorted({"forward", "__call__", "update"} | self.attributes):
            found = _static(type(value), name)
            found = found.fget if isinstance(found, property) else found
            found = getattr(found, "__func__", found)
            if isinstance(found, FunctionType):
                self._visit(found, name)


def same(a: Any, b: Any) -> bool:
    """Whether two plain values are equal, NaN and NaN included, and of one type."""
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(x is y or same(x, y) for x, y in zip(a, b))
    if isinstance(a, MethodType):
        return a == b
    return isinstance(a, PLAIN) and bool(a == b or (a != a and b != b))


def _luck() -> tuple[Any, Any]:
    state: Any = np.random.get_state()
    return random.getstate(), (state[1].tobytes(), state[2:])


def _item(values: Any, i: int) -> Any:
    return values[i] if i < len(values) else MISSING


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _columns(slots: list[Slot]) -> tuple[list, list]:
    return [look for look, _, _ in slots], [seen for _, seen, _ in slots]


def _differs(slot: Slot) -> bool:
    look, seen, _ = slot
    now = look()
    return now is not seen and not same(now, seen)


def _moves(group: dict) -> bool:
    return bool(group.get("momentum"))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@functools.cache
def _foreign(package: str) -> bool:
    """Whether code is minidl's, Python's or of an installed package: it is not walked through."""
    if package == "__main__":
        return False
    if package == "minidl" or package in sys.stdlib_module_names:
        return True
    module = sys.modules.get(package)
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    return str(file).startswith(INSTALLED)


def _root(value: Any) -> str:
    module = getattr(value, "__module__", None) or getattr(type(value), "__module__", "")
    return str(module).split(".")[0]


def _ours(value: Any) -> bool:
    """Whether it is a schedule or the like, which steps by `every_step`."""
    return any(c.__module__.startswith("minidl.") for c in type(value).__mro__)


def _held(value: Any) -> Any:
    """The attributes of an object itself, without running code of its own."""
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}


def _names(value: Any) -> set[str]:
    held = set(_held(value))
    if isinstance(value, ModuleType | type):
        return held
    for c in type(value).__mro__[:-1]:
        held |= set(vars(c))
    return held


def _static(value: Any, name: str) -> Any:
    """An attribute as it is stored, without running a property."""
    if name in _held(value):
        return _held(value)[name]
    owner = value if isinstance(value, type) else type(value)
    return next((vars(c)[name] for c in owner.__mro__ if name in vars(c)), None)
