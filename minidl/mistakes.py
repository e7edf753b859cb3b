"""Mistakes that raise no error, and yet train a network badly or not at all: seen and said.

Losses that take logits look at what they are given, and optimizers at whether somebody forgets the
gradients between two steps. Both ask here only where something is unusual, so that a training step
pays nothing: see `functional.watched` and `Optimizer.step`. What is replayed does not ask at all.
"""

import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

from . import backend
from .autograd import Node

VIEWS = ("getitem", "permute", "reshape")  # ops that change no number
HERE = str(Path(__file__).parent)
ACTIVATIONS = {  # before which losses they are a mistake, and why
    "cross_entropy": {
        "relu": "it expects logits, any numbers, and relu cuts off those below 0, where nothing is "
        "learnt any more: no relu behind the last layer",
        "softmax": "it expects logits and takes the softmax itself, so that there are two: leave "
        "yours out; predict, or F.softmax of the output, gives the probabilities",
    },
    "nll_loss": {
        "softmax": "it expects log-probabilities: log_softmax makes them, and cross_entropy does "
        "both",
    },
    "binary_cross_entropy_with_logits": {
        "relu": "it expects logits, and relu lets no probability be below 1/2: no relu behind the "
        "last layer",
        "sigmoid": "it expects logits and takes the sigmoid itself, so that there are two: leave "
        "yours out, or take binary_cross_entropy, which expects probabilities",
    },
}


class LintWarning(UserWarning):
    """A program runs, but will hardly do what is meant."""


def tell(text: str) -> None:
    """A LintWarning at the line of the user's code that is at work."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, LintWarning, stacklevel=level)


# --- what a loss is given


def of_loss(loss: str, node: Node, due: bool) -> None:
    """Look at what made the input of a loss; due: and at whether losses are used at all."""
    name = _maker(node)
    why = ACTIVATIONS.get(loss, {}).get(name)
    if why:
        tell(f"{loss}: its input comes from {name}: {why}")
    if due and backend.recorder is None and _unused(node):
        tell(
            f"{loss}: losses are computed again and again, but none is learnt from: no gradient "
            "ever came to a parameter of the optimizer. For each batch: optimizer.zero_grad(), "
            "loss.backward(), optimizer.step(); to look at a loss only, compute it under "
            "minidl.no_grad()"
        )


def _maker(node: Node) -> str:
    """The op behind all views, by name; a relu within a layer is one too."""
    while node.name in VIEWS and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0]
    fused = node.name in ("linear", "conv2d") and callable(node.grads)
    return "relu" if fused else node.name


# a parameter without a gradient when it was looked at last, and the changes until then
_suspect: list[Any] = [lambda: None, 0]


def _unused(root: Node) -> bool:
    """Whether root comes from parameters of an optimizer that never had a gradient.

    That a parameter waits for its first one is no mistake. It is if the same one still does when
    the next loss is looked at, and nothing was changed meanwhile: gradients of 0 are gradients.
    """
    waiting, changes = _without_gradient(root)
    known = waiting is not None and _suspect[0]() is waiting and _suspect[1] == changes
    _suspect[:] = weakref.ref(waiting) if waiting is not None else lambda: None, changes
    return known


def _without_gradient(root: Node) -> tuple[Node | None, int]:
    """A parameter of an optimizer under root, if no such one ever had a gradient.

    Its place in the flat buffer of gradients is 0 until the first, and not cleared between steps.
    Also, how often what the ops under root read was changed in place: optimizers do that.
    """
    seen, stack, found, changes = {root}, [root], None, 0
    while stack:
        node = stack.pop()
        if node.leaf and node.home is not None:
            if node.grad is not None or node.device.numpy(node.home).any():
                return None, 0
            found = found or node
        if node.name != "batch_norm":  # its statistics move by themselves
            changes += sum(cell[0] for cell, *_ in node.versions)
        new = [source for source in node.inputs if source is not None and source not in seen]
        seen.update(new)
        stack += new
    return found, changes


# --- gradients that nobody forgets


class _Backwards:
    """What backward finds at one parameter between two steps of an optimizer."""

    def __init__(self, node: Node):
        self.node, self.fresh, self.added = node, False, False
        node.hooks = node.hooks or {}
        node.hooks[id(self)] = self

    def __call__(self, dy: Any) -> Any:
        """The gradient as it is; there was one that a step had used, or there was none."""
        held = self.node.grad
        if held is None or not self.node.device.numpy(held).any():
            self.fresh = True
        else:
            self.added = True
        return dy

    def leave(self) -> None:
        """Look no more."""
        if self.node.hooks:
            self.node.hooks.pop(id(self), None)
        self.node.hooks = self.node.hooks or None


_watched: "weakref.WeakKeyDictionary[Any, _Backwards | None]" = weakref.WeakKeyDictionary()


def unzeroed(optimizer: Any) -> None:
    """An optimizer steps once more, and its zero_grad() was not called since it did.

    Others may have forgotten the gradients (model.zero_grad(), p.grad = None, another optimizer's),
    so one parameter is watched until the next step: only who adds to what was used is told.
    """
    if backend.recorder is not None:
        return
    if optimizer not in _watched:
        grads = (p.node for group in optimizer.param_groups for p in group["params"])
        node = next((n for n in grads if n is not None and n.grad is not None), None)
        if node is not None:
            _watched[optimizer] = _Backwards(node)
        return
    seen = _watched[optimizer]
    if seen is None or not (seen.fresh or seen.added):
        return
    seen.leave()
    _watched[optimizer] = None  # once is enough
    if not seen.fresh:
        tell(
            f"{type(optimizer).__name__}.step: no zero_grad() since the last step, so backward "
            "added to gradients that were used already, and they grow from batch to batch. For "
            "each batch: optimizer.zero_grad(), loss.backward(), optimizer.step(); to add the "
            "gradients of several batches up, step after the last of them, then zero_grad()"
        )
