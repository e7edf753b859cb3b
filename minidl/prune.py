"""Pruning: the smallest weights become exactly 0, and stay so while the others are trained.

    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    pruner = prune.magnitude(model, optimizer, amount=0.9)      # at once, then train on
    pruner = prune.magnitude(model, optimizer, schedule=prune.Cubic(0.9, last=2000))  # step by step
    fit(model, loader, epochs=5, optimizer=optimizer, callbacks=[pruner])
    minidl.io.save_csr(model, "small.safetensors")              # without the zeros

Weights are the parameters of two and more axes; biases and the scales of norms, which are few, are
left alone. What is 0 costs as much time as any other number until it is left out: see
minidl.sparse.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from . import check
from .backend import every_step
from .nn import Module, Parameter
from .optim import Optimizer
from .tensor import Tensor
from .train import Callback, History

SCOPES = "global", "layer"


class Cubic:
    """From `initial` to `final` sparsity between two steps: fast at first, then ever slower.

    s(t) = final + (initial - final) (1 - (t - first) / (last - first))^3, every so many steps and
    at the last (Zhu and Gupta 2017, equation 1): most weights go while the network still has many
    to spare, the last few one by one.
    """

    power = 3

    def __init__(
        self, final: float, *, last: int, first: int = 0, every: int = 100, initial: float = 0.0
    ):
        kind = type(self).__name__
        for name, share in (("final", final), ("initial", initial)):
            if not 0 <= share <= 1:
                raise ValueError(f"{kind}: {name} is {share}, but must lie in [0, 1]")
        if not 0 <= first < last or every < 1:
            raise ValueError(
                f"{kind}: steps {first} to {last}, every {every}: first must be at least 0, last "
                "beyond it, and every at least 1"
            )
        self.final, self.initial = final, initial
        self.first, self.last, self.every = first, last, every

    def __call__(self, step: int) -> float | None:
        """The sparsity to have after a step (from 1 on); None where it is none to prune at."""
        due = step == self.last or (step - self.first) % self.every == 0
        if not due or not self.first <= step <= self.last:
            return None
        left = 1 - (step - self.first) / (self.last - self.first)
        return self.final + (self.initial - self.final) * left**self.power


class Linear(Cubic):
    """The same in equal parts: a straight line from `initial` to `final` sparsity."""

    power = 1


Schedule = Callable[[int], float | None]


class Pruner(Callback):
    """Which weights of a model are pruned, and that they stay exactly 0.

    masks: for each weight by its path an array of booleans, False where it is pruned; step: how
    many steps the optimizer has made. As a callback of fit it notes `sparsity` in the history; in
    a checkpoint (it has a state_dict) a run goes on with the same masks.
    """

    def __init__(
        self,
        model: Module,
        schedule: Schedule | None = None,
        scope: str = "global",
        skip: Iterable[str] = (),
    ):
        check.known("scope", scope, SCOPES)
        self.weights = weights_of(model, skip)
        self.schedule, self.scope, self.step = schedule, scope, 0
        self.optimizer: Optimizer | None = None
        self.masks: dict[str, Tensor] = {}
        self.zeros: dict[str, Tensor] = {}  # one number each
        for name, p in self.weights.items():
            self.masks[name] = Tensor(p.numpy_view() != 0, device=p.device)
            self.zeros[name] = Tensor(np.zeros((1,) * p.ndim, p.dtype), device=p.device)

    def prune(self, amount: float | None = None, threshold: float | None = None) -> None:
        """Set the smallest weights to 0: a share of all (`amount`), or what is below a threshold.

        amount: exactly round(amount * n) of n weights are 0 then, those of equal magnitude in the
        order of the layers; of all weights together, or in each layer by itself, as scope says.
        threshold: |w| < threshold. What is 0 already is among the smallest.
        """
        if (amount is None) == (threshold is None):
            raise ValueError("prune: give either amount, a share of the weights, or a threshold")
        if amount is not None and not 0 <= amount <= 1:
            raise ValueError(f"prune: amount is {amount}, but must lie in [0, 1]")
        if threshold is not None and not 0 <= threshold < math.inf:
            raise ValueError(f"prune: threshold is {threshold}, but must be at least 0, and finite")
        sizes = {name: np.abs(p.numpy_view()).ravel() for name, p in self.weights.items()}
        groups = [[*sizes]] if self.scope == "global" else [[name] for name in sizes]
        for group in groups:
            every = np.concatenate([sizes[name] for name in group])
            keep = ~(every < threshold) if amount is None else _largest(every, amount)
            ends = np.cumsum([sizes[name].size for name in group])[:-1]
            for name, mask in zip(group, np.split(keep, ends)):
                self._set(name, mask.reshape(self.weights[name].shape))

    def hold(self, optimizer: Any) -> "Pruner":
        """Let an optimizer keep the pruned weights at 0, whatever momentum and decay say.

        It is done after each of its steps, in captured ones too, and there the schedule goes on.
        """
        if not isinstance(optimizer, Optimizer):
            what = type(optimizer).__name__
            raise TypeError(f"hold: {what} is no optimizer; fit takes one that was made before")
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [name for name, p in self.weights.items() if id(p) not in mine]
        if len(missing) == len(self.weights):
            raise ValueError("hold: the optimizer has none of the weights; is it another model's?")
        self.release()
        optimizer.after_step += (self._after_step,)
        self.optimizer = optimizer
        return self

    def release(self) -> None:
        """Let the optimizer change pruned weights again."""
        if self.optimizer is not None:
            hooks = self.optimizer.after_step
            self.optimizer.after_step = tuple(h for h in hooks if h != self._after_step)
            self.optimizer = None

    def sparsity(self) -> float:
        """Which share of the weights is 0."""
        there = sum(int(np.count_nonzero(p.numpy_view())) for p in self.weights.values())
        return 1 - there / sum(p.size for p in self.weights.values())

    def on_epoch_end(self, model: Module, history: History) -> None:
        """Note the sparsity."""
        history.add({"sparsity": self.sparsity()})

    def state_dict(self) -> dict[str, Any]:
        """The masks and the step."""
        return {"step": self.step, "masks": {n: m.numpy() for n, m in self.masks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict returned; ValueError if it is of other weights."""
        masks = {name: np.asarray(_host(mask), bool) for name, mask in state["masks"].items()}
        mine = {name: p.shape for name, p in self.weights.items()}
        theirs = {name: mask.shape for name, mask in masks.items()}
        if mine != theirs:
            raise ValueError(f"load_state_dict: masks of {theirs}, but the weights are {mine}")
        self.step = int(state["step"])
        for name, mask in masks.items():
            self._set(name, mask)

    def _set(self, name: str, mask: np.ndarray) -> None:
        """Let a mask hold, and the weights with it. Arrays stay where they are: see capture."""
        p, held = self.weights[name], self.masks[name]
        held.device.assign(held.data, ..., mask)
        p.device.assign(p.data, ..., np.where(mask, p.numpy_view(), p.dtype.type(0)))
        p.changed()

    def _after_step(self) -> None:
        every_step(self._count, *(mask.data for mask in self.masks.values()))
        for name, p in self.weights.items():
            k, mask = p.device.kernels, self.masks[name]
            if mask.device is not p.device:
                raise RuntimeError(f"prune: {name} moved to another device; prune after model.to()")
            kept = k.where(mask.data, p.data, self.zeros[name].data, k.empty_like(p.data))
            k.copy(kept, p.data, False)
            p.changed()

    def _count(self, *masks: Any) -> None:
        """Count the step, and prune more where the schedule says so."""
        self.step += 1
        amount = None if self.schedule is None else self.schedule(self.step)
        if amount is not None:
            self.prune(amount)


