"""Training loops: fit, evaluate, predict. What fit does is no secret:

    model = minidl.models.mnist_cnn()
    optimizer = minidl.optim.Adam(model.parameters(), lr=1e-3)
    loader = minidl.data.DataLoader(minidl.data.digits(), 64, shuffle=True)
    for epoch in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

It adds means over all samples, a check of every loss, progress, and a history.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from . import check, optim
from .backend import Device, device
from .metrics import Metric, accuracy, top_k_accuracy
from .nn import Module
from .nn import functional as F
from .nn.module import evaluating
from .tensor import Tensor

Loss = Callable[[Tensor, Any], Tensor]
Measure = Callable[[Tensor, Any], tuple[Tensor, dict[str, float]]]
Step = Callable[[Tensor, float, int], None]


LOSSES: dict[str, Loss] = {"cross_entropy": F.cross_entropy}
METRICS: dict[str, Metric] = {"accuracy": accuracy, "top_5_accuracy": top_k_accuracy(5)}


class History(dict[str, list[float]]):
    """A list per quantity, an entry per epoch: loss, accuracy, val_loss, lr, seconds ...

    `batch_loss`, an attribute, has an entry per batch. A part of a checkpoint like any other.
    """

    def __init__(self) -> None:
        self.batch_loss: list[float] = []

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.get("loss", ()))

    def add(self, row: Mapping[str, float]) -> None:
        """Append what was measured in one epoch."""
        for name, value in row.items():
            self.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {"batch_loss": self.batch_loss, "epochs": dict(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what state_dict returned."""
        self.clear()
        self.update(state["epochs"])
        self.batch_loss = state["batch_loss"]


class Callback:
    """Something for fit to call; minidl.callbacks has some. What is not defined does nothing."""

    def on_epoch_end(self, model: Module, history: History) -> Any:
        """After every epoch. True ends the training."""

    def on_train_end(self, model: Module, history: History) -> None:
        """After the last epoch, also where a callback ended the training."""


def fit(
    model: Module,
    train: Iterable[Any],
    *,
    epochs: int,
    optimizer: Any = "adam",
    lr: float | None = None,
    loss: str | Loss = "cross_entropy",
    metrics: Iterable[str | Metric] = ("accuracy",),
    validation: Iterable[Any] | None = None,
    schedule: Any = None,
    schedule_every: str | None = None,
    clip_grad_norm: float | None = None,
    on_epoch: Callable[[History], Any] | None = None,
    callbacks: Sequence[Callback] = (),
    history: History | None = None,
    progress: bool = True,
) -> History:
    """Train a model on batches (x, y) for so many epochs, and return what was measured.

    Batches are moved to the device that the model's parameters are on.

    optimizer: one of minidl.optim, or a name, with lr. loss(output, y) is a mean over the batch;
    metrics(output, y) get arrays. schedule: stepped after every "batch" or "epoch", as
    schedule_every says; if it does not, OneCycleLR by the batch, any other by the epoch.
    on_epoch(history) ends the training by returning True, and so do callbacks, called before it.
    history: go on with one of an earlier fit.

    FloatingPointError when a loss is not finite: the weights are then as the batch before left
    them. ValueError for no batches.
    """
    if epochs < 0:
        raise ValueError(f"fit: epochs is {epochs}, but must be at least 0")
    optimizer = _optimizer(optimizer, model, lr)
    by_batch = _by_batch(schedule, schedule_every)
    measure, history = _measure(loss, metrics), History() if history is None else history
    step = _step(model, optimizer, by_batch, clip_grad_norm, history)
    last = history.epochs + epochs
    for epoch in range(history.epochs + 1, last + 1):
        start, rate = time.perf_counter(), optimizer.param_groups[0]["lr"]
        title = f"epoch {epoch:{len(str(last))}}/{last}"
        with contextlib.closing(_shown(train, title, history, progress)) as batches:
            row = _epoch(model, batches, measure, step, validation)
        if schedule is not by_batch:
            schedule.step(*_monitored(schedule, row))
        history.add(row | {"lr": rate, "seconds": time.perf_counter() - start})
        if progress:
            tqdm.write(f"{title}  {_line(row)}  {history['seconds'][-1]:.1f} s")
        if _told_to_stop(model, history, callbacks, on_epoch):
            break
    for callback in callbacks:
        callback.on_train_end(model, history)
    return history


def evaluate(
    model: Module,
    data: Iterable[Any],
    *,
    loss: str | Loss = "cross_entropy",
    metrics: Iterable[str | Metric] = ("accuracy",),
) -> dict[str, float]:
    """The loss and the metrics of a model over a whole set of batches (x, y).

    In evaluation mode, without gradients; each layer's mode is restored. Every sample counts the
    same, in a short last batch too.
    """
    with evaluating(model):
        return _means(model, data, _measure(loss, metrics), "evaluate")


def predict(model: Module, data: Any, *, batch_size: int = 256) -> np.ndarray:
    """The probability of each class (N, C): the softmax of the model's output, an array.

    data: samples in one array or Tensor, as the model takes them (scaled as in training), or
    batches x or (x, y). In evaluation mode, without gradients; each layer's mode is restored.
    """
    batches, where = data, _device_of(model)
    if isinstance(data, np.ndarray | Tensor):
        batches = (data[i : i + batch_size] for i in range(0, len(data), batch_size))
    rows = []
    with evaluating(model):
        for batch in batches:
            x = batch[0] if isinstance(batch, tuple | list) else batch
            rows.append(F.exp(F.log_softmax(model(_moved(x, where)))).numpy())
    if not rows:
        raise ValueError("predict: the data set is empty")
    return np.concatenate(rows)


def _optimizer(optimizer: Any, model: Module, lr: float | None) -> Any:
    if isinstance(optimizer, str):
        return optim.get(optimizer, model.parameters(), **({} if lr is None else {"lr": lr}))
    if lr is not None:
        raise ValueError("fit: lr goes with an optimizer given by name; yours has its own")
    return optimizer


def _measure(loss: str | Loss, metrics: Iterable[str | Metric]) -> Measure:
    """A function (output, y) -> the loss, to differentiate, and the values of loss and metrics."""
    if isinstance(loss, str):
        check.known("loss", loss, LOSSES)
        loss = LOSSES[loss]
    chosen: dict[str, Metric] = {}
    for metric in metrics:
        if isinstance(metric, str):
            check.known("metric", metric, METRICS)
            metric = METRICS[metric]
        chosen[metric.__name__] = metric

    def measure(output: Tensor, y: Any) -> tuple[Tensor, dict[str, float]]:
        value = loss(output, _moved(y, output.device))
        target = y.numpy_view() if isinstance(y, Tensor) else np.asarray(y)
        found = {name: metric(output.numpy_view(), target) for name, metric in chosen.items()}
        return value, {"loss": value.item(), **found}

    return measure


def _step(
    model: Module, optimizer: Any, schedule: Any, limit: float | None, history: History
) -> Step:
    """A function that takes the loss of batch number so-and-so one step down."""

    def step(loss: Tensor, value: float, batch: int) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"fit: the loss is {value} in epoch {history.epochs + 1}, batch {batch}; try a "
                "smaller learning rate or clip_grad_norm=1, and look for nan, inf and wrong labels "
                "in the data"
            )
        optimizer.zero_grad()
        loss.backward()
        if limit is not None:
            optim.clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        history.batch_loss.append(value)

    return step


def _by_batch(schedule: Any, every: str | None) -> Any:
    """The schedule if it is stepped after every batch, else None."""
    if every is None:
        every = "batch" if getattr(schedule, "by_batch", False) else "epoch"
    check.known("schedule_every", every, ("batch", "epoch"))
    if every == "batch" and hasattr(schedule, "monitor"):
        kind = type(schedule).__name__
        raise ValueError(f"fit: {kind} goes by what is measured in an epoch, not in a batch")
    return schedule if every == "batch" else None


def _monitored(schedule: Any, row: Mapping[str, float]) -> tuple[float, ...]:
    """What a schedule that goes by a measured number wants to know at the end of an epoch."""
    if not hasattr(schedule, "monitor"):
        return ()
    check.known(f"quantity for {type(schedule).__name__} to monitor", schedule.monitor, row)
    return (row[schedule.monitor],)


def _told_to_stop(
    model: Module, history: History, callbacks: Sequence[Callback], on_epoch: Any
) -> bool:
    """Whether one of those who are to be called says so; all of them are called."""
    told = [callback.on_epoch_end(model, history) for callback in callbacks]
    return any([*told, on_epoch is not None and on_epoch(history)])


def _epoch(
    model: Module, batches: Iterable[Any], measure: Measure, step: Step, validation: Any
) -> dict[str, float]:
    """Train on all batches once. Returns what was measured, and `val_...` on other data."""
    model.train()
    row = _means(model, batches, measure, "fit", step)
    if validation is None:
        return row
    with evaluating(model):
        found = _means(model, validation, measure, "fit")
    return row | {f"val_{name}": value for name, value in found.items()}


def _means(
    model: Module,
    data: Iterable[Any],
    measure: Measure,
    who: str,
    step: Step | None = None,
) -> dict[str, float]:
    """What is measured on all batches, each sample counting the same, with a step after each."""
    samples, sums, where = 0, dict[str, float](), _device_of(model)
    for number, batch in enumerate(data, 1):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            kind = type(batch).__name__
            raise TypeError(f"{who}: batches are (x, y), got a {kind}; a DataLoader makes them")
        x, y = batch
        with np.errstate(all="ignore"):  # the loss tells, better than NumPy's warnings
            loss, found = measure(model(_moved(x, where)), y)
            if step is not None:
                step(loss, found["loss"], number)
        samples += len(y)
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value * len(y)
    if not samples:
        raise ValueError(f"{who}: the data set is empty: there was no batch")
    return {name: total / samples for name, total in sums.items()}


def _device_of(model: Module) -> Device:
    """Where the first parameter or buffer is."""
    held = next((t for tensors in (model.parameters(), model.buffers()) for t in tensors), None)
    return device("cpu") if held is None else held.device


def _moved(batch: Any, where: Device) -> Any:
    """A batch on a device: arrays as Tensors; tuples, lists and dicts of them part by part."""
    if isinstance(batch, Tensor):
        return batch.to(where)
    if isinstance(batch, np.ndarray):
        return Tensor(batch, device=where)
    if isinstance(batch, tuple | list):
        return tuple(_moved(part, where) for part in batch)
    if isinstance(batch, dict):
        return {name: _moved(part, where) for name, part in batch.items()}
    return batch


def _shown(
    data: Iterable[Any], title: str, history: History, progress: bool
) -> Generator[Any, None, None]:
    """The batches, with a bar on a terminal that goes away at the end."""
    # None: no bar where it would fill a log with fragments of lines
    hidden = None if progress else True
    with tqdm(data, title, leave=False, disable=hidden, file=sys.stderr) as bar:
        for batch in bar:
            yield batch
            bar.set_postfix_str(f"loss {history.batch_loss[-1]:.4f}", refresh=False)


def _line(row: Mapping[str, float]) -> str:
    """What was measured, to be read: accuracies as percent."""
    texts = (f"{value:{'.2%' if 'accuracy' in name else '.4f'}}" for name, value in row.items())
    return "  ".join(f"{name.replace('_', ' ')} {text}" for name, text in zip(row, texts))