def magnitude(
    model: Module,
    optimizer: Optimizer | None = None,
    *,
    amount: float | None = None,
    threshold: float | None = None,
    schedule: Schedule | None = None,
    scope: str = "global",
    skip: Iterable[str] = (),
) -> Pruner:
    """Set the smallest weights of a model to exactly 0, and let an optimizer keep them there.

    One of: amount, a share of the weights; threshold, what is nearer to 0 than it; schedule, a
    function of the optimizer's step such as Cubic, which tells the share to prune then, or None.
    scope: shares are of all weights ("global") or of those of each "layer". skip: paths of weights
    to leave alone, such as "0.weight".

    Returns the Pruner, which can do more later. ValueError where nothing could be pruned.
    """
    given = [what for what in (amount, threshold, schedule) if what is not None]
    if len(given) != 1:
        raise ValueError("magnitude: give one of amount, threshold and schedule")
    if schedule is not None and optimizer is None:
        raise ValueError("magnitude: a schedule goes by the steps of an optimizer: give that, too")
    pruner = Pruner(model, schedule, scope, skip)
    if schedule is None:
        pruner.prune(amount, threshold)
    return pruner if optimizer is None else pruner.hold(optimizer)


def weights_of(model: Module, skip: Iterable[str] = ()) -> dict[str, Parameter]:
    """The parameters of a model that are pruned, by their paths: those of two and more axes."""
    found = {name: p for name, p in model.named_parameters() if p.ndim >= 2}
    for name in skip:
        check.known("weight to skip", name, found)
        del found[name]
    if not found:
        raise ValueError(f"prune: {type(model).__name__} has no weights, parameters of two axes")
    return found


def sparsity(model: Module) -> float:
    """Which share of the weights of a model is 0."""
    return Pruner(model).sparsity()


def table(model: Module) -> str:
    """A line for each weight, to print: its shape, how many numbers it has, how many are 0."""
    weights = weights_of(model)
    sizes = {name: p.size for name, p in weights.items()}
    there = {n: int(np.count_nonzero(p.numpy_view())) for n, p in weights.items()}
    shapes = {name: str(p.shape) for name, p in weights.items()} | {"all": ""}
    sizes["all"], there["all"] = sum(sizes.values()), sum(there.values())
    wide, broad = max(map(len, shapes)), max(map(len, shapes.values()))
    return "\n".join(
        f"{name:{wide}}  {shape:{broad}}  {sizes[name]:>12,}  "
        f"{1 - there[name] / max(sizes[name], 1):7.2%} zero"
        for name, shape in shapes.items()
    )


def _largest(sizes: np.ndarray, amount: float) -> np.ndarray:
    """Which numbers to keep so that exactly this share of them goes; NaN counts as infinite."""
    keep = np.ones(sizes.size, bool)
    keep[np.argsort(sizes, kind="stable")[: round(amount * sizes.size)]] = False
    return keep


def _host(x: Any) -> Any:
    return x.numpy_view() if isinstance(x, Tensor) else x
